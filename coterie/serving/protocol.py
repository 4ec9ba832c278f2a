"""HTTP/1.1 as uvicorn speaks it, but for clients that never end the head of a request; answers in one write."""

from __future__ import annotations

import asyncio
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from coterie.serving.wire import Joining

HEAD_SECONDS = 10.0  # from the first byte of a request, or from the connection, to the end of its head
HEAD_BYTES = 64 << 10


class ImpatientProtocol(HttpToolsProtocol):
    """Closes connections whose next request's head does not arrive in time, or grows too large.

    Between two requests uvicorn's own keep-alive timer runs; bodies have limits of their own
    (`coterie.serving.security`).
    """

    _in_head = True
    _head = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there, and has to say something."""
        super().connection_made(cast("asyncio.Transport", Joining(transport, self.loop)))
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has left."""
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some of a request, or of several."""
        within = self._in_head
        super().data_received(data)
        if not self._in_head:
            self._expect_nothing()
            return
        self._head = self._head + len(data) if within else 0
        if self._head > HEAD_BYTES:
            self.send_400_response("The request's head is too large.")
        elif self._deadline is None:
            self._expect()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The end of its head."""
        self._in_head = False
        super().on_headers_complete()

    def _expect(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._too_late)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self.transport.close()
