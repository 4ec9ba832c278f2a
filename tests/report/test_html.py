"""The HTML report: self-contained, accessible, escaped, and complete or explicit about what is missing."""

import re
from html.parser import HTMLParser

import pytest

from coterie.errors import DataError
from coterie.report.colours import INK, LINE, PAPER
from coterie.report.html import MOST_CLIENTS, render_report
from coterie.report.plots import gain_by_client

EVIL = '<script>alert("x")</script>'
RESULT = {
    "run": "runs/1",
    "model": "cart",
    "scope": "simulation",
    "data": {"users": 1200, "items": 30, "interactions": 9000, "clients": 2},
    "metrics": {"federated": {"ndcg@10": 0.21}, "alone": {"ndcg@10": 0.19, "map@10": None}},
    "intervals": {"federated": {"ndcg@10": [0.2, 0.22]}},
    "per_client": [
        {"client": EVIL, "users": 1000, "cases": 5, "federated": {"ndcg@10": 0.3}, "alone": {"ndcg@10": 0.2}}
    ],
    "privacy": {"unit": "user", "epsilon": "none", "delta": None},
    "traffic": {"upload_bytes_per_client": 2000},
    "timing": {"train_s": 1.25, "evaluate_s": None},
    "cleaning": [{"step": "returns", "why": EVIL, "dropped": 1234}],
    "split": {"method": "carts", "note": "Last fifth of baskets."},
    "comparison": {"sentence": "joining helps 1 of 1 shop, worst change +50.0 %"},
    "caveats": ["These figures are one retailer's."],
}


class Page(HTMLParser):
    """Tags with their attributes, visible text, and a check that every tag is closed in order."""

    VOID = frozenset({"meta", "path", "use", "br"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def page(tmp_path):
    plots = {}
    for name in ("first", "second"):
        plots[name] = tmp_path / f"{name}.svg"
        gain_by_client([{"client": EVIL, "alone": 0.1, "federated": 0.2}], "ndcg@10", plots[name])
    render_report(RESULT, tmp_path / "report.html", plots)
    return (tmp_path / "report.html").read_text("utf-8")


def test_everything_known_is_said(page):
    text = Page(page).text
    for part in (
        "Joining helps 1 of 1 shop, worst change +50.0 %.",
        "0.2100 0.2000 to 0.2200",
        "No differential privacy.",
        "outside any epsilon",
        "+50.0 %",
        "1,234",
        "carts . Last fifth of baskets.",
        "2.0 kB",
        "train: 1.2 s",
        "one retailer's.",
    ):
        assert part in text, part


def test_nothing_outside_is_referenced_and_nothing_runs(page):
    assert not re.search(r"""(?:src|href)="(?!#)|url\((?!#)|@import""", page)
    assert "<script" not in page
    assert EVIL in Page(page).text


def test_tables_are_accessible(page):
    tags = Page(page).tags
    assert sum(tag == "table" for tag, _ in tags) == sum(tag == "caption" for tag, _ in tags) > 3
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in tags if tag == "th")
    assert dict(tags)["html"]["lang"] == "en"


def test_plots_take_the_colours_of_the_page_and_keep_their_ids_apart(page):
    tags = Page(page).tags
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert [attrs["role"] for tag, attrs in tags if tag == "svg"] == ["img", "img"]
    references = set(re.findall(r'(?:url\(|href=")#([^)"]+)', page))
    assert references
    assert references <= set(ids)
    for colour in (PAPER, INK, LINE):
        assert f'[style*="fill: {colour}"]' in page, "dark pages give it another colour"
        assert f": {colour}" in page[page.index("<svg") :]


def test_an_empty_result_makes_a_page(tmp_path):
    render_report({}, tmp_path / "report.html", {})
    assert "No metric was measured or released" in Page((tmp_path / "report.html").read_text("utf-8")).text


def test_many_clients_are_cut_and_counted(tmp_path):
    rows = [{"client": f"c{i}", "users": 1} for i in range(MOST_CLIENTS + 5)]
    render_report({"per_client": rows, "comparison": {"sentence": "compared"}}, tmp_path / "report.html", {})
    assert "5 smaller clients are left out." in Page((tmp_path / "report.html").read_text("utf-8")).text


def test_a_plot_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.svg").write_text("not a plot")
    for name, message in (("a.svg", "not an SVG file"), ("missing.svg", "cannot be read")):
        with pytest.raises(DataError, match=message):
            render_report({}, tmp_path / "report.html", {"plot": tmp_path / name})
