"""The player's phases before a scripted server, and its modules by themselves, in a real browser.

The page comes from a real router; its WebSocket is answered here, so that a wait takes no replica and no time.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.async_api import Page, WebSocketRoute
from pytest_django.plugin import DjangoDbBlocker

from demo.video import Format, Overlay, background_for, encode_segment
from tests.acceptance.pages import passed, until
from tests.acceptance.servers import Router, running_router

REJECTED = {"type": "error", "code": "session_rejected", "message": "no GPU is free", "retryable": True}
SESSION = "0123456789abcdef0123456789abcdef"


class Script:
    """Plays the server: every WebSocket of the page, what came in on it, and what goes out."""

    def __init__(self) -> None:
        self.sockets: list[WebSocketRoute] = []
        self.heard: list[list[dict[str, Any]]] = []

    async def take(self, socket: WebSocketRoute) -> None:
        heard: list[dict[str, Any]] = []
        socket.on_message(lambda text: heard.append(json.loads(text)))
        self.sockets.append(socket)
        self.heard.append(heard)

    def say(self, kind: str, **fields: Any) -> None:
        self.sockets[-1].send(json.dumps({"type": kind, **fields}))

    async def connected(self, times: int) -> None:
        async def inits() -> bool:
            return len(self.heard) == times and bool(self.heard[-1])

        await until(inits, f"session {times}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Router]:
    """A router without a replica; the page is all that is asked of it."""
    with running_router("daphne", tmp_path_factory.mktemp("site"), django_db_blocker) as running:
        yield running


@pytest.fixture
async def script(site: Router, page: Page) -> Script:
    """The player, open, and its server."""
    script = Script()
    await page.route_web_socket("**/v1/stream", script.take)
    await page.goto(f"http://localhost:{site.port}/")
    return script


async def phase(page: Page, name: str) -> None:
    await page.wait_for_selector(f"body[data-phase={name}]")


async def story(page: Page) -> str:
    return await page.inner_text("#story")


async def test_before_anything_happened_it_says_so(script: Script, page: Page) -> None:
    """The story has an idle line, which the first event takes away."""
    assert "Nothing yet" in await story(page)
    await page.click("#go")
    await script.connected(1)
    assert "Nothing yet" not in await story(page)


async def test_all_down_is_said_and_tried_again(site: Router, page: Page) -> None:
    """By the real router, which has no replica: plain words, the code, and another try by itself."""
    await page.goto(f"http://localhost:{site.port}/")
    await page.click("#go")
    await passed(page, "retrying")
    for words in ("The router has no replica to give (gpu_unavailable)", "No streaming server is up", "close 1013"):
        assert words in await story(page)
    await page.wait_for_selector("#story >> text=(try 2)")
    await page.click("text=Cancel")
    await phase(page, "ended")
    assert await page.inner_text("#go") == "Reconnect"


async def test_rejected_it_tries_again(script: Script, page: Page) -> None:
    """session_rejected and 1013."""
    await page.click("#go")
    await script.connected(1)
    script.sockets[0].send(json.dumps(REJECTED))
    await script.sockets[0].close(code=1013, reason="session_rejected")
    await passed(page, "retrying")
    assert "The replica has no free GPU (session_rejected)" in await story(page)
    await script.connected(2)


async def test_not_let_in_it_says_why_and_stops(script: Script, page: Page) -> None:
    """The router asks for a ticket, and this page has shown none that is good."""
    await page.click("#go")
    await script.connected(1)
    words = {"message": "router: a valid stream token or ticket is needed", "retryable": False}
    script.sockets[0].send(json.dumps(REJECTED | words))
    await script.sockets[0].close(code=1008, reason="unauthorized")
    await phase(page, "failed")
    told = await story(page)
    assert "The router does not let you in (session_rejected)" in told
    assert "open this page with ?ticket=" in told


async def test_an_error_that_is_not_to_be_retried_ends_it_and_reconnect_begins_anew(script: Script, page: Page) -> None:
    """invalid_message in the server's words; the button opens a new session with a new clock."""
    await page.click("#go")
    await script.connected(1)
    script.say("error", code="invalid_message", message="preset must be a text", retryable=False)
    await script.sockets[0].close(code=1008, reason="invalid_message")
    await phase(page, "failed")
    assert "preset must be a text (invalid_message)" in await story(page)
    await asyncio.sleep(1)
    await page.click("#go")
    await script.connected(2)
    assert float((await page.locator("#story time").first.inner_text()).split()[0]) < 0.9


