"""How fresh the dashboard is, and that it says so: the socket, polling, stale, signed out. In a real browser."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.acceptance.pages import is_flawless, until
from tests.acceptance.stage import Stage

READY = "body[data-ready]"


async def test_without_a_socket_the_page_polls(stage: Stage, rough: Page) -> None:
    """And goes over to the socket by itself, as soon as there is one."""
    stage.socket = "refuse"
    await rough.goto(stage.url)
    await rough.wait_for_selector("[data-feed=polling]")
    await expect(rough.locator("h1")).to_contain_text("bell has been unhealthy")
    stage.socket = "open"
    await rough.wait_for_selector("[data-feed=live]")


async def test_a_page_that_hears_nothing_says_so(stage: Stage, rough: Page) -> None:
    """The socket hangs and nothing else answers: stale, with for how long; and back by itself."""
    await rough.goto(stage.url)
    await rough.wait_for_selector("[data-feed=live]")
    stage.socket, stage.http = "silent", False
    await rough.wait_for_selector("[data-feed=stale]")
    assert (await rough.inner_text("#stale")).startswith("Nothing heard for ")
    assert (await rough.inner_text("#feed-text")).startswith("stale · ")
    await is_flawless(rough)
    stage.socket, stage.http = "open", True
    await rough.wait_for_selector("[data-feed=live]", timeout=30_000)
    await expect(rough.locator("#stale")).to_be_hidden()


async def test_a_router_that_restarts_is_found_again(stage: Stage, rough: Page) -> None:
    await rough.goto(stage.url)
    await rough.wait_for_selector("[data-feed=live]")
    stage.hang_up(1012)
    await until(lambda: _is(not stage.watchers), "the end of the watch")
    await until(lambda: _is(stage.watchers), "a new one")
    await rough.wait_for_selector("[data-feed=live]")


async def _is(value: Any) -> bool:
    return bool(value)


@pytest.mark.parametrize("by", ["socket", "http"])
async def test_who_is_signed_out_is_told(stage: Stage, rough: Page, by: str) -> None:
    """By the socket's close 4403, or by a 403 where there is no socket."""
    stage.socket, stage.staff = (4403, True) if by == "socket" else ("refuse", False)
    await rough.goto(stage.url)
    await rough.wait_for_selector("[data-feed='signed out']")
    assert await rough.get_attribute("#signed-out a", "href") == "/admin/login/?next=/dashboard/"
    await is_flawless(rough)
