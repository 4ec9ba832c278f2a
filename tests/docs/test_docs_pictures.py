"""Every page that people see has its picture in the documentation, made by the steps of the browser tests."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from coterie.serving.dashboard.pages import NAVIGATION
from tests.browser.looks import LOOKS, SHOP

FOLDER = Path(__file__).parents[2] / "docs" / "images"
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+\.png)\)")


def test_every_page_of_the_dashboard_and_the_shop_is_looked_at() -> None:
    seen = {one.path.partition("?")[0] for one in LOOKS}
    assert {path for _, path in NAVIGATION} | {SHOP, "/dashboard/login", "/dashboard/compare"} <= seen
    assert any(one.startswith("/dashboard/runs/") for one in seen)


def test_each_has_a_picture_and_no_picture_is_of_anything_else() -> None:
    remedy = "run python scripts/screenshots.py"
    assert {one.stem for one in FOLDER.iterdir()} == {one.name for one in LOOKS}, remedy


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
def test_pictures_are_small_and_as_wide_as_text(look: Any) -> None:
    content = (FOLDER / f"{look.name}.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (1200, look.height)
    assert len(content) < 150_000


def test_every_picture_stands_on_a_page_and_is_described(pages: list[Any]) -> None:
    shown = set()
    for page in pages:
        for words, target in PICTURE.findall(page.prose()):
            assert len(words) > 10, f"{page.name}: {target} needs words for those who do not see it"
            assert (page.path.parent / target).is_file(), f"{page.name}: {target}"
            shown.add((page.path.parent / target).resolve())
    assert {one.resolve() for one in FOLDER.iterdir()} == shown
