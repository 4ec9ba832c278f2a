"""Numbers and words that a plan may hold: refused with the name, the value and the range."""

from __future__ import annotations

import math
from collections.abc import Sequence

from coterie.errors import PlanError, closest


def check_word(name: str, value: object, valid: Sequence[str]) -> None:
    """Refuse a word that is not one of `valid`.

    >>> check_word("sampler", "poison", ["all", "poisson"])
    Traceback (most recent call last):
        ...
    coterie.errors.PlanError: sampler must be one of all, poisson, got 'poison'; did you mean 'poisson'?
    """
    if value not in valid:
        raise PlanError(f"{name} must be one of {', '.join(valid)}, got {value!r}{closest(str(value), valid)}")


def check_number(name: str, value: object, *, least: float = 0.0, most: float = math.inf, open: bool = True) -> None:
    """Refuse what is not a finite number between `least` and `most`; with `open`, the ends are refused too."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        fits = False
    else:
        fits = least < value < most if open else least <= value <= most
    if not fits:
        ends = "both excluded" if open else "both included"
        raise PlanError(f"{name} must be a number between {least:g} and {most:g} ({ends}), got {value!r}")


def check_whole(name: str, value: object, *, least: int) -> None:
    """Refuse what is not a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise PlanError(f"{name} must be a whole number of at least {least}, got {value!r}")
