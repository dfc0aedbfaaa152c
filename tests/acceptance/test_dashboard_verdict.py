"""The dashboard's first line: the state of the fleet in one sentence, and what to do. In a real browser."""

from __future__ import annotations

from typing import Any

from playwright.async_api import Page, expect

from tests.acceptance import scenes
from tests.acceptance.scenes import NOW, replica, snapshot, unhealthy
from tests.acceptance.stage import Stage

READY = "body[data-ready]"


A, B = replica(1, "a", primary=True), replica(2, "b")
DOWN = unhealthy(2, "b")
BUSY: dict[str, Any] = {"max_length": 100, "timeout_seconds": 120}
READINGS: list[tuple[dict[str, Any], str, str]] = [
    (snapshot([A, B]), "good", "All well: 6 of 16 slots in use"),
    (snapshot([replica(1, slots=None)]), "good", "All well: 3 sessions on 1 replica"),
    (snapshot([]), "bad", "Nobody can be placed: there is no replica"),
    (snapshot([DOWN]), "bad", "Nobody can be placed: no replica is healthy"),
    (snapshot([A | {"state": "disabled"}]), "bad", "Nobody can be placed: every replica is draining or disabled"),
    (snapshot([A | {"status": "unknown"}]), "bad", "Nobody can be placed: no replica has been probed yet"),
    (snapshot([A | {"ejected_until": NOW + 9}]), "bad", "Nobody can be placed: connects to all healthy replicas fail"),
    (snapshot([A, DOWN]), "wait", "b has been unhealthy for 3 min: connection refused"),
    (snapshot([unhealthy(1, "a", primary=True), B]), "bad", "a has been unhealthy for 3 min: connection refused"),
    (snapshot([A, DOWN, unhealthy(3, "c")]), "bad", "2 of 3 replicas are unhealthy: b and c"),
    (snapshot([A, B | {"ejected_until": NOW + 9}]), "wait",
     "b is ejected: probes succeed, but connects failed in a row"),
    (snapshot([A, B | {"stale": True}]), "wait", "b is stale: not probed for too long"),
    (snapshot([A | {"state": "draining"}, B]), "wait", "The primary a is draining: the others share"),
    (snapshot([A | {"sessions": 8}], line={"length": 3, "longest_wait": 5.0} | BUSY), "wait",
     "Every slot is in use: 3 in the line"),
    (snapshot([A | {"sessions": 8}], line={"length": 100, "longest_wait": 5.0} | BUSY), "bad",
     "The line is full: newcomers are refused (100 of 100)"),
    (snapshot([A, B], line={"length": 1, "longest_wait": 70.0} | BUSY), "wait",
     "The longest wait in the line is 70 s of 2 min"),
    (snapshot([A, B], prober={"state": "stale", "holder": "h", "epoch": 1, "beat_age": 40.0}), "bad",
     "The prober is silent for 40 s: what is said of replicas is its last word"),
    (snapshot([A | {"status": "unknown"}], prober={"state": "never ran", "holder": "", "epoch": 0, "beat_age": None}),
     "bad", "The prober has never run: no replica's health is known"),
    (snapshot([A, B], processes=[scenes.process(1), scenes.process(2, state="silent", beat_age=9.0)]), "wait",
     "Router process router-2:4127 has been silent for 9 s"),
]  # fmt: skip


async def test_the_first_line_says_what_is_wrong(stage: Stage, page: Page) -> None:
    """Each state in one sentence, with what to do; a worse thing comes first."""
    await page.goto(stage.url)
    for state, level, sentence in READINGS:
        found = await page.evaluate(
            """async state => {
                const { read } = await import("/static/dashboard/reading.js");
                const { merge } = await import("/static/dashboard/merge.js");
                return read(merge(null, state), state.at);
            }""",
            state,
        )
        assert (found["level"], found["sentence"]) == (level, sentence)
        assert found["advice"] or level == "good" or sentence.startswith("2 of"), sentence


async def test_a_drain_is_told_but_is_no_trouble(stage: Stage, page: Page) -> None:
    stage.state = snapshot([A, B | {"state": "draining", "sessions": 3, "available": False}])
    await page.goto(stage.url)
    await page.wait_for_selector("#verdict[data-level=good]")
    await expect(page.locator("#points")).to_have_text("b drains: 3 left")
