"""What an exported model scores, what its files hold, who signed them, and which runs are not exported."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coterie
from coterie.data.market import market
from coterie.errors import ConfigError, DataError, ModelError, RunError
from coterie.experiment.run import Run
from coterie.experiment.signing import verify_folder
from coterie.serving.private import browser_file, onnx_export
from coterie.serving.private.browser_file import BrowserModel
from coterie.serving.private.export import export
from coterie.serving.private.quantise import added, neighbours, related_blocks
from coterie.types import Ragged

MODELS = ("cart", "ease", "cosine", "ials", "mf", "popularity", "sequence", "subspace")
ADDITIVE = ("cart", "ease", "cosine")
ALL = 10**6


def trained(name: str, *, compare: bool = False, **parameters: float) -> Run:
    log = market(shops=3, customers=200, items=80, baskets=1500, seed=0).log
    return coterie.train(log, model=name, seed=0, settings={"evaluation": {"compare": compare}}, **parameters)


@pytest.fixture(scope="module", params=MODELS)
def each(request: pytest.FixtureRequest) -> Run:
    return trained(str(request.param))


@pytest.fixture(scope="module")
def cart() -> Run:
    return trained("cart", popularity_weight=0.3)


def baskets(run: Run, number: int = 60) -> list[list[str]]:
    rng = np.random.default_rng(1)
    return [rng.choice(run.items, rng.integers(1, 9), replace=False).tolist() for _ in range(number)]


def positions(model: BrowserModel, lists: list[list[str]]) -> Ragged:
    place = {id: at for at, id in enumerate(model.ids)}
    return Ragged.of([[place[id] for id in one] for one in lists])


def opened(folder: Path) -> BrowserModel:
    return BrowserModel.unpack(next(folder.glob("model-*.bin")).read_bytes())


def test_every_score_of_every_pair_is_within_half_a_step(each: Run) -> None:
    found = neighbours(each, ALL)
    for start, rows in related_blocks(each):
        for at, exact in enumerate(rows, start):
            row, entries = np.zeros(len(each.items)), slice(found.ptr[at], found.ptr[at + 1])
            row[found.item[entries]] = found.scale[at] * found.value[entries]
            assert np.abs(row - exact).max() <= found.scale[at] * 0.5001
            assert exact[at] == 0


def test_the_neighbours_that_weigh_most_are_kept(cart: Run) -> None:
    few, every = neighbours(cart, 7), neighbours(cart, ALL)
    for at in range(len(cart.items)):
        kept, whole = slice(few.ptr[at], few.ptr[at + 1]), slice(every.ptr[at], every.ptr[at + 1])
        sizes = np.sort(np.abs(every.value[whole].astype(int)))[::-1]
        assert np.sort(np.abs(few.value[kept].astype(int)))[::-1].tolist() == sizes[:7].tolist()


@pytest.mark.parametrize("name", ADDITIVE)
def test_with_all_neighbours_baskets_score_as_the_run_scores_them(name: str, tmp_path: Path) -> None:
    run, lists = trained(name), baskets(trained(name))
    export(run, tmp_path / "out", neighbours=ALL)
    model = opened(tmp_path / "out")
    asked = positions(model, lists)
    order = [run.items.index(id) for id in model.ids]
    exact = run.scores(lists)[:, order]
    error = [model.near.scale[asked[q]].sum() / 2 + model.added_step / 2 for q in range(len(lists))]
    for got, want, most, items in zip(
        model.scores(asked), exact, error, map(asked.__getitem__, range(60)), strict=True
    ):
        others = np.setdiff1d(np.arange(len(want)), items)
        assert np.abs(got - want)[others].max() <= most * 1.001 + 1e-6


def test_the_stated_agreement_is_what_the_file_gives(each: Run, tmp_path: Path) -> None:
    stated = export(each, tmp_path / "out").overlap
    model, lists = opened(tmp_path / "out"), baskets(each, 150)
    scores, exact = model.scores(positions(model, lists)), each.rank(lists, 10)
    shares = []
    for one, basket, want in zip(scores, lists, exact, strict=True):
        best = [model.ids[i] for i in np.argsort(-one, kind="stable") if model.ids[i] not in basket][:10]
        shares.append(len(set(best) & set(want)) / 10)
    assert stated > 0.5
    assert np.mean(shares) == pytest.approx(stated, abs=0.12)  # other baskets: these are not drawn by popularity


def test_cart_agrees_on_more_than_nine_of_ten(cart: Run, tmp_path: Path) -> None:
    assert export(cart, tmp_path / "out").overlap > 0.93


def test_an_empty_basket_gets_popularity_in_its_order(cart: Run, tmp_path: Path) -> None:
    export(cart, tmp_path / "out")
    model = opened(tmp_path / "out")
    assert list(model.ids[:10]) == cart.rank([[]], 10)[0]
    scores = model.scores(Ragged.of([[]]))[0]
    assert (np.diff(scores) <= 0).all()
    assert scores[0] == pytest.approx(cart.state["popularity"].max(), rel=1e-5)


def test_a_file_is_read_as_it_was_written_and_not_where_it_is_cut(cart: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    model = BrowserModel.of(cart, 20)
    small = model.pack()
    monkeypatch.setattr(browser_file, "SMALL", 10)
    large = model.pack()
    assert len(large) == len(small) + 2 * len(model.near.item)
    for content in (small, large):
        again = BrowserModel.unpack(content)
        lists = positions(model, baskets(cart))
        assert np.array_equal(again.scores(lists), model.scores(lists))
        assert (again.ids, again.titles) == (model.ids, model.titles)
        with pytest.raises(DataError, match="not whole"):
            BrowserModel.unpack(content[:-1])
    with pytest.raises(DataError, match="COTERIE1"):
        BrowserModel.unpack(b"something else, and long enough for a header")


def test_the_layout_is_the_documented_one(cart: Run) -> None:
    """Read with nothing but the documentation at hand."""
    content = BrowserModel.of(cart, 20).pack()
    magic, n, e, width, texts, _, _ = struct.unpack_from("<8sIIIIff", content)
    assert (magic, n, width) == (b"COTERIE1", len(cart.items), 2)
    ptr = struct.unpack_from(f"<{n + 1}I", content, 32)
    assert (ptr[0], ptr[-1]) == (0, e)
    assert max(struct.unpack_from(f"<{e}H", content, 32 + 4 * (2 * n + 1))) < n
    named = json.loads(content[-texts:])
    assert sorted(named["ids"]) == list(cart.items)
    assert named["titles"][0] == cart.catalogue.title(named["ids"][0])


def test_the_manifest_states_sizes_and_digests_and_is_signed(cart: Run, tmp_path: Path) -> None:
    made = export(cart, tmp_path / "out", fingerprint="f" * 64)
    manifest = verify_folder(tmp_path / "out")
    assert manifest == made.manifest
    assert manifest["fingerprint"] == "f" * 64
    (name,) = manifest["files"]
    content = (tmp_path / "out" / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == manifest["files"][name]
    assert manifest["sizes"] == {name: len(content)}
    assert manifest["files"][name].startswith(name.removeprefix("model-").removesuffix(".bin"))
    (tmp_path / "out" / name).write_bytes(content + b"!")
    with pytest.raises(RunError, match="changed since it was signed"):
        verify_folder(tmp_path / "out")


def test_equal_runs_give_equal_bytes(cart: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export(cart, tmp_path / name)
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()
    }


def test_what_must_not_leave_does_not(cart: Run, tmp_path: Path) -> None:
    private = {"epsilon": 4.0, "delta": 1e-6, "noise": "distributed", "releasable": True}
    mixed = trained("cart", compare=True)
    refused = {
        "drawn from the seed": replace(cart, result={"privacy": {**private, "releasable": False}}),
        "no-compare": replace(mixed, result={"privacy": private}),
        "own model or mix": replace(cart, result={"kept": "mix"}),
        "or mix": replace(cart, state=cart.state.updated(mix=np.array(0.5))),
    }
    for sentence, run in refused.items():
        for format in ("browser", "onnx"):
            with pytest.raises(ModelError, match=sentence):
                export(run, tmp_path / "out", format)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    assert len(mixed.clients) > 0
    assert export(mixed, tmp_path / "out").manifest["privacy"]["epsilon"] == "none"  # the federation's model alone
    assert export(replace(cart, result={"privacy": private}), tmp_path / "other").manifest["privacy"]["epsilon"] == 4.0


@pytest.mark.parametrize(
    ("given", "sentence"), [({"format": "onx"}, "did you mean 'onnx'"), ({"neighbours": 0}, "at least 1")]
)
def test_wrong_arguments_are_refused(cart: Run, tmp_path: Path, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        export(cart, tmp_path / "out", **given)


def test_a_folder_that_holds_something_is_left_alone(cart: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        export(cart, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", MODELS)
def test_onnx_scores_within_the_stated_error(name: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
    pytest.importorskip("onnx", reason="needs the extra 'export'")
    run = trained(name)
    made = export(run, tmp_path / "out", "onnx")
    session = runtime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    ids, lists = json.loads((tmp_path / "out" / "items.json").read_text())["ids"], [*baskets(run), []]
    hot = np.array([[id in basket for id in ids] for basket in lists], np.float32)
    (scores,) = session.run(["scores"], {"basket": hot})
    related = np.concatenate([rows for _, rows in related_blocks(run)])
    exact, error = hot[:-1] @ related + added(run), 8 * made.manifest["largest_error_per_item"]
    assert np.abs(scores[:-1] - exact).max() <= error + 1e-5
    assert scores[-1] == pytest.approx(run.scores([[]])[0], abs=1e-6)
    if name in ADDITIVE:
        outside = hot[:-1] == 0
        assert np.abs(scores[:-1] - run.scores(lists[:-1]))[outside].max() <= error + 1e-5
    held = session.get_modelmeta().custom_metadata_map
    assert held == {"fingerprint": made.manifest["fingerprint"] or ""}


def test_onnx_of_a_large_catalogue_is_refused_with_its_size(
    cart: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "MOST_ITEMS", 79)
    with pytest.raises(ModelError, match=r"80 items would have 0 MB .* at most 79 items; take --format browser"):
        export(cart, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()
