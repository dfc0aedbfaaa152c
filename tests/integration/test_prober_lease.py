"""The prober's lease and its record, without waiting: the clock is an argument (design, decision 8)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from replicas.health import HEALTHY, UNHEALTHY, UNKNOWN, ProbeResult, Thresholds
from replicas.lease import TAKEOVER_SECONDS, Lease, LeaseLost
from replicas.models import HealthTransition, ProberLease, Replica, ReplicaHealth
from replicas.probe import Report
from replicas.record import MAX_WAITING_TRANSITIONS, Record, write

pytestmark = pytest.mark.django_db

OK = ProbeResult(timezone.now(), True, latency_ms=1.0)
FAILED = ProbeResult(timezone.now(), False, error="HTTP 503")


def taken(name: str = "holder") -> Lease:
    lease = Lease(name)
    lease.try_to_take(0.0)
    assert lease.held
    return lease


def watch(lease: Lease, *moments: float) -> list[str]:
    """Who holds the lease, as `lease` is told at these moments of its own clock."""
    return [lease.try_to_take(moment) for moment in moments]


def test_a_free_lease_is_taken_at_once() -> None:
    """And tells its name to who comes later."""
    taken("first")
    assert watch(Lease("second"), 0.0) == ["first"]


def test_a_released_lease_is_taken_at_once() -> None:
    """A prober that stops in order makes nobody wait."""
    holder, waiter = taken(), Lease("waiter")
    watch(waiter, 0.0)
    holder.release()
    assert watch(waiter, 0.1) == ["waiter"]
    assert waiter.epoch == 2


def test_a_beat_seen_standing_still_for_10_s_is_taken_over() -> None:
    """Not before, and by the waiter's own clock alone."""
    taken()
    waiter = Lease("waiter")
    seconds = [float(second) for second in range(int(TAKEOVER_SECONDS) + 1)]
    assert watch(waiter, *seconds) == ["holder"] * (len(seconds) - 1) + ["waiter"]


def test_a_beat_starts_the_wait_anew() -> None:
    """However seldom it comes, as long as it comes."""
    holder, waiter = taken(), Lease("waiter")
    for start in (0, 9, 18):
        assert set(watch(waiter, *range(start, start + 9))) == {"holder"}
        holder.beat()


def test_time_in_which_nothing_was_read_counts_little() -> None:
    """A waiter that was stopped for a minute has seen nothing of that minute: the holder may just be about to beat."""
    taken()
    waiter = Lease("waiter")
    assert watch(waiter, 0.0, 60.0, 61.0) == ["holder"] * 3


def test_a_database_outage_counts_nothing() -> None:
    """Where the waiter cannot read, the holder cannot beat; an outage every few seconds only delays the takeover."""
    taken()
    waiter = Lease("waiter")
    for round_ in range(4):
        assert set(watch(waiter, *(round_ * 1000 + second for second in (0.0, 1.0, 2.0)))) == {"holder"}
        waiter.forget_last_read()
    assert watch(waiter, 5000.0, 5001.0, 5002.0)[-1] == "waiter"


def test_of_two_waiters_one_takes_over() -> None:
    """The other sees the new count and waits again."""
    taken()
    waiters = [Lease("one"), Lease("two")]
    for second in range(int(TAKEOVER_SECONDS)):
        for waiter in waiters:
            watch(waiter, float(second))
    assert [watch(waiter, TAKEOVER_SECONDS)[0] for waiter in waiters] == ["one", "one"]


def test_a_holder_that_beats_is_seen_beating() -> None:
    """`runhealthchecks --once` watches no longer than that; one beat tells a prober at work from one that died."""
    holder, watcher = taken(), Lease("watcher")
    watch(watcher, 0.0, 1.0)
    assert not watcher.seen_beating
    holder.beat()
    watch(watcher, 2.0)
    assert watcher.seen_beating


def test_a_change_is_logged_when_it_is_written(caplog: pytest.LogCaptureFixture) -> None:
    """The log never tells of one that the table lacks: of a lost lease, or of a database that is away."""
    caplog.set_level("INFO", "replicas.health")
    replica = Replica.objects.create(url="http://a", name="a")
    lease, record = taken(), Record()
    record.observe(record.add(replica), OK, Report(), Thresholds())
    assert caplog.messages == []
    write(record.take(), lease)
    assert caplog.messages == ["replica a: unknown → healthy (probe succeeded)"]


