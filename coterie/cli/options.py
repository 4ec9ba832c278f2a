"""Flags of the commands, made from `coterie.settings` and the models: a flag is its key with dashes.

A flag that is not given is None, so flags override the file that ``--config`` names, and that overrides the defaults.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
import typer.main
from typer.core import TyperCommand

from coterie.annotated import core_type
from coterie.errors import ConfigError, closest
from coterie.settings import Settings, build, fields, read_toml, sections

POSITIONAL = frozenset({("data", "logs")})
TUNE = "Choose hyper-parameters on validation, from the grid of the model."
METAVARS = {
    "at": "K,K,...",
    "guest_ids": "ID,ID,...",
    "items": "FILE",
    "query": "SQL|@FILE",
    "test": "FILE",
    "track": "mlflow[:URI]",
    "valid": "FILE",
    "output": "FOLDER",
}


@dataclass(frozen=True)
class Flag:
    """One setting as an option: its place in `coterie.toml`, its Python type and its help."""

    section: str
    key: str
    type: Any
    help: str

    @property
    def name(self) -> str:
        """The option.

        >>> Flag("data", "client_column", str, "").name
        '--client-column'
        """
        return "--" + ("model" if (self.section, self.key) == ("model", "name") else self.key.replace("_", "-"))

    @property
    def variable(self) -> str:
        """The name of its value in a context: unlike the key it cannot collide with a command's own parameters."""
        return f"{self.section}__{self.key}"


class PlainCommand(TyperCommand):
    """A command whose help reads the same in every version of typer: arguments, own options, the rest by topic."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the parameters; those with a panel of their own come last."""
        own = {"argument": "Arguments", "option": "Options"}
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            title = getattr(param, "rich_help_panel", None) or own[param.param_type_name]
            groups.setdefault(title, []).append(help_record(param, ctx))
        for title, records in sorted(groups.items(), key=lambda group: group[0] not in own.values()):
            with formatter.section(title):
                formatter.write_dl(records)


class SettingsCommand(PlainCommand):
    """A command that takes settings as flags besides its own parameters; finds them in ``ctx.obj`` as a nested dict.

    The flags are made when they are first needed: those of the models cost the import of the models.
    """

    @classmethod
    def flags(cls) -> tuple[Flag, ...]:
        """The settings that the command takes."""
        raise NotImplementedError

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters: the command's own, the settings, ``--help``."""
        *own, help_option = super().get_params(ctx)
        return [*own, *_options(self.flags()), help_option]

    def invoke(self, ctx: Any) -> Any:
        """Move the flags that were given from the parameters into ``ctx.obj``, and run the command."""
        ctx.obj = given(self.flags(), {flag.variable: ctx.params.pop(flag.variable, None) for flag in self.flags()})
        return super().invoke(ctx)


class TrainCommand(SettingsCommand):
    """Every setting and every hyper-parameter."""

    @classmethod
    @functools.cache
    def flags(cls) -> tuple[Flag, ...]:
        return (*model_flags(), *(flag for flag in setting_flags() if (flag.section, flag.key) not in POSITIONAL))


class CleanCommand(SettingsCommand):
    """The settings of reading and cleaning."""

    @classmethod
    @functools.cache
    def flags(cls) -> tuple[Flag, ...]:
        wanted = ("data", "clean")
        return tuple(f for f in setting_flags() if f.section in wanted and (f.section, f.key) not in POSITIONAL)


class DescribeCommand(SettingsCommand):
    """The settings of reading."""

    @classmethod
    @functools.cache
    def flags(cls) -> tuple[Flag, ...]:
        return tuple(f for f in setting_flags() if f.section == "data" and (f.section, f.key) not in POSITIONAL)


class EvaluateCommand(SettingsCommand):
    """What may differ between the logs of a run and the log that it is measured on, and how it is measured."""

    @classmethod
    @functools.cache
    def flags(cls) -> tuple[Flag, ...]:
        wanted = {"evaluation": {"at", "history", "resamples", "confidence"}, "split": {"max_targets"}, "run": {"seed"}}
        return tuple(
            flag
            for flag in setting_flags()
            if (flag.section == "data" and flag.key not in ("logs", "items"))
            or flag.key in wanted.get(flag.section, ())
        )


def setting_flags() -> Iterator[Flag]:
    """A flag for every setting with a fixed place."""
    for section, key, info in fields():
        yield Flag(section, key, info.annotation, f"{info.description}{_default_sentence(info.default)}")


def model_flags() -> Iterator[Flag]:
    """``--model``, ``--tune`` and a flag for every hyper-parameter of any model."""
    from coterie.models import registry

    names = registry.names()
    yield Flag("model", "name", Literal[names], f"The model. Default: {names[0]}.")
    yield Flag("model", "tune", bool, f"{TUNE} Default: no.")
    for key, (annotation, text) in registry.parameters().items():
        yield Flag("model", key, annotation, text)


