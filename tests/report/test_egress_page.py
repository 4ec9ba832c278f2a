"""The egress page: all that left, readable, escaped, and honest about a log that was changed."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from coterie.errors import DataError
from coterie.federation.egress import EgressLog
from coterie.report import egress_page
from coterie.report.egress_page import egress_html, egress_markdown

EVIL = "<script>alert(1)</script> | **bold** `code`"
NOON = datetime(2025, 6, 1, 12, 0, 5, tzinfo=UTC)


class Words(HTMLParser):
    """The visible text of a page, and its tags, each closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log = EgressLog(tmp_path / "egress.jsonl", clock=lambda: NOON)
    log.append(None, None, "enrol", 1500, "01" * 32, "public keys", masked=False, epsilon=None)
    for round, epsilon in enumerate((0.25, 0.5)):
        log.append("weekly.1", round, "keys", 500, "02" * 32, EVIL, masked=False, epsilon=None)
        log.append("weekly.1", round, "sum", 2_000_000, "03" * 32, "sums", masked=True, epsilon=epsilon)
    return log.path


def both(path: Path) -> list[str]:
    """Both forms of the page as words, without what Markdown marks."""
    return [Words(egress_html(path, "north-shop")).text, re.sub(r"[|*`\\]", "", egress_markdown(path, "north-shop"))]


def test_everything_that_left_is_said(path: Path) -> None:
    for text in both(path):
        words = " ".join(text.split())
        for part in (
            "What left north-shop",
            "5 messages of 4.0 MB left between 2025-06-01 12:00:05 UTC and 2025-06-01 12:00:05 UTC, for 1 job.",
            "Verified: 5 lines are as written, and none is missing.",
            f"Anchor: {EgressLog(path).anchor()}",
            "outside of jobs 0 1 1.5 kB none",
            "weekly.1 2 4 4.0 MB 0.5 2025-06-01 12:00:05 UTC",
            "sum sums yes 2 4.0 MB 0.5",
            "enrol public keys no 1 1.5 kB none",
            "5 2025-06-01 12:00:05 UTC weekly.1 1 sum 2,000,000 yes 0.5 0303030303030303",
        ):
            assert part in words, part


def test_what_it_shows_is_never_read_as_markup(path: Path) -> None:
    page = egress_html(path, EVIL)
    assert "<script" not in page
    assert EVIL in Words(page).text
    text = egress_markdown(path, EVIL)
    assert "<script" not in re.sub(r"\\<", "", text)
    rows = [line for line in text.splitlines() if line.startswith("| keys")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [7]


def test_nothing_outside_is_referenced_and_tables_are_accessible(path: Path) -> None:
    page = egress_html(path, "north-shop")
    assert not re.search(r"""(?:src|href)=|url\(|@import""", page)
    tags = Words(page).tags
    assert sum(tag == "table" for tag, _ in tags) == sum(tag == "caption" for tag, _ in tags) == 3
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in tags if tag == "th")
    assert dict(tags)["html"]["lang"] == "en"


def test_a_log_that_was_changed_says_so_first_and_shows_the_lines_before(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"bytes":2000000', b'"bytes":2', 1))
    for text in both(path):
        words = " ".join(text.split())
        assert "2 messages of 2.0 kB left between" in words
        said = (
            "This log is not as it was written. Line 3: altered: line 4 has another hash of it. Only the lines before "
            "it are shown."
        )
        assert said in words
        assert "Anchor" not in words
        assert "2 2025-06-01 12:00:05 UTC weekly.1 0 keys" in words
        assert "3 2025-06-01" not in words
    assert 'class="notice"' in egress_html(path, "north-shop")


def test_a_last_line_that_a_crash_cut_short_is_said_to_be_that(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])
    for text in both(path):
        words = " ".join(text.split())
        assert "4 messages of 2.0 MB left" in words
        assert (
            "Line 5: missing or cut short; the head has it, and the node's next start completes it. All lines" in words
        )


def test_a_line_that_cannot_be_read_ends_the_page_without_an_error(path: Path) -> None:
    path.write_bytes(b"garbage\n" + path.read_bytes())
    for text in both(path):
        assert "Nothing has left. This log is not as it was written. Line 1: not a line of an egress log" in " ".join(
            text.split()
        )


def test_of_a_long_log_the_latest_messages_are_shown(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_page, "MOST", 2)
    for text in both(path):
        words = " ".join(text.split())
        assert "3 earlier ones are in egress.jsonl" in words
        assert "5 messages" in words
        assert len(re.findall(r"12:00:05 UTC weekly\.1 1 (?:keys|sum)", words)) == 2
        assert "weekly.1 0 sum" not in words


def test_an_empty_log_makes_a_page(tmp_path: Path) -> None:
    for text in both(EgressLog(tmp_path / "egress.jsonl").path):
        assert "Nothing has left. Verified: 0 lines are as written, and none is missing." in " ".join(text.split())


def test_no_log_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"egress\.jsonl: no such egress log; check the path"):
        egress_html(tmp_path / "egress.jsonl", "north-shop")
