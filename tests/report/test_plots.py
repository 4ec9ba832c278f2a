"""Plots are deterministic, accessible SVG that any client name survives."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from coterie.errors import DataError
from coterie.report.plots import MOST_BARS, gain_by_client, metric_by_round

SVG = "{http://www.w3.org/2000/svg}"


def clients(n, seed=0):
    random = np.random.default_rng(seed)
    alone = random.uniform(0.1, 0.2, n)
    return [
        {"client": f"shop {i}", "alone": a, "federated": a + g}
        for i, (a, g) in enumerate(zip(alone, random.normal(0.01, 0.01, n), strict=True))
    ]


def texts(path):
    root = ET.parse(path).getroot()
    return [root.findtext(f"{SVG}title"), *("".join(element.itertext()).strip() for element in root.iter(f"{SVG}text"))]


def test_rounds_are_drawn_with_the_last_value(tmp_path):
    records = [{"round": 0, "ndcg@10": 0.1}, {"round": 1}, {"round": 2, "ndcg@10": 0.1234}]
    metric_by_round(records, "ndcg@10", tmp_path / "a.svg")
    shown = texts(tmp_path / "a.svg")
    assert shown[0] == "ndcg@10 by round"
    assert {"round", "0.1234", "ndcg@10 (0 to 1, more is better)"} <= set(shown)


def test_equal_input_gives_equal_bytes(tmp_path):
    for name in ("a", "b"):
        gain_by_client(clients(5), "ndcg@10", tmp_path / f"{name}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_clients_stand_by_gain_with_the_largest_on_top(tmp_path):
    rows = [
        {"client": "low", "alone": 0.2, "federated": 0.19},
        {"client": "high", "alone": 0.1, "federated": 0.2, "mix": 0.21, "low": 0.05, "high": 0.15},
        {"client": "none", "alone": None, "federated": None},
    ]
    gain_by_client(rows, "ndcg@10", tmp_path / "a.svg")
    shown = texts(tmp_path / "a.svg")
    assert shown.index("low") < shown.index("high"), "ticks are drawn from the bottom"
    assert {"+110.0 %", "-5.0 %", "alone", "federated", "mix", "interval of the gain"} <= set(shown)
    assert any("1 more without figures" in text for text in shown)


@pytest.mark.parametrize("name", ["$x_1$ & <b>", "日本", "a" * 300, "line\nbreak\x00", "_hidden"])
def test_any_client_name_can_be_drawn(tmp_path, name):
    gain_by_client([{"client": name, "alone": 0.1, "federated": 0.2}], "ndcg@10", tmp_path / "a.svg")
    shown = texts(tmp_path / "a.svg")
    assert any(text and text.rstrip("…") and text.rstrip("…") in name for text in shown) or any(
        "line break" in t for t in shown
    )


def test_many_clients_become_a_histogram(tmp_path):
    rows = clients(MOST_BARS + 1)
    gain_by_client(rows, "ndcg@10", tmp_path / "a.svg")
    shown = texts(tmp_path / "a.svg")
    losers = sum(row["federated"] < row["alone"] for row in rows)
    assert {f"lose ({losers})", "unchanged (0)", f"gain ({len(rows) - losers})"} <= set(shown)
    assert "shop 1" not in shown


def test_nothing_to_plot_is_said(tmp_path):
    with pytest.raises(DataError, match="none of the 1 round records"):
        metric_by_round([{"round": 0}], "ndcg@10", tmp_path / "a.svg")
    with pytest.raises(DataError, match="none of the 1 clients"):
        gain_by_client([{"client": "a", "alone": 0.1}], "ndcg@10", tmp_path / "a.svg")