async def test_the_routers_id_is_no_word_of_the_story(script: Script, page: Page) -> None:
    """It is there for who hovers, to tell an operator."""
    await page.click("#go")
    await script.connected(1)
    message = f"router bridge failed: replica lost (session {SESSION})"
    script.say("error", code="worker_failed", message=message, retryable=True)
    line = page.locator("#story span", has_text="worker_failed")
    assert await line.get_attribute("title") == message
    assert SESSION not in await story(page)


async def test_tries_of_one_story_share_its_clock(script: Script, page: Page) -> None:
    """Times only grow until the person presses Start anew; each wait is longer than the first could be."""
    await page.click("#go")
    for number in (1, 2, 3):
        await script.connected(number)
        await script.sockets[-1].close(code=1012, reason="router_shutdown")
    await script.connected(4)
    times = [float(text.split()[0]) for text in await page.locator("#story time").all_inner_texts()]
    assert times == sorted(times, reverse=True)
    assert times[0] > 0.5 + 1 + 2  # the least that three waits take


async def test_a_prompt_changed_while_connecting_or_in_line_opens_no_new_session(script: Script, page: Page) -> None:
    """It is sent on the session there is."""
    await page.click("#go")
    await script.connected(1)
    script.say("queue_status", position=2, queue_depth=3)
    await phase(page, "queued")
    await page.fill("#prompt", "a lake")
    await page.press("#prompt", "Enter")
    await page.click("text=Jellyfish in a dark blue sea")

    async def told() -> bool:
        return len(script.heard[0]) == 3

    await until(told, "both prompts")
    assert [message.get("prompt") for message in script.heard[0][1:]] == ["a lake", "Jellyfish in a dark blue sea"]
    assert len(script.sockets) == 1
    await phase(page, "queued")


async def test_the_keyboard_keeps_its_place(script: Script, page: Page) -> None:
    """Start with Enter on the button, stop with Enter on the other: the focus is on a button that is there."""
    await page.focus("#go")
    await page.keyboard.press("Enter")
    await script.connected(1)
    assert await focused(page) == "go"
    await page.keyboard.press("Tab")
    assert await focused(page) == "stop"
    await page.keyboard.press("Enter")
    await phase(page, "ended")
    assert await focused(page) == "go"


async def focused(page: Page) -> str:
    return str(await page.evaluate("document.activeElement.id"))


async def test_a_screen_reader_hears_a_wait_once(script: Script, page: Page) -> None:
    """The seconds run outside the live region, and nothing is written into it that it says already."""
    await page.evaluate("""() => {
        window.spoken = [];
        const region = document.querySelector("[role=status]");
        new MutationObserver(() => window.spoken.push(region.textContent))
            .observe(region, { childList: true, characterData: true, subtree: true });
        window.titles = [];
        const title = document.getElementById("curtain-title");
        new MutationObserver(() => window.titles.push(title.textContent))
            .observe(title, { childList: true, characterData: true, subtree: true });
    }""")
    await page.click("#go")
    await script.connected(1)
    for _ in range(3):
        script.say("queue_status", position=1, queue_depth=1)
    await phase(page, "queued")
    await script.sockets[0].close(code=1013, reason="queue_timeout")
    await script.connected(2)
    assert any(re.fullmatch(r"Trying again in \d+ s.*", title) for title in await page.evaluate("window.titles"))
    assert await page.evaluate("window.spoken") == ["Connecting…", "In line, place 1", "Trying again", "Connecting…"]


