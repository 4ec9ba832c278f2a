"""What the tests of the documentation share: its pages, and their fenced blocks."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main

ROOT = Path(__file__).parents[2]
STARTS = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
PAGES = [*STARTS, *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "docs").rglob("*.ipynb"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the title after it, its text, and the line of the page on which it starts."""

    language: str
    title: str | None
    text: str
    line: int

    def commands(self) -> list[list[str]]:
        """The `coterie` commands of a shell block, as arguments without the program."""
        joined = self.text.replace("\\\n", " ")
        lines = [line for line in joined.splitlines() if line.lstrip().startswith("coterie ")]
        return [shlex.split(line, comments=True)[1:] for line in lines]


class Page:
    """A page of the documentation. `bash` blocks are run by the tests, `sh` blocks are only checked.

    The cells of a notebook are `ipython` blocks: they have a test of their own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = notebook_text(path) if path.suffix == ".ipynb" else path.read_text("utf-8")

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    def blocks(self, *languages: str) -> Iterator[Block]:
        for match in FENCE.finditer(self.text):
            language, _, rest = match["info"].strip().partition(" ")
            if language in languages:
                title = re.search(r'title="([^"]+)"', rest)
                line = self.text[: match.start()].count("\n") + 1
                yield Block(language, title[1] if title else None, match["body"], line)

    def prose(self) -> str:
        """The text without its fenced blocks."""
        return FENCE.sub("", self.text)


def notebook_text(path: Path) -> str:
    """A notebook as Markdown, without outputs."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    sources = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    return "\n\n".join(text if kind == "markdown" else f"```ipython\n{text}\n```" for kind, text in sources)


@pytest.fixture(scope="session")
def pages() -> list[Page]:
    """Every page, the README first."""
    return [Page(path) for path in PAGES]


@pytest.fixture(params=PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def page(request: Any) -> Page:
    """Each page in turn."""
    return Page(request.param)


@pytest.fixture(scope="session")
def orders() -> str:
    """The file orders.csv of the README, which the other pages use too."""
    return next(block.text for block in Page(ROOT / "README.md").blocks("csv") if block.title == "orders.csv")


@pytest.fixture(scope="session")
def command_line() -> Any:
    """The root command."""
    from coterie.cli import app

    return typer.main.get_command(app)
