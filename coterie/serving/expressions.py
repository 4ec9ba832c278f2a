"""Filters and boosts over what a shop says of an item, in CEL (the Common Expression Language): safe, without side
effects and without loops that never end.

Names are ``id, title, price, currency, stock, language, group`` and the item's attributes; a list attribute such as
``tags`` is asked as in ``'vegan' in tags``. All numbers of items are doubles: write ``price * 2.0``, while comparisons
take ``stock > 3`` as well. Where an item lacks a name that the answer depends on, a filter says no and a boost 1.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np

from coterie.errors import ConfigError, MissingExtra, closest
from coterie.serving.words import Item
from coterie.types import Array

Kind: TypeAlias = Literal["filter", "boost"]

LONGEST = 1000  # characters of an expression
DEEPEST = 50  # brackets inside brackets
MOST_BOOST = 100.0
SECONDS, SECONDS_PER_ITEM = 1.0, 20e-6  # what an expression may take over all items: a hundred times what one needs
REMEMBERED = 2_000  # results by the values that they were made of

FIELDS = ("id", "title", "price", "currency", "stock", "language", "group")
FUNCTIONS = frozenset({"size", "contains", "startsWith", "endsWith", "matches", "string", "double", "int"})
OPERATORS = frozenset(
    {"@in", "@not_strictly_false", "!_", "-_", "_&&_", "_||_", "_?_:_", "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"}
    | {"_+_", "_-_", "_*_", "_/_", "_%_", "_[_]"}
)
LOOPS = frozenset({"all", "exists", "exists_one", "filter"})
UNBOUNDED = frozenset({"map"})  # makes lists of lists of lists: nothing bounds what they hold

# In raw texts (r'..') a backslash is a letter. Where this and CEL's own reading could differ, CEL refuses the whole.
_TEXT_OR_COMMENT = re.compile(
    r"""[bB]?[rR][bB]?(?:"{3}.*?"{3}|'{3}.*?'{3}|"[^"]*"|'[^']*')"""
    r"""|[bB]?(?:"{3}(?:\\.|[^\\])*?"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|//[^\n]*""",
    re.DOTALL,
)
_WORD_OR_BRACKET = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[()\[\]{}]")
_PLACE = re.compile(r"<input>:(\d+):(\d+): (?:Syntax error: )?([^\n]*)")
_FAILURES = (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError)  # what evaluating may raise
_MISSING = object()


