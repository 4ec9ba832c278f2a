"""What the page on privacy says about refusals is what is said: the flags are refused, with these words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from coterie.cli import main
from coterie.privacy.ledger import Ledger

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "train-with-privacy.md").read_text("utf-8")
ROWS = re.findall(r"^\| `(--[^`]+)` \| ([^|]+) \| [^|]+ \|$", PAGE.partition("## When it's refused")[2], re.MULTILINE)


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with four shops and a ledger of its own."""
    work = tmp_path_factory.mktemp("refusals")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COTERIE_HOME", str(work / "home"))
        patch.chdir(work)
        market = "data market --shops 4 --customers 300 --items 40 --baskets 1200 --output shops.parquet"
        assert run(market.split()) == 0
        yield work


def run(arguments: list[str]) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return int(left.value.code or 0)


def test_the_page_has_its_table() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize(("flags", "says"), ROWS, ids=[flags for flags, _ in ROWS])
def test_it_is_refused_with_these_words_and_nothing_is_charged(
    flags: str, says: str, shops: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["train", "shops.parquet", *shlex.split(flags), "--output", "runs/refused"]) == 2
    assert says.strip() in " ".join(capsys.readouterr().err.split())
    assert not (shops / "runs" / "refused").exists()
    assert Ledger.open(None).charges() == []
