"""What a turn makes of replicas: slots by server, stickiness, turns, what sessions found out (proxy/fleet.py)."""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from proxy.models import Session
from replicas.models import PlacementRecord, Replica, ReplicaHealth
from replicas.passive import Outcome
from tests.integration.placing import (
    Process,
    add_replica,
    configure,
    line,
    most_over,
    names,
    new_claim,
    row,
    seats_taken,
    set_health,
)

pytestmark = pytest.mark.usefixtures("database")
KEY = "k" * 32


# --- slots ------------------------------------------------------------------------------------------------------------


def test_a_slot_is_counted_where_the_session_is() -> None:
    """A replica was edited to another server, and one added at the old one: there the session counts."""
    replica, process = add_replica("a"), Process()
    claim = process.place_one()
    Replica.objects.filter(pk=replica.pk).update(url="http://b:8000")
    ReplicaHealth.objects.update(url="http://b:8000")
    add_replica("a2").delete()
    again = Replica.objects.create(name="again", url="http://a:8000", max_sessions=1)
    ReplicaHealth.objects.create(
        replica=again, url=again.url, status="healthy", status_since=timezone.now(), checked_at=timezone.now()
    )
    second, third = process.place(2)
    assert names([claim, second, third]) == ["a", "a", None]
    assert row(second).url == "http://b:8000"
    process.settle(endings=[claim])
    assert (names([third]), most_over()) == (["again"], 0)


def test_a_deleted_replicas_sessions_keep_their_slots() -> None:
    """Softly, with its row: a new one at the same server has what is left."""
    replica, process = add_replica("a", max_sessions=2), Process()
    process.place_one()
    Replica.everything.filter(pk=replica.pk).update(deleted_at=timezone.now())
    add_replica("b", status="unhealthy")
    late = new_claim()
    assert process.settle([late]).refused == {late.id: "no_healthy_replica"}
    add_replica("a", max_sessions=2)
    process.place(2)
    assert (seats_taken(), len(line())) == (2, 1)


def test_two_spellings_are_one_server() -> None:
    """With its default port, and without it."""
    replica, process = add_replica("a"), Process()
    Replica.objects.update(url="http://a")
    ReplicaHealth.objects.update(url="http://a")
    process.place_one()
    Replica.objects.filter(pk=replica.pk).update(url="http://a:80")
    ReplicaHealth.objects.update(url="http://a:80")
    assert names(process.place(1)) == [None]


@pytest.mark.parametrize(
    ("max_sessions", "reported", "taken"), [(2, None, 2), (None, 3, 3), (1, 5, 1), (4, 2, 4), (None, None, 9)]
)
def test_slots_are_what_the_operator_says_or_else_what_the_replica_says(
    max_sessions: int | None, reported: int | None, taken: int
) -> None:
    """Or else unlimited."""
    add_replica(max_sessions=max_sessions)
    ReplicaHealth.objects.update(reported_slots=reported)
    Process().place(9)
    assert seats_taken() == taken


def test_fewer_slots_than_sessions_cut_nobody_and_take_nobody() -> None:
    """Edited down: as they end there are fewer, and then it takes one again."""
    replica, process = add_replica(max_sessions=3), Process()
    first, second, third = process.place(3)
    Replica.objects.filter(pk=replica.pk).update(max_sessions=1)
    late = process.place_one()
    process.settle(endings=[first, second])
    assert names([late, third]) == [None, "a"]
    process.settle(endings=[third])
    assert names([late]) == ["a"]


def test_a_stale_replica_is_second_choice() -> None:
    """Its prober has stopped; its last word stands (design, decision 12)."""
    add_replica("a", primary=True)
    ReplicaHealth.objects.update(checked_at=timezone.now() - timedelta(hours=1))
    add_replica("b")
    assert names(Process().place(2)) == ["b", "a"]


def test_one_in_slow_start_is_marked_so() -> None:
    """Its seats say so, for the pace of connects; that of others, and of a clock that was put back, do not."""
    process = Process()
    for name, since, slow in (("a", 0.0, True), ("b", 3600.0, False), ("c", -3600.0, False)):
        replica = add_replica(name, since=timedelta(seconds=since))
        claim = process.place_one()
        assert claim.seat is not None
        assert (claim.seat.name, claim.seat.slow_start) == (name, slow)
        Replica.objects.filter(pk=replica.pk).update(max_sessions=1)
    configure(slow_start_seconds=0)
    add_replica("d", since=timedelta(0))
    claim = process.place_one()
    assert claim.seat is not None
    assert not claim.seat.slow_start


# --- stickiness -------------------------------------------------------------------------------------------------------


def test_a_key_returns_to_its_last_replica() -> None:
    """While a session of it lives, and for the time set after; its last, not its first."""
    configure(affinity="cookie:sid", affinity_ttl_seconds=60)
    for name in "abc":
        add_replica(name, max_sessions=9)
    process = Process()
    process.place(1)
    claim = process.place_one(key=KEY)
    assert names([claim, process.place_one(key=KEY)]) == ["b", "b"]
    set_health(Replica.objects.get(name="b"), "unhealthy")
    moved = process.place_one(key=KEY)
    set_health(Replica.objects.get(name="b"), "healthy")
    assert names([moved]) == ["c"]
    process.settle(endings=[claim, moved])
    assert names([process.place_one(key=KEY)]) == ["c"]


