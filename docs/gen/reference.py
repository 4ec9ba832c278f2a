"""The reference as Markdown, made from the program itself: commands, settings, models, and the Python interface."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import typer
import typer.main

import coterie
from coterie.annotated import core_type
from coterie.cli import app
from coterie.cli.init import serving_template, template
from coterie.cli.options import Flag, help_record, model_flags, section_title, setting_flags
from coterie.federation.config import federation_template, node_template
from coterie.federation.policy import policy_template
from coterie.models import registry

PACKAGES = (
    "data",
    "models",
    "privacy",
    "secure",
    "evaluation",
    "federation",
    "engines",
    "report",
    "experiment",
    "audit",
    "serving",
    "migrations",
    "testing",
)

COMMANDS_INTRO = (
    "Exit codes: 0 done; 1 the environment failed (disk, memory, network); 2 wrong usage or input; 130 interrupted. "
    "With `--json` a command prints exactly one JSON object on stdout, an error object included; progress goes to "
    "stderr. `COTERIE_DEBUG=1` shows where an unexpected failure happened. `coterie --install-completion` installs "
    "completion for the shell."
)
SETTINGS_INTRO = (
    "Keys of `coterie.toml`. Each has a flag of the same name with dashes: `client_column` is `--client-column`. Flags "
    "override the file, the file overrides the defaults; an unknown key is refused with the nearest valid one."
)

FILES_INTRO = (
    "Each is written with every key explained and at its default, and is a person's from then on: nothing rewrites it. "
    "Keys that are commented out have no value."
)


def pages() -> dict[str, str]:
    """Every generated page: path below docs/ -> content."""
    return {
        "reference/command-line.md": command_line(),
        "reference/settings.md": settings(),
        "reference/models.md": models(),
        "reference/federation-files.md": federation_files(),
        "reference/serve-file.md": serve_file(),
        "reference/rest-api.md": rest_api(),
        "reference/python.md": python(),
        **{f"reference/package-{name}.md": package(name) for name in PACKAGES},
        "reference/package-core.md": core_modules(),
    }


def federation_files() -> str:
    """The files of a federation, each as the commands write it: every key with its meaning and default."""
    files = {
        "federation.toml": ("the coordinator's; `coterie coordinator init` writes it", federation_template()),
        "node.toml": ("a node's own log and settings; `coterie node join` writes it", node_template()),
        "policy.toml": ("what a node takes part in; `coterie node join` writes it", policy_template()),
    }
    lines = ["# The files of a federation", "", FILES_INTRO]
    for name, (whose, content) in files.items():
        lines += ["", f"## {name}", "", f"{whose[0].upper()}{whose[1:]}.", "", "```toml", content.rstrip(), "```"]
    return "\n".join(lines) + "\n"


def serve_file() -> str:
    """The settings of a service, as the command writes them."""
    written = ["```toml", serving_template().rstrip(), "```"]
    return "\n".join(["# serve.toml", "", "As `coterie init --serve` writes it.", "", *written]) + "\n"


def rest_api() -> str:
    """Every endpoint of a service, from the OpenAPI description that it gives itself at `/openapi.json`."""
    from coterie.serving.app import api_description
    from coterie.serving.config import ServeConfig

    described = api_description(ServeConfig())
    lines = ["# REST API", "", "What `GET /openapi.json` of a service describes (OpenAPI 3.1, with examples)."]
    for path, methods in described["paths"].items():
        for method, told in methods.items():
            lines += [
                "",
                f"## {method.upper()} {path}",
                "",
                _prose(told.get("description") or told.get("summary") or ""),
            ]
            lines += _body(told.get("requestBody"), described)
            lines += ["", "| status | meaning |", "|---|---|"]
            lines += [
                f"| {status} | {_cell(one.get('description', ''))} |" for status, one in told["responses"].items()
            ]
    return "\n".join(lines) + "\n"


def _body(body: Any, described: Any) -> Iterator[str]:
    """The fields of a request's JSON body."""
    schema = ((body or {}).get("content", {}).get("application/json") or {}).get("schema", {})
    for one in schema.get("anyOf", [schema]):
        fields = described["components"]["schemas"].get(str(one.get("$ref", "")).rpartition("/")[2], {})
        if properties := fields.get("properties"):
            yield from ("", "| field | meaning |", "|---|---|")
            yield from (f"| `{key}` | {_cell(value.get('description', ''))} |" for key, value in properties.items())


