"""What a document is made of, whatever it is written as: sections of text, fields and tables, and blanks for people.

Texts are tuples of pieces, so that a value out of a file can never be taken for markup, nor for a blank.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal, TypeAlias

Status: TypeAlias = Literal["stated", "not-stated", "to-fill-in"]

_MARKUP = re.compile(r"\*\*(?P<strong>.+?)\*\*|`(?P<code>[^`]+)`")


@dataclass(frozen=True, slots=True)
class Blank:
    """What only people know: a placeholder that everybody sees, such as ``[controller: name and contact]``."""

    what: str

    def __str__(self) -> str:
        return f"[{self.what}]"


@dataclass(frozen=True, slots=True)
class Code:
    """A name that is written as it is: of a file, a setting, a model."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Strong:
    """What must not be overlooked."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Note:
    """What belongs to the words before it, and matters less: a spread, a meaning."""

    text: str

    def __str__(self) -> str:
        return f" ({self.text})"


Piece: TypeAlias = str | Blank | Code | Strong | Note
Text: TypeAlias = tuple[Piece, ...]

NOT_STATED: Text = ("not stated",)
"""Of what a run says nothing."""


@dataclass(frozen=True, slots=True)
class Field:
    """One item: what is asked, and the answer.

    `value` is the same for programs (a number, a list; None: there is only the text). `source` says where it is from.
    """

    key: str
    label: str
    text: Text
    value: Any = None
    source: str = ""

    @property
    def status(self) -> Status:
        """Whether it is answered, unknown, or waits for a person."""
        if self.text == NOT_STATED:
            return "not-stated"
        return "to-fill-in" if blanks(self.text) else "stated"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts; `numbers` are the columns that are set to the right."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Text, ...], ...]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it, in this order: paragraphs, fields, points, tables."""

    key: str
    title: str
    text: tuple[Text, ...] = ()
    fields: tuple[Field, ...] = ()
    points: tuple[Text, ...] = ()
    tables: tuple[Table, ...] = ()

    def texts(self) -> Iterator[Text]:
        """Every text in it, in order."""
        yield from self.text
        yield from (one.text for one in self.fields)
        yield from self.points
        for table in self.tables:
            for row in table.rows:
                yield from row


@dataclass(frozen=True, slots=True)
class Document:
    """A whole document; `about` is what it was made from, `extra` further content of its JSON."""

    kind: str
    title: str
    lead: Text
    sections: tuple[Section, ...]
    on: date
    about: dict[str, str] = field(default_factory=dict)
    draft: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def to_fill_in(self) -> tuple[str, ...]:
        """What people must still write, each once, in the order in which it is met."""
        found = (blank.what for section in self.sections for text in section.texts() for blank in blanks(text))
        return tuple(dict.fromkeys(found))


def prose(*pieces: Piece) -> Text:
    """A text of pieces as they are."""
    return pieces


def say(template: str, **values: Piece | Text | float) -> Text:
    """A text with values in it, which stay what they are.

    >>> say("Ask {who} about {n} things.", who=Blank("contact"), n=3)
    ('Ask ', Blank(what='contact'), ' about ', '3', ' things.')
    """
    pieces: list[Piece] = []
    for literal, name, _, _ in string.Formatter().parse(template):
        if literal:
            pieces.append(literal)
        if name is not None:
            value = values[name]
            pieces += value if isinstance(value, tuple) else [_piece(value)]
    return tuple(pieces)


def marked(text: str) -> Text:
    """A text in which strong words and names are marked as in Markdown.

    >>> marked("**No** noise on `gram`")
    (Strong(text='No'), ' noise on ', Code(text='gram'))
    """
    pieces: list[Piece] = []
    at = 0
    for found in _MARKUP.finditer(text):
        if found.start() > at:
            pieces.append(text[at : found.start()])
        pieces.append(Strong(found["strong"]) if found["strong"] else Code(found["code"]))
        at = found.end()
    return (*pieces, text[at:]) if at < len(text) else tuple(pieces)


def listed(parts: Iterable[Text | Piece], between: str = ", ") -> Text:
    """Texts in a row.

    >>> listed([Code("a"), "b"])
    (Code(text='a'), ', ', 'b')
    """
    pieces: list[Piece] = []
    for part in parts:
        pieces += [between] if pieces else []
        pieces += part if isinstance(part, tuple) else (part,)
    return tuple(pieces)


def blanks(text: Text) -> list[Blank]:
    """The placeholders of a text."""
    return [piece for piece in text if isinstance(piece, Blank)]


def plain(text: Text) -> str:
    """The text without any markup."""
    return "".join(map(str, text))


def _piece(value: Piece | float) -> Piece:
    return value if isinstance(value, str | Blank | Code | Strong | Note) else f"{value:,}"
