"""Every page: what stands on it, that nothing of strangers is markup, that nothing is inline or from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from coterie.serving.dashboard.pages import NAVIGATION
from tests.serving.dashboard.conftest import EVIL, SAME, Opened, Outline

CURVES = "/dashboard/runs/with%20%3Cb%3Ecurves"
PAGES = [
    *(path for _, path in NAVIGATION),
    "/dashboard/runs/first",
    CURVES,
    "/dashboard/runs/changed",
    "/dashboard/runs/half",
    "/dashboard/compare?run=first&run=with+%3Cb%3Ecurves",
]


@pytest.mark.parametrize("path", PAGES)
def test_pages_hold_nothing_inline_and_nothing_from_elsewhere(
    shop: Opened, outline: Callable[[str], Outline], path: str
) -> None:
    answer = shop.get(path)
    assert answer.status_code == 200
    assert "alert('x')</script>" not in answer.text
    assert "<b>curves" not in answer.text
    page = outline(answer.text)
    for script in page.all("script"):
        assert script.get("src", "").startswith("/dashboard/static/") or script["type"] == "application/json"
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        for name in ("src", "href", "action"):
            assert not (attributes.get(name) or "").startswith(("http:", "https:", "//", "data:", "javascript:"))
    assert page.all("style") == []
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", PAGES)
def test_pages_can_be_found_through_without_eyes_or_mouse(
    shop: Opened, outline: Callable[[str], Outline], path: str
) -> None:
    page = outline(shop.get(path).text)
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == len(page.all("main")) == 1
    assert page.all("a")[0]["href"] == "#main"
    assert len(page.all("caption")) == len(page.all("table"))
    named = {one.get("for") for one in page.all("label")}
    for field in [*page.all("input"), *page.all("select")]:
        assert (
            field.get("type") == "hidden" or field.get("id") in named or field.get("aria-label") or _is_wrapped(field)
        )
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def _is_wrapped(field: dict[str, Any]) -> bool:
    return field.get("type") == "checkbox" and field.get("name") == "anything"


def test_the_list_of_runs_says_what_is_finished_trusted_and_served(open_: Opened) -> None:
    page = open_.get("/dashboard/runs").text
    assert "answers 100 %" in page
    assert "coterie train --resume" in page
    assert "changed since it was signed" in page
    assert "SECRETS" not in page
    assert "no run" not in page
    assert page.count('name="run"') == 2  # only what is finished and trusted can be compared


def test_runs_are_sorted_by_any_column_without_a_script(open_: Opened) -> None:
    def order(query: str) -> list[str]:
        return re.findall(r'href="/dashboard/runs/([^"]+)"', open_.get(f"/dashboard/runs?{query}").text)

    assert order("sort=name&order=asc") == ["changed", "first", "half", "with%20%3Cb%3Ecurves"]
    assert order("sort=name&order=desc") == ["with%20%3Cb%3Ecurves", "half", "first", "changed"]
    assert order("sort=model&order=asc")[:2] == ["first", "with%20%3Cb%3Ecurves"]
    assert 'aria-sort="ascending"' in open_.get("/dashboard/runs?sort=model&order=asc").text
    assert open_.get("/dashboard/runs?sort=nonsense").status_code == 200


def test_a_run_that_is_not_trusted_shows_nothing_of_itself(open_: Opened) -> None:
    page = open_.get("/dashboard/runs/changed").text
    assert "not trusted" in page
    assert "changed since it was signed" in page
    assert "SECRETS" not in page
    for path in ("documents/run.html", "files/result.json"):
        answer = open_.get(f"/dashboard/runs/changed/{path}")
        assert answer.status_code == 400
        assert "SECRETS" not in answer.text


def test_a_run_page_has_metrics_clients_parts_card_and_ledger(open_: Opened) -> None:
    page = open_.get("/dashboard/runs/first").text
    result = json.loads((open_.deployment.run_folder / "first" / "result.json").read_text())
    assert f"{result['metrics']['federated']['ndcg@10']:.4f}" in page
    assert "<h3>What is promised</h3>" in page
    assert "No differential privacy" in page
    assert "&lt;script&gt;alert" in page  # a client's name
    assert "<code>gram</code>" in page or "<code>counts</code>" in page
    assert "No ledger" in page


def test_plots_bring_their_figures_as_data_and_as_a_table(open_: Opened) -> None:
    page = open_.get(CURVES).text
    found = re.findall(r'<script type="application/json" id="(\w+)-data">(.*?)</script>', page, re.DOTALL)
    plots = {name: json.loads(text) for name, text in found}
    assert set(plots) == {"curve", "gain"}
    values = plots["curve"]["data"][0]["y"]
    assert len(values) == 3
    assert all(f"{value:.4f}" in page for value in values)
    assert "&lt;script&gt;" in plots["gain"]["layout"]["yaxis"]["ticktext"][0] or any(
        "&lt;script&gt;" in name for name in plots["gain"]["layout"]["yaxis"]["ticktext"]
    )


def test_documents_and_signed_files_are_downloads(open_: Opened) -> None:
    for path in ("documents/privacy-card.html", "documents/gdpr-30.md", "documents/run.json", "files/result.json"):
        answer = open_.get(f"/dashboard/runs/first/{path}")
        assert answer.status_code == 200, path
        assert answer.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "path",
    [
        "runs/%2e%2e%2ffirst",
        "runs/nothing",
        "runs/first/files/model.safetensors",
        "runs/first/files/../../half/config.toml",
        "runs/first/files/%2e%2e/half/config.toml",
        "runs/first/documents/secrets.md",
        "runs/first/documents/run.exe",
        "compare",
        "compare?run=first",
        "compare?run=first&run=changed",
    ],
)
def test_what_is_not_offered_is_not_given(open_: Opened, path: str) -> None:
    answer = open_.get(f"/dashboard/{path}")
    assert answer.status_code in (400, 404)
    assert "Traceback" not in answer.text


def test_comparing_marks_the_best_and_what_differs(open_: Opened) -> None:
    page = open_.get("/dashboard/compare?run=first&run=with+%3Cb%3Ecurves").text
    results = [
        json.loads((open_.deployment.run_folder / name / "result.json").read_text())
        for name in ("first", "with <b>curves")
    ]
    best = max(one["metrics"]["mix"]["ndcg@10"] for one in results)
    assert f"<strong>{best:.4f}</strong>" in page
    assert "These runs were not measured on the same" not in page
    assert "Without a curve: first" in page


def test_data_says_what_was_cleaned_and_why(open_: Opened) -> None:
    page = open_.get("/dashboard/data?run=with+%3Cb%3Ecurves").text
    result = json.loads((open_.deployment.run_folder / "with <b>curves" / "result.json").read_text())
    assert result["split"]["note"] in page
    assert f"{result['data']['interactions']:,}" in page


def test_no_federation_is_said_in_a_sentence(open_: Opened, opening: Callable[..., Opened], tmp_path: Any) -> None:
    assert "attached to no federation" in open_.get("/dashboard/federation").text
    wrong = opening(federation={"coordinator": str(tmp_path)}, store={"address": str(tmp_path / "other.sqlite")})
    assert "has no federation.toml" in wrong.get("/dashboard/federation").text


def test_the_api_page_has_every_endpoint_with_a_line_to_type(open_: Opened) -> None:
    page = open_.get("/dashboard/api").text
    paths = open_.get("/openapi.json").json()["paths"]
    assert len(paths) > 10
    assert not any(path.startswith("/dashboard") for path in paths)
    for path in paths:
        assert f"<code>{path}</code>" in page
    assert "curl -X POST http://127.0.0.1:8080/v1/recommend/basket" in page


def test_static_files_are_kept_for_good_by_their_digest(open_: Opened) -> None:
    page = open_.get("/dashboard/runs/first").text
    address = re.findall(r'src="(/dashboard/static/plotly\.js\?v=\w+)"', page)[0]
    answer = open_.get(address)
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-encoding"] == "gzip"
    assert "plotly.js v" in answer.text[:500]
    again = open_.browser.request("GET", address, headers={**SAME, "if-none-match": answer.headers["etag"]})
    assert again.status_code == 304
    assert "immutable" not in open_.get("/dashboard/static/plotly.js").headers["cache-control"]
    assert open_.get("/dashboard/static/../routes.py").status_code == 404


def test_an_erased_person_cannot_be_put_into_a_title(shop: Opened) -> None:
    found = shop.get("/dashboard/search", params={"q": "alert"}).json()
    assert [one["title"] for one in found] == [EVIL]
