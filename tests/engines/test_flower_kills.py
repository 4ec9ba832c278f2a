"""Any process of the network may be killed at any moment: it comes again, and the exchange that was open completes."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from tests.flowernet import Loopback, alive, echoed, pids_of, until

NAMES = ("anna", "bert")


class Held:
    """A node's answer that can be made to wait in the middle."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked, self.go = threading.Event(), threading.Event()
        self.go.set()

    def __call__(self, message: bytes) -> bytes:
        self.asked.set()
        assert self.go.wait(60)
        return echoed(self.name, message)


@pytest.fixture(scope="module")
def bert() -> Held:
    return Held("bert")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, bert: Held) -> Iterator[Loopback]:
    made = Loopback(tmp_path_factory.mktemp("kills"))
    try:
        made.add("anna")
        made.add("bert", bert)
        made.online(*NAMES)
        yield made
    finally:
        bert.go.set()
        made.stop()


@pytest.mark.parametrize("victim", ["superlink", "superexec", "pump", "supernode", "executor"])
def test_a_killed_process_comes_again_and_nothing_is_lost(federation: Loopback, bert: Held, victim: str) -> None:
    assert len(federation.exchange(dict.fromkeys(NAMES, b"before"))) == 2
    pid = pump_of(federation) if victim == "pump" else pids(federation)[victim]
    bert.asked.clear()
    bert.go.clear()
    messages = {name: os.urandom(100) for name in NAMES}
    replies: dict[str, bytes] = {}
    exchange = threading.Thread(target=lambda: replies.update(federation.exchange(messages)))
    exchange.start()
    assert bert.asked.wait(60)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid))
    bert.go.set()
    exchange.join()
    assert replies == {name: echoed(name, messages[name]) for name in NAMES}


def pids(federation: Loopback) -> dict[str, int]:
    return pids_of(federation.net.children()) | pids_of(federation.nodes["bert"].children())


def pump_of(federation: Loopback) -> int:
    """The process of the ServerApp: a child of SuperExec's."""
    parent = pids(federation)["superexec"]
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=", "--ppid", str(parent)], capture_output=True, text=True, check=True
    )
    (pid,) = [line.split()[0] for line in listed.stdout.splitlines() if not line.split()[1].startswith("Z")]
    return int(pid)
