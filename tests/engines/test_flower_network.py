"""Messages over the real thing: SuperLink, SuperNodes, executors and pump as processes, TLS and node keys, loopback.

Any of the processes may be killed at any moment: it comes again, and the exchange that was open completes.
"""

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from coterie.engines.flower.network import CoordinatorNet, TlsFiles
from coterie.errors import EnvironmentFault
from coterie.federation.authority import make_authority, server_certificate
from tests.flowernet import NAMES, Loopback, alive, echoed, pids_of, until


def test_each_node_answers_its_own_message(federation: Loopback) -> None:
    messages = {name: os.urandom(1000) for name in NAMES}
    assert federation.exchange(messages) == {name: echoed(name, messages[name]) for name in NAMES}


def test_bytes_of_any_length_arrive(federation: Loopback) -> None:
    messages = {"anna": b"", "bert": bytes(9_000_000), "cleo": os.urandom(4 << 20)}
    assert federation.exchange(messages) == {name: echoed(name, messages[name]) for name in NAMES}


def test_nothing_of_it_runs_in_one_process(federation: Loopback) -> None:
    pids = [pids_of(net.children()) for net in (federation.net, *(federation.nodes[name] for name in NAMES))]
    every = [pid for one in pids for pid in one.values()]
    assert [set(one) for one in pids] == [{"superlink", "superexec"}, *[{"supernode", "executor"}] * 3]
    assert len({*every, os.getpid()}) == 9


def test_one_port_is_enough_and_what_passes_is_no_more_than_it_must_be(federation: Loopback) -> None:
    """Cleo reaches nothing but the relay, which reaches nothing but the coordinator's port."""
    relay, content = federation.relay, b"a secret that nobody on the way may read" * 50_000 + os.urandom(2_000_000)
    federation.exchange({"cleo": b"the first of a run brings the app along"})
    up, down = relay.up, relay.down
    assert federation.exchange({"cleo": content}) == {"cleo": echoed("cleo", content)}
    assert len(content) <= relay.up - up < 1.05 * len(content)
    assert len(content) <= relay.down - down < 1.05 * len(content)
    assert b"secret" not in relay.seen
    relay.cut()
    assert federation.exchange({"cleo": b"again"}) == {"cleo": echoed("cleo", b"again")}


@pytest.mark.parametrize("victim", ["superlink", "superexec", "pump", "supernode", "executor"])
def test_a_killed_process_comes_again_and_nothing_is_lost(federation: Loopback, victim: str) -> None:
    federation.exchange({"anna": b"so that there is a pump"})
    pid = pump_of(federation) if victim == "pump" else pids(federation)[victim]
    federation.asked.clear()
    federation.go.clear()
    messages = {name: os.urandom(100) for name in NAMES}
    replies: dict[str, bytes] = {}
    exchange = threading.Thread(target=lambda: replies.update(federation.exchange(messages)))
    exchange.start()
    try:
        assert federation.asked.wait(60)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid))
    finally:
        federation.go.set()
    exchange.join()
    assert replies == {name: echoed(name, messages[name]) for name in NAMES}


def test_a_coordinator_that_cannot_serve_says_why(tmp_path: Path) -> None:
    one = server_certificate(make_authority(tmp_path / "one").parent, ["127.0.0.1"])
    two = server_certificate(make_authority(tmp_path / "two").parent, ["127.0.0.1"])
    net = CoordinatorNet(
        tmp_path, ("127.0.0.1", 0), TlsFiles(one.certificate, two.key), tmp_path / "state.sqlite", lambda _, body: body
    )
    net.start()
    try:
        with pytest.raises(EnvironmentFault, match="certificate and key do not belong together"):
            net.ready(60)
    finally:
        net.stop()


def test_a_port_and_a_folder_belong_to_one_coordinator(federation: Loopback, tmp_path: Path) -> None:
    files = TlsFiles(federation.ca, federation.ca)
    for folder, port, said in (
        (tmp_path, federation.net.port, "cannot be listened at"),
        (federation.folder / "coordinator", 0, "another process answers there already"),
    ):
        net = CoordinatorNet(folder, ("127.0.0.1", port), files, tmp_path / "state.sqlite", lambda _, body: body)
        with pytest.raises(EnvironmentFault, match=said):
            net.start()


def pids(federation: Loopback) -> dict[str, int]:
    return pids_of(federation.net.children()) | pids_of(federation.nodes["bert"].children())


def pump_of(federation: Loopback) -> int:
    """The process of the ServerApp: a child of SuperExec's."""
    command = ["ps", "-o", "pid=,stat=", "--ppid", str(pids(federation)["superexec"])]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    (pid,) = [line.split()[0] for line in listed if not line.split()[1].startswith("Z")]
    return int(pid)
