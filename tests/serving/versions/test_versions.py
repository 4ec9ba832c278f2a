"""What answers: runs are taken in, refused, swapped under load, and leave no memory behind."""

from __future__ import annotations

import gc
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import coterie
from coterie.errors import ConfigError, DataError, RunError
from coterie.files import home
from coterie.serving import rollout, versions
from coterie.serving.acceptance import protects_peers_only, version_notes
from coterie.serving.config import ModelSettings
from coterie.serving.store import ServingStore
from coterie.serving.versions import Versions
from tests.serving.versions import folders

SETTINGS = ModelSettings()


@contextmanager
def serving(store: ServingStore, run: Path | None, **settings: Any) -> Iterator[Versions]:
    opened = Versions(store, ModelSettings(**settings))
    opened.open(run)
    try:
        yield opened
    finally:
        opened.close()


def followed(serving: Versions) -> Versions:
    serving.follow()
    assert serving.wait(30)
    return serving


# --- opening ---------------------------------------------------------------------------------------------------------


def test_the_first_run_becomes_the_champion(store: ServingStore, runs: list[Path]) -> None:
    with serving(store, runs[0]) as opened:
        version = opened.current().version
        assert (version.id, version.run, version.model, version.allowed) == (1, str(runs[0]), "ease", ())
        assert version.signed_at is not None
        assert opened.choose("ann") == (opened.current(), "champion")
        assert opened.all_loaded() == [(opened.current(), 1.0)]
        assert opened.signer(1) is not None
        nothing = dict.fromkeys(("challenger", "previous", "loading", "failed"))
        assert opened.status() == {"champion": 1, "share": 0.0, **nothing}


def test_a_newer_run_becomes_the_champion_and_the_old_one_previous(store: ServingStore, runs: list[Path]) -> None:
    with serving(store, runs[0]):
        pass
    with serving(store, runs[1]) as opened:
        assert opened.current().version.run == str(runs[1])
        assert opened.status()["previous"] == 1


def test_a_restart_goes_on_with_what_answered_before(store: ServingStore, runs: list[Path]) -> None:
    """The unit file names the first run still; a swap, and a roll-back, hold."""
    with serving(store, runs[0]):
        rollout.swap(store, SETTINGS, runs[1])
    with serving(store, runs[0]) as opened:
        assert opened.current().version.run == str(runs[1])
    rollout.back(store)
    for named in (runs[1], None):
        with serving(store, named) as opened:
            assert opened.current().version.run == str(runs[0])
    assert len(store.versions()) == 2


def test_a_run_that_was_trained_again_in_its_place_is_a_new_version(store: ServingStore, runs: list[Path]) -> None:
    with serving(store, runs[0]):
        pass
    folders.resigned(runs[0])
    with serving(store, runs[0]) as opened:
        assert (opened.current().version.id, opened.status()["previous"]) == (2, 1)


def test_a_link_is_followed_once(store: ServingStore, runs: list[Path], tmp_path: Path) -> None:
    """What `current` points to later is another version; the old one is still where it was."""
    link = tmp_path / "current"
    link.symlink_to(runs[0])
    with serving(store, link) as opened:
        assert opened.current().version.run == str(runs[0])


def test_with_nothing_to_serve_it_says_so(store: ServingStore) -> None:
    with pytest.raises(ConfigError, match="there is nothing to serve in this store yet"):
        Versions(store, SETTINGS).open()
    with pytest.raises(RunError, match="no run is loaded yet"):
        Versions(store, SETTINGS).choose(None)


# --- acceptance ------------------------------------------------------------------------------------------------------

SPOILT = [
    ("unsigned", folders.without_manifest, "has no manifest.json"),
    ("tampered", folders.with_changed_result, "result.json: changed since it was signed"),
    ("tampered", folders.with_changed_manifest, "the signature does not match"),
    ("tampered", folders.with_a_truncated_manifest, "truncated or not JSON"),
]


@pytest.mark.parametrize(("fault", "spoil", "sentence"), SPOILT)
def test_what_is_not_as_it_was_signed_is_refused_unless_allowed_by_name(
    store: ServingStore, runs: list[Path], fault: str, spoil: Any, sentence: str
) -> None:
    spoil(runs[1])
    others = {"unsigned", "tampered", "older"} - {fault}
    for allow in ((), tuple(others)):
        with pytest.raises(RunError, match=rf"{sentence}.*unless `allow` names it \('{fault}'\)"):
            Versions(store, ModelSettings(allow=allow)).open(runs[1])
    assert store.versions() == []
    assert store.rollout() is None
    with serving(store, runs[1], allow=(fault,)) as opened:
        assert opened.current().version.allowed == (fault,)
        assert opened.current().version.signed_at is None
        assert len(opened.current().run.recommend(k=3)) == 3


