"""The coordinator's daemon to its SuperLink: who may connect, who is there, and the run that carries messages.

Plain HTTP of this machine over TLS; no proxy is ever asked, whatever the environment says.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives import serialization
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListNodesResponse,
    ListRunsRequest,
    ListRunsResponse,
    RegisterNodeRequest,
    RegisterNodeResponse,
    StartRunRequest,
    StartRunResponse,
    StopRunRequest,
    StopRunResponse,
    UnregisterNodeRequest,
    UnregisterNodeResponse,
)
from flwr.proto.fab_pb2 import Fab
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from google.protobuf.message import Message

from coterie.engines.flower.app import SHA256, stub
from coterie.engines.flower.environment import SECRET_HEADER
from coterie.errors import EnvironmentFault

SECONDS = 5.0

Reply = TypeVar("Reply", bound=Message)


@dataclass(frozen=True)
class Seat:
    """A registered key as the SuperLink knows it: its number, and since when it is connected (None: it is not)."""

    node: int
    since: float | None


class Control:
    """Requests to the SuperLink of this coordinator.

    Raises:
        EnvironmentFault: it does not answer, or refuses; says what and why.
    """

    def __init__(self, port: int, ca: Path, secret: str) -> None:
        self._port, self._secret = port, secret
        self._context = ssl.create_default_context(cafile=str(ca))

    def seats(self) -> dict[bytes, Seat]:
        """The registered keys (PEM), each with its seat."""
        found = self._ask("list-nodes", ListNodesRequest(), ListNodesResponse)
        return {
            node.public_key: Seat(node.node_id, _time(node.last_activated_at) if node.status == "online" else None)
            for node in found.nodes_info
            if node.status != "unregistered"
        }

    def register(self, key: bytes) -> None:
        """Let the holder of a key (PEM) connect."""
        self._ask("register-node", RegisterNodeRequest(public_key=key), RegisterNodeResponse)

    def unregister(self, node: int) -> None:
        """Let a seat's key connect no more."""
        self._ask("unregister-node", UnregisterNodeRequest(node_id=node), UnregisterNodeResponse)

    def start_run(self) -> int:
        """Start a run of the stub app: its number."""
        content = stub()
        reply = self._ask("start-run", StartRunRequest(fab=Fab(hash_str=SHA256, content=content)), StartRunResponse)
        if not reply.run_id:
            raise EnvironmentFault("SuperLink did not start a run; see its log")
        return reply.run_id

    def runs(self, run: int) -> bool:
        """Whether a run has not ended yet."""
        found = self._ask("list-runs", ListRunsRequest(run_id=run), ListRunsResponse).run_dict
        return run in found and found[run].status.status != "finished"

    def stop_runs(self) -> None:
        """Stop every run that still runs; Flower then forgets what it kept for them."""
        for run in self._ask("list-runs", ListRunsRequest(), ListRunsResponse).run_dict.values():
            if run.status.status != "finished":
                self._ask("stop-run", StopRunRequest(run_id=run.run_id), StopRunResponse)
        self._ask("list-runs", ListRunsRequest(), ListRunsResponse)  # it is in listing runs that Flower tidies up

    def _ask(self, what: str, request: Message, reply: type[Reply]) -> Reply:
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=SECONDS, context=self._context)
        headers = {"content-type": PROTOBUF_MEDIA_TYPE, "accept": PROTOBUF_MEDIA_TYPE, SECRET_HEADER: self._secret}
        try:
            connection.request("POST", f"/v1/control/{what}", request.SerializeToString(), headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise EnvironmentFault(f"SuperLink does not answer ({error}); see its log") from None
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise EnvironmentFault(f"SuperLink refused '{what}' ({answer.status}: {_detail(content)}); see its log")
        return reply.FromString(content)


def pem(openssh: str) -> bytes:
    """A public key of OpenSSH's format as SuperLink wants it."""
    key = serialization.load_ssh_public_key(openssh.encode())
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _detail(content: bytes) -> str:
    """What an error of SuperLink's says, in short."""
    try:
        said = json.loads(content)
    except ValueError:
        return content[:200].decode(errors="replace")
    while isinstance(said, Mapping) and said:
        said = said.get("message") or said.get("detail") or next(iter(said.values()))
    return str(said)[:200]
