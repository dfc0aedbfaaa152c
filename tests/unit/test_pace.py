"""Connects to a replica in its slow start: 1, 2, 4, … at a time, and no permit is ever lost (proxy/pace.py)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from proxy import pace
from proxy.claims import Seat
from proxy.pace import paced

NOW = datetime(2026, 1, 1, tzinfo=UTC)
YOUNG = Seat(1, "young", "http://young", slow_start=True)


@pytest.fixture(autouse=True)
def no_ramps() -> Iterator[None]:
    pace._ramps.clear()
    yield
    pace._ramps.clear()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


class Connects:
    """Connects to one replica that last until they are told to succeed or to fail."""

    def __init__(self, seat: Seat = YOUNG) -> None:
        self.seat = seat
        self.under_way: dict[int, asyncio.Future[None]] = {}
        self.most = 0
        self.tasks: list[asyncio.Task[None]] = []

    def begin(self, number: int) -> None:
        for _ in range(number):
            self.tasks.append(asyncio.create_task(self._connect(len(self.tasks))))

    async def _connect(self, number: int) -> None:
        with contextlib.suppress(ConnectionError):
            await self._paced(number)

    async def _paced(self, number: int) -> None:
        async with paced(self.seat):
            self.under_way[number] = asyncio.get_running_loop().create_future()
            self.most = max(self.most, len(self.under_way))
            try:
                await self.under_way[number]
            finally:
                del self.under_way[number]

    async def settled(self) -> int:
        """How many are under way when nothing moves any more."""
        for _ in range(20):
            await asyncio.sleep(0)
        return len(self.under_way)

    def succeed(self, count: int | None = None) -> None:
        for future in [future for future in self.under_way.values() if not future.done()][:count]:
            future.set_result(None)

    def fail(self, count: int | None = None) -> None:
        for future in [future for future in self.under_way.values() if not future.done()][:count]:
            future.set_exception(ConnectionError())

    async def all_over(self) -> None:
        while not all(task.done() for task in self.tasks):
            self.succeed()
            await self.settled()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_one_then_two_then_four() -> None:
    """One more at a time for each that has succeeded."""
    connects = Connects()
    connects.begin(20)
    seen = []
    for _ in range(4):
        seen.append(await connects.settled())
        connects.succeed()
    assert seen == [1, 2, 4, 8]
    await connects.all_over()


async def test_a_connect_that_fails_makes_room_for_one_and_no_more() -> None:
    """Whoever comes next may try; the pace does not grow by it."""
    connects = Connects()
    connects.begin(5)
    for _ in range(4):
        assert await connects.settled() == 1
        connects.fail()
    assert await connects.settled() == 1
    connects.succeed()
    await asyncio.gather(*connects.tasks, return_exceptions=True)


async def test_other_replicas_are_not_held_up() -> None:
    """Neither one in its own slow start nor one that is past it."""
    young, other = Connects(), Connects(Seat(2, "other", "http://other", slow_start=True))
    grown = Connects(Seat(3, "grown", "http://grown"))
    for connects in (young, other, grown):
        connects.begin(3)
    assert [await connects.settled() for connects in (young, other, grown)] == [1, 1, 3]
    for connects in (young, other, grown):
        await connects.all_over()


async def fifty_have_connected() -> None:
    for _ in range(50):
        async with paced(YOUNG):
            pass


async def most_at_once() -> int:
    """How many of many that come now connect at the same time."""
    many = Connects()
    many.begin(9)
    try:
        return await many.settled()
    finally:
        await many.all_over()


async def test_the_pace_is_kept_for_one_slow_start() -> None:
    """Over many looks; what others are in is nothing to it."""
    await fifty_have_connected()
    for _ in range(3):
        pace.keep_only({1: NOW, 2: NOW})
    assert await most_at_once() == 9


async def test_the_pace_is_forgotten_when_the_slow_start_is_over() -> None:
    """No memory of replicas that are long gone, nor of one that fails in its slow start and is slow to come back."""
    await fifty_have_connected()
    pace.keep_only({1: NOW})
    pace.keep_only({2: NOW})
    assert pace._ramps == {}
    assert await most_at_once() == 1


async def test_a_slow_start_within_a_slow_start_begins_anew() -> None:
    """A replica has failed and recovered from one look to the next, or while this process saw nothing."""
    await fifty_have_connected()
    pace.keep_only({1: NOW})
    pace.keep_only({1: NOW + timedelta(seconds=1)})
    assert await most_at_once() == 1


async def test_who_waits_for_its_turn_gets_it_in_a_slow_start_that_is_over() -> None:
    connects = Connects()
    connects.begin(5)
    assert await connects.settled() == 1
    pace.keep_only({})
    await connects.all_over()
    assert all(task.done() and not task.cancelled() for task in connects.tasks)


@pytest.mark.parametrize("steps", range(8))
@pytest.mark.parametrize("victim", [0, 1, 2])
async def test_a_cancelled_connect_leaks_no_permit(victim: int, steps: int) -> None:
    """While it waits, in the very step in which its turn comes, and while it connects."""
    connects = Connects()
    connects.begin(4)
    await connects.settled()
    connects.succeed(1)  # the turn of two others
    for _ in range(steps):
        await asyncio.sleep(0)
    connects.tasks[victim].cancel()
    await connects.all_over()
    assert pace._ramps[1].connecting == 0
    assert not pace._ramps[1]._waiting
    late = Connects()
    late.begin(3)
    assert await late.settled() == 3  # at least two have succeeded by now
    await late.all_over()


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_happens_nobody_waits_for_nothing(seed: int) -> None:
    """Connects come, succeed, fail and are cancelled in any order: in the end no permit is taken, and nobody stuck."""
    rng, connects = Random(seed), Connects()
    for _ in range(200):
        deed = rng.random()
        if deed < 0.4:
            connects.begin(1)
        elif deed < 0.6:
            connects.succeed(1)
        elif deed < 0.75:
            connects.fail(1)
        elif connects.tasks:
            rng.choice(connects.tasks).cancel()
        if rng.random() < 0.6:
            await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await connects.all_over()
    ramp = pace._ramps[1]
    assert ramp.connecting == 0
    assert not ramp._waiting


async def test_no_more_connect_at_a_time_than_have_succeeded_and_one() -> None:
    """At every moment, also when those who wait are woken and others come in between."""
    connects = Connects()
    connects.begin(3)
    await until(lambda: len(connects.under_way) == 1)
    connects.succeed()
    connects.begin(5)
    assert await connects.settled() == 2
    assert connects.most == 2
    await connects.all_over()
