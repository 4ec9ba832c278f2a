"""Seconds that one exchange takes (a message to each node, an answer from each): Coterie's network beside plain Flower.

Both run in the same run, one after the other, on the loopback interface, over TLS and with node authentication, each
node with processes of its own; nodes answer with what they were sent, and compute nothing. Plain Flower is a ServerApp
with ``send_and_receive`` and a ClientApp that echoes, under its own SuperLink, SuperNodes and SuperExecs as they come.
Times on a shared machine are noise; the ratio within one run is less so.

    python benchmarks/federation_exchange.py [--nodes 3,10] [--exchanges 5] [--bytes 100000]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.supercore.control.control_http_client import ControlHttpClient

from coterie.engines.flower.app import bundle
from coterie.engines.flower.control import pem
from coterie.engines.flower.environment import program
from coterie.engines.flower.network import CoordinatorNet, NodeNet, TlsFiles
from coterie.federation.authority import make_authority, server_certificate
from coterie.federation.identity import Identities

PATIENCE = 300.0
PROJECT = b"""\
[project]
name = "trivial"
version = "1.0.0"
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41"]
[tool.flwr.app]
publisher = "benchmark"
fab-format-version = 1
flwr-version-target = "1.41.0"
[tool.flwr.app.components]
serverapp = "trivial_server:app"
clientapp = "trivial_client:app"
"""
SERVER = """\
import json, time
from pathlib import Path
import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp
app = ServerApp()

@app.main()
def main(grid, context):
    while len(nodes := list(grid.get_node_ids())) < {nodes}:
        time.sleep(0.5)
    seconds = []
    for _ in range({exchanges} + 1):
        array = lambda: Array(np.frombuffer(np.random.bytes({size}), np.uint8))
        content = lambda: RecordDict({{"a": ArrayRecord({{"a": array()}})}})
        begun = time.monotonic()
        replies = list(grid.send_and_receive([Message(content(), node, "query") for node in nodes]))
        assert len(replies) == {nodes} and not any(reply.has_error() for reply in replies)
        seconds.append(time.monotonic() - begun)
    Path({result!r}).write_text(json.dumps(seconds[1:]))
"""
CLIENT = b"""\
from flwr.app import Message
from flwr.clientapp import ClientApp
app = ClientApp()

@app.query()
def echo(message, context):
    return Message(message.content, reply_to=message)
"""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--nodes", default="3,10", help="how many nodes, separated by commas")
    parser.add_argument("--exchanges", type=int, default=5, help="exchanges that are timed, after one that is not")
    parser.add_argument("--bytes", type=int, default=100_000, help="bytes of each message and answer")
    asked = parser.parse_args()
    print("| nodes | Coterie, s per exchange | plain Flower, s per exchange | ratio |\n|---|---|---|---|")
    for nodes in map(int, asked.nodes.split(",")):
        ours = measured(coterie, nodes, asked.exchanges, asked.bytes)
        theirs = measured(flower, nodes, asked.exchanges, asked.bytes)
        print(f"| {nodes} | {spread(ours)} | {spread(theirs)} | {median(ours) / median(theirs):.2f} |", flush=True)


def measured(side: Callable[[Path, int, int, int], list[float]], nodes: int, exchanges: int, size: int) -> list[float]:
    """Seconds of each exchange of one side, in a folder of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return side(Path(folder), nodes, exchanges, size)


def coterie(folder: Path, nodes: int, exchanges: int, size: int) -> list[float]:
    """Coterie's network: nodes that answer with what they were sent."""
    ca = make_authority(folder / "tls")
    server = server_certificate(folder / "tls", ["127.0.0.1"])
    files = TlsFiles(server.certificate, server.key)
    net = CoordinatorNet(folder / "net", ("127.0.0.1", 0), files, folder / "flower.sqlite", lambda _, body: body)
    names = [f"node-{number}" for number in range(nodes)]
    with ExitStack() as stack:
        net.start()
        stack.callback(net.stop)
        net.ready(PATIENCE)
        for name in names:
            keys = Identities.open(folder / name, create=True)
            net.register(name, keys.transport_public)
            node = NodeNet(folder / name, f"127.0.0.1:{net.port}", ca, keys.transport_path, lambda message: message)
            node.start()
            stack.callback(node.stop)
        wait(lambda: len(net.online()) == nodes)
        seconds = []
        for _ in range(exchanges + 1):
            begun = time.monotonic()
            messages = {name: os.urandom(size) for name in names}
            assert dict(net.transport().exchange(messages, PATIENCE)) == messages
            seconds.append(time.monotonic() - begun)
        return seconds[1:]


def flower(folder: Path, nodes: int, exchanges: int, size: int) -> list[float]:
    """Plain Flower: a ServerApp and a ClientApp, by Flower's own programs."""
    ca = make_authority(folder / "tls")
    server = server_certificate(folder / "tls", ["127.0.0.1"])
    port, result = free_port(), folder / "result.json"
    address = f"127.0.0.1:{port}"
    tls = ("--ssl-ca-certfile", str(ca), "--ssl-certfile", str(server.certificate), "--ssl-keyfile", str(server.key))
    secure = ("--root-certificates", str(ca))
    script = SERVER.format(nodes=nodes, exchanges=exchanges, size=size, result=str(result)).encode()
    files = {"pyproject.toml": PROJECT, "LICENSE": b"none", "trivial_server.py": script, "trivial_client.py": CLIENT}
    with ExitStack() as stack:
        run = lambda *command: stack.enter_context(running(folder, *command))  # noqa: E731
        listen = ("--host", "127.0.0.1", "--port", str(port), "--database", str(folder / "state.sqlite"))
        run("flower-superlink", *tls, *listen, "--enable-supernode-auth", "--isolation", "process")
        control = stack.enter_context(ControlHttpClient.from_server_address(address, False, ca.read_bytes(), []))  # noqa: FBT003
        wait(lambda: answers(control))
        run("flower-superexec", "--runtime-api-address", address, *secure)
        for number in range(nodes):
            keys = Identities.open(folder / str(number), create=True)
            control.RegisterNode(RegisterNodeRequest(public_key=pem(keys.transport_public)))
            run(
                *("flower-supernode", "--superlink", address, *secure, "--host", "127.0.0.1"),
                *("--port", str(free_port()), "--auth-supernode-private-key", str(keys.transport_path)),
            )
        control.StartRun(StartRunRequest(fab=Fab(content=bundle(files))))
        wait(result.exists)
        time.sleep(0.2)
        seconds: list[float] = json.loads(result.read_text())
        return seconds


@contextmanager
def running(folder: Path, name: str, *arguments: str) -> Iterator[None]:
    """One of Flower's programs, with what it starts, until the block ends."""
    path, *rest = program(name, *arguments)
    variables = os.environ | {
        "FLWR_HOME": str(folder / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PATH": f"{Path(path).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with (folder / "flower.log").open("ab") as log:
        process = subprocess.Popen([path, *rest], env=variables, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def answers(control: ControlHttpClient) -> bool:
    """Whether the SuperLink is up."""
    try:
        control.ListNodes(ListNodesRequest())
    except Exception:  # noqa: BLE001 - whatever it is, it is not up
        return False
    return True


def wait(what: Callable[[], object]) -> None:
    """Wait until something is so."""
    until = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > until:
            sys.exit(f"not so within {PATIENCE:g} s; the machine is too busy, or something failed")
        time.sleep(0.1)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def median(seconds: list[float]) -> float:
    """Of the exchanges."""
    return statistics.median(seconds)


def spread(seconds: list[float]) -> str:
    """Median, least and most."""
    return f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


if __name__ == "__main__":
    main()
