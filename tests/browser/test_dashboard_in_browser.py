"""The dashboard's scripts in a browser: plots under its policy, titles of strangers, an overview that follows."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

EVIL = '<img src=x onerror=alert(1)>"Mug" & <script>alert(2)</script>'
ANSWER = 30  # seconds: machines that run tests are busy


def test_plots_are_drawn_under_the_policy_and_follow_light_and_dark(page: Any) -> None:
    page.emulate_media(color_scheme="light")
    page.goto("/dashboard/runs/first#clients")
    page.wait_for_selector(".plot svg .scatterlayer path.point")
    box = page.locator(".plot svg.main-svg").first.bounding_box()
    assert box["width"] > 600
    assert box["height"] > 150
    ink = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    light = page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"light => {ink} !== light", arg=light)


def test_titles_of_strangers_are_text_wherever_they_stand(page: Any, service: Any) -> None:
    page.on("dialog", lambda asked: pytest.fail(asked.message))
    put(service, "A00003", EVIL)
    page.goto("/dashboard/playground")
    page.get_by_role("combobox").fill("onerror")
    page.wait_for_selector("[role=option]")
    page.keyboard.press("Enter")
    page.locator("#told", has_text="for 1 item").wait_for()
    assert EVIL in page.locator("#cart li").first.inner_text()
    assert page.locator("#cart img, #suggestions img").count() == 0


def test_the_overview_follows_a_change_within_seconds(page: Any, service: Any) -> None:
    page.goto("/dashboard/")
    page.get_by_text("This page follows by itself.").wait_for()
    put(service, "A00005", "Seen at once")
    page.get_by_text("A00005").wait_for(timeout=5000)


def test_the_command_lines_of_the_api_page_can_be_run(page: Any, service: Any) -> None:
    page.goto("/dashboard/api")
    shown = page.locator("pre", has_text="/v1/recommend/basket").first.inner_text()
    assert shown.startswith(f"curl -X POST {service.address}/v1/recommend/basket")
    question = json.loads(shown.partition("-d '")[2].rstrip().rstrip("'"))
    reply = httpx.post(f"{service.address}/v1/recommend/basket", json=question, timeout=ANSWER)
    assert reply.status_code == 200, shown


def put(service: Any, item: str, title: str) -> None:
    reply = httpx.put(f"{service.address}/v1/items/{item}", json={"title": title}, timeout=ANSWER)
    assert reply.is_success, reply.text
