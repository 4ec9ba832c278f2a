"""A node's daemon: it owns log, ledger, private state and the secrets of rounds, and answers the coordinator."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coterie.engines.flower.network import NodeNet
from coterie.errors import ConfigError, CoterieError, DataError
from coterie.experiment.books import LedgerBooks
from coterie.experiment.desk import Desk
from coterie.experiment.node import Node, silently
from coterie.federation.config import NODE_FILE, NodeConfig
from coterie.federation.egress import EgressLog
from coterie.federation.filelock import locked
from coterie.federation.identity import Identities
from coterie.federation.link import LinkServer
from coterie.federation.membership import Membership
from coterie.federation.policy import POLICY_FILE, Policy
from coterie.federation.vault import Vault
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import Plan
from coterie.storage import is_path

SOCKET = Path("run") / "control.sock"
EGRESS, LEDGER, VAULT, VAULT_KEY = "egress.jsonl", "ledger.sqlite", "vault", "vault.key"
KEPT = 50


@dataclass
class NodeDaemon:
    """The daemon in `folder`, which `coterie node join` made."""

    folder: Path
    notify: Callable[[str], None] = silently
    since: float = field(default_factory=time.time)
    _stop: threading.Event = field(default_factory=threading.Event)
    _events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        self.config = NodeConfig.load(self.folder / NODE_FILE)
        self.membership = Membership.read(self.folder)
        self.identities = Identities.open(self.folder)
        self.policy()
        self.ledger = open_ledger(self.folder, self.config)
        key_file = Path(self.config.key_file or self.folder / VAULT_KEY)
        self.vault = Vault.open(self.folder / VAULT, key_file)
        self.egress = EgressLog(self.folder / EGRESS)
        if (last := self.egress.last()) is not None and last.vault is not None:
            self.vault.confirm(last.vault, str(self.folder / EGRESS))
        self.node = Node(
            self.config.name,
            self.identities.identity,
            self.membership.coordinator,
            self.policy,
            Desk(self.config),
            self.vault,
            self.egress,
            self._books,
            self.folder / "runs",
            notify=self._said,
        )

    def policy(self) -> Policy:
        """The policy as it is written now: a person may change it while the daemon runs."""
        return Policy.load(self.folder / POLICY_FILE)

    def run(self) -> None:
        """Serve until it is stopped.

        Raises:
            CoterieError: it cannot start: the log, another daemon in the folder, Flower.
        """
        self._said(f"{self.config.name}: {self.node.desk.own_users:,} users of its own")
        self.net = NodeNet(
            self.folder / "flower",
            self.config.address,
            self.folder / "ca.pem",
            self.identities.transport_path,
            self.node.answer,
        )
        with (
            locked(self.folder / "daemon.lock", "this node's folder", 0.0),
            LinkServer(self.folder / SOCKET, self._control),
        ):
            self.net.start()
            try:
                self._said(f"connecting to {self.config.address}; own fingerprint {self.identities.fingerprint}")
                state = ""
                while not self._stop.wait(1.0):
                    if (now := self.net.state()) != state:
                        state = now
                        self._said(state)
            finally:
                self.net.stop()

    def stop(self) -> None:
        """Stop soon; what is under way goes on at the next start."""
        self._stop.set()

    def status(self) -> dict[str, Any]:
        """Everything that the node's own operator may see."""
        return {
            **node_standing(self.folder),
            "running": True,
            "since": self.since,
            "pid": os.getpid(),
            "connection": self.net.state(),
            "jobs": self.node.jobs(),
            "children": self.net.children(),
            "events": list(self._events),
            "gain": self.node.gain,
        }

    def _books(self, run: str, plan: Plan, model: str) -> LedgerBooks | None:
        """The account that pays for an occurrence; the policy's limits are set on it first."""
        if not plan.private:
            return None
        delta = float(plan.delta or 0)
        self.policy().apply_limits(self.ledger, self.config.account, delta)
        return LedgerBooks(self.ledger, self.config.account, run, delta, model, "")

    def _control(self, message: bytes) -> bytes:
        asked = json.loads(message)
        match asked.get("do"):
            case "status":
                return json.dumps(self.status()).encode()
            case "stop":
                self.stop()
            case other:
                raise ConfigError(f"the daemon does not know '{other}'; is it of the same version?")
        return b"{}"

    def _said(self, text: str) -> None:
        self._events.append({"time": time.time(), "text": text})
        self.notify(text)


def open_ledger(folder: Path, config: NodeConfig, create: bool = True) -> Ledger:
    """The node's own ledger: the one that its configuration names, or the one in its folder."""
    named = config.ledger
    where: str | Path = folder / LEDGER if named is None else Path(named) if is_path(named) else named
    return Ledger.open(where, create)


def node_standing(folder: Path) -> dict[str, Any]:
    """What is known of a node whether or not its daemon runs."""
    config, membership = NodeConfig.load(folder / NODE_FILE), Membership.read(folder)
    egress = folder / EGRESS
    last = EgressLog(egress).last() if egress.exists() else None
    return {
        "name": config.name,
        "fingerprint": Identities.open(folder).fingerprint,
        "federation": membership.federation,
        "coordinator": membership.fingerprint,
        "address": config.address,
        "running": False,
        "since": None,
        "pid": None,
        "connection": "not running",
        "jobs": [],
        "budget": _budget(folder, config),
        "egress": {
            "lines": 0 if last is None else last.line,
            "bytes": egress.stat().st_size if egress.exists() else 0,
            "last": None if last is None else last.time,
        },
        "gain": None,
        "children": [],
        "events": [],
    }


def _budget(folder: Path, config: NodeConfig) -> dict[str, Any] | None:
    """Where the node's account stands; None before anything was charged."""
    try:
        found = open_ledger(folder, config, create=False).statement(config.account)
    except (DataError, CoterieError):
        return None
    return {
        "account": config.account,
        "spent": found.spent,
        "limit": found.account.limit,
        "remaining": found.remaining,
        "period_spent": found.period_spent,
        "period_remaining": found.period_remaining,
    }