def test_a_key_is_forgotten_after_its_time() -> None:
    """And then is placed like any other."""
    configure(affinity="cookie:sid", affinity_ttl_seconds=60)
    for name in "ab":
        add_replica(name, max_sessions=9)
    process = Process()
    first = process.place(1)[0]
    claim = process.place_one(key=KEY)
    process.settle(endings=[first, claim])
    assert names([claim]) == ["b"]
    Session.objects.update(ended_at=timezone.now() - timedelta(seconds=59))
    again = process.place_one(key=KEY)
    assert names([again]) == ["b"]
    process.settle(endings=[again])
    Session.objects.update(ended_at=timezone.now() - timedelta(seconds=61))
    assert names([process.place_one(key=KEY)]) == ["a"]


def test_keys_mean_nothing_where_no_affinity_is_set() -> None:
    """It was set before, and taken back."""
    for name in "ab":
        add_replica(name, max_sessions=9)
    process = Process()
    process.place(1)
    assert names(process.place(1, key=KEY) + process.place(1, key=KEY)) == ["b", "a"]


def test_a_session_that_was_refused_or_waits_is_no_last_session() -> None:
    """It was on no replica."""
    configure(affinity="cookie:sid", queue_max_length=1)
    for name in "ab":
        add_replica(name)
    process = Process()
    other, claim, waiting, refused = (process.place_one(key=key) for key in (None, KEY, KEY, KEY))
    assert names([other, claim, waiting, refused]) == ["a", "b", None, None]
    process.settle(endings=[claim, waiting])
    process.settle(endings=[other])
    assert names([process.place_one(key=KEY)]) == ["b"]


# --- policies ---------------------------------------------------------------------------------------------------------


def test_turns_go_on_over_processes() -> None:
    """round_robin: the one placed on longest ago, whichever process placed there."""
    configure(policy="round_robin")
    for name in "abc":
        add_replica(name, max_sessions=None)
    one, other = Process(), Process()
    placed = [(one, other)[number % 2].place_one() for number in range(7)]
    assert names(placed) == ["a", "b", "c", "a", "b", "c", "a"]
    assert names(one.place(3)) == ["b", "c", "a"]


def test_turns_are_kept_under_round_robin_alone() -> None:
    """Under other policies nothing is written that nobody reads."""
    add_replica(max_sessions=None)
    process = Process()
    process.place(3)
    assert not PlacementRecord.objects.exists()


@pytest.mark.parametrize("policy", ["least_sessions", "round_robin", "random"])
def test_every_policy_fills_every_slot(policy: str) -> None:
    """And not one more."""
    configure(policy=policy)
    for name in "abc":
        add_replica(name, max_sessions=4)
    process = Process()
    process.place(5)
    process.place(20)
    assert Counter(Session.objects.exclude(url=None).values_list("replica_name", flat=True)) == dict.fromkeys("abc", 4)


# --- what sessions find out -------------------------------------------------------------------------------------------


def test_an_ejected_replica_is_passed_over() -> None:
    """After three failures in a row, over all processes; it is waited for, not given up."""
    a, _ = add_replica("a", max_sessions=9), add_replica("b", max_sessions=1)
    one, other = Process(), Process()
    one.settle(outcomes=[(a, Outcome.FAILED)] * 2)
    other.settle(outcomes=[(a, Outcome.FAILED)])
    assert names(one.place(2)) == ["b", None]
    assert len(line()) == 1
    PlacementRecord.objects.update(ejected_until=time.time() - 1)
    one.settle()
    assert line() == []


def test_an_only_replica_is_never_ejected() -> None:
    """At most half; those that are down or drained do not count."""
    a = add_replica("a", max_sessions=9)
    add_replica("b", status="unhealthy")
    add_replica("c", state="draining")
    process = Process()
    process.settle(outcomes=[(a, Outcome.FAILED)] * 5)
    assert names(process.place(1)) == ["a"]


def test_one_that_rejected_is_full_until_a_session_leaves_it() -> None:
    """Or for a second."""
    replica, process = add_replica(max_sessions=None), Process()
    claim = process.place_one()
    process.settle(outcomes=[(replica, Outcome.REJECTED)])
    waiting = process.place_one()
    assert names([waiting]) == [None]
    process.settle(endings=[claim])
    assert names([waiting]) == ["a"]


def test_only_what_has_changed_is_written() -> None:
    """A session that goes well writes no record; one row for each that changed."""
    a, b = add_replica("a"), add_replica("b")
    process = Process()
    process.settle(outcomes=[(a, Outcome.CONNECTED), (b, Outcome.ROOM)] * 3)
    assert not PlacementRecord.objects.exists()
    process.settle(outcomes=[(a, Outcome.FAILED)])
    with CaptureQueriesContext(connection) as queries:
        process.settle(outcomes=[(b, Outcome.CONNECTED)])
    assert not [query for query in queries if "INSERT" in query["sql"] or "UPDATE" in query["sql"]]
    assert dict(PlacementRecord.objects.values_list("replica__name", "failures")) == {"a": 1}


def test_outcomes_and_turns_keep_each_others_columns() -> None:
    """They stand in one row."""
    configure(policy="round_robin")
    a = add_replica("a", max_sessions=None)
    process = Process()
    process.place(3)
    process.settle(outcomes=[(a, Outcome.FAILED)])
    process.place(2)
    record = PlacementRecord.objects.get()
    assert (record.last_turn, record.failures) == (5, 1)


def test_what_is_found_out_about_a_replica_that_is_gone_is_nothing() -> None:
    """It was deleted meanwhile."""
    replica, process = add_replica(), Process()
    Replica.objects.all().delete()
    process.settle(outcomes=[(replica, Outcome.FAILED)] * 3)
    assert not PlacementRecord.objects.exists()
