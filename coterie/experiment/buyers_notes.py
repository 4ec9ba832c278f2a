"""What a reader of the buyer's table must know: where its columns differ in more than noise, and what it cannot say."""

from __future__ import annotations

from coterie.experiment.fitting import Bench
from coterie.experiment.private import ASSORTMENT
from coterie.settings import Settings

ONE_DRAW = (
    "Each private figure comes from one draw of its noise: another training would differ by about as much as that "
    "noise does. Intervals are over users alone."
)


def differences(settings: Settings, bench: Bench, private: Bench | None) -> list[str]:
    """Sentences on what columns know besides the noise, with counts.

    Args:
        settings: of the comparison.
        bench: all rows, from which organisations learn at home, and federations without noise.
        private: the rows that private federations sum; None where none was trained.
    """
    found = []
    if private is not None:
        found += _private_rows(settings, bench, private)
        found.append("All columns are cleaned alike, by public constants alone: what counts over users is left out.")
    if "similarity" not in bench.public and not any(bench.fit.catalogue.titles()):
        found.append("Items have no texts, so nothing is ranked by texts alone; a title column or --items brings them.")
    else:
        found.append(
            "Texts only: items are ranked by the similarity of their texts to those in the cart. It learns from no "
            "log, and knows no past baskets."
        )
    if settings.evaluation.history and bench.fit.log.has("basket"):
        found.append(
            "In all other columns a known user's past baskets enter when suggestions are made; they stay where they "
            "are."
        )
    return found


def caveats(settings: Settings, *, private: bool) -> list[str]:
    """Sentences on what the figures do not say."""
    found = []
    if private:
        found += [
            "Raw metrics of a simulation: one process held all logs, and the metrics are outside any epsilon.",
            ONE_DRAW,
        ]
    if private and settings.plan.simulated_noise:
        found.append("Simulated noise: no privacy. The noise came from the seed, and nothing was charged.")
    if len(settings.data.logs) < 2 or settings.clients.shops:
        found.append(
            "The clients are parts of one log: gains measured on one retailer's data, or on synthetic data, say little "
            "about others."
        )
    return [*found, *([ASSORTMENT] if private and settings.data.items is None else [])]


def _private_rows(settings: Settings, bench: Bench, private: Bench) -> list[str]:
    """Which rows private sums lack, and why."""
    every, summed = len(bench.fit.log), len(private.fit.log)
    guests = int(bench.fit.log.frame["user"].null_count()) if settings.plan.guests == "drop" else 0
    lacking = []
    if guests:
        lacking.append(f"without the {guests:,} of guests, whom no epsilon could protect")
    if (apart := every - guests - summed) > 0:
        lacking.append(f"without the {apart:,} of validation, with which organisations choose their mix at home")
    if not lacking:
        return []
    told = (
        f"Private sums are over {summed:,} of {every:,} rows: {', and '.join(lacking)}. Alone, centralised and without "
        'noise, models learn from all rows: they owe nobody that promise, and nothing of them is charged. "Same rows" '
        "is a federation without noise over the rows of private sums: what it lacks is not the price of noise."
    )
    return [told]
