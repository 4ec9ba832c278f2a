"""Lies that a coordinator tells one member while it conducts a job: each as a change of what it signs and sends."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coterie.federation.checkpoint import pack_state, unpack_state
from coterie.federation.job import read_job, sign_job
from coterie.federation.network import KEYS, PLAIN, SUM
from coterie.federation.roster import Roster
from coterie.federation.talk import Talk
from coterie.secure import messages
from coterie.secure.keys import Identity
from coterie.secure.server import Server
from coterie.secure.terms import Phase
from coterie.secure.wire import Kind

Header, Blobs = dict[str, Any], dict[str, Any]
Lie = Callable[[Identity, str, Header, Blobs], None]
TOLD = {  # what the member says to each
    "model": "is not what job, items and plan lead to",
    "clear": "asked for sums in the clear",
    "early": "does not sum at this time",
    "number": "names no step of a round",
    "signature": "not signed by the key",
    "weaker": "lets items in that 1 nodes carry",
    "roster": "signed for another roster",
    "items": "not agreed as the job says",
    "survivors": "is not that of the key in the roster",
}


def lie_when_told(path: Path) -> None:
    """From now on, tell the lie that the file at `path` names ({"lie": .., "to": ..}), while it is there."""
    seal = Talk._seal

    def lying(talk: Talk, kind: str, name: str, header: Mapping[str, Any], blobs: Mapping[str, Any]) -> Any:
        now = _told(path)
        said, sent = json.loads(json.dumps(header)), dict(blobs)
        if now.get("to") == name and now["lie"] in LIES:
            LIES[now["lie"]](talk.identity, kind, said, sent)
        return seal(talk, kind, name, said, sent)

    Talk._seal = lying
    _lie_about_survivors(path)


def _told(path: Path) -> dict[str, str]:
    return json.loads(path.read_text()) if path.exists() else {}


def _model(identity: Identity, kind: str, header: Header, blobs: Blobs) -> None:
    if kind == "round" and "state" in blobs:
        state = unpack_state(bytes(blobs["state"]), "the model")
        blobs["state"] = pack_state(state.updated(lie=np.zeros(1)))


def _task(at: str, **change: Any) -> Lie:
    def lie(identity: Identity, kind: str, header: Header, blobs: Blobs) -> None:
        if kind == "round" and header["tasks"][0]["step"] == at:
            header["tasks"][0] |= change

    return lie


def _signature(identity: Identity, kind: str, header: Header, blobs: Blobs) -> None:
    if kind == "offer":
        header["job"]["seed"] += 1


def _weaker(identity: Identity, kind: str, header: Header, blobs: Blobs) -> None:
    if kind == "offer":
        job = read_job(header["job"], identity.public)
        header["job"] = sign_job(job.model_copy(update={"min_carriers": 1}), identity)


def _roster(identity: Identity, kind: str, header: Header, blobs: Blobs) -> None:
    if kind == "offer":
        true = Roster.open(bytes(blobs["roster"]), identity.public)
        puppet = replace(true.members[0], public=Identity().public)
        blobs["roster"] = replace(true, members=(puppet, *true.members[1:])).seal(identity)


def _items(identity: Identity, kind: str, header: Header, blobs: Blobs) -> None:
    if kind == "begin":
        blobs["terms"] = bytes(blobs["terms"]).replace(b'"min_carriers": 3', b'"min_carriers": 1')


LIES: dict[str, Lie] = {
    "model": _model,
    "clear": _task(SUM, step=PLAIN),
    "early": _task(KEYS, what="metrics"),
    "number": _task(KEYS, attempt=-1),
    "signature": _signature,
    "weaker": _weaker,
    "roster": _roster,
    "items": _items,
}


def _lie_about_survivors(path: Path) -> None:
    """Tell one member that another one is not in the sum."""
    send = Server._send_survivors

    def lying(server: Server, done: frozenset[int]) -> dict[int, bytes]:
        outbox = send(server, done)
        if _told(path).get("lie") == "survivors":
            body = messages.pack_survivors(done - {max(done)}, server._terms.clients)
            outbox[min(done)] = server._channels[min(done)].pack(Kind.SURVIVORS, body)
        return outbox

    Server._CLOSE = {**Server._CLOSE, Phase.MASK: lying}
