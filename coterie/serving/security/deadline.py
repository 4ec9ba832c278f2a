"""A deadline that costs nothing where there is nothing to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; the clock is started when it first has to wait, which mostly it does not.

    Raises:
        TimeoutError: it took longer.
    """
    try:
        awaited = work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    async with asyncio.timeout(seconds):
        return await _Rest(work, awaited)


class _Rest:
    """What is left of a coroutine that was begun, and waits for what it yielded last."""

    __slots__ = ("_awaited", "_work")

    def __init__(self, work: Coroutine[Any, Any, Any], awaited: Any) -> None:
        self._work, self._awaited = work, awaited

    def __await__(self) -> Generator[Any, Any, Any]:
        work, awaited = self._work, self._awaited
        while True:
            try:
                try:
                    given = yield awaited
                except BaseException as error:  # noqa: BLE001 - the coroutine's to handle, cancellation above all
                    awaited = work.throw(error)
                else:
                    awaited = work.send(given)
            except StopIteration as done:
                return done.value
