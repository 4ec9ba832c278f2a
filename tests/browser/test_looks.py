"""Every page, as it is prepared for its picture: usable for everybody, on small screens, in light and dark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.looks import LOOKS, Look, drawn

SCHEMES = ("light", "dark")
NAMES = [one.name for one in LOOKS]


@pytest.mark.parametrize("look", LOOKS, ids=NAMES)
def test_axe_finds_nothing_serious(opening: Callable[..., Any], made: Any, faults: Any, look: Look) -> None:
    page = look.open(opening(), made)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        drawn(page)
        assert faults(page) == [], scheme


@pytest.mark.parametrize("look", LOOKS, ids=NAMES)
def test_nothing_scrolls_sideways_on_a_phone(opening: Callable[..., Any], made: Any, look: Look) -> None:
    page = look.open(opening(viewport={"width": 360, "height": 780}), made)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("look", LOOKS, ids=NAMES)
def test_every_page_says_what_it_is(opening: Callable[..., Any], made: Any, look: Look) -> None:
    page = look.open(opening(), made)
    assert page.locator("h1").count() == 1
    assert page.title().strip()
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.get_by_role("main").count() == 1
