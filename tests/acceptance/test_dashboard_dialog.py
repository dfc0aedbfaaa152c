"""Acting on the dashboard, in a real browser: what an act will do is asked first, and said; by keyboard too."""

from __future__ import annotations

import json

import pytest
from playwright.async_api import Page, expect

from tests.acceptance.pages import is_flawless, until
from tests.acceptance.scenes import replica
from tests.acceptance.stage import Stage

READY = "body[data-ready]"


async def test_an_act_is_asked_first_and_done_when_confirmed(stage: Stage, page: Page) -> None:
    """By keyboard alone: to the replica, into the dialog, with a deadline, back where it began."""
    told = {True: "euler: closes 0, keeps 5", False: "euler: draining, keeps 5"}
    stage.answers = lambda body: (200, {"said": told[body.get("ask", False)]})
    await page.goto(stage.url)
    await page.wait_for_selector("[data-replica='5'] .act")
    await press_until(page, "[data-replica='5'] .act", "Tab")
    await page.keyboard.press("Enter")
    await expect(page.locator("#dialog .choice").first).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#dialog .said")).to_have_text("euler: closes 0, keeps 5")
    assert [body["what"] for body in stage.acts if not body.get("ask")] == []
    await expect(page.locator("#deadline")).to_be_focused()
    await page.keyboard.type("600")
    await until(lambda: asked_for(stage, 600), "asked again, with the deadline")
    await is_flawless(page)
    await page.keyboard.press("Enter")
    await expect(page.locator("#notice")).to_have_text("euler: draining, keeps 5")
    done = stage.acts[-1]
    assert (done["what"], done["replica"], done["deadline_seconds"], done["token"]) == ("drain", 5, 600, "a-token")
    assert "ask" not in done
    await expect(page.locator("#left")).to_have_text("5 of 5 left")
    stage.tell(replicas=[replica(5, "euler", state="draining", sessions=2)])
    await expect(page.locator("#left")).to_have_text("2 of 5 left")
    stage.tell(replicas=[replica(5, "euler", state="draining", sessions=0)])
    await expect(page.locator("#left")).to_have_text("No session left: it has drained.")
    await page.keyboard.press("Escape")
    await expect(page.locator("#dialog")).to_be_hidden()
    await expect(page.locator("[data-replica='5'] .act")).to_be_focused()


async def asked_for(stage: Stage, seconds: float) -> bool:
    return bool(stage.acts and stage.acts[-1].get("ask") and stage.acts[-1]["deadline_seconds"] == seconds)


async def press_until(page: Page, selector: str, key: str) -> None:
    """Until the focus is there."""
    for _ in range(200):
        await page.keyboard.press(key)
        if await page.locator(selector).evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"{selector} is not reached by {key}")


async def test_a_refusal_is_said_in_words(stage: Stage, rough: Page) -> None:
    """And the button that would not do it is off. Escape leaves all as it is."""
    said = "ada is deleted; it keeps 8 sessions. Add it again to use it."
    stage.answers = lambda body: (409, {"error": said})
    await rough.goto(stage.url)
    await rough.click("[data-replica='2'] .act")
    await rough.click("#dialog .choice:has-text('Make primary')")
    await expect(rough.locator("#dialog .wrong")).to_have_text(said)
    await expect(rough.locator("#dialog [type=submit]")).to_be_disabled()
    await rough.keyboard.press("Escape")
    await expect(rough.locator("#dialog")).to_be_hidden()
    assert all(body.get("ask") for body in stage.acts)


@pytest.mark.parametrize(
    ("may", "shown"),
    [({}, []), ({"drain": True}, ["Drain"]), ({"edit": True}, ["Make primary", "Probe now", "Disable"])],
    ids=json.dumps,
)
async def test_only_what_is_permitted_is_offered(
    stage: Stage, page: Page, may: dict[str, bool], shown: list[str]
) -> None:
    """Who may only look sees no button; who may drain may also take a drain back."""
    stage.state["may"] = {"drain": False, "edit": False, "disconnect": False} | may
    await page.goto(stage.url)
    await page.wait_for_selector("#sessions-body tr")
    await expect(page.locator("#sessions-body .act:visible")).to_have_count(0)
    button = page.locator("[data-replica='4'] .act")
    if not shown:
        await expect(button).to_be_hidden()
        return
    await button.click()
    assert await page.locator("#dialog .choice strong").all_inner_texts() == shown
    await page.keyboard.press("Escape")
    await page.click("[data-replica='3'] .act")
    await expect(page.locator("#dialog .choice:has-text('Activate')")).to_be_visible()


@pytest.mark.parametrize("width", [360, 1280])
async def test_several_sessions_are_disconnected_at_once(stage: Stage, page: Page, width: int) -> None:
    """Also on a phone, where a session is a card."""
    await page.set_viewport_size({"width": width, "height": 800})
    await page.goto(stage.url)
    await page.wait_for_selector("#sessions-body tr")
    uids = await page.locator("#sessions-body tr").evaluate_all(
        "rows => rows.slice(0, 2).map((row) => row.dataset.session)"
    )
    for uid in uids:
        await page.check(f"[data-session='{uid}'] input")
    button = page.locator("text=Disconnect 2…")
    await expect(button).to_be_in_viewport(ratio=1)
    await is_flawless(page)
    await button.click()
    await page.fill("#reason", "maintenance at three")
    await page.click("#dialog [type=submit]")
    await expect(page.locator("#notice")).to_have_text("done")
    assert (stage.acts[-1]["sessions"], stage.acts[-1]["reason"]) == (uids, "maintenance at three")
    await expect(button).to_be_hidden()


async def test_what_was_chosen_and_has_ended_can_be_let_go(stage: Stage, page: Page) -> None:
    """It has left the table of the live ones, so there is nothing to uncheck."""
    await page.goto(stage.url)
    row = page.locator("#sessions-body tr").first
    await row.locator("input").check()
    uid = await row.get_attribute("data-session")
    stage.sessions = [session for session in stage.sessions if session["uid"] != uid]
    await expect(page.locator(f"[data-session='{uid}']")).to_have_count(0)
    await expect(page.locator("#sessions-disconnect")).to_have_text("Disconnect 1…")
    await page.click("#sessions-unchoose")
    await expect(page.locator("#sessions-chosen")).to_be_hidden()
    await page.locator("#sessions-body tr").first.locator("input").check()
    await expect(page.locator("#sessions-disconnect")).to_have_text("Disconnect 1…")