def given(flags: Sequence[Flag], values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The flags that were given, as nested settings; `values` maps a flag's variable to the text (or texts, or bool).

    Raises:
        ConfigError: a text is not what the flag takes; names the flag, the text, and what it takes.
    """
    nested: dict[str, dict[str, Any]] = {}
    for flag in flags:
        value = values.get(flag.variable)
        if value not in (None, [], ()):
            nested.setdefault(flag.section, {})[flag.key] = _as_setting(flag, value)
    return nested


def settings_of(
    config: Path | None, flags: Mapping[str, Mapping[str, Any]], logs: Sequence[str] | None = None
) -> Settings:
    """Defaults, overridden by the file, overridden by the flags.

    Raises:
        ConfigError: the file or a flag is wrong; names which.
    """
    file = {} if config is None else read_toml(config)
    if config is not None:
        build(file, str(config))
    merged = {section: dict(content) for section, content in file.items()}
    for section, content in flags.items():
        merged.setdefault(section, {}).update(content)
    if logs:
        merged.setdefault("data", {})["logs"] = list(logs)
    if "model" in merged:
        merged["model"].setdefault("name", Settings().model["name"])
    named = {(flag.section, flag.key): flag.name for flag in setting_flags() if flag.key in flags.get(flag.section, ())}
    return build(merged, "command line" if config is None else f"command line with {config}", named)


def help_record(param: Any, ctx: Any) -> tuple[str, str]:
    """A parameter's names and its help, as the help of a command and the documentation show them."""
    if param.param_type_name == "argument":
        return param.metavar or param.name.upper(), param.help or ""
    return param.get_help_record(ctx)[0], param.help or ""


def at_least(least: int) -> Callable[[Any], int]:
    """A parser for a command's own option that takes a whole number of at least `least`."""

    def parse(value: Any) -> int:
        try:
            number = int(value)
        except ValueError:
            number = least - 1
        if number < least:
            raise typer.BadParameter(f"it must be a whole number of at least {least}, got '{value}'")
        return number

    return parse


def section_title(section: str) -> str:
    """The heading of a section's flags: its name and the first sentence of what it is about.

    >>> section_title("split")
    'split: what is held out for validation and test'
    """
    if section == "model":
        return "model: which one, and its hyper-parameters"
    first = (dict(sections())[section].__doc__ or "").split(".")[0]
    return f"{section}: {first[0].lower()}{first[1:]}"


@functools.cache
def _options(flags: tuple[Flag, ...]) -> tuple[Any, ...]:
    """Typer's own options for the flags, by way of a function that has them as parameters."""

    def bearer(**_: Any) -> None:
        """Never called: typer reads its signature."""

    parameters = [_parameter(flag) for flag in flags]
    bearer.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    bearer.__annotations__ = {one.name: one.annotation for one in parameters}
    holder = typer.Typer(add_completion=False)
    holder.command()(bearer)
    return tuple(typer.main.get_command(holder).params)


def _parameter(flag: Flag) -> inspect.Parameter:
    """A parameter that takes text (or a switch); what the text means is checked by us, whatever typer's version."""
    core, declarations = core_type(flag.type), [flag.name]
    annotation: Any = str | None
    extra: dict[str, Any] = {"metavar": METAVARS.get(flag.key) or _metavar(core)}
    if core is bool:
        declarations, annotation, extra = [f"{flag.name}/--no-{flag.name[2:]}"], bool | None, {}
    elif get_origin(core) is tuple:
        annotation = list[str] | None
    elif get_origin(core) is Literal:
        extra["autocompletion"] = _completer([str(choice) for choice in get_args(core)])
    panel = section_title(flag.section)
    option = typer.Option(*declarations, help=flag.help, rich_help_panel=panel, **extra)
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(flag.variable, kind, default=None, annotation=Annotated[annotation, option])


def _metavar(core: Any) -> str:
    if get_origin(core) is Literal:
        return "|".join(str(choice) for choice in get_args(core))
    return {int: "INTEGER", float: "NUMBER"}.get(core, "TEXT")


def _completer(choices: Sequence[str]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


def _as_setting(flag: Flag, value: Any) -> Any:
    """A text as the settings want it: lists split at commas, numbers and choices in their own type."""
    core = core_type(flag.type)
    if (flag.section, flag.key) == ("model", "name"):
        return value  # the models themselves say what is wrong with a name
    if get_origin(core) is tuple:
        return [part.strip() for one in value for part in one.split(",") if part.strip()]
    if get_origin(core) is Literal:
        return _choice(flag, [*get_args(core)], value)
    if core in (int, float):
        return _number(flag, core, value)
    return value


def _choice(flag: Flag, choices: Sequence[Any], value: str) -> Any:
    by_name = {str(choice): choice for choice in choices}
    if value in by_name:
        return by_name[value]
    allowed = f"one of {', '.join(by_name)}" if len(by_name) > 1 else f"'{choices[0]}' in this version"
    raise ConfigError(f"{flag.name} must be {allowed}, got '{value}'{closest(value, by_name)}")


def _number(flag: Flag, kind: type[int] | type[float], value: str) -> int | float:
    try:
        number = kind(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{flag.name} must be a {'whole ' if kind is int else ''}number, got '{value}'")
    return number


def _default_sentence(default: Any) -> str:
    """The default as a sentence; nothing where there is none.

    >>> _default_sentence((5, 10)), _default_sentence(True), _default_sentence(None)
    (' Default: 5,10.', ' Default: yes.', '')
    """
    if default is None or default in ((), ""):
        return ""
    if isinstance(default, bool):
        return f" Default: {'yes' if default else 'no'}."
    text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f" Default: {text}."
