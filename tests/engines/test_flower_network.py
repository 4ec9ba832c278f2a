"""Messages over the real thing: SuperLink, SuperNodes, executors and pump as processes, TLS and node keys, loopback."""

import os
from collections.abc import Iterator

import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from tests.flowernet import Loopback, echoed, pids_of

NAMES = ("anna", "bert", "cleo")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    made = Loopback(tmp_path_factory.mktemp("federation"))
    try:
        for name in NAMES:
            made.add(name)
        made.online(*NAMES)
        yield made
    finally:
        made.stop()


def test_each_node_answers_its_own_message(federation: Loopback) -> None:
    messages = {name: os.urandom(1000) for name in NAMES}
    assert federation.exchange(messages) == {name: echoed(name, messages[name]) for name in NAMES}


def test_bytes_of_any_length_arrive(federation: Loopback) -> None:
    messages = {"anna": b"", "bert": bytes(9_000_000), "cleo": os.urandom(4 << 20)}
    assert federation.exchange(messages) == {name: echoed(name, messages[name]) for name in NAMES}


def test_nothing_of_it_runs_in_one_process(federation: Loopback) -> None:
    pids = [pids_of(net.children()) for net in (federation.net, *federation.nodes.values())]
    every = [pid for one in pids for pid in one.values()]
    assert [set(one) for one in pids] == [{"superlink", "superexec"}, *[{"supernode", "executor"}] * 3]
    assert len({*every, os.getpid()}) == 9
