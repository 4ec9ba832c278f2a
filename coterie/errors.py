"""Every error that Coterie raises on purpose.

    CoterieError                 anything below; `exit_code` says what a command returns
    ├── UsageError               the person asked for something that cannot be (exit code 2)
    │   ├── DataError            a file or its content cannot be used: what, where and the remedy
    │   ├── ConfigError          a setting is unknown, misspelt or out of range
    │   ├── PlanError            a privacy plan that cannot hold or cannot be run
    │   ├── LedgerError          an account, a charge or a receipt is not as the privacy ledger knows it
    │   │   └── BudgetExceeded   a charge is over the limit: what is spent, by which runs, and what remains
    │   ├── ModelError           a model cannot be trained or asked in this way
    │   └── RunError             a run folder is missing, truncated, tampered with or not trusted
    └── EnvironmentFault         disk, memory, network or a peer failed (exit code 1)
        ├── MissingExtra         an optional dependency is not installed; names the `pip install`
        ├── TrainingInterrupted  the work stopped; what is on disk can be resumed
        ├── PeerError            another party of a federation refused, lied, or is gone; names it and its reason
        └── SecureAggregationError   a secure sum was aborted: too few parties were left to unmask it
            └── ProtocolViolation    a party sent what an honest one does not: forged, replayed, altered or malformed

Messages are one sentence that names the parameter or file, the value received and the remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CoterieError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what a command returns."""

    exit_code = 1


class UsageError(CoterieError):
    """The request or its input is wrong; repeating it unchanged cannot help."""

    exit_code = 2


class DataError(UsageError):
    """A file or its content cannot be used."""


class ConfigError(UsageError):
    """A setting is unknown, misspelt or out of range."""


class PlanError(UsageError):
    """A privacy plan cannot hold, or cannot be run."""


class LedgerError(UsageError):
    """An account, a charge or a receipt is not as the privacy ledger knows it."""


class BudgetExceeded(LedgerError):
    """A charge would take an account over its limit; says what is spent, by which runs, and what remains."""


class ModelError(UsageError):
    """A model cannot be trained or asked in this way."""


class RunError(UsageError):
    """A run folder is missing, truncated, tampered with or not trusted."""


class EnvironmentFault(CoterieError):
    """Disk, memory, network or a peer failed; the same request may succeed later."""


class MissingExtra(EnvironmentFault):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}': pip install 'coterie[{extra}]'")


class TrainingInterrupted(EnvironmentFault):
    """The work stopped before its end; what is on disk can be resumed."""


class PeerError(EnvironmentFault):
    """Another party of a federation refused, lied, or is gone; says who, and its reason."""


class SecureAggregationError(EnvironmentFault):
    """A secure sum was aborted, and nothing of it was revealed; a new attempt draws new secrets."""


class ProtocolViolation(SecureAggregationError):
    """A party of a secure sum sent what an honest one does not: forged, replayed, altered or malformed."""


def closest(word: str, valid: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the valid word nearest to `word`, or an empty string.

    >>> closest("regularization", ["regularisation", "factors"])
    "; did you mean 'regularisation'?"
    >>> closest("zzz", ["regularisation"])
    ''
    """
    folded = {_folded(one): one for one in valid}
    near = difflib.get_close_matches(_folded(word), folded, n=1, cutoff=0.6)
    return f"; did you mean '{folded[near[0]]}'?" if near else ""


def _folded(word: str) -> str:
    """Without case, and without the dashes of a flag: what all words have in common makes none of them near."""
    return word.casefold().replace("-", "_").lstrip("_")
