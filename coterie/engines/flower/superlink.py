"""The coordinator's SuperLink: Flower's app behind our gates, on sockets that the daemon holds open.

``python -m coterie.engines.flower.superlink CONFIG.json``. The daemon listens and hands its sockets down, so that when
this process is killed nobody else can take the port, and nodes wait for the next one instead of being refused.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, ISOLATION_MODE_PROCESS, NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.common.constant import TRANSPORT_TYPE_GRPC_RERE as UNUSED_TRANSPORT
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.server.superlink.linkstate import LinkState
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app
from google.protobuf.message import DecodeError

from coterie.engines.flower.asgi import Refused
from coterie.engines.flower.frames import pack
from coterie.engines.flower.gate import Ask, Bells, LocalGate, NetworkGate
from coterie.engines.flower.pace import Pace
from coterie.engines.flower.seats import Seats
from coterie.engines.flower.serving import Served, serve
from coterie.engines.flower.users import Users
from coterie.errors import CoterieError, UsageError
from coterie.federation.link import call
from coterie.files import write_bytes, write_private

ANSWERED_WITHIN = 30.0  # seconds for the daemon to answer a request to enrol


@dataclass(frozen=True)
class Config:
    """What the daemon tells the process; paths are absolute, `network` and `local` file descriptors of sockets."""

    network: int
    local: int
    local_port: int
    certificate: str
    key: str
    local_certificate: str
    local_key: str
    database: str
    seats: str
    secret: str
    front: str
    per_minute: int
    message_bytes: int

    def write(self, path: Path) -> None:
        """Write it for `main`."""
        write_private(path, json.dumps(asdict(self)).encode())


def main() -> None:
    """Serve until SIGTERM."""
    config = Config(**json.loads(Path(sys.argv[1]).read_bytes()))
    made = Path(f"{config.database}.made")
    _sweep(Path(config.database), made)
    app = create_app(_flower(config), SuperLinkLifespan)
    write_bytes(made, b"")
    state: LinkState = app.state.linkstate_factory.state()
    _seat(state, Seats.read(Path(config.seats)))
    bells, secret = Bells(), Path(config.secret).read_bytes()
    local = LocalGate(app, secret.hex().encode(), bells)
    users = Users.of(config.local_port)
    limits = Pace(config.per_minute), config.message_bytes
    network = NetworkGate(app, _front(Path(config.front)), _Presence(state), bells, *limits)
    serve(
        Served(local, config.local, config.local_certificate, config.local_key, lifespan=True, users=users),
        Served(network, config.network, config.certificate, config.key, stopping=network.close),
    )


def _sweep(database: Path, made: Path) -> None:
    """Remove a database that was killed while Flower made it: it could be neither used nor made again.

    Nothing is lost with it: who may connect is in another file, and messages that were under way are sent again.
    """
    if database.exists() and not made.exists():
        for path in (database, *(database.with_name(f"{database.name}-{end}") for end in ("wal", "shm", "journal"))):
            path.unlink(missing_ok=True)


def _flower(config: Config) -> SuperLinkLifespanConfig:
    """Flower's own settings: node authentication, processes of our own, nothing that listens besides our gates."""
    return SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="",
        port=0,
        insecure=False,
        certificates=None,
        superexec_auth_secret=Path(config.secret).read_bytes(),
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=UNUSED_TRANSPORT,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=config.database,
        isolation=ISOLATION_MODE_PROCESS,
        runtime_dependency_install=False,
    )


def _seat(state: LinkState, seats: Seats) -> None:
    """Bring the database in line with who may connect, before anybody can."""
    for key in map(str.encode, seats.revoked):
        if (node := state.get_node_id_by_public_key(key)) is not None:
            state.delete_node(NOOP_FLWR_AID, node)
    for key in map(str.encode, seats.keys.values()):
        if state.get_node_id_by_public_key(key) is None:
            with contextlib.suppress(ValueError):  # it was revoked here: a key is given a seat once
                state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, HEARTBEAT_DEFAULT_INTERVAL)


def _front(path: Path) -> Ask:
    def ask(route: str, body: bytes) -> bytes:
        try:
            return call(path, pack({"path": route}, body), ANSWERED_WITHIN)
        except UsageError as error:
            raise Refused(400, str(error)) from None
        except CoterieError as error:
            raise Refused(503, str(error)) from None

    return ask


@dataclass(frozen=True)
class _Presence:
    """`coterie.engines.flower.gate.Presence` on Flower's state."""

    state: LinkState

    def takeover(self, request: bytes) -> bool:
        try:
            key = ActivateNodeRequest.FromString(request).public_key
        except DecodeError:
            return False
        return self._deactivated(key)

    def lost(self, key: bytes) -> None:
        self._deactivated(key)

    def back(self, key: bytes) -> None:
        if (node := self.state.get_node_id_by_public_key(key)) is not None:
            self.state.acknowledge_node_heartbeat(node, HEARTBEAT_DEFAULT_INTERVAL)

    def _deactivated(self, key: bytes) -> bool:
        node = self.state.get_node_id_by_public_key(key)
        return node is not None and self.state.deactivate_node(node)


if __name__ == "__main__":
    main()
