"""The dashboard's page in a real browser, before a stage that plays the router: what it shows, of whatever state."""

from __future__ import annotations

import re

from playwright.async_api import Page, expect

from tests.acceptance import scenes
from tests.acceptance.pages import is_flawless, until
from tests.acceptance.scenes import NOW, replica, snapshot, unhealthy
from tests.acceptance.stage import Stage, staged

READY = "body[data-ready]"


async def test_everything_is_shown(stage: Stage, page: Page) -> None:
    """Replicas with their marks, bars, sparklines and errors; processes; the prober; plots; sessions."""
    await page.goto(stage.url)
    await page.wait_for_selector("#sessions-body tr")
    text = {name: await page.inner_text(f"[data-replica='{n}']") for n, name in enumerate("abcdefg", 1)}
    expected = {
        "a": ("ada", "★ primary", "full", "8 of 8"),
        "b": ("unhealthy", "for 3 min", "connection refused"),
        "c": ("draining", "4 left", "closed after 10 min"),
        "d": ("slow start · 40 %",),
        "f": ("ejected",),
        "g": ("disabled", "unknown"),
    }
    for name, words in expected.items():
        for word in words:
            assert word in text[name], (name, word)
    assert await page.locator("[data-replica='1'] .spark path").get_attribute("d")
    label = await page.locator("[data-replica='2'] .spark").get_attribute("aria-label") or ""
    assert label.startswith("Latency in 30 min: ")
    assert not label.endswith(" 0 failed")
    assert "lease 3" in await page.inner_text("#processes")
    for name in ("sessions", "waiting", "opened", "bytes"):
        assert await page.locator(f"#plot-{name} svg.plot :is(path, rect)").count()
    assert await page.locator("#sessions-body tr").count() == 50


async def test_names_and_errors_are_text(stage: Stage, page: Page) -> None:
    """Whatever a replica calls itself or answers, it is shown and not run."""
    evil = "<img src=x onerror=alert(1)>"
    stage.state = snapshot([unhealthy(1, evil, error=evil, primary=True)])
    await page.goto(stage.url)
    await page.wait_for_selector("#points .text")
    assert evil in await page.inner_text("#points")
    assert await page.locator("main img").count() == 0


async def test_changes_are_shown_as_they_come(stage: Stage, page: Page) -> None:
    """A row that changed, one that came, one that went, a sample more."""
    await page.goto(stage.url)
    await page.wait_for_selector("[data-feed=live]")
    await page.wait_for_selector("[data-replica='5']")
    stage.tell(replicas=[unhealthy(5, "euler", since=1), replica(8, "hopper")], gone=[7], at=NOW + 1)
    await expect(page.locator("[data-replica='5']")).to_contain_text("unhealthy")
    await expect(page.locator("[data-replica='8']")).to_contain_text("hopper")
    await expect(page.locator("[data-replica='7']")).to_have_count(0)
    before = await page.get_attribute("#plot-sessions svg", "aria-valuetext")
    sample = {"at": NOW + 7, "sessions": 77, "waiting": 0, "opened": 0, "failed": 0, "bytes_up": 0, "bytes_down": 0}
    stage.tell(plots={"append": sample}, at=NOW + 7)
    await expect(page.locator("#plot-sessions svg")).to_have_attribute("aria-valuetext", re.compile(" 77$"))
    assert before is not None
    assert " 77" not in before


async def test_a_screen_reader_hears_news_and_not_the_clock(stage: Stage, page: Page) -> None:
    """What counts up by itself is not announced again; what is new is."""
    await page.goto(stage.url)
    await page.wait_for_selector(READY)
    await page.evaluate(
        """() => {
            window.heard = 0;
            const observer = new MutationObserver(() => { window.heard += 1; });
            observer.observe(document.getElementById("spoken"), { childList: true });
        }"""
    )
    ejected = page.locator("[data-replica='6'] .ejected")
    first = await ejected.inner_text()
    await expect(ejected).not_to_have_text(first)  # a second has been counted
    assert await page.evaluate("window.heard") == 0
    stage.tell(replicas=[unhealthy(5, "euler", since=1)])
    await expect(page.locator("#spoken")).to_contain_text("euler")


# --- many ---


