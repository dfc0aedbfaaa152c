"""The player page and the admin in a real browser: video plays, its replica dies, the page recovers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright

from tests.acceptance.test_contract import Fleet, fleet  # noqa: F401  (a fixture)
from tests.processes import manage

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SERIOUS = ("serious", "critical")


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page whose errors, a broken Content-Security-Policy among them, fail the test."""
    page = await browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield page
    assert errors == []


async def until(ask: Any, what: str, timeout: float = 30) -> None:
    # Not wait_for_function: the page's policy forbids the eval that it needs.
    async with asyncio.timeout(timeout):
        while not await ask():
            await asyncio.sleep(0.05)


async def plays(page: Page, beyond: float) -> None:
    async def moved() -> bool:
        return bool(await page.evaluate("document.getElementById('video').currentTime") > beyond)

    await until(moved, f"currentTime > {beyond}")


async def test_video_plays_and_the_page_recovers_on_the_other_replica(fleet: Fleet, page: Page) -> None:  # noqa: F811
    """currentTime moves; the replica is killed; the page says so, tries again by itself, and plays from the other."""
    await page.goto(f"http://localhost:{fleet.port}/")
    await page.fill("#prompt", "a fox in the snow")
    await page.click("#go")
    await page.wait_for_selector("body[data-phase=playing][data-replica^=a]")
    await plays(page, beyond=1.5)
    picture = await page.evaluate(
        "[document.getElementById('video').videoWidth, document.getElementById('video').videoHeight]"
    )
    assert picture == [640, 360]
    fleet.replicas["a"].process.kill()
    await page.wait_for_selector("body[data-phase=retrying]")
    await page.wait_for_selector("body[data-phase=playing][data-replica^=b]")
    await plays(page, beyond=1)
    story = await page.inner_text("#story")
    for words in ("On a/gpu0.", "worker_failed", "close 1011", "Trying again in", "On b/gpu0.", "“a fox in the snow”"):
        assert words in story
    await page.click("#stop")
    await page.wait_for_selector("body[data-phase=ended]")


async def test_a_prompt_is_changed_while_it_plays(fleet: Fleet, page: Page) -> None:  # noqa: F811
    """The next segments show the new one."""
    await page.goto(f"http://localhost:{fleet.port}/")
    await page.click("#go")
    await page.wait_for_selector("body[data-phase=playing]")
    await page.click("text=Jellyfish in a dark blue sea")
    await page.wait_for_selector("#story >> text=/Segment \\d+: “Jellyfish/")


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)])
async def test_pages_are_accessible_and_fit(fleet: Fleet, page: Page, size: tuple[int, int]) -> None:  # noqa: F811
    """No serious finding of axe on the player and in the admin; nothing sticks out on a phone."""
    await page.set_viewport_size({"width": size[0], "height": size[1]})
    await page.goto(f"http://localhost:{fleet.port}/")
    await page.click("#go")
    await page.wait_for_selector("body[data-phase=playing]")
    assert await page.evaluate("document.documentElement.scrollWidth") <= size[0]
    await serious_findings(page, "main")


async def test_an_operator_moves_the_mark_with_one_click(fleet: Fleet, page: Page) -> None:  # noqa: F811
    """Logs in, sees both replicas healthy, makes b the primary; the next session is on b."""
    manage(
        fleet.var, "createsuperuser", "--noinput", "--username", "ops", "--email", "",
        DJANGO_SUPERUSER_PASSWORD="operator-1",
    )  # fmt: skip
    await page.goto(f"http://localhost:{fleet.port}/admin/replicas/replica/")
    await page.fill("#id_username", "ops")
    await page.fill("#id_password", "operator-1")
    await page.click("[type=submit]")
    await page.wait_for_selector(".status-healthy")
    await serious_findings(page, "#result_list td")
    await page.click("button:has-text('make primary')")
    await page.wait_for_selector("text=The primary is now b.")
    async with fleet.session() as connection:
        while "gpu_assigned" not in (message := str(await connection.recv())):
            pass
    assert '"b/gpu0"' in message


async def serious_findings(page: Page, context: str) -> None:
    found = await Axe().run(page, context=context)
    serious = [v for v in found.response["violations"] if v["impact"] in SERIOUS]
    assert serious == [], serious
