"""Flower's SuperNode as a process that ends when anything in it has failed, so that it is started again.

By itself it lives on without its heartbeat, or with nothing but its web server, when a thread of it has died. And it
takes whatever its executor answers for the answer to the message that it received last, which `Turns` sets right.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from flwr.app import Message
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.object_store import ObjectStore
from flwr.supernode import start_client_internal as flower
from flwr.supernode.cli.flower_supernode import flower_supernode
from flwr.supernode.nodestate import NodeState

HASTY = 1.0  # seconds: a question for a message that was held at least so long is put again at once

Received = tuple[Message, ObjectTree]


def main() -> None:
    """Run it with the arguments of ``flower-supernode``."""
    threading.excepthook = _failed
    status: object = 1
    try:
        turns = Turns(flower._pull_and_store_message, flower._push_messages)  # noqa: SLF001 - it has no other handle
        flower._pull_and_store_message = turns.pull  # type: ignore[assignment]  # noqa: SLF001
        flower._push_messages = turns.push  # type: ignore[assignment]  # noqa: SLF001
        flower_supernode()
    except SystemExit as ended:
        status = ended.code
    except BaseException:  # noqa: BLE001 - whatever it is, the process ends with it
        traceback.print_exc()
    _end(status)


class Turns:
    """The two halves of a SuperNode's loop, so that each message is followed by its own answer.

    When a run ends while a message of it is fetched, the SuperNode drops the message but not the task that it has made
    for it. The executor sees to that task, and Flower would take its answer for that of the next message, whose own
    would then lie there until yet another message comes: from then on each answer would be one message late.
    """

    def __init__(self, pull: Callable[..., int | None], push: Callable[..., None]) -> None:
        self._pull, self._push = pull, push
        self._last = ""  # the message whose answer is to be sent next
        self._dropped: list[str] = []  # messages that have left something behind

    def pull(self, *, receive: Callable[[], Received | None], **others: Any) -> int | None:
        """As Flower's, which waits for three seconds between two questions though the coordinator holds each."""
        while True:
            begun, self._last = time.monotonic(), ""
            run = self._pull(receive=lambda: self._noted(receive()), **others)
            if run is not None:
                return run
            if self._last:
                self._dropped.append(self._last)
            elif time.monotonic() - begun < HASTY:
                return None

    def push(
        self, *, state: NodeState, object_store: ObjectStore, send: Callable[..., tuple[set[str], str]], **others: Any
    ) -> None:
        """As Flower's, until the answer to the message received last is gone; others belong to runs that are over."""
        sent: set[str] = set()

        def noting(message: Message, *rest: Any) -> tuple[set[str], str]:
            sent.add(message.metadata.reply_to_message_id)
            return send(message, *rest)

        while self._last not in sent:
            self._push(state=state, object_store=object_store, send=noting, **others)
        state.delete_messages(message_ids=self._dropped)  # the executor is past them: it takes one task after another
        for message in self._dropped:
            object_store.delete(message)
        self._dropped.clear()

    def _noted(self, received: Received | None) -> Received | None:
        if received is not None:
            self._last = received[0].metadata.message_id
        return received


def _failed(arguments: threading.ExceptHookArgs) -> None:
    traceback.print_exception(arguments.exc_value)
    _end(1)


def _end(status: object) -> None:
    """End at once: other threads may wait for what never comes."""
    if isinstance(status, str):
        print(status, file=sys.stderr)  # noqa: T201 - as Python itself does with SystemExit
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


if __name__ == "__main__":
    main()