@dataclass(eq=False)
class Expression:
    """A compiled expression; `kind` says what it must give."""

    text: str
    kind: Kind
    program: Any
    names: tuple[str, ...]
    _known: dict[tuple[Any, ...], Any] = field(default_factory=dict, repr=False)

    @property
    def neutral(self) -> bool | float:
        """What it gives where an item lacks what it asks for."""
        return False if self.kind == "filter" else 1.0

    def of(self, item: Item) -> bool | float:
        """What it gives for one item; the neutral value where it cannot be evaluated."""
        found = self._result(item)
        return self.neutral if found is _MISSING or isinstance(found, Unfit) else found

    def over(self, items: Sequence[Item]) -> Array:
        """What it gives for each item: bool for a filter, float32 for a boost.

        Raises:
            ConfigError: it fails for every item that has what it asks for, or takes too long.
        """
        out = np.full(len(items), self.neutral, bool if self.kind == "filter" else np.float32)
        fits, unfit = False, None
        until = _deadline(len(items))
        for at, item in enumerate(items):
            found = self._result(item)
            if isinstance(found, Unfit):
                unfit = unfit or found
            elif found is not _MISSING:
                out[at], fits = found, True
            if time.perf_counter() > until:
                raise ConfigError(f"{self} takes too long over {len(items):,} items; make it simpler")
        if unfit is not None and not fits:
            raise ConfigError(f"{self} {unfit.why}")
        return out

    def refresh(self, out: Array, items: Sequence[Item], places: Iterable[int]) -> bool:
        """Bring the entries `places` of what `over` gave up to date with `items`; False where that takes too long."""
        until = _deadline(len(items))
        for at in places:
            out[at] = self.of(items[at])
            if time.perf_counter() > until:
                return False
        return True

    def __str__(self) -> str:
        shown = self.text if len(self.text) <= 80 else self.text[:77] + "..."
        return f"the {self.kind} {shown!r}"

    def _result(self, item: Item) -> Any:
        """The value for an item; _MISSING where it lacks a name that matters, Unfit where evaluating fails."""
        values = tuple(_value(item, name) for name in self.names)
        key = (values, tuple(map(type, values)))  # True equals 1.0
        found = self._known.get(key)
        if found is None:
            found = self._evaluated(values)
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[key] = found
        return found

    def _evaluated(self, values: tuple[Any, ...]) -> Any:
        given = {name: value for name, value in zip(self.names, values, strict=True) if value is not _MISSING}
        try:
            found = self.program.execute(given)
        except _FAILURES as error:
            told = str(error)
            if told.startswith("Undefined") and any(f"'{name}'" in told for name in self.names if name not in given):
                return _MISSING
            return Unfit(f"cannot be evaluated: {_first_sentence(told)}")
        if self.kind == "filter":
            return found if isinstance(found, bool) else Unfit(f"must be true or false, but gives {_kind(found)}")
        if isinstance(found, bool) or not isinstance(found, int | float) or math.isnan(found):
            return Unfit(f"must give a number, but gives {_kind(found)}")
        return min(max(float(found), 0.0), MOST_BOOST)


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why an expression could not be evaluated."""

    why: str


@lru_cache(maxsize=128)
def compiled(text: str, kind: Kind) -> Expression:
    """Compile an expression.

    Raises:
        ConfigError: it is too long or too deep, does not parse, or calls what is no function; names it and the place.
        MissingExtra: the extra 'serve' is not installed.
    """
    try:
        import cel
    except ImportError:
        raise MissingExtra("an expression over items", "serve") from None
    bare = Expression(text, kind, None, ())
    if len(text) > LONGEST:
        raise ConfigError(f"{bare} has {len(text):,} characters; at most {LONGEST:,} are allowed")
    _check_shape(bare)
    try:
        program = cel.compile(text)
    except ValueError as error:
        raise ConfigError(f"{bare} {_where(str(error))}") from None
    _check_functions(bare, program.functions())
    return Expression(text, kind, program, tuple(program.variables()))


def _deadline(items: int) -> float:
    """Until when all items must have been asked, by `time.perf_counter`."""
    return time.perf_counter() + SECONDS + SECONDS_PER_ITEM * items


def _check_shape(expression: Expression) -> None:
    """Refuse brackets that are nested too deep, and loops inside loops: time would grow with the power of the depth."""
    opened, loops, last = list[str](), 0, ""
    for word in _words(expression.text):
        if word in "([{":
            opened.append(last if word == "(" else "")
            loops += opened[-1] in LOOPS
            if len(opened) > DEEPEST:
                raise ConfigError(f"{expression} has brackets more than {DEEPEST} deep; make it simpler")
            if loops > 1:
                inner = opened[-1]
                raise ConfigError(f"{expression} has a loop ('{inner}') inside another; only one at a time is allowed")
        elif word in ")]}":
            loops -= bool(opened) and opened.pop() in LOOPS
        elif word in UNBOUNDED:
            raise ConfigError(f"{expression} uses '{word}', which is not allowed; there are {', '.join(sorted(LOOPS))}")
        last = word


def _words(text: str) -> Iterable[str]:
    """Names and brackets of an expression, those in strings and comments left out."""
    return _WORD_OR_BRACKET.findall(_TEXT_OR_COMMENT.sub(" ' ", text))


def _check_functions(expression: Expression, called: Iterable[str]) -> None:
    for name in called:
        if name not in FUNCTIONS and name not in OPERATORS:
            near = closest(name, FUNCTIONS | LOOPS) or f"; there are {', '.join(sorted(FUNCTIONS | LOOPS))}"
            raise ConfigError(f"{expression} calls '{name}', which is no function{near}")


def _value(item: Item, name: str) -> Any:
    """A field or attribute of an item as CEL takes it (numbers as doubles), or _MISSING."""
    found = getattr(item, name) if name in FIELDS else item.attributes.get(name)
    if found is None:
        return _MISSING
    if isinstance(found, int) and not isinstance(found, bool):
        return float(found)
    return tuple(found) if isinstance(found, list) else found


def _where(error: str) -> str:
    """What the parser says: the first fault and its place."""
    found = _PLACE.search(error)
    if found is None:
        return "does not parse; check its brackets and quotes"
    line, column, fault = found.groups()
    at = f"character {column}" if line == "1" else f"line {line}, character {column}"
    return f"does not parse at {at}: {fault[:120]}"


def _first_sentence(text: str) -> str:
    return text.split("\n", 1)[0].split(". ", 1)[0].rstrip(".")


def _kind(value: Any) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "0 / 0"
    names = {type(None): "nothing", bool: "a truth value", int: "a number", float: "a number", str: "a text"}
    return names.get(type(value), "a list" if isinstance(value, list) else "something else")
