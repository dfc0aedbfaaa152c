"""What a waiting client is told: at once, on every change, every 5 s, and never a higher place (issue 4, part 3)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.claims import Claim, Seat
from proxy.line import TELL_SECONDS, Refused, Waiter
from proxy.placement import LOOK_SECONDS

SEAT = Seat(1, "r", "http://r")


class Client:
    """A session that waits, perhaps more than once, and what its client was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []
        self.claim = Claim("s", "client", None, datetime(2026, 1, 1, tzinfo=UTC))

    def waiter(self) -> Waiter:
        return Waiter(self.claim, lambda position, depth: self.told.append((position, depth)))


async def test_it_is_told_at_once_and_on_every_change() -> None:
    """Of its place or of the depth; not what it knows already."""
    client = Client()
    waiter = client.waiter()
    for now, (position, depth) in enumerate([(3, 3), (3, 3), (3, 4), (2, 3), (2, 3), (1, 1)]):
        waiter.hear(position, depth, now / 10)
    assert client.told == [(3, 3), (3, 4), (2, 3), (1, 1)]


async def test_it_is_reminded_before_five_seconds_are_over() -> None:
    """Though nothing has changed, and nothing was heard of the line: the database may be away."""
    client = Client()
    waiter = client.waiter()
    waiter.remind(100, 120)  # nothing was told yet
    waiter.hear(2, 2, 100)
    for tenth in range(120):
        waiter.remind(100 + tenth / 10, 120)
    assert client.told == [(2, 2)] * 3
    assert TELL_SECONDS + LOOK_SECONDS < 5


async def test_who_has_a_seat_is_not_reminded() -> None:
    """It waits no more."""
    client = Client()
    waiter = client.waiter()
    waiter.hear(1, 1, 0.0)
    waiter.give(SEAT)
    waiter.remind(60, 120)
    assert client.told == [(1, 1)]


async def test_the_first_word_comes_at_any_time_of_the_clock() -> None:
    """A monotonic clock may begin with 0."""
    client = Client()
    client.waiter().hear(1, 1, 0.0)
    assert client.told == [(1, 1)]


async def test_a_place_never_rises() -> None:
    """Another session came back to the head of the line: this one hears the place it had."""
    client = Client()
    waiter = client.waiter()
    for position in (4, 2, 3, 4, 1, 2):
        waiter.hear(position, 9, 0.0)
    assert [position for position, _ in client.told] == [4, 2, 1]


async def test_a_place_does_not_rise_when_it_comes_back_either() -> None:
    """It had a replica, which was no use, and stands behind another that came back too."""
    client = Client()
    client.waiter().hear(1, 5, 0.0)
    client.waiter().hear(2, 6, 9.0)
    assert [position for position, _ in client.told] == [1, 1]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.floats(0, 9), st.booleans()), max_size=40))
def test_whatever_it_hears_places_only_fall_and_no_silence_is_long(heard: list[tuple[int, int, float, bool]]) -> None:
    """Over all its waits."""

    async def play() -> None:
        client = Client()
        waiter, now, told_at = client.waiter(), 0.0, None
        for position, depth, later, again in heard:
            now += later
            if again:
                waiter, told_at = client.waiter(), None
            before = len(client.told)
            waiter.hear(position, depth, now)
            waiter.remind(now, 120)
            assert len(client.told) <= before + 1
            if len(client.told) > before:
                told_at = now
            assert told_at is not None
            assert now - told_at < TELL_SECONDS
        positions = [position for position, _ in client.told]
        assert positions == sorted(positions, reverse=True)

    asyncio.run(play())


async def test_a_seat_is_given_once() -> None:
    """And the claim has it at once, so that its slot is known."""
    client = Client()
    waiter = client.waiter()
    waiter.give(SEAT)
    waiter.refuse("queue_timeout")
    assert await waiter.seat == SEAT
    assert client.claim.seat == SEAT


async def test_a_refusal_says_why() -> None:
    """And a seat that comes after it is known all the same: its slot must be given back."""
    client = Client()
    waiter = client.waiter()
    waiter.refuse("queue_full")
    waiter.give(SEAT)
    with pytest.raises(Refused) as refused:
        await waiter.seat
    assert refused.value.reason == "queue_full"
    assert client.claim.seat == SEAT


async def test_who_has_left_is_neither_given_nor_refused_anything() -> None:
    """Its future is cancelled; the seat is only noted."""
    client = Client()
    waiter = client.waiter()
    waiter.seat.cancel()
    waiter.refuse("queue_full")
    waiter.give(SEAT)
    assert waiter.seat.cancelled()
    assert client.claim.seat == SEAT