async def test_a_browser_that_cannot_play_is_told(site: Router, page: Page) -> None:
    """Without Media Source Extensions there is no use in connecting."""
    await page.add_init_script("delete window.MediaSource; delete window.ManagedMediaSource;")
    await page.goto(f"http://localhost:{site.port}/")
    await page.click("#go")
    await phase(page, "failed")
    assert await page.inner_text("#curtain-title") == "This browser cannot play the video"
    assert "This browser cannot play the video." in await story(page)


async def test_waits_grow_to_a_bound_and_are_spread(site: Router, page: Page) -> None:
    """retry.js: 1 s doubling to 20 s, each at least half of that."""
    await page.goto(f"http://localhost:{site.port}/")
    shortest, longest = await page.evaluate("""async () => {
        const { delayMs } = await import("/static/demo/retry.js");
        return [0, 1].map((random) => [0, 1, 2, 3, 4, 5, 50].map((attempt) => delayMs(attempt, random)));
    }""")
    assert longest == [1000, 2000, 4000, 8000, 16000, 20000, 20000]
    assert shortest == [half / 2 for half in longest]


async def test_what_the_browser_does_not_take_is_bounded(site: Router, page: Page) -> None:
    """media.js: past 32 MiB segments are left out, said once, until a new one begins."""
    await page.goto(f"http://localhost:{site.port}/")
    faults, most, after, anew = await page.evaluate("""async () => {
        const { MediaFeed, MAX_WAITING_BYTES } = await import("/static/demo/media.js");
        const faults = [];
        const feed = new MediaFeed(document.createElement("video"), (fault) => faults.push(fault));
        let most = 0;
        const chunk = new ArrayBuffer(1024 * 1024);
        for (let sent = 0; sent < 100; sent += 1) {
            feed.chunk(chunk);
            most = Math.max(most, feed.waitingBytes);
        }
        const after = [feed.waitingBytes, feed.waiting.length, most <= MAX_WAITING_BYTES];
        feed.segment('video/mp4; codecs="avc1.42c01e"');
        feed.chunk(chunk);
        return [faults, most, after, feed.waitingBytes];
    }""")
    assert faults == ["The browser does not keep up with the video: a part of it is left out."]
    assert most == 32 * 1024 * 1024
    assert after == [0, 0, True]
    assert anew == 1024 * 1024


async def test_what_was_played_is_removed_from_the_buffer(site: Router, page: Page) -> None:
    """media.js, with a minute of real video: the buffer keeps the last seconds, and playback stays near the newest."""
    await page.goto(f"http://localhost:{site.port}/")
    segments = [encoded(index) for index in range(12)]
    kept = await page.evaluate(
        """async (segments) => {
        const { MediaFeed } = await import("/static/demo/media.js");
        const video = document.getElementById("video");
        const feed = new MediaFeed(video, (fault) => { throw new Error(fault); });
        for (const { mime, data } of segments) {
            feed.segment(mime);
            feed.chunk(Uint8Array.from(atob(data), (c) => c.charCodeAt(0)).buffer);
            const busy = () => feed.waitingBytes || !feed.buffer || feed.buffer.updating;
            while (busy()) await new Promise((go) => setTimeout(go, 5));
        }
        const { buffered, currentTime } = video;
        const last = buffered.length - 1;
        return [buffered.end(last) - buffered.start(0), buffered.end(last), buffered.end(last) - currentTime];
    }""",
        segments,
    )
    length, newest, behind = kept
    assert newest == pytest.approx(60, abs=0.5)
    assert length < 35
    assert behind <= 6


def encoded(index: int) -> dict[str, str]:
    """Five seconds of the demo's video."""
    fmt = Format(160, 90, 4)
    made = encode_segment(fmt, Overlay("a", "a fox", index), index * 20, 20, background_for(fmt, "a", None))
    return {"mime": made.mime, "data": base64.b64encode(b"".join(made.chunks)).decode()}
