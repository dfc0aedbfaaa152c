"""The player page and the admin in a real browser, before real replicas: video plays, its replica dies, it recovers."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Page
from websockets.asyncio.client import ClientConnection

from tests.acceptance.fleet import Fleet, next_message
from tests.acceptance.pages import is_flawless, passed, plays

SIZES = [(1280, 800), (390, 844), (360, 780)]


async def test_video_plays_and_the_page_recovers_on_the_other_replica(fleet: Fleet, page: Page) -> None:
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
    fleet.kill("a")
    await passed(page, "retrying")
    await page.wait_for_selector("body[data-phase=playing][data-replica^=b]")
    await plays(page, beyond=1)
    story = await page.inner_text("#story")
    for words in ("On a/gpu0.", "worker_failed", "close 1011", "Trying again in", "On b/gpu0.", "“a fox in the snow”"):
        assert words in story
    times = [float(text.split()[0]) for text in await page.locator("#story time").all_inner_texts()]
    assert times == sorted(times, reverse=True)  # one clock for the whole story
    await page.click("#stop")
    await page.wait_for_selector("body[data-phase=ended]")


async def test_a_prompt_is_changed_while_it_plays(fleet: Fleet, page: Page) -> None:
    """The next segments show the new one."""
    await page.goto(f"http://localhost:{fleet.port}/")
    await page.click("#go")
    await page.wait_for_selector("body[data-phase=playing]")
    await page.click("text=Jellyfish in a dark blue sea")
    await page.wait_for_selector("#story >> text=/Segment \\d+: “Jellyfish/")


async def test_stopped_it_is_started_again_at_once(fleet: Fleet, page: Page) -> None:
    """The only slot of the primary is free again for who comes back: Stop, Reconnect, and it plays on the same."""
    await page.goto(f"http://localhost:{fleet.port}/")
    await page.click("#go")
    for _ in range(3):
        await page.wait_for_selector("body[data-phase=playing][data-replica^=a]")
        await page.click("#stop")
        await page.click("#go")
    await page.wait_for_selector("body[data-phase=playing][data-replica^=a]")
    assert "session_rejected" not in await page.inner_text("#story")


async def test_a_change_of_mind_keeps_the_place_in_line(fleet: Fleet, page: Page) -> None:
    """Enter and an idea while the page waits: it stays before who came later, and gets what was asked last."""
    fleet.kill("a", "b")
    await asyncio.to_thread(fleet.wait_for_status, a="unhealthy", b="unhealthy")
    fleet.start_replica("a", "--queue", "5")
    await asyncio.to_thread(fleet.wait_for_status, a="healthy")
    async with fleet.session() as first:
        await next_message(first, "gpu_assigned")
        await page.goto(f"http://localhost:{fleet.port}/")
        await page.click("#go")
        await page.wait_for_selector("body[data-phase=queued]")
        assert await page.inner_text("#phase-text") == "In line, place 1"
        async with fleet.session() as later:
            await place(later, 2)
            await page.press("#prompt", "Enter")
            await page.click("text=Jellyfish in a dark blue sea")
            await asyncio.sleep(0.5)
            assert await page.inner_text("#phase-text") == "In line, place 1"
            await first.close()
            await page.wait_for_selector("body[data-phase=playing]")
            await place(later, 1)
            await page.wait_for_selector("#story >> text=/Segment \\d+: “Jellyfish/")


async def place(connection: ClientConnection, expected: int) -> None:
    while (await next_message(connection, "queue_status"))["position"] != expected:
        pass


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_player_is_accessible_and_fits(fleet: Fleet, page: Page, size: tuple[int, int], scheme: str) -> None:
    """Idle, playing, and with all replicas down; on a desk and on a phone."""
    await page.set_viewport_size({"width": size[0], "height": size[1]})
    await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    await page.goto(f"http://localhost:{fleet.port}/")
    await is_flawless(page)
    for selector in ("h1", "nav", "#go"):
        assert await lines(page, selector) == 1, selector
    await page.click("#go")
    await page.wait_for_selector("body[data-phase=playing]")
    await is_flawless(page)
    for selector in ("#go", "#stop"):
        assert await lines(page, selector) == 1, selector
    fleet.kill("a", "b")
    await page.wait_for_selector("#story >> text=gpu_unavailable")
    await page.wait_for_selector("body[data-phase=retrying]")
    await is_flawless(page)


async def lines(page: Page, selector: str) -> int:
    """In how many lines its text stands."""
    return int(
        await page.evaluate(
            """selector => {
                const range = document.createRange();
                range.selectNodeContents(document.querySelector(selector));
                const middles = [...range.getClientRects()].map((r) => Math.round((r.top + r.bottom) / 2 / 12));
                return new Set(middles).size;
            }""",
            selector,
        )
    )


async def log_in(fleet: Fleet, page: Page) -> None:
    name, password = await asyncio.to_thread(fleet.operator)
    await page.goto(f"http://localhost:{fleet.port}/admin/replicas/replica/")
    await page.fill("#id_username", name)
    await page.fill("#id_password", password)
    await page.click("[type=submit]")


async def test_an_operator_moves_the_mark_with_one_click(fleet: Fleet, page: Page) -> None:
    """Logs in, sees both replicas healthy, makes b the primary; the next session is on b."""
    await log_in(fleet, page)
    await page.wait_for_selector(".status-healthy")
    await page.click("button:has-text('make primary')")
    await page.wait_for_selector("text=The primary is now b.")
    async with fleet.session() as connection:
        assert (await next_message(connection, "gpu_assigned"))["gpu_id"] == "b/gpu0"
