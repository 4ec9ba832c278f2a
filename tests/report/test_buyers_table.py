"""The buyer's table in words, in Markdown, as CSV and as a plot."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coterie.report.buyers_table import as_csv, markdown, plot_by_epsilon, sentence, tables


def one(mean: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high}


def row(epsilon: str, gain: dict[str, Any], kept: dict[str, Any] | None, better: Any = (), worse: Any = ()) -> Any:
    return {
        "epsilon": epsilon,
        "gain": gain,
        "kept": kept,
        "clients": 8,
        "surely_better": list(better),
        "surely_worse": list(worse),
    }


FREE = row("none", one(0.1, 0.08, 0.12), one(1.0), ["a", "b"])
SAME = row("same-rows", one(0.06, 0.02, 0.1), one(0.6), ["a"])


@pytest.mark.parametrize(
    ("found", "others", "parts"),
    [
        (
            FREE,
            [FREE],
            ["Without noise joining helps 2 of 8 beyond chance (a, b) and hurts none", "0.2000 alone to 0.3000"],
        ),
        (
            row("4", one(0.038, 0.01, 0.06), one(0.38, 0.1, 0.6), ["a"], ["z"]),
            [FREE],
            [
                "At epsilon 4 joining helps 1 of 8",
                "hurts 1 (z)",
                "privacy takes 62 % of",
                "(38 % is kept, interval 10 %",
            ],
        ),
        (
            row("4", one(0.038, -0.01, 0.06), one(0.38)),
            [FREE, SAME],
            ["helps none of 8", "40 % by the rows it leaves out and 22 % by its noise", "cannot be told from chance"],
        ),
        (row("1", one(-0.01, -0.02, 0.0), one(-0.1)), [FREE, SAME], ["privacy eats all of what joining without noise"]),
        (row("8", one(0.12, 0.1, 0.14), one(1.2)), [FREE], ["privacy takes nothing of"]),
        (
            row("8", one(0.01, 0.0, 0.1), None),
            [row("none", one(-0.1), None)],
            ["gains nothing on average even without"],
        ),
        (SAME, [FREE, SAME], ["over the rows that private sums are over", "leaving those rows out takes 40 % of"]),
        (row("8", one(0.01), None), [], ["At epsilon 8 joining helps none"]),
    ],
)
def test_a_sentence_says_who_gains_and_what_privacy_takes(found: Any, others: list[Any], parts: list[str]) -> None:
    told = sentence(found, {other["epsilon"]: other for other in [*others, found]}, 0.2)
    for part in parts:
        assert part in told


def test_a_sentence_names_a_few() -> None:
    many = row("none", one(0.1), one(1.0), [f"shop{n}" for n in range(9)])
    assert "shop5 and 3 more)" in sentence(many, {"none": many}, 0.2)


def table_of(name: str, epsilons: tuple[str, ...] = ("none", "8", "4", "1", "0.5")) -> dict[str, Any]:
    """A whole result with one organisation of this name."""
    estimates = {epsilon: one(0.21, 0.2, 0.22) for epsilon in epsilons}
    gain = {"difference": 0.01, "low": -0.01, "high": 0.03, "p_value": 0.2, "beyond_chance": True}
    schemes = {
        "alone": one(0.2, 0.19, 0.21),
        "texts": one(0.1),
        "federated": estimates,
        "mix": estimates,
        "centralised": one(0.3, 0.2, 0.4),
    }
    client = {"client": name, "cases": 1234, **schemes, "gain": dict.fromkeys(epsilons, gain)}
    rows = [row(epsilon, one(0.01, 0.0, 0.02), one(1.0)) | {"sentence": f"About {epsilon}."} for epsilon in epsilons]
    return {
        "metric": "ndcg@10",
        "confidence": 0.95,
        "macro": schemes,
        "per_client": [client | {"mix_weight": dict.fromkeys(epsilons, 0.25)}],
        "by_epsilon": rows,
        "differences": ["Rows differ."],
        "caveats": ["One log."],
    }


def test_the_terminal_needs_80_columns_for_any_number_of_epsilons() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, color_system=None)
    for table in tables(table_of("a shop with a very long name \x1b[31m")):
        console.print(table)
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    for part in ("eps 8", "eps 0.5", ".210*", ".200–.220", "texts only"):
        assert part in text


def test_names_are_no_markup_of_the_page() -> None:
    page = markdown(table_of("a|b <b>*x* [link](there)"))
    assert "a\\|b \\<b\\>\\*x\\* \\[link\\](there)" in page
    assert "- About 4." in page
    assert "0.2100 [0.2000, 0.2200]" in page
    assert "+0.0100 [-0.0100, +0.0300] **beyond chance**" in page
    widths = {
        line.replace("\\|", "").count("|") for line in page.splitlines() if line.startswith(("| client", "| a\\|b"))
    }
    assert widths == {16, 8}  # every row has as many cells as its head


def test_csv_has_a_row_for_each_organisation_and_scheme() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(table_of("a, b\n")))))
    assert len(rows) == 2 * (3 + 2 * 5)
    mix = next(one for one in rows if (one["client"], one["scheme"], one["epsilon"]) == ("a, b\n", "mix", "0.5"))
    assert (mix["ndcg@10"], mix["gain"], mix["p_value"], mix["mix_weight"]) == ("0.21", "0.01", "0.2", "0.25")
    assert next(one for one in rows if one["client"] == "*" and one["scheme"] == "mix")["kept"] == "1.0"


def test_equal_tables_are_equal_plots(tmp_path: Path) -> None:
    for name in ("a", "b"):
        plot_by_epsilon(table_of("shop"), tmp_path / f"{name}.svg")
    drawn = (tmp_path / "a.svg").read_bytes()
    assert drawn == (tmp_path / "b.svg").read_bytes()
    for part in (b"epsilon 0.5", b"no noise", b"alone", b"texts", b"centralised"):
        assert part in drawn
