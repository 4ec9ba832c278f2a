"""What came of answers: known answers are recovered, nobody's made-up ids count, and memory stays bounded."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from coterie.serving import feedback as reporting
from coterie.serving import tally as tallying
from coterie.serving import tokens
from coterie.serving.feedback import Feedback, summary
from coterie.serving.tally import tally
from coterie.serving.words import Rollout, Version
from tests.serving.versions.clicks import ITEMS, SECRET, THETA, Traffic, as_frame, frames_of

APPEAL = np.random.default_rng(0).uniform(0.05, 0.5, ITEMS)
VERSIONS = {n: Version(n, f"runs/{n}", f"{n}" * 64, "ease", n, n) for n in (1, 2)}


def told(*frames: pl.DataFrame, rollout: Rollout | None = None, since: int | None = None) -> Feedback:
    return summary(tally(frames_of(*frames), SECRET, since), VERSIONS, rollout)


def impression(answer: str, *items: int, event: str = "i", positions: bool = True) -> list[tuple[object, ...]]:
    return [
        (event, "impression", 1, None, item, at if positions else None, answer)
        for at, item in enumerate(items, start=1)
    ]


# --- what is counted -------------------------------------------------------------------------------------------------


def test_every_figure_of_a_few_answers() -> None:
    first, second, third = (tokens.mint(SECRET, 1, None, "champion") for _ in range(3))
    frame = as_frame([
        *impression(first, 1, 2, 3),
        *impression(second, 1, 4),
        *impression(third, 5),
        ("c1", "click", 2, None, 2, None, first),
        ("c2", "click", 2, None, 3, None, first),  # the same answer: it was clicked, once
        ("a1", "add-to-cart", 3, None, 2, None, first),
        ("p1", "purchase", 4, None, 2, None, first),
        ("p1", "purchase", 4, None, 9, None, first),  # in the same order, but not recommended
        ("c3", "click", 2, None, 4, None, second),
        ("v1", "view", 2, None, 5, None, third),
    ])  # fmt: skip
    (one,) = told(frame).versions
    assert (one.version, one.run, one.shown, one.items_shown) == (1, "runs/1", 3, 6)
    assert [(s.count, s.of) for s in (one.click_through, one.add_to_cart, one.conversion)] == [(2, 3), (1, 3), (1, 3)]
    assert one.click_through.low == pytest.approx(0.2077, abs=1e-4)  # Wilson's interval for 2 of 3
    assert one.click_through.high == pytest.approx(0.9385, abs=1e-4)
    assert one.quality is None, "nothing tells how far people look"


def test_forged_ids_and_clicks_on_what_was_not_shown_count_for_nothing_and_are_said() -> None:
    true = tokens.mint(SECRET, 1, None, "champion")
    forged = [tokens.mint(b"another secret", 1, None, "champion"), "made up", true[:-1]]
    rows = [row for n, answer in enumerate(forged) for row in impression(answer, 1, event=f"f{n}")]
    rows += [*impression(true, 1), ("c", "click", 2, None, 7, None, true)]
    rows += [(f"c{n}", "click", 2, None, 1, None, answer) for n, answer in enumerate(forged)]
    found = told(as_frame(rows))
    assert [(one.shown, one.click_through.count) for one in found.versions] == [(1, 0)]
    assert any("3 recommendation ids were not made by this deployment" in note for note in found.notes)
    assert any("1 clicks, carts or purchases were of items that no impression reported" in note for note in found.notes)


def test_an_item_that_was_reported_twice_was_shown_once() -> None:
    answer = tokens.mint(SECRET, 1, None, "champion")
    again = [*impression(answer, 1, 2), *impression(answer, 1, 2, event="again", positions=False)]
    found = tally(frames_of(as_frame(again)), SECRET)
    assert found.cells.sort("item").rows() == [("A1", 1, 1, 0), ("A2", 2, 1, 0)]


def test_impressions_without_positions_are_in_their_order_and_single_ones_unknown() -> None:
    answer, other = (tokens.mint(SECRET, 1, None, "champion") for _ in range(2))
    rows = [*impression(answer, 5, 3, positions=False), *impression(other, 8, event="one", positions=False)]
    found = tally(frames_of(as_frame(rows)), SECRET)
    assert dict(found.cells.select("item", "position").rows()) == {"A5": 1, "A3": 2, "A8": 0}


def test_before_anything_was_shown_it_says_so() -> None:
    found = told(as_frame([]))
    assert found.versions == ()
    assert "no answer was reported as shown" in found.notes[0]
    assert found.examination is None


# --- position ---------------------------------------------------------------------------------------------------------


def test_exploration_recovers_examination_and_appeal() -> None:
    found = told(Traffic(1, "champion", 25_000, APPEAL, explore=0.5).frame(1))
    assert found.examination is not None
    assert found.examination.method == "randomised"
    assert found.examination.theta == pytest.approx(THETA, abs=0.12)
    quality = found.versions[0].quality
    assert quality is not None
    assert quality.rate == pytest.approx(_appeal_of_ranked(), rel=0.1)


def _appeal_of_ranked() -> float:
    """Mean gamma of the five items that the ranking shows."""
    traffic, rng = Traffic(1, "champion", 1, APPEAL), np.random.default_rng(9)
    return float(np.mean([APPEAL[traffic._items(rng)[0]].mean() for _ in range(5_000)]))


def test_without_exploration_em_recovers_them_where_the_ranking_says_little() -> None:
    found = told(Traffic(1, "champion", 10_000, APPEAL, ranked=False).frame(2))
    assert found.examination is not None
    assert found.examination.method == "regression-EM"
    assert found.examination.theta == pytest.approx(THETA, abs=0.05)
    quality = found.versions[0].quality
    assert quality is not None
    assert quality.rate == pytest.approx(APPEAL.mean(), rel=0.05)
    assert any("regression-EM" in note for note in found.notes)


def test_quality_does_not_depend_on_where_items_stood() -> None:
    """The same items, shown further down by one version: half of the clicks, the same quality."""
    rng, rows = np.random.default_rng(4), list[tuple[object, ...]]()
    for n in range(12_000):
        version = 1 + n % 2
        answer, item = tokens.mint(SECRET, version, None, "champion"), int(rng.integers(ITEMS))
        position = 1 if rng.random() < (0.9, 0.2)[version - 1] else int(rng.integers(2, 6))
        rows.append((f"i{n}", "impression", n, f"u{n}", item, position, answer))
        if rng.random() < THETA[position - 1] * APPEAL[item]:
            rows.append((f"c{n}", "click", n, f"u{n}", item, None, answer))
    found = told(as_frame(rows))
    first, second = found.versions
    assert first.click_through.rate is not None
    assert second.click_through.rate is not None
    assert second.click_through.rate < 0.7 * first.click_through.rate
    for one in (first, second):
        assert one.quality is not None
        assert one.quality.low is not None
        assert one.quality.high is not None
        assert one.quality.low < APPEAL.mean() < one.quality.high


# --- champion and challenger -----------------------------------------------------------------------------------------


def compared(challenger: np.ndarray, answers: int = 4_000) -> Feedback:
    traffic = Traffic(1, "champion", answers, APPEAL, ranked=False)
    other = replace(traffic, version=2, arm="challenger", appeal=challenger)
    return told(traffic.frame(5), other.frame(6), rollout=Rollout(1, 2, 0.5), since=0)


def test_a_better_challenger_is_found() -> None:
    found = {one.measure: one for one in compared(APPEAL * 1.5).comparison}
    assert set(found) == {"click_through", "add_to_cart", "conversion", "quality"}
    clicks = found["click_through"]
    assert clicks.p_value is not None
    assert clicks.p_value < 1e-6
    assert clicks.low is not None
    assert clicks.low > 0
    assert "does better, beyond chance" in clicks.note
    assert found["add_to_cart"].note.startswith("too early")
    quality = found["quality"]
    assert quality.champion.rate == pytest.approx(APPEAL.mean(), rel=0.1)
    assert quality.challenger.rate == pytest.approx(1.5 * APPEAL.mean(), rel=0.1)


def test_no_difference_is_not_found() -> None:
    clicks = compared(APPEAL).comparison[0]
    assert clicks.p_value is not None
    assert clicks.p_value > 0.01
    assert clicks.needed is not None
    assert "of each arm" in clicks.note or "no difference" in clicks.note


def test_a_test_that_finds_what_is_not_there_does_so_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users with many answers each: a test that took answers for independent would be wrong far more often."""
    monkeypatch.setattr(reporting, "RESAMPLES", 2)  # the intervals are not what is looked at
    rng, wrong = np.random.default_rng(7), 0
    for _ in range(400):
        arms = []
        for _arm in range(2):
            of = rng.integers(1, 30, 200)
            arms.append(np.stack([rng.binomial(of, rng.beta(1, 4, 200)), of], axis=1).astype(float))
        p_value = reporting._compared("click_through", *arms, whole=True).p_value
        wrong += p_value is not None and p_value < 0.05
    assert 0.02 < wrong / 400 < 0.085


