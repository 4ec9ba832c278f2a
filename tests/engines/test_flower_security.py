"""Who may connect, what may be reached, and that no code travels: real processes, TLS, the loopback interface."""

import contextlib
import http.client
import json
import socket
import ssl
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from flwr.proto.control_pb2 import StartRunRequest, StartRunResponse
from flwr.proto.fab_pb2 import Fab
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskRequest

from coterie.engines.flower.app import bundle
from coterie.engines.flower.environment import CHUNK, SECRET_HEADER
from coterie.engines.flower.network import NodeNet
from coterie.errors import ConfigError, PeerError
from coterie.federation.authority import make_authority
from coterie.federation.frontdoor import ENROL, ROSTER, ask
from tests.flowernet import Loopback, echoed, until
from tests.relay import Relay


class TestWhoMayConnect:
    def test_a_key_that_is_registered_may_until_it_is_revoked(self, federation: Loopback) -> None:
        node = federation.start("dora")
        until(lambda: node.state().startswith("waiting for approval"))
        assert "dora" not in federation.net.online()
        federation.net.register("dora", federation.identities("dora").transport_public)
        until(lambda: node.state().startswith("connected since"))
        assert federation.exchange({"dora": b"hello"}) == {"dora": echoed("dora", b"hello")}
        federation.net.unregister("dora")
        until(lambda: node.state().startswith("waiting for approval"))
        until(lambda: "dora" not in federation.net.online())
        assert federation.exchange({"dora": b"secret"}, seconds=0.5) == {}
        with pytest.raises(ConfigError, match="the transport key of 'dora' was revoked; let it join again"):
            federation.net.register("dora", federation.identities("dora").transport_public)
        node.stop()

    def test_a_coordinator_of_another_ca_is_not_spoken_to(self, federation: Loopback, tmp_path: Path) -> None:
        keys = federation.identities("anna")
        node = NodeNet(tmp_path, federation.address, make_authority(tmp_path / "other"), keys.transport_path, bytes)
        node.start()
        try:
            until(lambda: "certificate is not of the invitation's CA" in node.state())
            assert node.state().startswith(f"cannot reach {federation.address}: ")
        finally:
            node.stop()

    def test_two_members_do_not_share_a_key(self, federation: Loopback) -> None:
        with pytest.raises(ConfigError, match="is that of 'anna'; each node needs a key of its own"):
            federation.net.register("emil", federation.identities("anna").transport_public)
        with pytest.raises(ConfigError, match="no OpenSSH public key"):
            federation.net.register("emil", "ssh-rsa nonsense")


