"""Settings from a file or a caller: checked table by table, every mistake refused in one sentence.

What the settings are is said by their classes (`coterie.settings`, `coterie.federation.config`, ...); here is how any
of them is read, and how what is wrong is told, with the nearest valid word.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_origin

from pydantic import ValidationError

from coterie.annotated import is_table, section_of
from coterie.errors import ConfigError, closest
from coterie.privacysettings import Section

S = TypeVar("S", bound=Section)


def build_as(
    kind: type[S], values: Mapping[str, Any], source: str, flags: Mapping[tuple[str, str], str] = MappingProxyType({})
) -> S:
    """Check nested `values` and build settings of a kind; `source` names the file or caller in errors.

    `flags` names what was given on the command line instead: the flag by section and key.

    Raises:
        ConfigError: an unknown section or key (with the nearest valid one), or a value that its field refuses.
    """
    _refuse_unknown(kind, kind, values, source, ())
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_refusal(error, _place(kind, error, source), flags)) from None


def _refuse_unknown(
    root: type[Section], kind: type[Section], values: Mapping[str, Any], source: str, place: tuple[str, ...]
) -> None:
    """Refuse what no field is for, table by table."""
    for key, content in values.items():
        if key not in kind.model_fields:
            raise ConfigError(f"{source}: {_unknown(root, kind, key, content, place)}")
        annotation, inner = kind.model_fields[key].annotation, (*place, key)
        if not is_table(annotation):
            continue
        _require_table(content, source, inner)
        if (section := section_of(annotation)) is None:
            continue
        by_name = {(*inner, name): one for name, one in content.items()} if _many(annotation) else {inner: content}
        for where, table in by_name.items():
            _require_table(table, source, where)
            _refuse_unknown(root, section, table, source, where)


def _require_table(content: Any, source: str, place: tuple[str, ...]) -> None:
    if not isinstance(content, Mapping):
        raise ConfigError(f"{source}: [{'.'.join(place)}] must be a table of keys, got {content!r}")


def _unknown(root: type[Section], kind: type[Section], key: str, content: Any, place: tuple[str, ...]) -> str:
    """What is wrong with a key that no field is for: it stands in the wrong table, or is misspelt."""
    if not place and (isinstance(content, Mapping) or all(is_table(f.annotation) for f in kind.model_fields.values())):
        return f"unknown section [{key}]{closest(key, kind.model_fields)}"
    where = f" in [{'.'.join(place)}]" if place else ""
    for other, info in root.model_fields.items():
        section = section_of(info.annotation)
        if section is not None and (other,) != place and key in section.model_fields:
            return f"unknown key '{key}'{where}; '{key}' belongs to [{other}]"
    return f"unknown key '{key}'{where}" + (
        closest(key, kind.model_fields) or "; valid keys: " + ", ".join(kind.model_fields)
    )


def _many(annotation: Any) -> bool:
    """Whether a field holds tables by a name that a person chooses."""
    return get_origin(annotation) is dict


def _place(kind: type[Section], error: ValidationError, source: str) -> str:
    """Where it stands, as far as the message does not say it: which of the tables whose names a person chooses."""
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    if first["type"] == "value_error" and len(place) > 1 and _many(kind.model_fields[place[0]].annotation):
        return f"{source}: [{'.'.join(place[:2])}]"
    return source


def _refusal(error: ValidationError, source: str, flags: Mapping[tuple[str, str], str]) -> str:
    """The first problem, with what was given as a flag called by that flag instead of by its place in a file."""
    section, *keys = error.errors(include_url=False)[0]["loc"] or ("",)
    told = describe(error)
    if not keys:  # several settings do not go together
        for (home, key), flag in flags.items():
            told = re.sub(rf"\b{key}\b(?= [+m])", flag, told) if home == section else told
        return f"{source}: {told}"
    given = flags.get((str(section), str(keys[0])))
    if given is None:
        return f"{source}: {told}"
    rule = told.removeprefix(f"{'.'.join(map(str, (section, *keys)))}: ").removeprefix(f"{keys[0]} ")
    return f"{given} {rule.replace('input should', 'must')}"


def describe(error: ValidationError) -> str:
    """The first problem of a pydantic error in one sentence: parameter, rule, value received."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message
    return f"{where}: {message[0].lower()}{message[1:]}, got {first['input']!r}"


def read_toml(path: Path, made_by: str = "coterie init") -> dict[str, Any]:
    """The content of a TOML file; `made_by` is the command that writes one.

    Raises:
        ConfigError: the file is missing, is not UTF-8 or is not TOML; names the place.
    """
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `{made_by}` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