def command_line() -> str:
    """Every command with its arguments and options."""
    lines = ["# Command line", "", COMMANDS_INTRO]
    for path, command, context in commands():
        usage = command.get_usage(context).removeprefix("Usage: ")
        lines += ["", f"## {path}", "", _prose(command.help or ""), "", "```text", usage, "```", ""]
        lines += _parameters(command, context)
    return "\n".join(lines) + "\n"


def commands() -> Iterator[tuple[str, Any, Any]]:
    """Every command, groups before their members, as (path, command, context)."""
    root = typer.main.get_command(app)
    yield from _walk("coterie", root, typer.Context(root, info_name="coterie"))


def settings() -> str:
    """Every key of `coterie.toml`, section by section, and the file that `coterie init` writes."""
    lines = ["# Settings", "", SETTINGS_INTRO]
    section = ""
    for flag in (*setting_flags(), *model_flags()):
        if flag.section != section:
            section = flag.section
            lines += ["", f"## {section}", "", _prose(section_title(section).split(": ", 1)[1].capitalize() + "."), ""]
            lines += ["| key | takes | meaning |", "|---|---|---|"]
        lines.append(f"| `{flag.key}` | {_takes(flag)} | {_cell(flag.help)} |")
    lines += ["", "## The whole file", "", "As `coterie init` writes it:", "", "```toml", template().rstrip(), "```"]
    return "\n".join(lines) + "\n"


def models() -> str:
    """Every model: its formula, from its module, and its hyper-parameters."""
    lines = ["# Models", "", "Choose one with `--model`, or `name` in `[model]`."]
    for name, model in registry.models().items():
        lines += ["", f"## {name}", ""]
        lines += ["```text", (importlib.import_module(model.__module__).__doc__ or "").strip(), "```", ""]
        if model.model_fields:
            lines += ["| hyper-parameter | default | meaning |", "|---|---|---|"]
        for key, info in model.model_fields.items():
            lines.append(f"| `{key}` | {info.default} | {_cell(info.description or '')} |")
    return "\n".join(lines) + "\n"


def python() -> str:
    """The names that `import coterie` offers."""
    lines = ["# Python", "", "What `import coterie` offers; everything else may change between versions.", ""]
    for name in coterie.__all__:
        target = getattr(coterie, name)
        if not name.startswith("_"):
            lines += [f"::: {target.__module__}.{target.__qualname__}", ""]
    return "\n".join(lines)


def package(name: str) -> str:
    """The modules of one package."""
    found = importlib.import_module(f"coterie.{name}")
    modules = sorted(m.name for m in pkgutil.walk_packages(found.__path__, f"coterie.{name}.") if not m.ispkg)
    return "\n".join([f"# coterie.{name}", "", *(f"::: {module}\n" for module in modules)])


def core_modules() -> str:
    """The modules that everything else stands on."""
    modules = sorted(
        m.name for m in pkgutil.iter_modules(coterie.__path__, "coterie.") if not m.ispkg and "__main__" not in m.name
    )
    return "\n".join(["# coterie", "", *(f"::: {module}\n" for module in modules)])


def _walk(path: str, command: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
    yield path, command, context
    for name in getattr(command, "commands", {}):
        inner = command.commands[name]
        yield from _walk(f"{path} {name}", inner, typer.Context(inner, info_name=name, parent=context))


def _parameters(command: Any, context: Any) -> Iterator[str]:
    """One table per topic: arguments and own options, then the settings."""
    topics: dict[str, list[str]] = {}
    for param in command.get_params(context):
        names, text = help_record(param, context)
        topic = getattr(param, "rich_help_panel", None) or "Arguments and options"
        topics.setdefault(topic, []).append(f"| `{names.replace('|', chr(92) + '|')}` | {_cell(text)} |")
    for topic, rows in sorted(topics.items(), key=lambda pair: pair[0] != "Arguments and options"):
        yield from (f"**{topic}**", "", "| option | meaning |", "|---|---|", *rows, "")


def _takes(flag: Flag) -> str:
    core = core_type(flag.type)
    if get_origin(core) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(core))
    if get_origin(core) is tuple:
        return "list"
    return {bool: "true, false", int: "whole number", float: "number", str: "text"}.get(core, "text or number")


def _cell(text: str) -> str:
    return _prose(text).replace("|", "\\|")


def _prose(text: str) -> str:
    """A help text as Markdown: angle brackets and the like are meant as they are."""
    return " ".join(text.split()).replace("<", "&lt;").replace("*", "\\*")
