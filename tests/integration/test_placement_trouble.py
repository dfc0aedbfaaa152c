"""What one process's placement does where much goes wrong: long waits, lost answers, an end in the midst of a turn."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from django.conf import settings
from django.db import OperationalError, connection
from django.utils import timezone

from proxy import placement as module
from proxy import process
from proxy.claims import QUEUE_FULL, Claim, Ended
from proxy.line import QUEUE_TIMEOUT, Refused
from proxy.models import Session
from proxy.placement import SLOT_LOST, Placement
from replicas import passive
from replicas.models import Replica, ReplicaHealth, RouterSettings
from replicas.passive import Outcome

pytestmark = pytest.mark.django_db(transaction=True)


async def db(work: Callable[[], Any]) -> Any:
    """Beside the loop, as it would be in another process."""

    def apart() -> Any:
        try:
            return work()
        finally:
            connection.close()

    return await asyncio.to_thread(apart)


def prepare(**configured: float) -> None:
    replica = Replica.objects.create(url="http://a", max_sessions=1)
    ReplicaHealth.objects.create(replica=replica, url=replica.url, status="healthy", checked_at=timezone.now())
    RouterSettings.objects.create(pk=1, **configured)


@pytest_asyncio.fixture
async def placement() -> AsyncIterator[Placement]:
    made = Placement(lambda uid, reason: None)
    yield made
    if made._life is not None and not made._life.done():
        await made.stop()


def new_claim() -> Claim:
    return Claim(uuid.uuid4().hex, "127.0.0.1:1", None, timezone.now())


def say_nothing(position: int, depth: int) -> None: ...


async def test_who_is_rejected_again_and_again_waits_no_longer_than_others(
    placement: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line's bound is of all its waits together, or a replica that rejects all would keep it for ever."""
    monkeypatch.setattr(passive, "FULL_SECONDS", 0.2)
    monkeypatch.setattr(passive, "MAX_FULL_SECONDS", 0.2)
    await db(lambda: prepare(queue_timeout_seconds=1.5))
    claim, seats = new_claim(), 0

    async def try_on() -> None:
        nonlocal seats
        while True:
            seat = await placement.seat(claim, say_nothing)
            seats += 1
            placement.learned(seat.replica, Outcome.REJECTED)

    with pytest.raises(Refused) as refused:
        await asyncio.wait_for(try_on(), 10)
    assert refused.value.reason == QUEUE_TIMEOUT
    assert seats > 1


async def test_the_log_of_one_that_was_refused_has_its_close_code(placement: Placement) -> None:
    """Its row is over when it is written; what its client was told comes with its ending."""
    await db(lambda: prepare(queue_max_length=0))
    await placement.seat(new_claim(), say_nothing)
    refused = new_claim()
    with pytest.raises(Refused):
        await placement.seat(refused, say_nothing)
    placement.ended(Ended(refused, timezone.now(), "router", QUEUE_FULL, 1013))
    await placement.stop()
    row = await db(lambda: Session.objects.get(uid=refused.uid))
    assert (row.ended_by, row.why, row.close_code) == ("router", QUEUE_FULL, 1013)


async def test_an_ending_whose_turn_fails_while_the_process_stops_is_written(
    placement: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn goes on in its thread when its task is cancelled; what it was about is not forgotten."""
    await db(prepare)
    claim = new_claim()
    await placement.seat(claim, say_nothing)
    begun, end = threading.Event(), threading.Event()
    settle = module.settle

    def fail(*_: object) -> None:
        monkeypatch.setattr(module, "settle", settle)
        begun.set()
        end.wait(10)
        raise OperationalError("locked")

    monkeypatch.setattr(module, "settle", fail)
    placement.ended(Ended(claim, timezone.now(), "client", "closed", 4001))
    await asyncio.to_thread(begun.wait, 10)
    asyncio.get_running_loop().call_later(0.1, end.set)
    await placement.stop()
    row = await db(lambda: Session.objects.get(uid=claim.uid))
    assert (row.ended_by, row.why, row.close_code) == ("client", "closed", 4001)


async def test_a_session_whose_slot_is_others_by_now_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by the next tidying; one that has its slot, and one that waits, go on."""
    monkeypatch.setattr(module, "TIDY_SECONDS", 0.2)
    told: list[tuple[str, str]] = []
    placement = Placement(lambda uid, reason: told.append((uid, reason)))
    await db(prepare)
    await db(lambda: Replica.objects.update(max_sessions=2))
    lost, kept = new_claim(), new_claim()
    for claim in (lost, kept):
        await placement.seat(claim, say_nothing)
    waits = asyncio.create_task(placement.seat(new_claim(), say_nothing))
    await asyncio.sleep(0.5)
    assert told == []
    await db(lambda: Session.objects.filter(uid=lost.uid).update(ended_at=timezone.now()))
    async with asyncio.timeout(10):
        while not told:
            await asyncio.sleep(0.05)
    assert set(told) == {(lost.uid, SLOT_LOST)}
    waits.cancel()
    await placement.stop()


async def test_a_drain_does_not_wait_for_a_database_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stops the process waits for its end so long and no longer; that it drains is written for people only."""
    monkeypatch.setattr(process, "draining", False)  # for afterwards
    monkeypatch.setattr(process, "STOP_SECONDS", 0.3)
    monkeypatch.setattr(settings, "ROUTER_DRAIN_SECONDS", 0.1)
    begun, end = threading.Event(), threading.Event()

    def beat(process: int) -> dict[int, int]:
        begun.set()
        end.wait(10)
        return {}

    monkeypatch.setattr(module.census, "beat", beat)
    process.begin()
    await asyncio.to_thread(begun.wait, 10)
    began = asyncio.get_running_loop().time()
    await process.drain()
    assert asyncio.get_running_loop().time() - began < 2
    end.set()
    await process.placement().stop()
