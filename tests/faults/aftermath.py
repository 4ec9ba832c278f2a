"""What must hold of a federation of real processes when a job has ended, read from what its parties have on disk."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from coterie.experiment.conductor import AGREED, facts_of
from coterie.experiment.desk import Desk
from coterie.experiment.outputs import round_records
from coterie.experiment.run import MODEL_FILE
from coterie.experiment.signing import CHECKPOINTS
from coterie.federation.agreed import Agreed
from coterie.federation.checkpoint import load_state, state_digest
from coterie.federation.config import NODE_FILE, NodeConfig
from coterie.federation.egresscheck import read, verify
from coterie.federation.identity import Identities
from coterie.federation.job import read_job
from coterie.federation.journal import JobRecord
from coterie.federation.loop import pinned
from coterie.federation.nodeagreement import NodeAgreement
from coterie.privacy.ledger import Ledger
from coterie.privacy.ledger_tables import SPENT
from coterie.ring import Accumulator, decode
from coterie.types import State, Total
from tests.faults.organisations import LIMIT, Organisations

MAY_LEAVE = {"accepted", "refused", "waiting", "agree", "begun", "kept", "ended", "failed", "round"}
MAY_LEAVE |= {"keys", "shares", "sum", "survivors", "signatures"}


def check_node(folder: Path, run: str) -> None:
    """Its egress log is whole, its budget holds, each masked sum was paid for, and nothing else has left."""
    path = folder / "egress.jsonl"
    found = verify(path)
    assert found.ok or found.mendable, f"{folder.name}: {found}"
    lines = list(read(path))
    assert {kind for line in lines for kind in line.kind.split("-and-")} <= MAY_LEAVE
    paid = Counter(line.job for line in lines if line.epsilon is not None)
    assert all(line.masked for line in lines if "sum" in line.kind.split("-and-"))
    ledger = Ledger.open(folder / "ledger.sqlite")
    spent = Counter(row["run"] for row in ledger.charges() if row["state"] == SPENT)
    assert not paid - spent, f"{folder.name}: {run}: a sum left that was not charged"
    assert all(one.counted <= LIMIT * (1 + 1e-9) for one in ledger.statements())


def check_model(organisations: Organisations, record: JobRecord) -> None:
    """The model is the one that exactly those logs give that are said to be in it, made anew here."""
    folder = Path(record.folder)
    (last,) = round_records(folder)
    assert len(last["members"]) == last["clients"] >= last["min_clients"]
    job = read_job(record.spec, Identities.open(organisations.hub.folder).public)
    agreed = Agreed.from_blobs({one.name: one.read_bytes() for one in (folder / CHECKPOINTS / AGREED).iterdir()})
    facts = facts_of(job, agreed)
    model, state = facts.build(), facts.opening()
    bound = facts.bound(state)
    assert bound is not None
    out = Accumulator(bound.spec)
    for name in last["members"]:
        out.flat += contribution(organisations.nodes[name].folder, facts, agreed, state)
    total = {name: decode(array, bound.ring_bits) for name, array in out.parts.items()}
    with pinned():
        expected = model.apply(bound.spec, state, Total(bound.spec, total, bound.noise_std(0), len(last["members"]), 0))
    assert state_digest(load_state(folder / MODEL_FILE)) == state_digest(expected)


def contribution(folder: Path, facts: object, agreed: Agreed, state: State) -> np.ndarray:
    """What a node adds, from its log."""
    desk = Desk(NodeConfig.load(folder / NODE_FILE))
    identity = Identities.open(folder).identity
    agreement = NodeAgreement(desk.assortment(private=False), identity, {}, mode="union", min_carriers=3)
    work = desk.open(facts, agreement.align(agreed))
    return work.contribute(facts.build(), facts.bound(state).spec, state, None).flat
