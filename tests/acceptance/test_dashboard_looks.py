"""How the dashboard looks: accessible, without sideways scrolling, and photographed for people to judge."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from playwright.async_api import Page

from tests.acceptance import scenes
from tests.acceptance.pages import is_flawless
from tests.acceptance.stage import Stage, staged
from tests.processes import ROOT

SCREENSHOTS = ROOT / "var" / "screenshots"  # README names it
READY = "body[data-ready]"
SIZES = {"phone": (360, 800), "desk": (1440, 900), "wall": (3840, 2160)}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
async def test_the_page_is_accessible_and_fits(stage: Stage, page: Page, size: str, scheme: Any) -> None:
    """Trouble and peace, the dialogs, a replica's history: on a phone, on a desk and on a wall."""
    width, height = SIZES[size]
    await page.set_viewport_size({"width": width, "height": height})
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    await page.goto(stage.url)
    await page.wait_for_selector("#sessions-body tr")
    await is_flawless(page)
    await page.click("[data-replica='1'] .act")
    await is_flawless(page)
    await page.keyboard.press("Escape")
    stage.tell(**{key: value for key, value in scenes.small().items() if key != "type"}, gone=[4, 5, 6, 7])
    await page.wait_for_selector("#verdict[data-level=good]")
    await is_flawless(page)
    await page.goto(f"{stage.url}replicas/1/")
    await page.wait_for_selector(READY)
    await is_flawless(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
async def test_the_page_is_photographed(page: Page, size: str, scheme: Any) -> None:
    """For CI to keep and people to judge: the dashboard with a replica that is down, and a replica's history."""
    await asyncio.to_thread(SCREENSHOTS.mkdir, parents=True, exist_ok=True)
    width, height = SIZES[size]
    await page.set_viewport_size({"width": width, "height": height})
    await page.emulate_media(color_scheme=scheme)
    async with staged(scenes.eventful(), sessions=scenes.sessions(14), history=scenes.history()) as stage:
        for name, path, sign in (
            ("dashboard", "", "#sessions-body tr .act:visible"),
            ("history", "replicas/1/", READY),
        ):
            await page.goto(f"{stage.url}{path}")
            await page.locator(sign).first.wait_for()
            picture = SCREENSHOTS / f"{name}-{width}x{height}-{scheme}.png"
            await page.screenshot(path=picture, full_page=size == "phone")
        await page.goto("about:blank")  # before the stage goes


async def test_nothing_moves_for_who_asks_for_that(stage: Stage, page: Page) -> None:
    await page.emulate_media(reduced_motion="reduce")
    await page.goto(stage.url)
    await page.wait_for_selector("#replicas .bar")
    duration = "getComputedStyle(document.querySelector('.bar i')).transitionDuration"
    assert await page.evaluate(duration) == "0s"
    assert await page.evaluate("document.getAnimations().length") == 0