def test_an_unknown_signer_is_refused_and_what_is_also_changed_needs_both(
    store: ServingStore, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = _signed_elsewhere(runs[0], tmp_path, monkeypatch)
    with pytest.raises(RunError, match=f"unknown key {signer}.*'unsigned'"):
        Versions(store, SETTINGS).open(runs[0])
    with serving(store, runs[0], trust=signer) as opened:
        assert opened.current().version.allowed == ()
        assert opened.signer(1) == signer
    folders.with_changed_result(runs[0])
    for allow in ("unsigned", "tampered"):
        with pytest.raises(RunError, match="is not served unless"):
            Versions(store, ModelSettings(allow=(allow,))).open(runs[0])
    with serving(store, runs[0], allow=("unsigned", "tampered", "older")) as opened:
        assert opened.current().version.allowed == ("older", "tampered", "unsigned")


def _signed_elsewhere(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    with monkeypatch.context() as patch:
        patch.setenv("COTERIE_HOME", str(tmp_path / "theirs"))
        assert home() == tmp_path / "theirs"
        folders.resigned(folder)
    from coterie.secure.keys import fingerprint

    return fingerprint(bytes.fromhex(folders.manifest(folder)["public_key"]))


@pytest.mark.parametrize("signed_at", ["2020-01-01T00:00:00+00:00", None, "yesterday", 5, "2020-01-01T00:00:00"])
def test_an_older_run_is_refused(store: ServingStore, runs: list[Path], signed_at: Any) -> None:
    """A run whose time nobody says is older than every other; rolling back is another matter."""
    folders.resigned(runs[2], signed_at=signed_at)
    with serving(store, runs[0]):
        pass
    with pytest.raises(RunError, match=r"before version 1 that answers now.*or allow it by name \('older'\)"):
        Versions(store, SETTINGS).open(runs[2])
    assert [one.id for one in store.versions()] == [1]
    with serving(store, runs[2], allow=("older",)) as opened:
        assert (opened.current().version.id, opened.current().version.allowed) == (2, ("older",))


def test_the_first_run_of_a_store_may_be_of_any_time(store: ServingStore, runs: list[Path]) -> None:
    folders.resigned(runs[0], signed_at=None)
    with serving(store, runs[0]) as opened:
        assert (opened.current().version.allowed, opened.current().version.signed_at) == ((), None)
    with serving(store, runs[1]) as opened:
        assert opened.current().version.id == 2, "every run with a time is newer"


def test_what_was_allowed_once_is_checked_again_with_each_start(store: ServingStore, runs: list[Path]) -> None:
    folders.without_manifest(runs[0])
    with serving(store, runs[0], allow=("unsigned",)):
        pass
    with pytest.raises(RunError, match="'unsigned'"):
        Versions(store, SETTINGS).open()


def test_another_run_in_the_place_of_a_version_is_not_that_version(store: ServingStore, runs: list[Path]) -> None:
    with serving(store, runs[1]):
        pass
    shutil.rmtree(runs[1])
    shutil.copytree(runs[0], runs[1])  # signed by us, and old
    with pytest.raises(RunError, match="is another run than the one that became version 1"):
        Versions(store, SETTINGS).open()


def test_what_cannot_be_read_is_not_registered(store: ServingStore, runs: list[Path]) -> None:
    (runs[0] / "catalogue.parquet").write_bytes(b"PAR1 and no more")
    folders.resigned(runs[0])
    with pytest.raises(RunError, match="written by another version"):
        Versions(store, SETTINGS).open(runs[0])
    with pytest.raises(RunError, match="no such run folder"):
        Versions(store, SETTINGS).open(runs[0] / "none")
    assert store.versions() == []


# --- marks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("privacy", "clients", "more", "marks"),
    [
        ({"epsilon": "none", "noise": "none"}, True, {}, []),
        ({"epsilon": 4.0, "noise": "central"}, False, {}, []),
        ({"epsilon": 4.0, "noise": "central"}, True, {}, ["peers only"]),
        ({"epsilon": 4.0, "noise": "central"}, False, {"kept": "mix"}, ["peers only"]),
        ({"epsilon": 4.0, "noise": "central"}, False, {"kept": "federated"}, []),
        ({"epsilon": 4.0, "noise": "central", "releasable": False}, False, {}, ["drawn from the seed"]),
        ({}, True, {}, []),
    ],
)
def test_a_mix_beside_a_claimed_epsilon_is_marked(
    trained: coterie.Run, privacy: dict[str, Any], clients: bool, more: dict[str, Any], marks: list[str]
) -> None:
    assert len(trained.clients) == 2
    run = coterie.Run(
        trained.model,
        trained.state,
        trained.catalogue,
        {"privacy": privacy, **more},
        trained.clients if clients else {},
    )
    notes = version_notes(run)
    assert len(notes) == len(marks)
    assert all(mark in note for mark, note in zip(marks, notes, strict=True))
    assert protects_peers_only(run) is ("peers only" in " ".join(marks))


# --- who answers -----------------------------------------------------------------------------------------------------


def arms(opened: Versions, units: int = 2_000) -> set[str]:
    return {f"u{n}" for n in range(units) if opened.choose(f"u{n}")[1] == "challenger"}


def test_a_user_stays_with_one_arm_also_when_its_share_grows(store: ServingStore, runs: list[Path]) -> None:
    with serving(store, runs[0]) as opened:
        rollout.start(store, SETTINGS, runs[1], 0.1)
        few = arms(followed(opened))
        assert 0.07 < len(few) / 2_000 < 0.13
        assert few == arms(opened)
        rollout.change_share(store, 0.5)
        many = arms(followed(opened))
        assert 0.45 < len(many) / 2_000 < 0.55
        assert few < many
        assert [share for _, share in opened.all_loaded()] == [0.5, 0.5]
        served, arm = opened.choose(next(iter(many)))
        assert (served.version.id, arm) == (2, "challenger")
        for share, expected in ((0.0, 0), (1.0, 2_000)):
            rollout.change_share(store, share)
            assert len(arms(followed(opened))) == expected


def test_another_process_deals_alike_and_another_challenger_anew(store: ServingStore, runs: list[Path]) -> None:
    with serving(store, runs[0]) as opened:
        rollout.start(store, SETTINGS, runs[1], 0.5)
        first = arms(followed(opened))
        with serving(store, None) as other:
            assert arms(other) == first
        rollout.back(store)
        rollout.start(store, SETTINGS, runs[2], 0.5)
        second = arms(followed(opened))
        assert 0.4 < len(first & second) / len(first) < 0.6


def test_guests_are_dealt_by_chance(store: ServingStore, runs: list[Path]) -> None:
    with serving(store, runs[0]) as opened:
        rollout.start(store, SETTINGS, runs[1], 0.3)
        followed(opened)
        drawn = [opened.choose(None)[1] for _ in range(2_000)]
        assert 0.25 < drawn.count("challenger") / 2_000 < 0.35


# --- reloading -------------------------------------------------------------------------------------------------------


def test_a_swap_under_load_drops_no_question(store: ServingStore, runs: list[Path]) -> None:
    answered, failed, stop = set[int](), list[BaseException](), threading.Event()

    def ask(opened: Versions) -> None:
        while not stop.is_set():
            try:
                served, _ = opened.choose("ann")
                assert len(served.run.recommend([served.run.items[0]], 3, explain=False)) == 3
                answered.add(served.version.id)
            except BaseException as error:  # noqa: BLE001 - whatever it is, a question was dropped
                failed.append(error)

    with serving(store, runs[0]) as opened:
        threads = [threading.Thread(target=ask, args=(opened,)) for _ in range(4)]
        for one in threads:
            one.start()
        for run in (runs[1], runs[2]):
            rollout.swap(store, SETTINGS, run)
            began = time.perf_counter()
            opened.follow()
            assert time.perf_counter() - began < 0.05, "asking for it waits for nothing"
            assert opened.wait(30)
            time.sleep(0.05)
        rollout.back(store)
        followed(opened)
        stop.set()
        for one in threads:
            one.join()
        assert opened.current().version.id == 2
    assert failed == []
    assert answered == {1, 2, 3}


def test_what_cannot_be_loaded_leaves_the_old_one_answering_and_is_tried_again(
    store: ServingStore, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "RETRY", 0.05)
    with serving(store, runs[0]) as opened:
        rollout.swap(store, SETTINGS, runs[1])
        hidden = runs[1].rename(runs[1].with_name("away"))
        status = followed(opened).status()
        assert (status["champion"], status["failed"]["version"]) == (1, 2)
        assert "no such run folder" in status["failed"]["reason"]
        assert opened.choose("ann")[0].version.id == 1
        hidden.rename(runs[1])
        deadline = time.monotonic() + 30
        while opened.status()["failed"] is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (opened.status()["champion"], opened.status()["failed"]) == (2, None)


def test_a_challenger_that_cannot_be_loaded_costs_the_champion_nothing(store: ServingStore, runs: list[Path]) -> None:
    with serving(store, runs[0]):
        rollout.start(store, SETTINGS, runs[1], 0.5)
    folders.with_changed_result(runs[1])
    with serving(store, None) as opened:
        assert opened.all_loaded() == [(opened.current(), 1.0)]
        assert opened.status()["failed"]["version"] == 2
        rollout.back(store)
        assert followed(opened).status()["failed"] is None


def test_whatever_fails_in_loading_is_reported(
    store: ServingStore, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(store, runs[0]) as opened:
        rollout.swap(store, SETTINGS, runs[1])

        def broken(_: Any) -> None:
            raise ZeroDivisionError("nobody expects this")

        opened.prepare = broken
        assert followed(opened).status()["failed"]["reason"] == "unexpected ZeroDivisionError: nobody expects this"
        opened.prepare = lambda _: None
        assert followed(opened).current().version.id == 2


def test_an_old_model_is_freed(store: ServingStore, runs: list[Path]) -> None:
    with serving(store, runs[0]) as opened:
        old = weakref.ref(opened.current().run)
        kept, _ = opened.choose(None)
        rollout.swap(store, SETTINGS, runs[1])
        followed(opened)
        gc.collect()
        assert old() is kept.run, "a question that is being answered keeps it"
        del kept
        gc.collect()
        assert old() is None


def test_a_store_that_names_no_version_is_said(store: ServingStore, runs: list[Path]) -> None:
    with pytest.raises(DataError, match="knows no version 7"):
        versions.version_of(store, 7)
