"""What processes say of their traffic, and the samples of all (proxy/pulse.py, heart.py). On both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from proxy import census, receivers
from proxy.models import ProcessTraffic, Sample, Session
from proxy.placement import Placement
from proxy.pulse import STEP, Sampler
from proxy.traffic import Count
from tests.integration.clients import Processes, until_db
from tests.integration.placing import Process, add_replica, ending, row

pytestmark = pytest.mark.usefixtures("database")

AT = datetime(2026, 1, 1, tzinfo=UTC)


def carried(up: int, down: int, rate: float = 0.0) -> Count:
    return Count(up, down, rate, 2 * rate, {5: [up, down, 0, 0]})


def test_a_process_has_one_row_of_traffic() -> None:
    """Written anew with its beat, and gone with it; a beat without a count leaves it as it is."""
    process = Process()
    for count in (carried(1, 2), None, carried(3, 4, 1.5), None):
        census.beat(process.id, count)
    (traffic,) = ProcessTraffic.objects.all()
    assert (traffic.bytes_up, traffic.bytes_down, traffic.down_per_second) == (3, 4, 3.0)
    assert traffic.sessions == {"5": [3, 4, 0, 0]}
    census.retire(process.id)
    assert not ProcessTraffic.objects.exists()


def test_a_beat_costs_the_same_however_many_sessions_there_are() -> None:
    """Never a write for each."""
    process = Process()
    asked = []
    for sessions in (1, 500):
        count = Count(sessions={id: [1, 1, 1, 1] for id in range(sessions)})
        with CaptureQueriesContext(connection) as queries:
            census.beat(process.id, count)
        asked.append(len([query for query in queries if query["sql"].startswith(("INSERT", "UPDATE", "SELECT"))]))
    assert asked == [3, 3]


def test_a_process_that_was_ended_writes_nothing() -> None:
    """Its sessions are not its own any more."""
    process = Process()
    census.bury(process.id, 0)
    with pytest.raises(census.ProcessEnded):
        census.beat(process.id, carried(1, 1))
    assert not ProcessTraffic.objects.exists()


def test_a_sample_counts_what_there_is_and_what_came() -> None:
    """Live and waiting now; opened and failed in the ten seconds before."""
    add_replica(max_sessions=2)
    process = Process()
    claims = process.place(3)
    process.settle(endings=[ending(claims[0], code=1000), ending(claims[1], code=1011)])
    Session.objects.filter(uid=claims[2].uid).update(opened_at=AT - timedelta(seconds=11))
    Session.objects.exclude(uid=claims[2].uid).update(
        opened_at=AT - timedelta(seconds=10), ended_at=AT - timedelta(seconds=1)
    )
    Sampler().take(AT)
    (sample,) = Sample.objects.all()
    assert row(claims[2]).url is not None
    assert (sample.sessions, sample.waiting, sample.opened, sample.failed) == (1, 0, 2, 1)


def test_bytes_of_a_sample_are_what_came_since_the_last() -> None:
    """Of a process that the last one did not know, what its rates say: its totals may be a day old."""
    one, sampler = Process(), Sampler()
    census.beat(one.id, carried(1000, 10_000, rate=3))
    sampler.take(AT)
    two = Process()
    census.beat(one.id, carried(1100, 10_500, rate=50))
    census.beat(two.id, carried(10**9, 10**9, rate=1))
    sampler.take(AT + STEP)
    sampler.take(AT + 5 * STEP)
    rows = Sample.objects.values_list("bytes_up", "bytes_down")
    assert list(rows) == [(30, 60), (100 + 10, 500 + 20), (500 + 10, 1000 + 20)]


def test_two_that_think_themselves_the_eldest_take_one_sample() -> None:
    """The first stands."""
    Sampler().take(AT)
    Session.objects.create(uid="x", url="http://a", opened_at=AT)
    Sampler().take(AT)
    assert Sample.objects.get().sessions == 0


def test_a_sample_is_due_every_ten_seconds() -> None:
    """A second after its moment, so that what happened before has been written."""
    sampler = Sampler()
    noon = AT.timestamp()
    assert sampler.due(noon + 0.9) == AT - STEP
    assert sampler.due(noon + 1) == AT
    sampler.take(AT)
    assert sampler.due(noon + 10.9) is None
    assert sampler.due(noon + 11) == AT + STEP


async def test_processes_that_live_say_what_they_carry(processes: Processes) -> None:
    """And one of them samples, without anybody watching."""
    for _ in range(2):
        await processes.add().ready()
    await until_db(lambda: ProcessTraffic.objects.count() == 2)
    await until_db(Sample.objects.exists, 15)


async def test_traffic_that_cannot_be_counted_begins_the_placement_anew() -> None:
    """Never one that works by halves, silently (design: own every task)."""
    faults = [RuntimeError("odd")]

    def count(now: float) -> Count:
        if faults:
            raise faults.pop()
        return Count(7, 7)

    placement = Placement(lambda uid, reason: None, count)
    placement.start()
    try:
        await until_db(lambda: ProcessTraffic.objects.filter(bytes_up=7).exists())
    finally:
        await placement.stop()


def test_old_samples_are_pruned_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the rest of the history."""
    monkeypatch.setattr(receivers, "PRUNE_ROWS", 10)
    Sample.objects.bulk_create(
        Sample(at=AT + number * STEP, sessions=0, waiting=0, opened=0, failed=0, bytes_up=0, bytes_down=0)
        for number in range(26)
    )
    before = AT + 25 * STEP
    pruned = [receivers.prune_history(before=before) for _ in range(4)]
    assert pruned == [10, 10, 5, 0]
    assert Sample.objects.get().at == before
