"""`coterie init`: an annotated `coterie.toml` in which every option is explained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from coterie.annotated import annotated, comment, key_lines, section_lines
from coterie.cli.options import TUNE
from coterie.cli.output import JsonFlag, Output
from coterie.errors import ConfigError
from coterie.privacysettings import Section
from coterie.settings import Settings, sections


def init(
    path: Annotated[
        Path | None, typer.Argument(metavar="[PATH]", help="File to write. Default: coterie.toml.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Write settings for `coterie serve` instead. Default file: serve.toml.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Write a coterie.toml in which every option is explained and stands at its default."""
    from coterie.files import write_text

    name, command = ("serve.toml", "coterie serve RUN") if serve else ("coterie.toml", "coterie train LOG...")
    path = path or Path(name)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file in it, such as {path / name}")
    if path.exists() and not force:
        raise ConfigError(f"{path} exists already; --force replaces it, or name another file")
    write_text(path, serving_template() if serve else template())
    Output(json).result({"path": path}, f"wrote {path}", f"edit it, then: {command} --config {path}")


def serving_template() -> str:
    """The content of serve.toml: it loads as the defaults."""
    from coterie.serving.config import ServeConfig

    return annotated(
        ServeConfig,
        "Settings for `coterie serve --config`. Flags of the command win. A key that is commented out has no default.",
    )


def template() -> str:
    """The content of the file: it loads as the defaults, unchanged."""
    lines = [
        "# Settings for `coterie train --config`. Each key has a flag of the same name with dashes; flags win.",
        "# A key that is commented out has no default, or belongs to a model that is not chosen.",
    ]
    for name, section in _with_model_in_place():
        lines += ["", "", f"[{name}]"]
        lines += _model_section() if section is None else section_lines(section)
    return "\n".join(lines) + "\n"


def _with_model_in_place() -> Iterator[tuple[str, type[Section] | None]]:
    """All sections in the order of the settings; None stands for the models'."""
    fixed = dict(sections())
    for name in Settings.model_fields:
        yield name, fixed.get(name)


def _model_section() -> Iterator[str]:
    from coterie.models import registry

    names = registry.names()
    yield from comment("Which model, and its hyper-parameters.")
    yield ""
    yield from key_lines("name", Literal[names], "The model.", names[0], active=True)
    yield ""
    yield from key_lines("tune", bool, TUNE, default=False, active=False)
    for name, model in registry.models().items():
        if not model.model_fields:
            continue
        yield ""
        yield from comment(f"Hyper-parameters of {name}: {(model.__doc__ or '').split('.')[0].strip()}.")
        for key, info in model.model_fields.items():
            yield from key_lines(key, info.annotation, info.description or "", info.default, active=False)