def test_who_lost_the_lease_neither_beats_nor_writes_nor_releases() -> None:
    """A prober that was stopped and comes back finds its epoch gone."""
    Replica.objects.create(url="http://a")
    holder, record = taken(), Record()
    known = record.add(Replica.objects.get())
    record.observe(known, OK, Report(), Thresholds())
    ProberLease.objects.update(epoch=7, holder="other")
    with pytest.raises(LeaseLost):
        write(record.take(), holder)
    assert not ReplicaHealth.objects.exists()
    assert not HealthTransition.objects.exists()
    assert not holder.held
    with pytest.raises(LeaseLost):
        holder.beat()
    holder.release()
    assert ProberLease.objects.get().holder == "other"


def test_what_was_written_is_where_the_next_prober_begins() -> None:
    """Counters, stamps and reports are read back as they were; 2 failures there and 1 here are 3."""
    Replica.objects.create(url="http://a")
    lease, record = taken(), Record()
    known = record.add(Replica.objects.get())
    for result in (OK, FAILED, FAILED):
        record.observe(known, result, Report(4, 1, "ok"), Thresholds())
    write(record.take(), lease)
    again = Record()
    found = again.add(Replica.objects.with_health().get())
    assert (found.health, found.report, found.status_since) == (known.health, known.report, known.status_since)
    again.observe(found, FAILED, Report(), Thresholds())
    assert found.health.status == UNHEALTHY
    write(again.take(), lease)
    assert list(HealthTransition.objects.values_list("old_status", "new_status", "reason")) == [
        (HEALTHY, UNHEALTHY, "HTTP 503"),
        (UNKNOWN, HEALTHY, "probe succeeded"),
    ]


def test_an_edited_url_is_a_transition_to_unknown() -> None:
    """Seen at once, and by a prober that was not running when it was edited."""
    replica = Replica.objects.create(url="http://a")
    lease, record = taken(), Record()
    known = record.add(Replica.objects.get())
    record.observe(known, OK, Report(), Thresholds())
    record.move(known, "http://b")
    write(record.take(), lease)
    assert (ReplicaHealth.objects.get().url, ReplicaHealth.objects.get().status) == ("http://b", UNKNOWN)
    ReplicaHealth.objects.update(status=HEALTHY)
    Replica.objects.update(url="http://c")
    later = Record()
    assert later.add(Replica.objects.with_health().get()).health.status == UNKNOWN
    write(later.take(), lease)
    assert ReplicaHealth.objects.get(replica=replica).url == "http://c"
    reasons = HealthTransition.objects.filter(new_status=UNKNOWN).values_list("reason", flat=True)
    assert list(reasons) == ["the URL was edited"] * 2


def test_what_could_not_be_written_is_written_later() -> None:
    """The latest health, and every transition in its order; of a replica deleted meanwhile nothing."""
    for name in "ab":
        Replica.objects.create(url=f"http://{name}")
    lease, record = taken(), Record()
    first, second = (record.add(replica) for replica in Replica.objects.all())
    for known in (first, second):
        record.observe(known, OK, Report(), Thresholds())
    batch = record.take()
    assert batch is not None
    record.observe(first, FAILED, Report(), Thresholds(failure=1))
    record.put_back(batch)
    Replica.objects.filter(pk=second.id).delete()
    write(record.take(), lease)
    assert ReplicaHealth.objects.get().status == UNHEALTHY
    changes = HealthTransition.objects.order_by("id").values_list("old_status", "new_status")
    assert list(changes) == [(UNKNOWN, HEALTHY), (HEALTHY, UNHEALTHY)]
    assert record.take() is None


def test_a_long_outage_keeps_the_latest_transitions() -> None:
    """The memory is bounded: past that, the oldest are dropped."""
    Replica.objects.create(url="http://a")
    record = Record()
    known = record.add(Replica.objects.get())
    at_once = Thresholds(1, 1)
    for number in range(MAX_WAITING_TRANSITIONS + 10):
        result = ProbeResult(OK.at + timedelta(seconds=number), number % 2 == 0, error="" if number % 2 == 0 else "no")
        record.observe(known, result, Report(), at_once)
    batch = record.take()
    assert batch is not None
    assert len(batch.transitions) == MAX_WAITING_TRANSITIONS
    assert batch.transitions[-1].at == OK.at + timedelta(seconds=MAX_WAITING_TRANSITIONS + 9)
