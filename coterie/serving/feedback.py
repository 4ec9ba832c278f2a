"""What came of the answers: clicks, carts and purchases per model version, and whether a challenger does better.

Shown and acted upon are brought together by the id that every answer carries; ids that were not made here count for
nothing. Users (a guest's answer by itself) are dealt into bundles, and intervals and tests heed that the answers of one
user go together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import polars as pl
from scipy import stats

from coterie import rng
from coterie.evaluation.bootstrap import resampled_means
from coterie.serving.examination import Examination, examine
from coterie.serving.tally import KINDS, MOST_ROWS, Tally, tally
from coterie.types import Floats

if TYPE_CHECKING:
    from coterie.serving.store import ServingStore
    from coterie.serving.words import Rollout, Version

Measure: TypeAlias = Literal["click_through", "add_to_cart", "conversion", "quality"]

CONFIDENCE, RESAMPLES = 0.95, 2_000
FEW = 10  # with fewer successes the bootstrap would be too sure: Wilson's interval
EFFECT, POWER = 0.1, 0.8  # the relative difference that the stated sample size would show, and how often
_NAMES: Mapping[str, Measure] = {"clicked": "click_through", "carted": "add_to_cart", "bought": "conversion"}


@dataclass(frozen=True)
class Share:
    """So many of so many, with a 95 % interval; None where nothing was shown."""

    count: float
    of: float
    rate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class VersionFeedback:
    """What came of one version's answers: of those shown, how many were clicked, carted and bought from.

    `quality` is clicks per item shown as if every item had stood first (see `examination`); None where the clicks do
    not tell how far people look. Its interval takes the examination as known.
    """

    version: int
    run: str | None
    model: str | None
    shown: int
    items_shown: int
    click_through: Share
    add_to_cart: Share
    conversion: Share
    quality: Share | None


@dataclass(frozen=True)
class Comparison:
    """Challenger minus champion on one measure, while both answered: difference, interval, and the chance of as much.

    `p_value` is two-sided, by the delta method over users (Deng, Knoblich & Lu, KDD 2018); `needed` is how many answers
    of each arm it would take to see a relative difference of 10 % four times out of five.
    """

    measure: Measure
    champion: Share
    challenger: Share
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    needed: int | None
    note: str


@dataclass(frozen=True)
class Feedback:
    """Everything: by version, the comparison where there is a challenger, the examination, and what to know."""

    versions: tuple[VersionFeedback, ...]
    champion: int | None
    challenger: int | None
    comparison: tuple[Comparison, ...]
    examination: Examination | None
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = asdict(self)
        if self.examination is not None:
            found["examination"] |= {"theta": [round(float(one), 4) for one in self.examination.theta]}
        return found


def feedback(store: ServingStore, since: int | None = None, most_rows: int = MOST_ROWS) -> Feedback:
    """Read the stored events (since a time in microseconds) and say what came of the answers.

    Raises:
        EnvironmentFault: the store cannot be read.
    """
    rollout, versions = store.rollout(), {one.id: one for one in store.versions()}
    challenger = None if rollout is None else rollout.challenger
    begun = None if challenger is None or challenger not in versions else versions[challenger].loaded_at

    def frames() -> Iterator[pl.DataFrame]:
        return store.events_frame(since)

    return summary(tally(frames, store.secret, begun, most_rows), versions, rollout)


def summary(found: Tally, versions: Mapping[int, Version], rollout: Rollout | None = None) -> Feedback:
    """The figures, from what was added up."""
    examination = examine(found.cells_by_code(), *found.explored_by_position())
    lines = _weighted(found.lines, examination)
    seen = sorted(set(found.answers["version"].to_list()))
    champion = None if rollout is None else rollout.champion
    challenger = None if rollout is None else rollout.challenger
    return Feedback(
        versions=tuple(_version(one, versions.get(one), found, lines, examination) for one in seen),
        champion=champion,
        challenger=challenger,
        comparison=() if challenger is None else _comparison(champion, challenger, found, lines, examination),
        examination=examination,
        notes=tuple(_notes(found, examination)),
    )


def _version(
    id: int, version: Version | None, found: Tally, lines: pl.DataFrame, examination: Examination | None
) -> VersionFeedback:
    answers = _by_bundle(found.answers.filter(version=id))
    own = _by_bundle(lines.filter(version=id))
    shares = {_NAMES[name]: _share(_pairs(answers, name, "shown"), whole=True) for name in KINDS.values()}
    return VersionFeedback(
        version=id,
        run=None if version is None else version.run,
        model=None if version is None else version.model,
        shown=int(answers["shown"].sum()),
        items_shown=int(own["shown"].sum()),
        quality=None if examination is None else _share(_pairs(own, "weighted", "looked")),
        **shares,
    )


def _comparison(
    champion: int | None, challenger: int, found: Tally, lines: pl.DataFrame, examination: Examination | None
) -> tuple[Comparison, ...]:
    """Both arms over the time in which both answered."""

    def arms(frame: pl.DataFrame, count: str, of: str) -> tuple[Floats, Floats]:
        ours = frame.filter(pl.col("compared"), arm="champion", version=champion)
        theirs = frame.filter(pl.col("compared"), arm="challenger", version=challenger)
        return _pairs(_by_bundle(ours), count, of), _pairs(_by_bundle(theirs), count, of)

    made = [_compared(_NAMES[name], *arms(found.answers, name, "shown"), whole=True) for name in KINDS.values()]
    if examination is not None:
        made.append(_compared("quality", *arms(lines, "weighted", "looked"), whole=False))
    return tuple(made)


def _compared(measure: Measure, champion: Floats, challenger: Floats, *, whole: bool) -> Comparison:
    """`champion` and `challenger`: float64 [bundles, 2], what counts and of how much."""
    ours, theirs = _share(champion, whole=whole), _share(challenger, whole=whole)
    known = [_ratio_variance(one) for one in (champion, challenger)]
    if ours.rate is None or theirs.rate is None or None in known:
        note = "nothing to compare yet: both need answers that were shown to at least two users or guests"
        return Comparison(measure, ours, theirs, None, None, None, None, None, note)
    spread, difference = float(np.sqrt(sum(one or 0.0 for one in known))), theirs.rate - ours.rate
    reach = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * spread
    p_value = float(2 * stats.norm.sf(abs(difference) / spread)) if spread > 0 else 1.0
    needed = _needed(champion, challenger, ours.rate)
    return Comparison(
        *(measure, ours, theirs, difference, difference - reach, difference + reach, p_value, needed),
        _verdict(ours, theirs, p_value, needed),
    )


def _verdict(ours: Share, theirs: Share, p_value: float, needed: int | None) -> str:
    fewest = min(ours.of, theirs.of)
    if min(ours.count, theirs.count) < FEW:
        return f"too early: fewer than {FEW} in one of the arms"
    if p_value < 1 - CONFIDENCE:
        better = "better" if (theirs.rate or 0) > (ours.rate or 0) else "worse"
        return f"the challenger does {better}, beyond chance if this is looked at once and not until it says so"
    if needed is not None and fewest < needed:
        return (
            f"may be chance; about {needed:,} of each arm would show a difference of {EFFECT:.0%}, so far {fewest:,.0f}"
        )
    return "no difference beyond chance"


def _needed(champion: Floats, challenger: Floats, rate: float) -> int | None:
    """Size of each arm for the stated effect and power, from the spread that was observed."""
    if rate <= 0:
        return None
    spread = [(_ratio_variance(one) or 0.0) * float(one[:, 1].sum()) for one in (champion, challenger)]
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2) + stats.norm.ppf(POWER))
    return int(np.ceil(z**2 * sum(spread) / (EFFECT * rate) ** 2))


def _share(pairs: Floats, *, whole: bool = False) -> Share:
    """The ratio of sums over bundles. `whole`: it is a share of answers, for which Wilson's interval holds if rare."""
    count, of = (float(one) for one in pairs.sum(axis=0))
    if of <= 0:
        return Share(count, of, None, None, None)
    low, high = _wilson(count, of) if whole and (count < FEW or len(pairs) < 2) else _resampled(pairs)
    return Share(count, of, count / of, low, high)


