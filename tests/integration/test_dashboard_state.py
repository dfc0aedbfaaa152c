"""What the dashboard's first page is told (dashboard/snapshot.py), on both databases."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard.changes import as_json
from dashboard.snapshot import read_state
from proxy import census
from proxy.models import RouterProcess, Sample, Session
from proxy.traffic import Count
from replicas.models import PlacementRecord, ProberLease, Replica, ReplicaHealth
from replicas.version import VERSION
from tests.integration.placing import Process, add_replica, configure, ending

pytestmark = pytest.mark.usefixtures("database")

KEYS = {"at", "version", "prober", "processes", "totals", "line", "replicas", "plots"}
ROW = {
    "id", "name", "url", "primary", "state", "status", "status_since", "checked_at", "stale", "available", "sessions",
    "slots", "weight", "last_error", "latency_ms", "latencies", "ejected_until", "full_until", "slow_start",
    "drain_deadline_seconds", "registered", "lapsed", "deleted",
}  # fmt: skip


def row(replica: Replica) -> dict[str, Any]:
    """As the page gets it."""
    return next(each for each in json.loads(as_json(read_state()))["replicas"] if each["id"] == replica.pk)


def test_an_empty_router_has_a_state() -> None:
    """All keys, numbers or null: a page that opens before anything was added."""
    state = read_state()
    assert state.keys() == KEYS
    assert state["prober"] == {"state": "never ran", "holder": "", "epoch": 0, "beat_age": None}
    assert state["totals"] == {
        "sessions": 0, "waiting": 0, "slots": 0, "bytes_up_per_second": 0, "bytes_down_per_second": 0,
        "opened_per_minute": 0, "failed_per_minute": 0,
    }  # fmt: skip
    assert state["line"] == {"length": 0, "longest_wait": None, "max_length": 100, "timeout_seconds": 120.0}
    assert (state["processes"], state["replicas"], state["version"]) == ([], [], VERSION)
    assert state["plots"] == {
        "step": 10, "at": None, "sessions": [], "waiting": [], "opened": [], "failed": [], "bytes_up": [],
        "bytes_down": [],
    }  # fmt: skip


def test_a_replica_as_it_is() -> None:
    """What the prober last saw, what sessions are there."""
    replica = add_replica("a", max_sessions=3, primary=True, weight=2.0)
    ReplicaHealth.objects.update(last_latency_ms=2.345, latencies=[[1000, 2.3], [1030, None]])
    Process().place(2)
    found = row(replica)
    assert found.keys() == ROW
    assert found | {
        "name": "a", "url": "http://a:8000", "primary": True, "state": "active", "status": "healthy", "stale": False,
        "available": True, "sessions": 2, "slots": 3, "weight": 2.0, "last_error": "", "latency_ms": 2.3,
        "latencies": [[1000, 2.3], [1030, None]], "ejected_until": None, "full_until": None, "slow_start": None,
        "drain_deadline_seconds": None, "registered": False, "lapsed": False, "deleted": False,
    } == found  # fmt: skip


def test_a_replica_in_trouble() -> None:
    """Each mark only while it counts; times are those until which it does."""
    replica = add_replica("a", status="unhealthy")
    now = timezone.now().timestamp()
    ReplicaHealth.objects.update(last_error="connection refused", checked_at=timezone.now() - timedelta(hours=1))
    PlacementRecord.objects.create(replica=replica, ejected_until=now + 30, full_until=now - 1)
    found = row(replica)
    assert (found["status"], found["available"], found["stale"]) == ("unhealthy", False, True)
    assert (found["last_error"], found["ejected_until"], found["full_until"]) == ("connection refused", now + 30, None)


def test_a_replica_in_slow_start_gets_a_share() -> None:
    """As placement gives it; one that takes no session is in none."""
    configure(slow_start_seconds=60)
    young = add_replica("a", since=timedelta(seconds=30))
    drained = add_replica("b", since=timedelta(seconds=30), state="draining")
    assert row(young)["slow_start"] == pytest.approx(0.5, abs=0.05)
    assert row(drained)["slow_start"] is None


def test_what_was_seen_at_another_url_counts_for_nothing() -> None:
    """Nor its latencies."""
    replica = add_replica("a")
    ReplicaHealth.objects.update(latencies=[[1000, 2.3]])
    Replica.objects.update(url="http://b:1")
    assert (row(replica)["status"], row(replica)["latencies"]) == ("unknown", [])


def test_a_deleted_replica_is_there_until_its_last_session_has_ended() -> None:
    """And gives no slots."""
    replica = add_replica("a", max_sessions=5)
    process = Process()
    (claim,) = process.place(1)
    replica.delete()
    assert (row(replica)["deleted"], row(replica)["sessions"]) == (True, 1)
    assert read_state()["totals"]["slots"] == 0
    process.settle(endings=[claim])
    census.purge_replicas()
    assert read_state()["replicas"] == []


def test_totals_and_the_line() -> None:
    """Over all processes; slots are those of replicas that take sessions."""
    add_replica("a", max_sessions=2)
    add_replica("b", max_sessions=7, state="draining")
    add_replica("c", max_sessions=7, status="unhealthy")
    one, two = Process(), Process()
    claims = one.place(2)
    two.place(3)
    Session.objects.filter(url=None).update(opened_at=timezone.now() - timedelta(seconds=90))
    one.settle(endings=[ending(claims[0], code=1011)])
    state = read_state()
    totals = state["totals"]
    assert (totals["sessions"], totals["waiting"], totals["slots"]) == (2, 2, 2)
    assert totals["failed_per_minute"] == 1
    assert totals["opened_per_minute"] == 2
    assert state["line"]["length"] == 2
    assert 90 <= state["line"]["longest_wait"] < 100
    add_replica("d", max_sessions=None)
    assert read_state()["totals"]["slots"] is None


def test_router_processes_and_what_they_carry() -> None:
    """Those that live, each with its sessions; bytes a second of those that beat."""
    add_replica("a", max_sessions=2)
    one, two, dead = Process(), Process(), Process()
    one.place(1)
    two.place(3)
    for process in (one, two):
        census.beat(process.id, Count(1, 1, 10.4, 100.0))
    census.retire(dead.id)
    census.set_draining(one.id)
    state = read_state()
    shown = [(each["state"], each["sessions"], each["waiting"], each["version"]) for each in state["processes"]]
    assert shown == [("draining", 1, 0, VERSION), ("live", 1, 2, VERSION)]
    assert state["totals"]["bytes_down_per_second"] == 200
    RouterProcess.objects.filter(pk=two.id).update(beaten_at=timezone.now() - timedelta(seconds=8))
    state = read_state()
    assert state["processes"][1]["state"] == "silent"
    assert 8 <= state["processes"][1]["beat_age"] < 12
    assert (state["totals"]["bytes_up_per_second"], state["totals"]["bytes_down_per_second"]) == (10, 100)


@pytest.mark.parametrize(("seconds", "state"), [(1, "ok"), (60, "stale")])
def test_the_prober_is_known_by_its_beat(seconds: int, state: str) -> None:
    """As /readyz says it."""
    beaten = timezone.now() - timedelta(seconds=seconds)
    ProberLease.objects.update_or_create(id=1, defaults={"epoch": 3, "holder": "host:1", "beaten_at": beaten})
    found = read_state()["prober"]
    assert (found["state"], found["holder"], found["epoch"]) == (state, "host:1", 3)
    assert seconds <= found["beat_age"] < seconds + 5


def test_plots_have_a_value_for_each_step_of_an_hour() -> None:
    """Null where nobody has sampled; what is older, or of a clock that was ahead, is not shown."""
    now = timezone.now().replace(microsecond=0)
    for seconds, sessions in ((4000, 9), (60, 1), (50, 2), (20, 3), (-60, 9)):
        Sample.objects.create(
            at=now - timedelta(seconds=seconds), sessions=sessions, waiting=0, opened=1, failed=0, bytes_up=5,
            bytes_down=6,
        )  # fmt: skip
    plots = read_state()["plots"]
    assert plots["at"] == (now - timedelta(seconds=20)).timestamp()
    assert plots["sessions"] == [1, 2, None, None, 3]
    assert plots["bytes_down"] == [6, 6, None, None, 6]


def test_a_look_costs_the_same_however_many_there_are() -> None:
    """A dozen queries; none for each replica, process or session."""
    asked = []
    for number in range(2):
        add_replica(f"a{number}", max_sessions=10)
        Process().place(5)
        with CaptureQueriesContext(connection) as queries:
            read_state()
        asked.append(len(queries))
    assert asked[0] == asked[1] <= 12
