"""Markdown, figures and sums of figures: what pages are made from."""

from __future__ import annotations

import json
from typing import Any

from coterie.serving.dashboard.api import curl, grouped
from coterie.serving.dashboard.federation import view_of
from coterie.serving.dashboard.figures import MOST_BARS, bars, by_round, gain_by_client, safe
from coterie.serving.dashboard.markdown import to_html
from coterie.serving.dashboard.pages import templates


def test_markdown_of_strangers_stays_text() -> None:
    page = to_html("# T\n\n<script>x</script> ![a](http://e/x.png) [b](javascript:alert(1)) <b>c</b>\n\n<div>d</div>")
    for forbidden in ("<script", "<img", "<b>", "<div>", 'href="javascript'):
        assert forbidden not in page
    assert "<h3>T</h3>" in page


def test_tables_of_markdown_have_names_and_row_headings() -> None:
    page = to_html("## What <b>\n\n| | |\n|---|--:|\n| a | 1 |\n\n| x | y |\n|---|---|\n| b | 2 |\n", lower_by=1)
    assert "<thead>" in page
    assert page.count("<thead>") == 1  # a head without words says nothing
    assert '<th scope="row">a</th>' in page
    assert 'aria-label="What &lt;b&gt;"' in page
    assert "What &lt;b&gt; (2)</caption>" in page
    assert "style=" not in page
    assert '<td class="n">1</td>' in page


def test_a_curve_is_the_same_in_plot_and_table() -> None:
    made = by_round("c", "C", {"<a>": [(1, 0.5), (3, 0.25)], "b": [(1, 0.125)]}, "ndcg@10")
    assert [one["name"] for one in made.plot["data"]] == ["&lt;a&gt;", "b"]
    assert made.head == ["round", "<a>", "b"]
    assert made.rows == [["1", "0.5000", "0.1250"], ["3", "0.2500", "–"]]


def test_gains_are_ordered_and_losses_look_different() -> None:
    rows: list[dict[str, Any]] = [
        {"client": "<b>up</b>", "alone": 0.1, "served": 0.3},
        {"client": "down", "alone": 0.2, "served": 0.1},
        {"client": "unknown", "alone": None, "served": 0.1},
    ]
    made = gain_by_client(rows, "ndcg@10")
    assert made is not None
    assert [row[0] for row in made.rows] == ["<b>up</b>", "down"]
    assert made.plot["layout"]["yaxis"]["ticktext"] == ["down", "&lt;b&gt;up&lt;/b&gt;"]
    assert made.plot["data"][2]["marker"]["color"] == ["@s2", "@s1"]
    assert "1 more have no figures" in made.note
    assert gain_by_client(rows[2:], "ndcg@10") is None


def test_many_clients_become_a_histogram_with_everybody_in_it() -> None:
    rows = [{"client": str(at), "alone": 0.5, "served": 0.5 + at / 1000} for at in range(-20, MOST_BARS)]
    made = gain_by_client(rows, "ndcg@10")
    assert made is not None
    assert {one["type"] for one in made.plot["data"]} == {"histogram"}
    assert sum(len(one["x"]) for one in made.plot["data"]) == len(made.rows) == len(rows)


def test_texts_in_plots_are_short_printable_lines() -> None:
    assert safe("a\nb\x1b[31m") == "a b [31m"
    assert len(safe("x" * 500)) == 60
    assert bars("b", "B", {"<i>": 3.0}, "rows").plot["data"][0]["customdata"] == ["&lt;i&gt;"]


def test_json_in_a_page_cannot_end_its_element() -> None:
    text = templates().from_string("{{ value | tojson }}").render(value={"a": "</script><!--\u2028&"})
    assert json.loads(text) == {"a": "</script><!--\u2028&"}
    assert not set("<>&\u2028") & set(text)


def test_curl_lines_survive_a_shell() -> None:
    assert curl("http://h/v1/items/a b", "get", None, key=False) == "curl 'http://h/v1/items/a b'"
    line = curl("http://h/v1/x", "post", {"title": "it's"}, key=True)
    assert "-X POST" in line
    assert '-H "Authorization: Bearer $COTERIE_KEY"' in line
    assert """'{"title": "it'"'"'s"}'""" in line


def test_examples_are_found_through_references() -> None:
    document = {
        "paths": {
            "/v1/a/{id}": {
                "put": {
                    "tags": ["items"],
                    "parameters": [{"name": "id", "in": "path", "schema": {"examples": ["A1"]}}],
                    "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}}},
                    "security": [{"key": []}],
                }
            }
        },
        "components": {"schemas": {"A": {"examples": [{"stock": 0}]}}},
    }
    (one,) = grouped(document, "http://h", key=True)["items"]
    assert "http://h/v1/a/A1" in one["curl"]
    assert """-d '{"stock": 0}'""" in one["curl"]
    assert "COTERIE_KEY" in one["curl"]


def test_a_federation_shows_members_jobs_and_no_metric_of_two() -> None:
    status = {
        "running": True,
        "since": 0.0,
        "federation": "tea",
        "members": [
            {
                "name": "north",
                "state": "approved",
                "online_since": 50.0,
                "dropouts": 2,
                "last_error": "disk; free some",
            },
            {"name": "south", "state": "pending", "fingerprint": "ab"},
        ],
        "jobs": [
            {"id": "j1", "state": "done", "finished_at": 10.0},
            {"id": "j2", "state": "running", "started_at": 20},
        ],
        "progress": {
            "job": "j2",
            "phase": "summing",
            "round": 1,
            "waiting_for": ["north"],
            "rounds": [
                {"round": 0, "clients": 2, "metrics": {"ndcg@10": 0.9}},
                {"round": 1, "clients": 3, "metrics": {"ndcg@10": 0.5}},
            ],
            "events": [{"time": 5.0, "text": "first"}, {"time": 6.0, "text": "last"}],
        },
    }
    view = view_of(status, 100.0)
    assert view["members"][0]["waited"]
    assert view["members"][0]["connected"] == "for 50 s"
    assert view["members"][1]["connected"] == "–"
    assert [one["id"] for one in view["jobs"]] == ["j2", "j1"]
    assert [one["figures"] for one in view["rounds"]] == [{}, {"ndcg@10": 0.5}]
    assert view["curve"].rows == [["1", "0.5000"]]
    assert view["events"][0]["text"] == "last"
    assert any("coterie coordinator approve south" in one for one in view["asked"])
    assert "dropped out" in view["dropped"].lower()
