"""Roll-outs: every step from champion to challenger and back, and what is refused before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coterie.errors import ConfigError, RunError
from coterie.serving import rollout
from coterie.serving.config import ModelSettings
from coterie.serving.store import ServingStore
from coterie.serving.versions import register
from tests.serving.versions import folders

SETTINGS = ModelSettings()


@pytest.fixture
def champion(store: ServingStore, runs: list[Path]) -> ServingStore:
    """A store in which the first run answers."""
    register(store, SETTINGS, runs[0])
    return store


def state(store: ServingStore) -> tuple[int, int | None, float, int | None]:
    found = store.rollout()
    assert found is not None
    assert found.changed_at > 0
    return found.champion, found.challenger, found.share, found.previous


def test_a_challenger_gets_more_and_more_and_becomes_the_champion(champion: ServingStore, runs: list[Path]) -> None:
    rollout.start(champion, SETTINGS, runs[1], 0.1)
    assert state(champion) == (1, 2, 0.1, None)
    rollout.change_share(champion, 0.5)
    assert state(champion) == (1, 2, 0.5, None)
    rollout.finish(champion)
    assert state(champion) == (2, None, 0.0, 1)
    rollout.back(champion)
    assert state(champion) == (1, None, 0.0, None)


def test_back_drops_the_challenger_first(champion: ServingStore, runs: list[Path]) -> None:
    rollout.swap(champion, SETTINGS, runs[1])
    rollout.start(champion, SETTINGS, runs[2], 0.1)
    assert state(champion) == (2, 3, 0.1, 1)
    rollout.back(champion)
    assert state(champion) == (2, None, 0.0, 1)
    rollout.back(champion)
    assert state(champion) == (1, None, 0.0, None)
    with pytest.raises(ConfigError, match="nothing to go back to: version 1"):
        rollout.back(champion)


def test_what_was_rolled_back_may_be_tried_again(champion: ServingStore, runs: list[Path]) -> None:
    rollout.swap(champion, SETTINGS, runs[1])
    rollout.back(champion)
    rollout.start(champion, SETTINGS, runs[1], 0.2)
    assert state(champion) == (1, 2, 0.2, None)
    assert len(champion.versions()) == 2


def test_the_first_run_of_a_store_can_be_swapped_in(store: ServingStore, runs: list[Path]) -> None:
    rollout.swap(store, SETTINGS, runs[0])
    assert state(store) == (1, None, 0.0, None)


@pytest.mark.parametrize("how", ["start", "swap"])
@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (folders.without_manifest, "'unsigned'"),
        (folders.with_changed_result, "'tampered'"),
        (lambda run: folders.resigned(run, signed_at="2020-01-01T00:00:00+00:00"), "'older'"),
        (lambda run: folders.resigned(run, signed_at=None), "'older'"),
        (lambda run: (run / "model.safetensors").unlink() or folders.resigned(run), "the run folder is not complete"),
    ],
)
def test_what_is_refused_is_not_written(
    champion: ServingStore, runs: list[Path], how: str, spoil: Any, sentence: str
) -> None:
    before = (champion.rollout(), champion.versions())
    spoil(runs[1])
    with pytest.raises(RunError, match=sentence):
        _asked(champion, runs[1], how)
    with pytest.raises(RunError, match="is version 1, which answers already"):
        _asked(champion, runs[0], how)
    with pytest.raises(RunError, match="no such run folder"):
        _asked(champion, runs[1] / "none", how)
    assert (champion.rollout(), champion.versions()) == before


def _asked(store: ServingStore, run: Path, how: str) -> None:
    if how == "start":
        rollout.start(store, SETTINGS, run, 0.5)
    else:
        rollout.swap(store, SETTINGS, run)


def test_what_is_allowed_is_kept_with_the_version(champion: ServingStore, runs: list[Path]) -> None:
    folders.with_changed_result(runs[1])
    rollout.start(champion, ModelSettings(allow=("tampered", "older")), runs[1], 0.5)
    assert rollout.show(champion)["versions"][1]["allowed"] == ["older", "tampered"]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_share_is_between_0_and_1(champion: ServingStore, runs: list[Path], share: float) -> None:
    with pytest.raises(ConfigError, match="share must be between 0 and 1"):
        rollout.start(champion, SETTINGS, runs[1], share)
    rollout.start(champion, SETTINGS, runs[1], 0.5)
    with pytest.raises(ConfigError, match="share must be between 0 and 1"):
        rollout.change_share(champion, share)
    assert state(champion) == (1, 2, 0.5, None)


def test_what_makes_no_sense_is_refused_with_the_remedy(
    store: ServingStore, champion: ServingStore, runs: list[Path]
) -> None:
    with pytest.raises(ConfigError, match="there is no challenger; begin with"):
        rollout.change_share(champion, 0.5)
    with pytest.raises(ConfigError, match="there is no challenger; begin with"):
        rollout.finish(champion)
    rollout.start(champion, SETTINGS, runs[1], 0.5)
    with pytest.raises(ConfigError, match="version 2 is the challenger already"):
        rollout.start(champion, SETTINGS, runs[2], 0.5)


def test_before_the_first_run_there_is_nothing_to_roll_out(store: ServingStore, runs: list[Path]) -> None:
    for step in (rollout.finish, rollout.back):
        with pytest.raises(ConfigError, match="nothing is served from this store yet"):
            step(store)
    with pytest.raises(ConfigError, match="nothing is served from this store yet"):
        rollout.start(store, SETTINGS, runs[0], 0.5)
    assert rollout.show(store)["champion"] is None
