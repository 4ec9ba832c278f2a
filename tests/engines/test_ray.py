"""The Ray engine gives the bytes of the local one, survives its workers, and shows rows to nobody else."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import stat
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coterie
from coterie.engines.local import IN_TURN, LocalEngine
from coterie.engines.ray import Cluster, RayEngine, contribute_on, open_cluster
from coterie.engines.spans import contribution
from coterie.errors import ConfigError, EnvironmentFault, PlanError
from coterie.experiment.buyers import run_comparison
from coterie.experiment.train import run_training
from coterie.federation.checkpoint import save_state
from coterie.federation.localstore import FolderStore
from coterie.federation.loop import run_rounds
from coterie.models import registry
from coterie.privacy.plan import Plan
from coterie.settings import build
from coterie.testing.logs import Log, population_of, zipf_log
from coterie.types import Population, State
from tests.contracts.rounds import PowerIteration
from tests.engines.remote_rounds import Failing, Marked, Mortal

if find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)

ITEMS, BLOCK = 40, 300
LOG = zipf_log(200, ITEMS)
SILOS = population_of([LOG[:80], LOG[80:81], LOG[81:]], ITEMS)
DEVICES = population_of([[user] for user in LOG], ITEMS)
SMALL: dict[str, dict[str, int]] = {
    "ials": {"iterations": 2, "factors": 4},
    "mf": {"rounds": 2, "factors": 4},
    "subspace": {"factors": 4},
}


@pytest.fixture(scope="module")
def told() -> list[str]:
    """What the cluster had to say."""
    return []


@pytest.fixture(scope="module")
def cluster(told: list[str]) -> Iterator[Cluster]:
    with open_cluster(workers=2, note=told.append, store_bytes=100 << 20) as found:
        yield found


def marked(clients: Sequence[Log]) -> Population:
    """A population in which every user of client c has item c alone."""
    return population_of([[[[c]] * len(user) for user in users] for c, users in enumerate(clients)], len(clients))


def trained(engine: LocalEngine | RayEngine, name: str, plan: Plan, folder: Path) -> str:
    """SHA-256 of the model file of a training."""
    model = registry.build({"name": name, **SMALL.get(name, {})})
    path = folder / f"{type(engine).__name__}.safetensors"
    save_state(path, run_rounds(model, model.init(ITEMS, {}, 0), engine, plan))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["ease", "ials", "cart", "sequence", "mf", "subspace"])
@pytest.mark.parametrize("people", [SILOS, DEVICES], ids=["organisations", "devices"])
def test_a_model_file_has_the_bytes_of_the_local_engine(
    name: str, people: Population, cluster: Cluster, tmp_path: Path
) -> None:
    local, ray = LocalEngine(people, block=BLOCK), RayEngine(people, cluster, block=BLOCK)
    assert trained(ray, name, Plan(clip_norm=8.0), tmp_path) == trained(local, name, Plan(clip_norm=8.0), tmp_path)
    here, there = local.store.arrays(), ray.store.arrays()
    assert set(here) == set(there)
    assert bool(here) == (name == "mf")
    for kept in here:
        np.testing.assert_array_equal(here[kept], there[kept])


SAMPLED = Plan(
    noise_multiplier=1.0,
    delta=1e-6,
    clip_norm=8.0,
    sampler="poisson",
    sampling_rate=0.5,
    noise="central",
    aggregation="plain",
    accountant="rdp",
    simulated_noise=True,
)
NOISY = Plan(epsilon=4.0, delta=1e-5, clip_norm=8.0, simulated_noise=True)


@pytest.mark.parametrize(
    ("name", "people", "plan"),
    [
        ("ease", SILOS, Plan(aggregation="secure", clip_norm=8.0)),
        ("mf", SILOS, Plan(aggregation="secure", clip_norm=8.0)),
        ("ease", SILOS, NOISY),
        ("ease", SILOS, NOISY.but(noise="central")),
        ("ease", DEVICES, SAMPLED),
        ("mf", DEVICES, SAMPLED),
    ],
    ids=["masks", "masks of updates", "noise of each", "central noise", "sample", "sample that keeps"],
)
def test_masks_noise_and_samples_are_those_of_the_local_engine(
    name: str, people: Population, plan: Plan, cluster: Cluster, tmp_path: Path
) -> None:
    local, ray = LocalEngine(people, block=BLOCK), RayEngine(people, cluster, block=BLOCK)
    assert trained(ray, name, plan, tmp_path) == trained(local, name, plan, tmp_path)


@pytest.mark.parametrize("name", ["ials", "mf"])
def test_an_organisation_sums_its_own_rows_on_its_cluster(name: str, cluster: Cluster, tmp_path: Path) -> None:
    model, users = registry.build({"name": name, **SMALL[name]}), SILOS.client(2)
    start = model.init(ITEMS, {}, 0)
    state = run_rounds(model, start, LocalEngine(SILOS), Plan(), rounds=1)
    here, there = FolderStore(tmp_path, "here"), FolderStore(tmp_path, "there")
    for attempt, before in enumerate((start, state, state)):  # the last finds what the one before it has kept
        spec = model.next_round(before)
        assert spec is not None
        expected = contribution(IN_TURN, model, spec, before, users, here, BLOCK)
        found = contribute_on(cluster, model, spec, before, users, there, BLOCK)
        np.testing.assert_array_equal(found.flat, expected.flat)
        here.commit(0, attempt)
        assert attempt or not there.arrays()  # nothing is final before it is committed
        there.commit(0, attempt)
        assert set(here.arrays()) == set(there.arrays())
        for kept, values in here.arrays().items():
            np.testing.assert_array_equal(values, there.arrays()[kept])
    assert bool(here.arrays()) == (name == "mf")


@pytest.mark.parametrize("kind", ["user_sum", "client_update"])
def test_no_call_sees_two_organisations_or_more_than_a_block(kind: Any, cluster: Cluster) -> None:
    people = marked([LOG[:80], LOG[80:81], LOG[81:]])
    witness, done = Marked(3, BLOCK, kind), list[int]()
    state = run_rounds(witness, State(0), RayEngine(people, cluster, BLOCK, done.append), Plan())
    sizes = np.diff(people.block.user_ptr[people.client_ptr])
    assert state["counts"].tolist() == sizes.tolist()
    calls, mixed, large = state["calls"].tolist()
    assert mixed == 0
    assert (calls > 3, large > 0) == ((False, True) if kind == "client_update" else (True, False))
    assert state["alone"].tolist() == [calls]
    assert done == sorted(done)
    assert done[-1] == people.block.n_users


def test_devices_share_blocks_and_are_known_to_be_many_clients(cluster: Cluster) -> None:
    witness = Marked(ITEMS, BLOCK, "client_update")
    state = run_rounds(witness, State(0), RayEngine(DEVICES, cluster, BLOCK), Plan())
    calls, _, large = state["calls"].tolist()
    assert 1 < calls < len(DEVICES) / 2
    assert (large, state["alone"].tolist()) == (0, [0])


def test_rows_are_sent_once_for_all_rounds(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    sent, put = list[str](), ray.put

    def counted(value: Any) -> Any:
        sent.append(type(value).__name__)
        return put(value)

    monkeypatch.setattr(ray, "put", counted)
    summand = PowerIteration(ITEMS, rounds=5)
    local = run_rounds(summand, summand.start(), LocalEngine(SILOS, block=BLOCK), Plan())
    state = run_rounds(summand, summand.start(), RayEngine(SILOS, cluster, block=BLOCK), Plan())
    np.testing.assert_array_equal(state["v"], local["v"])
    parts = sum(len(list(SILOS.client(c).ranges(BLOCK))) for c in range(3))
    assert parts > 4
    assert sent.count("tuple") == 5
    assert sent.count("UserBlock") == parts
    assert len(sent) == 5 + parts


def test_what_a_lost_worker_did_is_done_again(
    cluster: Cluster, told: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told.clear()
    state = run_rounds(Mortal(ITEMS, BLOCK, folder=tmp_path), State(0), RayEngine(SILOS, cluster, BLOCK), Plan())
    expected = run_rounds(Marked(ITEMS, BLOCK), State(0), LocalEngine(SILOS, block=BLOCK), Plan())
    for name in ("counts", "calls"):
        assert state[name].tolist() == expected[name].tolist()
    assert len(list(tmp_path.iterdir())) == 1
    assert told == ["a worker of Ray was lost (WorkerCrashedError); its users are summed again"]
    assert capfd.readouterr().out == ""  # the result of a command is printed there, and nothing else


def test_workers_that_keep_dying_end_the_training(cluster: Cluster, tmp_path: Path) -> None:
    one, summand = population_of([LOG[:20]], ITEMS), Mortal(ITEMS, BLOCK, folder=tmp_path, deaths=100)
    with pytest.raises(EnvironmentFault, match=r"3 workers of Ray were lost over the same users .* use fewer workers"):
        run_rounds(summand, State(0), RayEngine(one, cluster), Plan())
    assert len(list(tmp_path.iterdir())) == 3
    state = run_rounds(Marked(ITEMS, BLOCK), State(0), RayEngine(one, cluster), Plan())
    assert state["counts"].sum() == len(one.block.item)


def test_what_a_summand_raises_is_raised_here(cluster: Cluster) -> None:
    with pytest.raises(PlanError) as mistake:
        run_rounds(Failing(ITEMS, BLOCK), State(0), RayEngine(SILOS, cluster), Plan())
    assert type(mistake.value) is PlanError
    assert str(mistake.value) == "part 'counts' is not what was agreed; ask again"
    with pytest.raises(MemoryError):
        run_rounds(Failing(ITEMS, BLOCK, memory=True), State(0), RayEngine(SILOS, cluster), Plan())


def test_a_model_that_workers_do_not_have_is_named(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    here = types.ModuleType("installed_here_alone")
    monkeypatch.setitem(sys.modules, here.__name__, here)
    here.Model = type("Model", (Marked,), {"__module__": here.__name__})  # type: ignore[attr-defined]
    with pytest.raises(EnvironmentFault, match=r"No module named 'installed_here_alone'\); install the same packages"):
        run_rounds(here.Model(ITEMS, BLOCK), State(0), RayEngine(SILOS, cluster), Plan())


def test_sums_and_rows_beyond_the_shared_memory_go_to_disk(cluster: Cluster) -> None:
    wide = population_of([[[[0]]] * 3, [[[1]]] * 3, [[[2]]] * 3], 6_000_000)
    state = run_rounds(Marked(6_000_000, BLOCK), State(0), RayEngine(wide, cluster), Plan())
    assert state["counts"][:4].tolist() == [3, 3, 3, 0]


def test_a_cluster_of_our_own_is_ours_alone(cluster: Cluster) -> None:
    import ray

    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.partition(":")
    assert host == "127.0.0.1"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    folder = Path(ray._private.worker._global_node.get_session_dir_path()).parents[1]
    assert folder.name.startswith("coterie-ray-")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: it asks which address this machine would send from
        outside = probe.getsockname()[0]
    if outside != host:
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((outside, int(port)), 5).close()


def test_a_process_in_a_cluster_stays_in_it(cluster: Cluster) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    for wanted in (None, "auto", address):
        with open_cluster(wanted, workers=1) as again:
            assert again.count == 1
    assert ray.is_initialized()
    with (
        pytest.raises(ConfigError, match=r"ray_address 127.0.0.1:1: this process is in the cluster at 127.0.0.1"),
        open_cluster("127.0.0.1:1"),
    ):
        pass


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ray") / "shops.parquet"
    coterie.market(shops=3, customers=120, items=30, baskets=500).log.frame.write_parquet(path)
    return path


def asked(shops: Path, output: Path, engine: str) -> Any:
    content = {
        "data": {"logs": [str(shops)]},
        "model": {"name": "ease"},
        "run": {"output": str(output), "engine": engine, "block": BLOCK},
    }
    return build(content, "test")


def test_a_training_with_ray_ends_with_the_same_model(cluster: Cluster, shops: Path, tmp_path: Path) -> None:
    runs = {engine: run_training(asked(shops, tmp_path / engine, engine)) for engine in ("local", "ray")}
    assert [run.result["engine"] for run in runs.values()] == ["local", "ray"]
    local, ray = ((tmp_path / engine / "model.safetensors").read_bytes() for engine in runs)
    assert ray == local
    assert runs["ray"].result["metrics"] == runs["local"].result["metrics"]


def test_the_table_of_a_buyer_is_made_on_the_cluster_too(
    cluster: Cluster, shops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, begin = list[str](), Cluster.begin
    monkeypatch.setattr(Cluster, "begin", lambda self, *round: begun.append("") or begin(self, *round))
    run_comparison(asked(shops, tmp_path / "none", "ray"), ("none",))
    assert begun


def test_a_command_joins_a_cluster_by_its_address(cluster: Cluster, shops: Path, tmp_path: Path) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    done = command("train", shops, "--model", "ease", "--ray-address", address, "--output", tmp_path / "run")
    assert (done.returncode, "connecting to Ray" in done.stderr) == (0, True), done.stderr
    assert json.loads(done.stdout)["engine"] == "ray"
    run_training(asked(shops, tmp_path / "local", "local"))
    found, expected = (tmp_path / name / "model.safetensors" for name in ("run", "local"))
    assert found.read_bytes() == expected.read_bytes()


def test_a_cluster_of_another_process_leaves_nothing_behind(tmp_path: Path) -> None:
    lines = """
        import os
        from coterie.engines.ray import open_cluster
        with open_cluster(workers=1, store_bytes=100 << 20) as first:
            import ray
            with open_cluster() as second:
                assert first.count == second.count == 1
            assert ray.is_initialized()  # the first is still there
            print(ray._private.worker._global_node.get_session_dir_path(), flush=True)
        assert not ray.is_initialized()
        assert not [name for name in os.environ if name.startswith("RAY_AUTH_TOKEN")]
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    clean["TMPDIR"] = str(tmp_path)  # too long for sockets
    words = [sys.executable, "-c", textwrap.dedent(lines)]
    done = subprocess.run(words, env=clean, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    session = Path(done.stdout.strip())
    assert session.parents[1].name.startswith("coterie-ray-")
    assert session.parents[2].is_dir()
    assert not session.parents[1].exists()


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`coterie` in a process of its own, which has the token of this one's cluster."""
    words = [sys.executable, "-m", "coterie", *map(str, arguments), "--engine", "ray", "--json"]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
