"""Three organisations as processes, over TLS and through Flower: the bytes of one process, and nothing in the clear."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest

from coterie.files import sha256_of
from coterie.testing.logs import zipf_log
from tests.parties import Parties, command
from tests.relay import Relay

NAMES = ("north", "east", "south")
ITEMS = 250
MODELS = {"ease": '{name = "ease"}', "ials": '{name = "ials", factors = 8, iterations = 3}'}
JOBS = "".join(
    f"""
[jobs.{name}]
start = "ready"
min_carriers = 1
phase_seconds = 60
evaluate = false
model = {model}
plan = {{aggregation = "secure"}}
"""
    for name, model in MODELS.items()
)


def rows(seed: int, shop: str) -> pl.DataFrame:
    """One organisation's log: users in their baskets."""
    lines = [
        (f"{shop}{user}", f"{shop}{user}-{at}", f"i{item:03d}")
        for user, baskets in enumerate(zipf_log(60, ITEMS, seed))
        for at, basket in enumerate(baskets)
        for item in basket
    ]
    return pl.DataFrame(lines, schema=["user", "basket", "item"], orient="row")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("federation")
    logs = {name: rows(seed, name) for seed, name in enumerate(NAMES)}
    files = {name: folder / f"{name}.csv" for name in NAMES}
    for name, log in logs.items():
        log.write_csv(files[name])
    relays: list[Relay] = []

    def relay(port: int) -> int:
        relays.append(Relay(port))
        return relays[0].port

    joined = dict.fromkeys(NAMES, ("--preset", "none"))
    with Parties(folder, files, JOBS, relay=relay, join=joined, config={"split": '"none"'}) as parties, relays[0]:
        jobs = {name: parties.until(lambda name=name: parties.job(name), name, 180) for name in MODELS}
        tree = {name: processes(daemon.pid) for name, daemon in parties.daemons.items()}
        yield {"parties": parties, "jobs": jobs, "relay": relays[0], "processes": tree, "logs": logs, "folder": folder}


def processes(pid: int) -> list[str]:
    """The commands of a daemon and of everything below it."""
    daemon = psutil.Process(pid)
    return [" ".join(one.cmdline()) for one in (daemon, *daemon.children(recursive=True))]


@pytest.mark.parametrize("name", MODELS)
def test_the_model_has_the_bytes_of_the_local_engines(federation, name, tmp_path):
    job = federation["jobs"][name]
    assert job["state"] == "done", job["reason"]
    pooled = tmp_path / "pooled.csv"
    pl.concat([log.with_columns(shop=pl.lit(shop)) for shop, log in federation["logs"].items()]).write_csv(pooled)
    model = {"ease": [], "ials": ["--factors", "8", "--iterations", "3"]}[name]
    words = ["--model", name, *model, "--client-column", "shop", "--split", "none", "--aggregation", "secure"]
    command("train", str(pooled), *words, "--no-compare", "--output", str(tmp_path / "run"))
    ours, theirs = (Path(folder) / "model.safetensors" for folder in (job["folder"], tmp_path / "run"))
    assert sha256_of(ours) == sha256_of(theirs)


def test_every_party_is_a_process_of_its_own_with_flower_below_it(federation):
    found = federation["processes"]
    assert set(found) == {"hub", *NAMES}
    assert any("flower.superlink" in one for one in found["hub"])
    for name in NAMES:
        assert any("supernode" in one for one in found[name])
        assert not any("flower.superlink" in one for one in found[name])


def test_all_that_passes_is_tls_at_one_port(federation):
    seen = bytes(federation["relay"].seen)
    assert seen[0] == 0x16  # a TLS handshake
    assert federation["relay"].up > 0
    for word in (b"coterie", b"CFX", b"flwr", b"item", b"masked"):
        assert word not in seen.lower()


def test_what_left_is_in_the_egress_log_byte_for_byte(federation):
    sizes = []
    for name in NAMES:
        folder = federation["folder"] / name
        assert command("node", "egress", "verify", "--folder", str(folder))["lines"] > 10
        lines = command("node", "egress", "show", "--last", "1000", "--folder", str(folder))["lines"]
        sizes += [line["bytes"] for line in lines if line["masked"]]
        assert {line["epsilon"] for line in lines} == {None}
    items = json.loads((Path(federation["jobs"]["ease"]["folder"]) / "result.json").read_bytes())["data"]["items"]
    entries = items * (items + 1) // 2 + items + 1  # a Gram matrix, counts, rows
    largest = max(sizes)
    assert entries * 8 <= largest <= 1.05 * entries * 8
    assert sum(sizes) <= federation["relay"].up


def test_each_node_has_the_signed_model(federation):
    for name in NAMES:
        (joint,) = (federation["folder"] / name / "runs").glob("ease-*/joint")
        theirs = json.loads((joint / "manifest.json").read_bytes())
        ours = json.loads((Path(federation["jobs"]["ease"]["folder"]) / "manifest.json").read_bytes())
        assert theirs == ours
        assert np.isfinite(json.loads((joint / "result.json").read_bytes())["traffic"]["upload_bytes_per_client"])
