"""A SuperNode's turns: each message is followed by its own answer, also after one that was given up half-way."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from flwr.app import Message, Metadata
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supernode import start_client_internal as flower
from flwr.supernode.nodestate import NodeState, NodeStateFactory

from coterie.engines.flower import supernode as module
from coterie.engines.flower.payload import packed
from coterie.engines.flower.supernode import Turns

NODE = 5


class Coordinator:
    """Hands out messages; a message of a run in `ended` can be asked for and no more."""

    def __init__(self) -> None:
        self.waiting: list[Message] = []
        self.ended: set[int] = set()
        self.questions = 0
        self.answered: list[str] = []

    def message(self, run: int, content: bytes) -> str:
        made = Message(packed(content), metadata=Metadata(run, "", 1, NODE, "", "", time.time(), 1e9, "query"))
        made.metadata.__dict__["_message_id"] = made.object_id
        self.waiting.append(made)
        return made.object_id

    def receive(self) -> Any:
        self.questions += 1
        if not self.waiting:
            return None
        self.current = self.waiting.pop(0)
        self._objects = {one: thing.deflate() for one, thing in get_all_nested_objects(self.current).items()}
        return self.current, get_object_tree(self.current)

    def confirm(self, run: int, _message: str) -> None:
        if run in self.ended:
            raise RunNotRunningException

    def send(self, message: Message, _tree: Any, _seconds: float) -> tuple[set[str], str]:
        if message.metadata.run_id in self.ended:
            raise RunNotRunningException
        self.answered.append(message.metadata.reply_to_message_id)
        return set(), "session"

    def pull_object(self, _run: int, object_id: str) -> bytes:
        return self._objects[object_id]


class Node:
    """Flower's loop on its own state, and an executor that the test plays."""

    def __init__(self, coordinator: Coordinator) -> None:
        objects = ObjectStoreFactory()
        self.state: NodeState = NodeStateFactory(objectstore_factory=objects).state()
        self.state.set_node_id(NODE)
        self.objects, self.coordinator = objects.store(), coordinator
        self.turns = Turns(flower._pull_and_store_message, flower._push_messages)
        for run in (1, 2):
            self.state.store_run(Run.create_empty(run))

    def pull(self) -> int | None:
        coordinator = self.coordinator
        return self.turns.pull(
            receive=coordinator.receive,
            state=self.state,
            object_store=self.objects,
            node_config={},
            get_run=None,
            get_fab=None,
            pull_object=coordinator.pull_object,
            confirm_message_received=coordinator.confirm,
            trusted_entities=None,
        )

    def push(self) -> None:
        self.turns.push(
            state=self.state, object_store=self.objects, send=self.coordinator.send, push_object=lambda *_: None
        )

    def answer(self, run: int) -> None:
        """What the executor does with the task of a run."""
        (message,) = self.state.get_messages_legacy(run_ids=[run], is_reply=False)
        flower._insert_message(Message(packed(b"answer"), reply_to=message), self.state, self.objects)


@pytest.fixture
def coordinator() -> Coordinator:
    return Coordinator()


@pytest.fixture
def node(coordinator: Coordinator) -> Node:
    return Node(coordinator)


@pytest.fixture
def later() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Does something on a thread a moment later."""
    threads: list[threading.Timer] = []

    def do(what: Callable[[], None]) -> None:
        threads.append(threading.Timer(0.3, what))
        threads[-1].start()

    yield do
    for thread in threads:
        thread.join()


def test_the_answer_to_a_message_given_up_is_not_taken_for_the_next_ones(
    node: Node, coordinator: Coordinator, later: Callable[[Callable[[], None]], None]
) -> None:
    given_up = coordinator.message(1, b"its run ends before it has arrived")
    message = coordinator.message(2, b"sent again")
    coordinator.ended.add(1)
    assert node.pull() == 2
    node.answer(1)
    later(lambda: node.answer(2))
    node.push()
    assert coordinator.answered == [message]
    assert given_up not in node.objects
    assert node.state.get_messages_legacy() == []


def test_what_a_message_given_up_has_left_is_forgotten(node: Node, coordinator: Coordinator) -> None:
    given_up = coordinator.message(1, b"nobody answers this")
    message = coordinator.message(2, b"sent again")
    coordinator.ended.add(1)
    assert node.pull() == 2
    node.answer(2)
    assert given_up in node.objects
    node.push()
    assert coordinator.answered == [message]
    assert given_up not in node.objects
    assert node.state.get_messages_legacy() == []


def test_a_question_that_was_held_is_put_again_at_once(
    node: Node, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HASTY", 0.1)
    held = iter([0.2, 0.2, 0.0])
    monkeypatch.setattr(coordinator, "receive", lambda: time.sleep(next(held)))
    assert node.pull() is None
    assert list(held) == []


def test_a_question_that_nobody_holds_is_left_to_flowers_pause(node: Node, coordinator: Coordinator) -> None:
    assert node.pull() is None
    assert coordinator.questions == 1
