"""How the coordinator reaches the members of a federation: one message to each, and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol


def never(answered: frozenset[str]) -> bool:  # noqa: ARG001 - whoever has answered
    """Wait for everybody, or until the time is over."""
    return False


class Transport(Protocol):
    """Carries bytes between the coordinator and the members; what they mean is no business of its own.

    Members are passive: whatever travels is a message of the coordinator, or the answer to one.
    """

    def online(self) -> Mapping[str, float]:
        """Members that are connected, each with the time (seconds since 1970 UTC) since when."""

    def exchange(
        self, messages: Mapping[str, bytes], seconds: float, enough: Callable[[frozenset[str]], bool] = never
    ) -> Iterator[tuple[str, bytes]]:
        """Send each member its message and yield (member, answer) as the answers arrive.

        Ends when all have answered, when ``enough(answered)`` says so, or when `seconds` are over. Answers to earlier
        exchanges are never yielded; a member that is not connected does not answer.
        """