async def test_five_hundred_replicas_and_five_thousand_sessions(page: Page) -> None:
    """First those that ask for attention; the rest is found, or shown when asked for. Sessions by the page."""
    state = scenes.large()
    bad = [row["name"] for row in state["replicas"] if row["status"] == "unhealthy"]
    async with staged(state, sessions=scenes.sessions(5000)) as stage:
        await page.goto(stage.url)
        await page.wait_for_selector("#replicas .replica")
        assert await page.locator("#replicas .replica").count() == 20
        assert (await page.locator("#replicas h3 a").all_inner_texts())[: len(bad)] == bad
        await page.click("#replicas-only label:has-text('In trouble')")
        await expect(page.locator("#replicas .replica")).to_have_count(len(bad))
        await page.click("#replicas-only label:has-text('All')")
        await page.fill("#replicas-search", "gpu-499")
        await expect(page.locator("#replicas .replica")).to_have_count(1)
        await page.fill("#replicas-search", "")
        await page.click("text=Show all 500")
        await expect(page.locator("#replicas .replica")).to_have_count(500)
        await expect(page.locator("#sessions-range")).to_have_text("1–50 of 5,000")
        await page.click("#sessions-after")
        await expect(page.locator("#sessions-range")).to_have_text("51–100 of 5,000")
        assert await page.locator("#sessions-body tr").count() == 50
        await is_flawless(page)
        await page.goto("about:blank")  # before the stage goes


async def asked(stage: Stage, **wanted: str) -> bool:
    """Was that the last question for sessions? The page repeats it."""
    return bool(stage.asked) and wanted.items() <= stage.asked[-1].items()


async def test_sessions_are_sorted_found_and_explained(stage: Stage, page: Page) -> None:
    """By the heads of the columns, by what is typed; the ended say why; the address of the page keeps the question."""
    await page.goto(stage.url)
    await page.click("#sessions-head button:has-text('Down')")
    await expect(page.locator("[data-field=bytes_down]")).to_have_attribute("aria-sort", "descending")
    await page.click("#sessions-head button:has-text('Down')")
    await expect(page.locator("[data-field=bytes_down]")).to_have_attribute("aria-sort", "ascending")
    await until(lambda: asked(stage, sort="bytes_down"), "a question for that order")
    await page.click("#sessions-state label:has-text('Ended')")
    await expect(page.locator("#sessions-body tr").first).to_contain_text(
        re.compile(r"replica bell vanished \d+ s in; client told worker_failed \(1011\)")
    )
    await page.reload()
    await expect(page.locator("#sessions-state input[value=ended]")).to_be_checked()
    await page.fill("#sessions-search", "nobody is called that")
    await expect(page.locator("#sessions-none")).to_have_text("No session is like that.")
    await page.fill("#sessions-search", "")
    await page.click("[data-replica='1'] .used")
    await expect(page.locator("#sessions-of")).to_have_text("on ada ×")
    await until(lambda: asked(stage, replica="1"), "a question for that replica")


# --- plots, by keyboard ---


async def test_a_plot_is_read_by_keyboard(stage: Stage, page: Page) -> None:
    await page.goto(stage.url)
    await page.wait_for_selector(READY)
    plot = page.locator("#plot-bytes svg")
    await plot.focus()
    await page.keyboard.press("ArrowLeft")
    await expect(page.locator("#plot-bytes .plot-said")).to_contain_text("MB/s")
    assert await plot.get_attribute("aria-valuenow") == "359"
    await page.keyboard.press("Home")
    assert await plot.get_attribute("aria-valuenow") == "0"


# --- a replica's history ---


async def test_a_replicas_history_is_drawn_and_told(stage: Stage, page: Page) -> None:
    """Outages as stretches of the band, sessions as bars, acts as ticks; and all of it in words."""
    await page.goto(f"{stage.url}replicas/1/")
    await page.wait_for_selector(READY)
    assert await page.locator("#timeline .band-unhealthy").count() == 2
    assert await page.locator("#timeline .deed").count() == 2
    assert await page.locator("#timeline .stay").count() == 160
    assert "2 outages" in await page.inner_text("#summary")
    await page.click("#kinds label:has-text('Health')")
    await expect(page.locator("#moments li")).to_have_count(5)
    await expect(page.locator("#moments li").first).to_contain_text("2 successes in a row (before: unhealthy)")
    await page.click("#kinds label:has-text('Acts')")
    await expect(page.locator("#moments li").last).to_contain_text("ops: State: active → draining")
