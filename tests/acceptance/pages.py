"""What tests of pages ask of a real browser. The fixtures `browser` and `page` are in conftest.py."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
expect.set_options(timeout=60_000)  # a patience, and no test's subject: of 5 s by itself
SERIOUS = ("serious", "critical")


async def is_flawless(page: Page) -> None:
    """axe finds nothing at all, and nothing sticks out at the side."""
    found = await Axe().run(page)
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found.response["violations"]] == []
    await fits(page)


async def fits(page: Page) -> None:
    """Nothing sticks out at the side."""
    width = await page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width[0] <= width[1], f"{page.url}: {width}"


async def until(ask: Callable[[], Awaitable[Any]], what: str, timeout: float = 30) -> None:
    # Not wait_for_function: the page's policy forbids the eval that it needs.
    try:
        async with asyncio.timeout(timeout):
            while not await ask():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not within {timeout:g} s: {what}") from None


# The phases that a player was in, of which some last for half a second.
NOTE_PHASES = """addEventListener("DOMContentLoaded", () => {
    window.phases = [];
    new MutationObserver(() => window.phases.push(document.body.dataset.phase))
        .observe(document.body, { attributes: true, attributeFilter: ["data-phase"] });
});"""


async def passed(page: Page, phase: str) -> None:
    """Until it was in that phase, for however short a time."""

    async def was() -> bool:
        return phase in await page.evaluate("window.phases")

    await until(was, f"the phase {phase}")


async def plays(page: Page, beyond: float) -> None:
    async def moved() -> bool:
        return bool(await page.evaluate("document.getElementById('video').currentTime") > beyond)

    await until(moved, f"currentTime > {beyond}")


async def is_sound(page: Page, but_for: Sequence[str] = ()) -> None:
    """The whole page: axe finds nothing serious in it, and nothing sticks out at the side.

    `but_for`: what stands in the HTML of elements that are not ours to mend.
    """
    found = await Axe().run(page)
    serious = [
        (violation["id"], node["html"])
        for violation in found.response["violations"]
        if violation["impact"] in SERIOUS
        for node in violation["nodes"]
        if not any(part in node["html"] for part in but_for)
    ]
    assert serious == [], f"{page.url}: {serious}"
    await fits(page)
