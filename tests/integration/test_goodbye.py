"""A story that is cancelled after its ending is known: both sides hear of it once, and nothing is left behind.

The server ends it (process.end, or the ASGI server itself), at whatever step it is, and again.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy import consumers, errors
from proxy.consumers import StreamConsumer
from proxy.errors import Close, Ending
from proxy.session import SessionLog

STEPS = (0, 1, 2, 3, 4, 6, 10, 40)


class Peer:
    """A link to one that answers our close after `answers` seconds."""

    received_frames = received_bytes = 0

    def __init__(self, answers: float) -> None:
        self.over = asyncio.get_running_loop().create_future()
        self.heard: list[str | int | None] = []
        self.aborted = self.answered = False
        self._answers = answers

    def send_text(self, text: str) -> None:
        self.heard.append(text)

    async def close(self, close: Close) -> None:
        self.heard.append(close.code)
        await asyncio.sleep(self._answers)
        self.answered = True

    def abort(self) -> None:
        self.aborted = True


class Story:
    """Of a session whose replica, if it has one, and client are `Peer`s."""

    def __init__(self, *, answers: float, with_replica: bool, served: float = 0) -> None:
        self.client, self.replica = Peer(answers), Peer(answers) if with_replica else None
        self.ended: list[Ending] = []
        self.before = asyncio.all_tasks()
        consumer: Any = StreamConsumer()
        consumer.log, consumer.link = SessionLog("s", "c"), self.client
        consumer.log.ended = lambda ending, *_: self.ended.append(ending)

        async def serve() -> Ending:
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
    assert story.client.aborted
    assert len(story.ended) == 1
    assert await story.left() == set()


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
