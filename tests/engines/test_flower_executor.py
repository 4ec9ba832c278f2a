"""A node's executor, with a SuperNode that the test plays: what it answers, waits for, and gives up."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from flwr.app import Context, Error, Message, Metadata, RecordDict
from flwr.common.serde import context_to_proto, message_from_proto
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from coterie.engines.flower.app import stub
from coterie.engines.flower.executor import _Executor, _Token
from coterie.engines.flower.payload import packed, unpacked
from coterie.errors import DataError
from coterie.federation.link import LinkServer
from tests.flowernet import until

NODE = 5


class SuperNode:
    """Tasks by run; each message is there at once, or when `fetch` says so."""

    def __init__(self, app: bytes = b"") -> None:
        self.app = app or stub()
        self.token = _Token()
        self.pending: list[int] = []
        self.running: dict[str, int] = {}
        self.messages: dict[int, list[Message]] = {}
        self.objects: dict[str, bytes] = {}
        self.replies: list[Message] = []
        self.finished: list[tuple[int, str]] = []
        self._pushed: dict[str, bytes] = {}

    def task(self, run: int, content: RecordDict, *, fetched: bool = True, announced: bool = True) -> Message:
        metadata = Metadata(run, "", 1, NODE, "", "", 1e9, 1e9, "query")
        message = Message(content, metadata=metadata)
        message.metadata.__dict__["_message_id"] = message.object_id
        self.pending.append(run)
        if announced:
            self.announce(run, message)
        if fetched:
            self.fetch(message)
        return message

    def announce(self, run: int, message: Message) -> None:
        self.messages.setdefault(run, []).append(message)

    def fetch(self, message: Message) -> None:
        self.objects |= {one: thing.deflate() for one, thing in get_all_nested_objects(message).items()}

    def __getattr__(self, name: str) -> Any:
        """What the executor calls, under Flower's names: AcquireTask is `acquire_task`."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self, re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower())

    def acquire_task(self, request: Any) -> Any:
        if not self.pending:
            return SimpleNamespace(token="")
        run = self.pending.pop(0)
        self.running[f"token {run}"] = run
        return SimpleNamespace(token=f"token {run}")

    def pull_task_input(self, request: Any) -> Any:
        context = Context(self._run, NODE, {}, RecordDict(), {})
        return SimpleNamespace(context=context_to_proto(context), fab=SimpleNamespace(content=self.app))

    def pull_messages(self, request: Any) -> Any:
        waiting = self.messages.get(self._run, [])
        trees = [get_object_tree(waiting.pop(0))] if waiting else []
        return SimpleNamespace(message_object_trees=trees)

    def pull_object(self, request: Any) -> Any:
        content = self.objects.get(request.object_id, b"")
        return SimpleNamespace(object_found=True, object_available=bool(content), object_content=content)

    def confirm_message_received(self, request: Any) -> None:
        pass

    def push_messages(self, request: Any) -> Any:
        self._reply = message_from_proto(request.messages_list[0])
        ids = [tree.object_id for tree in walked(request.message_object_trees[0])]
        return SimpleNamespace(objects_to_push=ids, session_id="1")

    def push_object(self, request: Any) -> Any:
        self._pushed[request.object_id] = request.object_content
        return SimpleNamespace(stored=True)

    def push_task_output(self, request: Any) -> None:
        if self._pushed:
            self.replies.append(inflate_object_from_contents(self._reply.metadata.message_id, dict(self._pushed)))  # type: ignore[arg-type]
            self._pushed.clear()
        self.finished.append((self._run, request.sub_status))

    def send_task_heartbeat(self, request: Any) -> None:
        pass

    @property
    def _run(self) -> int:
        return self.running[self.token.value]


def walked(tree: Any) -> Iterator[Any]:
    yield tree
    for child in tree.children:
        yield from walked(child)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Path]:
    def answer(message: bytes) -> bytes:
        if message == b"fail":
            raise DataError("users.csv, line 4711: 'Jane Doe' is no number")
        return message[::-1]

    with LinkServer(tmp_path / "node.sock", answer) as server:
        yield server.path


def took(node: SuperNode, daemon: Path) -> bool:
    return _Executor(node, node.token, daemon)._take()  # type: ignore[arg-type]


def error_of(message: Message) -> Error:
    assert message.has_error()
    return message.error


def test_a_message_is_answered_by_the_daemon(daemon: Path) -> None:
    node = SuperNode()
    assert not took(node, daemon)
    sent = node.task(1, packed(b"abc"))
    assert took(node, daemon)
    (reply,) = node.replies
    assert unpacked(reply.content) == b"cba"
    assert (reply.metadata.reply_to_message_id, reply.metadata.run_id) == (sent.metadata.message_id, 1)
    assert node.finished == [(1, "completed")]


@pytest.mark.parametrize("announced", [True, False])
def test_a_message_that_is_still_on_its_way_is_waited_for(daemon: Path, announced: bool) -> None:
    node = SuperNode()
    message = node.task(1, packed(b"abc"), fetched=False, announced=announced)
    thread = threading.Thread(target=took, args=(node, daemon))
    thread.start()
    until(lambda: not node.pending)
    assert node.replies == []
    if not announced:
        node.announce(1, message)
    node.fetch(message)
    thread.join(20)
    assert unpacked(node.replies[0].content) == b"cba"


def test_a_message_that_flower_gave_up_does_not_stop_the_next(daemon: Path) -> None:
    node = SuperNode()
    node.task(1, packed(b"its run has ended meanwhile"), fetched=False)
    thread = threading.Thread(target=took, args=(node, daemon))
    thread.start()
    until(lambda: not node.pending)
    node.task(2, packed(b"abc"))
    thread.join(20)
    assert [unpacked(reply.content) for reply in node.replies] == [b"cba"]
    assert node.finished == [(1, "failed"), (2, "completed")]


def test_an_app_of_the_coordinators_own_is_refused(daemon: Path) -> None:
    node = SuperNode(app=b"another app")
    node.task(1, packed(b"abc"))
    assert took(node, daemon)
    assert (
        error_of(node.replies[0]).reason == "this node runs no code that is sent to it; the app is not Coterie's stub"
    )


@pytest.mark.parametrize("content", [packed(b"fail"), RecordDict()])
def test_what_goes_wrong_inside_a_node_is_not_told_outside(
    daemon: Path, content: RecordDict, caplog: pytest.LogCaptureFixture
) -> None:
    node = SuperNode()
    node.task(1, content)
    assert took(node, daemon)
    assert error_of(node.replies[0]).reason == "the node could not answer this message; its own log says why"
    assert node.finished == [(1, "completed")]
