"""Annotated settings files: whatever the settings are, what is written loads as it stands."""

from __future__ import annotations

import tomllib
from typing import Literal

from pydantic import Field

from coterie.annotated import annotated, comment
from coterie.privacysettings import Section
from coterie.settingscheck import build_as


class Inner(Section):
    """What is inside."""

    depth: int = Field(3, description="How deep it is.")
    words: tuple[str, ...] = Field((), description="Some words.")


class Outer(Section):
    """Everything."""

    name: str = Field(examples=["an example"], description="Must be given.")
    colour: Literal["red", "blue"] = Field("red", description="One of two.")
    limit: float | None = Field(None, examples=[2.5], description="May be left out.")
    note: str | None = Field(None, description="May be left out, too.")
    inner: Inner = Inner()
    pairs: dict[str, str] = Field(default_factory=dict, examples=[{"a": "b"}], description="Some pairs.")
    many: dict[str, Inner] = Field(default_factory=dict, examples=["first"], description="Some tables.")


WRITTEN = """\
# A heading.
#
# Its second paragraph.

# Must be given.
name = "an example"

# One of two.
# One of: "red", "blue".
colour = "red"

# May be left out.
# limit = 2.5

# May be left out, too.
# note = ""


[inner]
# What is inside.

# How deep it is.
depth = 3

# Some words.
words = []


[pairs]
# Some pairs.
# a = "b"


# Some tables.
# [many.first]
# What is inside.

# How deep it is.
# depth = 3

# Some words.
# words = []
"""


def test_a_file_reads_from_the_top() -> None:
    assert annotated(Outer, "A heading.\n\nIts second paragraph.") == WRITTEN


def test_it_loads_as_it_stands() -> None:
    assert build_as(Outer, tomllib.loads(WRITTEN), "f") == Outer(name="an example")


def test_values_stand_instead_of_defaults() -> None:
    values = {"name": 'a "name" of Zürich', "limit": 1.0, "inner": {"words": ["x", "y"]}, "pairs": {"k": "v"}}
    loaded = build_as(Outer, tomllib.loads(annotated(Outer, "", values)), "f")
    assert loaded == Outer(name='a "name" of Zürich', limit=1.0, inner=Inner(words=("x", "y")), pairs={"k": "v"})


def test_words_with_dashes_are_not_broken() -> None:
    long = "well-known " * 20
    assert " ".join(line.removeprefix("# ") for line in comment(long)) == long.strip()