class TestWhatCanBeReached:
    def test_nothing_is_said_in_the_clear(self, federation: Loopback) -> None:
        with socket.create_connection(("127.0.0.1", federation.net.port), timeout=10) as plain:
            plain.sendall(b"GET /coterie/v1/roster HTTP/1.1\r\nHost: x\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert b"HTTP" not in plain.recv(1000)

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/"),
            ("GET", "/docs"),
            ("GET", "/openapi.json"),
            ("GET", "/health"),
            ("POST", "/v1/control/start-run"),
            ("POST", "/v1/control/list-nodes"),
            ("POST", "/v1/runtime/acquire-task"),
            ("POST", "/v1/runtime/push-messages"),
            ("POST", "/v1/fleet/register-node"),
            ("POST", "/v1/fleet/../control/start-run"),
            ("GET", "/v1/fleet/pull-messages"),
            ("GET", "/coterie/v1/enrol"),
        ],
    )
    def test_the_network_reaches_what_nodes_need_and_nothing_else(
        self, federation: Loopback, method: str, path: str
    ) -> None:
        secret = (federation.folder / "coordinator" / "secret").read_bytes().hex()
        status, said = request(federation, method, path, b"", {SECRET_HEADER: secret})
        assert (status, json.loads(said)) == (404, {"detail": "there is nothing here"})

    def test_this_machine_needs_the_secret(self, federation: Loopback) -> None:
        port = federation.net._local.getsockname()[1]
        context = ssl.create_default_context(cafile=federation.folder / "coordinator" / "loopback.pem")
        for headers in ({}, {SECRET_HEADER: "00" * 32}):
            assert request(port, "POST", "/v1/control/list-nodes", b"", headers, context)[0] == 404
        body = AcquireTaskRequest(supported_task_types=["flwr-serverapp"]).SerializeToString()
        assert request(port, "POST", "/v1/runtime/acquire-task", body, {}, context)[0] == 401

    def test_an_unsigned_request_is_refused(self, federation: Loopback) -> None:
        body = PullMessagesRequest(node=Node(node_id=1)).SerializeToString()
        assert request(federation, "POST", "/v1/fleet/pull-messages", body)[0] == 401

    def test_a_proxy_is_honoured(self, federation: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
        with Relay(federation.net.port, proxy=True) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            address = f"coordinator.test:{federation.net.port}"
            assert ask(address, federation.ca, ROSTER) == b"answer to "
            federation.add("frida", address=address)
            until(lambda: "frida" in federation.net.online())
            assert federation.exchange({"frida": b"x"}) == {"frida": echoed("frida", b"x")}
            assert {line.rpartition(" ")[0] for line in proxy.connects} == {f"CONNECT {address}"}
            federation.nodes["frida"].stop()


class TestLimits:
    def test_a_request_may_be_so_long(self, federation: Loopback) -> None:
        status, said = request(federation, "POST", "/v1/fleet/push-object", bytes(CHUNK + (1 << 20) + 1))
        assert status == 413
        assert json.loads(said)["detail"].startswith(f"a request here may have {CHUNK + (1 << 20)} bytes")

    def test_a_message_may_be_so_long(self, federation: Loopback) -> None:
        node = federation.nodes["anna"]
        refused = lambda _: "413" in str(node.children()[0]["last_error"])  # noqa: E731
        assert list(federation.net.transport().exchange({"anna": b"much"}, 60.0, refused)) == []
        assert federation.exchange({"anna": b"less"}) == {"anna": echoed("anna", b"less")}


class TestFrontDoor:
    def test_requests_reach_the_daemon(self, federation: Loopback) -> None:
        assert ask(federation.address, federation.ca, ENROL, b"please") == b"answer to please"
        assert federation.requests[-1] == (ENROL, b"please")

    def test_a_refusal_is_told_with_its_reason(self, federation: Loopback) -> None:
        with pytest.raises(PeerError, match="refuses: the invitation has expired; ask for another"):
            ask(federation.address, federation.ca, ENROL, b"refuse me")


def test_an_app_of_the_coordinators_own_is_refused_and_never_run(federation: Loopback, tmp_path: Path) -> None:
    """The coordinator's Flower is made to send an app that would leave a mark; the pump of that app tells what came."""
    mark, told = tmp_path / "mark", tmp_path / "told"
    control = federation.net._control
    server = f"""
from pathlib import Path
from flwr.app import Message
from flwr.serverapp import ServerApp
from coterie.engines.flower.payload import packed
app = ServerApp()

@app.main()
def main(grid, context):
    node = {control.seats()[federation.net._directory._seats.keys["anna"].encode()].node}
    (reply,) = grid.send_and_receive([Message(packed(b"run me"), node, "query")])
    Path({str(told)!r}).write_text(reply.error.reason if reply.has_error() else "answered")
"""
    client = f"""
from pathlib import Path
from flwr.clientapp import ClientApp
Path({str(mark)!r}).touch()
app = ClientApp()
"""
    project = """
[project]
name = "foreign"
version = "1.0.0"
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41"]
[tool.flwr.app]
publisher = "mallory"
fab-format-version = 1
flwr-version-target = "1.41.0"
[tool.flwr.app.components]
serverapp = "server:app"
clientapp = "client:app"
"""
    files = {"pyproject.toml": project, "LICENSE": "none", "server.py": server, "client.py": client}
    content = bundle({name: text.encode() for name, text in files.items()})
    control._ask("start-run", StartRunRequest(fab=Fab(content=content)), StartRunResponse)
    until(told.exists)
    assert told.read_text() == "this node runs no code that is sent to it; the app is not Coterie's stub"
    assert not mark.exists()


def request(
    where: Loopback | int,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    context: ssl.SSLContext | None = None,
) -> tuple[int, bytes]:
    port = where.net.port if isinstance(where, Loopback) else where
    context = context or ssl.create_default_context(cafile=where.ca)  # type: ignore[union-attr]
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
    try:
        connection.request(method, path, body, {"content-type": "application/protobuf", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
