"""The pump: a ServerApp that moves bytes between Flower's grid and the coordinator's daemon, and knows nothing else.

It asks the daemon what to send, pushes it, and passes on whatever comes back. It keeps no state that anybody would
miss: when it is killed, the daemon starts a new run and sends again what was not answered.
"""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree
from flwr.superlink.grid import HttpGrid

from coterie.engines.flower.environment import PUMP_LINK
from coterie.engines.flower.frames import pack, unpack
from coterie.engines.flower.payload import packed, unpacked
from coterie.federation.link import Link

ANSWERED_WITHIN = 60.0  # seconds for the daemon to answer; it is asked to hold an idle pump's call for less
AT_ONCE = 8  # replies that are fetched at the same time: one that uploads slowly holds up nobody else

_log = logging.getLogger("flwr")

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Pump until the daemon says that it is over."""
    assert isinstance(grid, HttpGrid)  # noqa: S101 - Flower runs a ServerApp with no other
    link = Path(os.environ[PUMP_LINK])
    with ThreadPoolExecutor(AT_ONCE) as fetchers:
        _Pump(grid, link, context.run_id, fetchers).run()


class _Pump:
    def __init__(self, grid: HttpGrid, link: Path, run: int, fetchers: ThreadPoolExecutor) -> None:
        self._grid, self._path, self._run, self._fetchers = grid, link, run, fetchers
        self._waiting: dict[str, list[Any]] = {}  # id of a message that is out -> the daemon's key of it
        self._local = threading.local()

    def run(self) -> None:
        with Link(self._path) as link:
            while True:
                head, body = unpack(link.ask(pack({"do": "take", "run": self._run}), ANSWERED_WITHIN))
                if head["do"] == "end":
                    return
                if head["do"] == "send":
                    self._send(head, body)
                    continue
                wanted = {tuple(key) for key in head["open"]}
                self._waiting = {one: key for one, key in self._waiting.items() if tuple(key) in wanted}
                if self._waiting:
                    self._collect()

    def _send(self, head: dict[str, Any], body: bytes) -> None:
        message = Message(packed(body), head["node"], "query", ttl=head["ttl"])
        (pushed,) = self._grid.push_messages([message]) or ("",)
        if pushed:
            self._waiting[pushed] = head["key"]
        else:
            self._tell({"do": "failed", "key": head["key"], "why": "Flower did not take the message"})

    def _collect(self) -> None:
        """Fetch what has been answered, each on a thread: objects may still be on their way from a node."""
        asked = PullAppMessagesRequest(message_ids=list(self._waiting))
        found = self._grid._runtime_client.PullMessages(asked)  # noqa: SLF001 - pull_messages() waits for the slowest
        for message, tree in zip(found.messages_list, found.message_object_trees, strict=True):
            key = self._waiting.pop(message.metadata.reply_to_message_id, None)
            if key is not None:
                self._fetchers.submit(self._fetch, key, tree)

    def _fetch(self, key: list[Any], tree: ObjectTree) -> None:
        try:
            reply = self._pull(tree)
            if reply.has_error():
                self._tell({"do": "failed", "key": key, "code": reply.error.code, "why": reply.error.reason})
            else:
                self._tell({"do": "reply", "key": key}, unpacked(reply.content))
        except Exception as error:  # noqa: BLE001 - whatever it is, the daemon sends the message again
            _log.exception("the reply of %s could not be fetched", key)
            self._tell({"do": "failed", "key": key, "why": f"its reply could not be fetched: {error}"})

    def _pull(self, tree: ObjectTree) -> Message:
        client = self._grid._runtime_client  # noqa: SLF001
        pull = make_pull_object_fn_protobuf(client.PullObject, self._grid.node, self._run)

        def confirm(object_id: str) -> None:
            client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(node=self._grid.node, run_id=self._run, message_object_id=object_id)
            )

        return pull_and_inflate_object_from_tree(
            tree,
            pull,
            confirm,
            return_type=Message,
            initial_backoff=0.05,
            backoff_cap=1.0,
            max_tries_per_object=None,
        )

    def _tell(self, head: dict[str, Any], body: bytes = b"") -> None:
        link = getattr(self._local, "link", None)
        if link is None:
            link = self._local.link = Link(self._path)
        link.ask(pack({"run": self._run, **head}, body), ANSWERED_WITHIN)
