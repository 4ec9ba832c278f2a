"""A node's executor: takes each message from the SuperNode, lets the node's daemon answer, and hands the answer back.

``python -m coterie.engines.flower.executor CONFIG.json``. One long-lived process in the place of Flower's, which would
unpack and run the app that the coordinator sends. Here no app is unpacked: one that is not our stub is refused, and
what a message means is for the daemon, which owns log, ledger and secrets.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode, SubStatus
from flwr.common.serde import context_from_proto
from flwr.proto.message_pb2 import ObjectTree, PullObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PullTaskInputResponse,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TASK_TOKEN_HEADER, TaskType
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import push_message

from coterie.engines.flower.app import SHA256
from coterie.engines.flower.payload import packed, unpacked
from coterie.errors import CoterieError
from coterie.federation.link import call
from coterie.files import write_private

BUSY, IDLE = 0.1, 0.5  # seconds between questions for a message: while one is likely to come, and otherwise
LIKELY = 30.0  # seconds after a message
HEARTBEAT = 10.0
ANSWERED_WITHIN = 24 * 3600.0  # seconds for the daemon: how long work may take is between it and the coordinator

_log = logging.getLogger("flwr")


@dataclass(frozen=True)
class Config:
    """What the daemon tells the process: where the SuperNode is, and where the daemon itself."""

    address: str
    ca: str
    secret: str
    link: str

    def write(self, path: Path) -> None:
        """Write it for `main`."""
        write_private(path, json.dumps(asdict(self)).encode())


def main() -> None:
    """Answer messages until it is stopped."""
    config = Config(**json.loads(Path(sys.argv[1]).read_bytes()))
    token = _Token()
    with RuntimeHttpClient.from_server_address(
        config.address,
        insecure=False,
        root_certificates=Path(config.ca).read_bytes(),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
            SuperExecAuthHttpInterceptor(
                master_secret=Path(config.secret).read_bytes(),
                protected_methods={"/flwr.proto.Runtime/AcquireTask"},
            ),
            token,
        ],
    ) as client:
        _Executor(client, token, Path(config.link)).run()


class _Token:
    """Adds the token of the task in hand to each request."""

    value = ""

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        if self.value:
            context.request.headers[TASK_TOKEN_HEADER] = self.value
        return call_next(context)


class _Executor:
    def __init__(self, client: RuntimeHttpClient, token: _Token, link: Path) -> None:
        self._client, self._token, self._link = client, token, link

    def run(self) -> None:
        last = -LIKELY
        while True:
            try:
                if self._take():
                    last = time.monotonic()
                    continue
            except httpx.TransportError as error:  # the SuperNode is not up yet, or comes again
                _log.warning("the SuperNode does not answer: %s", error)
                time.sleep(IDLE)
            time.sleep(BUSY if time.monotonic() - last < LIKELY else IDLE)

    def _take(self) -> bool:
        """Take a task and see it through; whether there was one."""
        token = self._acquire()
        if not token:
            return False
        with self._beating():
            while token:
                self._token.value = token
                token = self._see_through()
        return True

    def _acquire(self) -> str:
        """The token of the next task; empty where there is none."""
        asked = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
        token: str = self._client.AcquireTask(asked).token
        return token

    def _see_through(self) -> str:
        """Answer the message of the task in hand; the token of a later task where that has taken its place."""
        given = self._client.PullTaskInput(PullTaskInputRequest())
        context = context_from_proto(given.context)
        trees, later = self._arrived(context)
        if not later:
            push_message(self._client, self._reply(given, self._message(trees[0], context)), context)
        status = SubStatus.FAILED if later else SubStatus.COMPLETED
        self._client.PushTaskOutput(PushTaskOutputRequest(sub_status=status))
        return later

    def _arrived(self, context: Context) -> tuple[list[ObjectTree], str]:
        """Wait until the SuperNode has fetched the message, or has given it up.

        It makes a task before it fetches a message, and leaves it behind when the run ends meanwhile. It fetches one
        message after another: a later task says that this one's message will never be there.
        """
        trees: list[ObjectTree] = []
        while True:
            if not trees:
                trees = list(self._client.PullMessages(PullAppMessagesRequest()).message_object_trees)
            if trees and self._available(trees[0].object_id, context):
                return trees, ""
            time.sleep(BUSY)
            if later := self._acquire():
                return trees, later

    def _available(self, object_id: str, context: Context) -> bool:
        asked = PullObjectRequest(node=Node(node_id=context.node_id), run_id=context.run_id, object_id=object_id)
        return bool(self._client.PullObject(asked).object_available)

    def _reply(self, given: PullTaskInputResponse, message: Message) -> Message:
        """The answer to a message, or why there is none; what went wrong inside the node is not told outside."""
        if (app := hashlib.sha256(given.fab.content).hexdigest()) != SHA256:
            _log.error("refused: the coordinator sent an app of its own (sha256 %s); it was not run", app)
            why = "this node runs no code that is sent to it; the app is not Coterie's stub"
            return Message(Error(ErrorCode.INVALID_FAB, why), reply_to=message)
        try:
            answer = call(self._link, unpacked(message.content), ANSWERED_WITHIN)
        except (CoterieError, ValueError) as error:
            _log.error("refused: the message could not be answered: %s", error)
            why = "the node could not answer this message; its own log says why"
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, why), reply_to=message)
        return Message(packed(answer), reply_to=message)

    def _message(self, tree: ObjectTree, context: Context) -> Message:
        node = Node(node_id=context.node_id)
        message = pull_and_inflate_object_from_tree(
            tree,
            make_pull_object_fn_protobuf(self._client.PullObject, node, context.run_id),
            make_confirm_message_received_fn_protobuf(self._client.ConfirmMessageReceived, node, context.run_id),
            return_type=Message,
            initial_backoff=0.05,  # the last of the objects are put in their place in this moment
            backoff_cap=1.0,
        )
        message.metadata.__dict__["_message_id"] = tree.object_id  # the message itself does not hold it
        return message

    @contextlib.contextmanager
    def _beating(self) -> Iterator[None]:
        """Tell the SuperNode that the task is alive while it is worked on."""
        over = threading.Event()
        thread = threading.Thread(target=self._beat, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(HEARTBEAT):
            try:
                self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
            except httpx.HTTPError as error:
                _log.warning("a heartbeat was lost: %s", error)


if __name__ == "__main__":
    main()
