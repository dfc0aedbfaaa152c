"""A story that is cancelled after its ending is known: both sides hear of it once, and nothing is left behind.

The server ends it (process.end, or the ASGI server itself), at whatever step it is, and again. What real peers of a
real server see of that is in tests/acceptance/test_router_stop.py.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.utils import timezone

from proxy import consumers, errors
from proxy.claims import Claim, Seat
from proxy.consumers import StreamConsumer
from proxy.errors import Close, Ending
from proxy.messages import MessageLink
from proxy.search import Search
from proxy.session import SessionLog
from tests.raw import raw_replica
from tests.wire_peers import PLAIN

STEPS = (0, 1, 2, 3, 4, 6, 10, 40)


class Peer:
    """A link to one that answers our close after `answers` seconds."""

    received_frames = received_bytes = 0

    def __init__(self, answers: float) -> None:
        self.over = asyncio.get_running_loop().create_future()
        self.heard: list[str | int | None] = []
        self.aborted = self.answered = self._said_close = False
        self._answers = answers

    def send_text(self, text: str) -> None:
        self.heard.append(text)

    def say_close(self, close: Close) -> None:
        if not self._said_close:
            self.heard.append(close.code)
            self._said_close = True

    async def close(self, close: Close) -> None:
        self.say_close(close)
        await asyncio.sleep(self._answers)
        self.answered = True

    def abort(self) -> None:
        self.aborted = True


class Story:
    """Of a session whose replica, if it has one, and client are `Peer`s; `earlier` is a replica that it has left."""

    def __init__(
        self, *, answers: float, with_replica: bool, served: float = 0, earlier: Peer | None = None, client: Any = None
    ) -> None:
        self.client, self.replica = client or Peer(answers), Peer(answers) if with_replica else None
        self.ended: list[Ending] = []
        self.before = asyncio.all_tasks()
        consumer: Any = StreamConsumer()
        consumer.log, consumer.link = SessionLog("s", "c"), self.client
        consumer.log.ended = lambda ending, *_: self.ended.append(ending)

        async def serve() -> Ending:
            if earlier is not None:
                consumer._farewell(earlier)
            consumer.replica = self.replica
            await asyncio.sleep(served)
            return errors.router_unavailable()

        consumer._serve = serve
        self.task = asyncio.create_task(consumer._tell())

    async def cancel(self, times: int = 1) -> None:
        for _ in range(times):
            self.task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait({self.task})

    async def left(self) -> set[str]:
        for _ in range(5):  # what was cancelled ends in the next step
            await asyncio.sleep(0)
        return {task.get_name() for task in asyncio.all_tasks() - self.before}


@pytest.mark.parametrize("with_replica", [True, False])
@pytest.mark.parametrize("steps", STEPS)
async def test_who_is_told_already_hears_it_to_its_end(with_replica: bool, steps: int) -> None:
    story = Story(answers=0.05, with_replica=with_replica)
    await asyncio.sleep(0)
    for _ in range(steps):
        await asyncio.sleep(0.001 if steps == 40 else 0)
    await story.cancel()
    assert len(story.ended) == 1
    assert story.client.answered
    assert not story.client.aborted
    *frames, code = story.client.heard
    assert code == story.ended[0].code
    assert len(frames) <= 1
    assert await story.left() == set()


@pytest.mark.parametrize("with_replica", [True, False])
@pytest.mark.parametrize("steps", STEPS)
async def test_who_does_not_answer_is_let_go(with_replica: bool, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "HURRY_SECONDS", 0.05)
    story = Story(answers=60, with_replica=with_replica)
    await asyncio.sleep(0)
    for _ in range(steps):
        await asyncio.sleep(0)
    await story.cancel()
    for peer in filter(None, (story.client, story.replica)):
        assert peer.aborted
        assert peer.heard
    assert len(story.ended) == 1
    assert await story.left() == set()


@pytest.mark.parametrize("with_replica", [True, False])
@pytest.mark.parametrize("steps", STEPS)
async def test_a_second_cancel_ends_it_at_once(with_replica: bool, steps: int) -> None:
    story = Story(answers=60, with_replica=with_replica)
    await asyncio.sleep(0)
    for _ in range(steps):
        await asyncio.sleep(0)
    await story.cancel(times=3)
    assert len(story.ended) == 1
    *frames, code = story.client.heard
    assert (len(frames), code) == (story.ended[0].error_frame is not None, story.ended[0].code)
    for peer in filter(None, (story.client, story.replica)):
        assert peer.aborted
        assert peer.heard
    assert await story.left() == set()


async def test_a_replica_that_was_left_before_is_let_go_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has rejected the session, or was lost to it, and takes its time to go."""
    monkeypatch.setattr(consumers, "HURRY_SECONDS", 0.05)
    earlier = Peer(answers=60)
    story = Story(answers=0, with_replica=True, earlier=earlier)
    await asyncio.sleep(0)
    await story.cancel()
    assert earlier.aborted
    assert await story.left() == set()


async def test_what_a_client_does_not_take_is_not_delivered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one by ASGI messages whose server does not take them."""
    monkeypatch.setattr(consumers, "HURRY_SECONDS", 0.05)
    client = MessageLink(lambda message: asyncio.sleep(60), secure=False)
    story = Story(answers=0, with_replica=False, client=client)
    client.send_text("it is not taken")
    await asyncio.sleep(0)
    await story.cancel()
    assert await story.left() == set()


async def test_a_replica_that_opens_as_the_session_is_cancelled_twice_is_let_go() -> None:
    """In the very step in which the search has found it and its story does not know it yet."""
    found: list[Any] = []

    class Placed:
        async def seat(self, claim: Any, tell: Any) -> Seat:
            return Seat(1, "a", replica.url)

    async with raw_replica() as replica:
        client: Any = Peer(0)
        client.gone = asyncio.get_running_loop().create_future()
        placement: Any = Placed()
        claim = Claim("s", "c", None, timezone.now())
        search = Search(SessionLog("s", "c"), claim, placement, client, PLAIN, lambda link, close: found.append(link))
        before = asyncio.all_tasks()
        story = asyncio.create_task(search.next())
        await asyncio.sleep(0)
        (inner,) = (task for task in asyncio.all_tasks() - before if "placement" in task.get_name())

        def cancel_twice(_: Any) -> None:
            story.cancel()
            asyncio.get_running_loop().call_soon(story.cancel)

        inner.add_done_callback(cancel_twice)
        await asyncio.wait({story})
        assert story.cancelled()
        assert found == [inner.result()]
        found[0].abort()


async def test_who_waits_for_a_replica_is_told_that_another_process_may_have_one() -> None:
    story = Story(answers=0, with_replica=False, served=60)
    await asyncio.sleep(0)
    await story.cancel()
    assert "gpu_unavailable" in str(story.client.heard[0])
    assert story.client.heard[1:] == [1012]


async def test_who_has_a_replica_hears_no_error_when_the_router_stops() -> None:
    story = Story(answers=0, with_replica=True, served=60)
    await asyncio.sleep(0)
    await story.cancel()
    assert story.client.heard == [1012]
    assert story.replica is not None
    assert story.replica.heard == [1001]