def test_what_was_shown_before_the_challenger_came_is_not_compared() -> None:
    traffic = Traffic(1, "champion", 1_000, APPEAL * 0.1, start=0)
    now = replace(traffic, answers=2_000, appeal=APPEAL, start=10_000)
    other = replace(now, version=2, arm="challenger")
    found = told(traffic.frame(1), now.frame(2), other.frame(3), rollout=Rollout(1, 2, 0.5), since=10_000)
    assert found.comparison[0].champion.of == 2_000
    assert found.versions[0].shown == 3_000


def test_too_little_is_called_too_little() -> None:
    few = compared(APPEAL, answers=3).comparison[0]
    assert "too early" in few.note or "nothing to compare" in few.note


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [600, 7_000])
def test_whatever_fits_into_memory_the_figures_are_the_same(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = Traffic(1, "champion", 1_500, APPEAL, explore=0.3).frame(8)
    held = list[int]()
    whole = tallying._tallied

    def watched(events: pl.DataFrame, *more: object) -> tallying.Tally:
        held.append(events.height)
        return whole(events, *more)  # type: ignore[arg-type]

    expected = told(frame)
    monkeypatch.setattr(tallying, "_tallied", watched)
    found = summary(tally(frames_of(frame, rows=200), SECRET, most_rows=most), VERSIONS)
    assert max(held) <= 1.5 * most
    assert len(held) > 1
    assert found.as_dict() == expected.as_dict()


def test_what_is_told_is_json() -> None:
    found = compared(APPEAL, answers=300).as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found | {
        "versions": [dict(one) for one in found["versions"]],
        "comparison": [dict(one) for one in found["comparison"]],
        "notes": list(found["notes"]),
    }
