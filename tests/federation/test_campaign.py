"""Hundreds of federations to which anything may happen, each by its seed: done, or cleanly aborted, and always right.

COTERIE_SEEDS says how many (default 200). A seed that fails is named; COTERIE_SEED=N runs that one alone.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from coterie.engines.local import kernel_threads
from coterie.errors import CoterieError
from coterie.federation.localstore import TAG
from coterie.models.mf import Mf
from coterie.testing.logs import zipf_log
from tests.federation.auditor import Seen, audit, messages_of, watch
from tests.federation.fuses import Killed
from tests.federation.loopback import Federation, blank, fates
from tests.federation.tinydesk import ITEMS
from tests.ledgers import quick_folder

SEEDS = int(os.environ.get("COTERIE_SEEDS", "200"))
ONE = os.environ.get("COTERIE_SEED")
PARTS = 8  # tests that share the seeds: several workers take one each
LOGS = [zipf_log(4, len(ITEMS), seed) for seed in range(5)]
NOISE = {"epsilon": 4.0, "max_users": 1000}
JOBS: list[tuple[int, dict[str, Any]]] = [  # with how often they are drawn
    (3, {}),
    (3, {"plan": NOISE}),
    (2, {"plan": {**NOISE, "min_clients": 3}}),
    (2, {"model": {"name": "ials", "factors": 2, "iterations": 2}}),
    (2, {"model": {"name": "mf", "factors": 2, "rounds": 2}}),
    (1, {"catalogue": "given"}),
    (1, {"times": 2, "every_days": 1.0}),
    (1, {"plan": NOISE, "evaluate": True, "metrics_share": 0.2}),
]
FATES = {"lost": 0.01, "unanswered": 0.015, "twice": 0.1, "garbled": 0.01, "garbled answer": 0.01, "away": 0.015}
KILLS = 3  # of the coordinator, at most


def seeds(part: int) -> range:
    return range(int(ONE), int(ONE) + 1) if ONE is not None else range(part, SEEDS, PARTS)


@pytest.mark.parametrize("part", range(PARTS if ONE is None else 1))
def test_whatever_happens_a_job_is_done_or_aborted_and_nothing_is_wrong(part: int) -> None:
    ends = Counter[str]()
    for seed in seeds(part):
        with quick_folder() as folder, kernel_threads(1):
            try:
                ends[ordeal(folder, seed)] += 1
            except AssertionError as error:
                raise AssertionError(f"COTERIE_SEED={seed}: {error}") from error
    assert set(ends) <= {"done", "aborted"}
    assert ends["done"] * 3 > ends.total() or ends.total() < 20, "so few are done that little was tried"


def ordeal(folder: Path, seed: int) -> str:
    """One federation, and what becomes of its job."""
    draw = random.Random(seed)
    members = draw.choice([3, 3, 3, 3, 4, 5])
    federation = Federation.of(blank(folder, members), LOGS[:members], max_epsilon_total=draw.choice([4.5, 20.0]))
    seen = watch(federation)
    (settings,) = draw.choices([settings for _, settings in JOBS], [often for often, _ in JOBS])
    job = federation.job(**settings, seed=seed)
    rough = draw.choice([0.0, 0.5, 1.0, 3.0])
    federation.transport.fate = fates(seed, {kind: share * rough for kind, share in FATES.items()})
    for site in federation.sites.values():
        site.fuse = Candle(draw, 0.002 * rough)
    ends = [conducted(federation, job, occurrence, draw) for occurrence in range(job.times)]
    audit(federation, killed=True)
    check_at_home(federation, seen)
    check_words(federation)
    return "done" if "done" in ends else "aborted"


def conducted(federation: Federation, job: Any, occurrence: int, draw: random.Random) -> str:
    """The end of one occurrence, whose coordinator is killed now and then and started again."""
    federation.clock.sleep(2 * 86_400.0)
    transport = federation.transport
    for kill in range(KILLS + 1):
        done = sum(map(len, transport.exchanges))
        at = done + draw.randrange(60) if kill < KILLS and draw.random() < 0.5 else None
        transport.kill_before, transport.kill_after = (at, None) if draw.random() < 0.5 else (None, at)
        try:
            federation.conduct(job, occurrence)
        except Killed:
            continue
        except CoterieError:
            return "aborted"
        return "done"
    raise AssertionError("killed more often than that")


class Candle:
    """A fuse that burns by chance."""

    def __init__(self, draw: random.Random, chance: float) -> None:
        self._draw, self._chance = random.Random(draw.random()), chance

    def __call__(self, point: str) -> None:
        if self._draw.random() < self._chance:
            raise Killed(point)


def check_at_home(federation: Federation, seen: list[Seen]) -> None:
    """What stays at a member is of an attempt that became the model, and that it is in: once it has heard, the last."""
    for site in federation.sites.values():
        kept = site.vault.store("job.0").get(TAG)
        mine = [(one.bound.spec.index, one.attempt) for one in seen if one.what == "model" and site.name in one.members]
        assert kept is None or tuple(kept.tolist()) in mine
        heard = any(answer.kind == "kept" for _, _, answer in messages_of(federation, site.name))
        if heard and mine and mine[-1][0] > 0 and any(isinstance(one.summand, Mf) for one in seen):
            assert tuple([] if kept is None else kept.tolist()) == mine[-1]  # nothing stays of mf's round 0


def check_words(federation: Federation) -> None:
    """What members say in words has nothing of their logs in it."""
    said = str([answer.header for _, _, answer in messages_of(federation) if answer.kind != "agree"])
    assert not any(item in said for item in ITEMS)
    assert "Error)" not in said.replace("(Killed)", ""), said
