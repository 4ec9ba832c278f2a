"""`coterie init`: an annotated `coterie.toml` in which every option is explained."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from coterie.cli.options import TUNE, core_type
from coterie.cli.output import JsonFlag, Output
from coterie.errors import ConfigError
from coterie.privacysettings import Section
from coterie.settings import Settings, sections

WIDTH = 100


def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="File to write. Default: coterie.toml.")] = Path(
        "coterie.toml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    json: JsonFlag = False,
) -> None:
    """Write a coterie.toml in which every option is explained and stands at its default."""
    from coterie.files import write_text

    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file in it, such as {path / 'coterie.toml'}")
    if path.exists() and not force:
        raise ConfigError(f"{path} exists already; --force replaces it, or name another file")
    write_text(path, template())
    Output(json).result({"path": path}, f"wrote {path}", f"edit it, then: coterie train LOG... --config {path}")


def template() -> str:
    """The content of the file: it loads as the defaults, unchanged."""
    lines = [
        "# Settings for `coterie train --config`. Each key has a flag of the same name with dashes; flags win.",
        "# A key that is commented out has no default, or belongs to a model that is not chosen.",
    ]
    for name, section in _with_model_in_place():
        lines += ["", "", f"[{name}]"]
        lines += _model_section() if section is None else _section(section)
    return "\n".join(lines) + "\n"


def _with_model_in_place() -> Iterator[tuple[str, type[Section] | None]]:
    """All sections in the order of the settings; None stands for the models'."""
    fixed = dict(sections())
    for name in Settings.model_fields:
        yield name, fixed.get(name)


def _section(section: type[Section]) -> Iterator[str]:
    yield from _comment(" ".join((section.__doc__ or "").split()))
    for key, info in section.model_fields.items():
        yield ""
        yield from _key(key, info.annotation, info.description or "", info.default, active=info.default is not None)


def _model_section() -> Iterator[str]:
    from coterie.models import registry

    names = registry.names()
    yield from _comment("Which model, and its hyper-parameters.")
    yield ""
    yield from _key("name", Literal[names], "The model.", names[0], active=True)
    yield ""
    yield from _key("tune", bool, TUNE, default=False, active=False)
    for name, model in registry.models().items():
        if not model.model_fields:
            continue
        yield ""
        yield from _comment(f"Hyper-parameters of {name}: {(model.__doc__ or '').split('.')[0].strip()}.")
        for key, info in model.model_fields.items():
            yield from _key(key, info.annotation, info.description or "", info.default, active=False)


def _key(key: str, annotation: Any, description: str, default: Any, active: bool) -> Iterator[str]:
    yield from _comment(description)
    core = core_type(annotation)
    if get_origin(core) is Literal and len(get_args(core)) > 1:
        yield from _comment("One of: " + ", ".join(_toml(choice) for choice in get_args(core)) + ".")
    if active:
        yield f"{key} = {_toml(default)}"
    else:
        yield f"# {key} = {_example(core) if default is None else _toml(default)}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False)


def _example(core: Any) -> str:
    """What a key without a default may look like."""
    if get_origin(core) is tuple:
        return "[]"
    if get_origin(core) is Literal:
        return _toml(get_args(core)[0])
    return {bool: "true", int: "10", float: "0.5"}.get(core, '""')


def _toml(value: Any) -> str:
    """A value in TOML; its strings, numbers and arrays of them are written as in JSON."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
