"""Settings files in which every key is explained, written from the settings themselves: each loads as it stands.

A key that has a value is written with it; one that has none stands there commented out, as an example. Used by
`coterie init` and by the files of a federation.
"""

from __future__ import annotations

import json
import textwrap
import types
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from coterie.privacysettings import Section

WIDTH = 100
NOTHING: Mapping[str, Any] = MappingProxyType({})


def annotated(kind: type[Section], heading: str, values: Mapping[str, Any] = NOTHING) -> str:
    """The content of a whole file: keys without a table first, then each table.

    Args:
        kind: the settings that the file is read as.
        heading: what the file is, as its first comment.
        values: what is written instead of a default: a value by key, or a mapping by table.
    """
    return "\n".join([*comment(heading), *_keys(kind, values), *_tables((), kind, values)]) + "\n"


def section_lines(section: type[Section], values: Mapping[str, Any] = NOTHING) -> Iterator[str]:
    """What stands below a table's name: its purpose, and its keys."""
    yield from comment(" ".join((section.__doc__ or "").split()))
    yield from _keys(section, values)


def key_lines(key: str, annotation: Any, description: str, default: Any, active: bool) -> Iterator[str]:
    """One key: its explanation, its choices, and its value (commented out unless `active`)."""
    yield from comment(description)
    core = core_type(annotation)
    if get_origin(core) is Literal and len(get_args(core)) > 1:
        yield from comment("One of: " + ", ".join(toml(choice) for choice in get_args(core)) + ".")
    value = _example(core) if default is None else toml(default)
    yield f"{key} = {value}" if active else f"# {key} = {value}"


def comment(text: str) -> list[str]:
    """A text as comment lines; blank lines between its paragraphs stay."""
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        lines += ["#"] if lines else []
        lines += textwrap.wrap(
            paragraph,
            WIDTH,
            initial_indent="# ",
            subsequent_indent="# ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def core_type(annotation: Any) -> Any:
    """The type without ``| None``; a union of several types stays as it is, and pydantic reads its text."""
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [one for one in get_args(annotation) if one is not type(None)]
        return rest[0] if len(rest) == 1 else annotation
    return annotation


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a field holds, itself or by a name that a person chooses; None where it holds values."""
    core = get_args(annotation)[1] if get_origin(annotation) is dict else annotation
    return core if isinstance(core, type) and issubclass(core, Section) else None


def is_table(annotation: Any) -> bool:
    """Whether a field is a table of its own in TOML; what may also be something else is a value."""
    return get_origin(annotation) is dict or section_of(annotation) is not None


def toml(value: Any) -> str:
    """A value in TOML; its strings, numbers and arrays of them are written as in JSON."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _keys(section: type[Section], values: Mapping[str, Any]) -> Iterator[str]:
    """The keys of a section, each with the value that was given, else its default, else an example of it."""
    for key, info in section.model_fields.items():
        if is_table(info.annotation):
            continue
        value = values.get(key, None if info.is_required() else info.default)
        active = value is not None or info.is_required()  # what must be set is set to its example
        if value is None and info.examples:
            value = info.examples[0]
        yield ""
        yield from key_lines(key, info.annotation, info.description or "", value, active)


def _tables(place: tuple[str, ...], section: type[Section], values: Mapping[str, Any]) -> Iterator[str]:
    """The tables of a section, each below two blank lines."""
    for key, info in section.model_fields.items():
        if is_table(info.annotation):
            yield from ("", "")
            yield from _table((*place, key), info, values.get(key, NOTHING))


def _table(place: tuple[str, ...], info: FieldInfo, values: Mapping[str, Any]) -> Iterator[str]:
    """A table with fixed keys; one whose keys a person chooses; or tables by name, with one that is commented out."""
    inner, by_name = section_of(info.annotation), get_origin(info.annotation) is dict
    if inner is not None and not by_name:
        yield from _whole(place, inner, values)
    elif inner is not None:
        yield from comment(info.description or "")
        example = (info.examples or ["example"])[0]
        yield from (line if line[:1] in ("", "#") else f"# {line}" for line in _whole((*place, example), inner, values))
    else:
        yield f"[{'.'.join(place)}]"
        yield from comment(info.description or "")
        default = info.get_default(call_default_factory=True) or {}
        yield from (f"{key} = {toml(value)}" for key, value in (values or default).items())
        if not values and not default and info.examples:
            yield from (f"# {key} = {toml(value)}" for key, value in info.examples[0].items())


def _whole(place: tuple[str, ...], section: type[Section], values: Mapping[str, Any]) -> Iterator[str]:
    yield f"[{'.'.join(place)}]"
    yield from section_lines(section, values)
    yield from _tables(place, section, values)


def _example(core: Any) -> str:
    """What a key without a default may look like."""
    if get_origin(core) is tuple:
        return "[]"
    if get_origin(core) is Literal:
        return toml(get_args(core)[0])
    return {bool: "true", int: "10", float: "0.5"}.get(core, '""')