def _wilson(count: float, of: float) -> tuple[float, float]:
    found = stats.binomtest(round(count), round(of)).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def _resampled(pairs: Floats) -> tuple[float | None, float | None]:
    """Percentile bootstrap over bundles; none with fewer than two."""
    if len(pairs) < 2:
        return None, None
    means = resampled_means(pairs[:, :1], pairs[:, 1], RESAMPLES, rng.stream(0, "feedback"))[:, 0]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _ratio_variance(pairs: Floats) -> float | None:
    """Variance of a ratio of sums over independent bundles (delta method); None with fewer than two."""
    of = float(pairs[:, 1].sum())
    if len(pairs) < 2 or of <= 0:
        return None
    left = pairs[:, 0] - pairs[:, 0].sum() / of * pairs[:, 1]
    return float((left**2).sum() / of**2 * len(pairs) / (len(pairs) - 1))


def _pairs(table: pl.DataFrame, count: str, of: str) -> Floats:
    """Two columns as float64 [bundles, 2], in the order of the bundles: sums of them are then the same each time."""
    pairs = table.filter(pl.col(of) > 0).sort("bundle").select(count, of).to_numpy().astype(np.float64)
    return pairs.reshape(-1, 2)


def _by_bundle(table: pl.DataFrame) -> pl.DataFrame:
    return table.group_by("bundle").agg(pl.exclude("bundle", "version", "arm", "compared", "position").sum())


def _weighted(lines: pl.DataFrame, examination: Examination | None) -> pl.DataFrame:
    """Lines at known positions with `weighted` clicks and with how much they were `looked` at under the same weights.

    The quotient of both is a mean of gamma for any weights: clipping gives far positions less say, and no bias.
    """
    known = lines.filter(pl.col("position") > 0)
    if examination is None:
        return known.with_columns(weighted=pl.lit(0.0), looked=pl.lit(0.0))
    at = known["position"].to_numpy() - 1
    weight, theta = examination.weights()[at], examination.theta[at]
    return known.with_columns(
        pl.Series("weighted", known["clicked"].to_numpy() * weight),
        pl.Series("looked", known["shown"].to_numpy() * weight * theta),
    )


def _notes(found: Tally, examination: Examination | None) -> Iterator[str]:
    if not found.answers.height:
        yield "no answer was reported as shown: send impression events with the recommendationId and positions"
        return
    if examination is None:
        yield "too few clicks, or every item at one position alone: how far people look is not known"
    elif examination.method == "regression-EM":
        yield (
            "how far people look was estimated from the ranked answers themselves (regression-EM): it takes items that "
            "are rightly first for ones that are looked at more; an exploration share gives a better estimate"
        )
    if found.strangers:
        yield f"{found.strangers:,} recommendation ids were not made by this deployment, and were not counted"
    if found.unseen:
        yield f"{found.unseen:,} clicks, carts or purchases were of items that no impression reported, and not counted"
