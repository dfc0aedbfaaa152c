"""An operator at work on the dashboard: real replicas, prober, router and browser; what each act does to clients."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Page, expect
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.acceptance.fleet import Fleet, next_message
from tests.acceptance.pages import is_flawless
from tests.acceptance.test_player import log_in

VERDICT_SECONDS = 2.0  # issue: the page says so within this of the prober's verdict


async def sit_down(fleet: Fleet, page: Page) -> dict[str, str]:
    """Sign in and open the dashboard, live; gives the selector of each replica by its name."""
    await log_in(fleet, page)
    await page.goto(f"http://localhost:{fleet.port}/dashboard/")
    await page.wait_for_selector("[data-feed=live]")
    rows = {}
    for name in ("a", "b"):
        row = page.locator(".replica", has=page.locator(f"h3 a:text-is('{name}')"))
        await expect(row).to_contain_text("healthy")
        rows[name] = f"[data-replica='{await row.get_attribute('data-replica')}']"
    return rows


async def act(page: Page, row: str, word: str) -> None:
    """Choose an act of a replica, see what it will do, confirm."""
    await page.click(f"{row} .act")
    await page.click(f"#dialog .choice:has(strong:text-is('{word}'))")
    await expect(page.locator("#dialog [type=submit]")).to_be_enabled()


async def test_a_replica_is_drained_and_taken_back(fleet: Fleet, page: Page) -> None:
    """What it will do is said first; its session goes on, the next goes elsewhere, and “1 left” becomes none."""
    rows = await sit_down(fleet, page)
    async with fleet.session() as first:
        assert (await next_message(first, "gpu_assigned"))["gpu_id"] == "a/gpu0"
        await expect(page.locator(f"{rows['a']} .used")).to_have_text("1 of 1")
        await act(page, rows["a"], "Drain")
        await expect(page.locator("#dialog .said")).to_contain_text("keeps 1")
        await is_flawless(page)
        await page.click("#dialog [type=submit]")
        await expect(page.locator("#left")).to_have_text("1 of 1 left")
        await expect(page.locator(f"{rows['a']} .state-draining")).to_be_visible()
        async with fleet.session() as second:
            assert (await next_message(second, "gpu_assigned"))["gpu_id"] == "b/gpu0"
        await next_message(first, "ltx2_segment_complete")
    await expect(page.locator("#left")).to_have_text("No session left: it has drained.")
    await page.keyboard.press("Escape")
    await act(page, rows["a"], "Activate")
    await page.click("#dialog [type=submit]")
    await expect(page.locator(f"{rows['a']} .state-draining")).to_be_hidden()
    await page.wait_for_selector("#verdict[data-level=good]")


async def test_another_replica_becomes_the_primary(fleet: Fleet, page: Page) -> None:
    """The mark moves on the page, and the next session goes there."""
    rows = await sit_down(fleet, page)
    await act(page, rows["b"], "Make primary")
    await expect(page.locator("#dialog .said")).to_contain_text("b becomes the primary instead of a")
    await page.click("#dialog [type=submit]")
    await expect(page.locator("#notice")).to_have_text("The primary is now b.")
    await expect(page.locator(f"{rows['b']} .mark")).to_be_visible()
    await expect(page.locator(f"{rows['a']} .mark")).to_be_hidden()
    async with fleet.session() as connection:
        assert (await next_message(connection, "gpu_assigned"))["gpu_id"] == "b/gpu0"


async def test_a_killed_replica_is_news_within_two_seconds(fleet: Fleet, page: Page) -> None:
    """Of the prober's verdict: its row, the first line, and its history; and all is well when it is back."""
    rows = await sit_down(fleet, page)
    fleet.kill("a")
    await asyncio.to_thread(fleet.wait_for_status, a="unhealthy")
    patience = VERDICT_SECONDS * 1000
    await page.wait_for_selector(f"{rows['a']} .status-unhealthy", timeout=patience)
    await expect(page.locator("h1")).to_contain_text("a has been unhealthy for", timeout=patience)
    assert await page.get_attribute("#verdict", "data-level") == "bad"
    await expect(page.locator(f"{rows['a']} .error")).not_to_be_empty()
    await page.click(f"{rows['a']} h3 a")
    await page.wait_for_selector("#timeline .band-unhealthy")
    await expect(page.locator("#moments li").first).to_contain_text("unhealthy")
    await is_flawless(page)
    fleet.start_replica("a")
    await page.click("text=← All replicas")
    await page.wait_for_selector("#verdict[data-level=good]", timeout=20_000)


async def test_a_stopped_prober_is_a_red_line(fleet: Fleet, page: Page) -> None:
    """And its last word stands."""
    rows = await sit_down(fleet, page)
    fleet.prober.process.kill()
    await expect(page.locator("#verdict")).to_contain_text("The prober is silent for", timeout=40_000)
    assert await page.get_attribute("#verdict", "data-level") == "bad"
    await expect(page.locator(f"{rows['a']} .stale")).to_be_visible()


@pytest.mark.parametrize("size", [(1440, 900), (360, 800)], ids=["desk", "phone"])
async def test_a_disconnected_client_hears_why(fleet: Fleet, page: Page, size: tuple[int, int]) -> None:
    """1012 with the operator's words; and the table explains how the session ended."""
    await page.set_viewport_size({"width": size[0], "height": size[1]})
    await sit_down(fleet, page)
    async with fleet.session() as connection:
        await next_message(connection, "gpu_assigned")
        row = page.locator("#sessions-body tr")
        await expect(row).to_have_count(1)
        await row.locator(".act").click()
        await page.fill("#reason", "maintenance at three")
        await expect(page.locator("#dialog .said")).to_contain_text("maintenance at three")
        await page.click("#dialog [type=submit]")
        with pytest.raises(ConnectionClosed) as closed:
            await to_the_end(connection)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "maintenance at three")
    await page.click("#sessions-state label:has-text('Ended')")
    await expect(page.locator("#sessions-body .sentence").first).to_contain_text("maintenance at three")


async def to_the_end(connection: ClientConnection) -> None:
    while True:
        await connection.recv()


async def test_who_is_not_staff_is_sent_to_the_sign_in(fleet: Fleet, page: Page) -> None:
    await page.goto(f"http://localhost:{fleet.port}/dashboard/")
    assert page.url.endswith("/admin/login/?next=/dashboard/")
