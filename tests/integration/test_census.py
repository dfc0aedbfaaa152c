"""Which router processes live: beats, burials, what is claimed again, and rows that nobody knows (proxy/census.py)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from proxy import census
from proxy.census import Drain
from proxy.claims import ProcessEnded
from proxy.models import RouterProcess, Session
from replicas.health import UNHEALTHY
from replicas.models import Replica, ReplicaHealth, RouterSettings
from tests.databases import apart
from tests.integration.placing import (
    Process,
    add_replica,
    configure,
    line,
    live,
    most_over,
    names,
    row,
    seat_of,
    set_health,
)
from tests.processes import wait_until

pytestmark = pytest.mark.usefixtures("database")


def counted(process: Process) -> int:
    return RouterProcess.objects.get(pk=process.id).beat


def bury(process: Process) -> None:
    assert census.bury(process.id, counted(process))


# --- beats and burials ------------------------------------------------------------------------------------------------


def test_a_beat_counts_up_and_tells_of_the_others() -> None:
    """Those that live; not itself."""
    one, other, ended = Process(), Process(), Process()
    census.retire(ended.id)
    assert census.beat(one.id) == {other.id: 0}
    assert census.beat(other.id) == {one.id: 1}
    assert census.beat(one.id) == {other.id: 1}


def test_a_process_that_was_ended_hears_it_by_its_beat() -> None:
    """Also one whose row is gone."""
    process = Process()
    census.retire(process.id)
    with pytest.raises(ProcessEnded):
        census.beat(process.id)
    with pytest.raises(ProcessEnded):
        census.beat(10**9)


def test_a_dead_process_gives_its_slots_back() -> None:
    """Its sessions end with it, those that wait too; nobody else's do; and who waits elsewhere is next."""
    add_replica(max_sessions=2)
    dead, other = Process(), Process()
    mine, theirs = dead.place_one(), other.place_one()
    waiting = dead.place_one()
    next_ = other.place_one()
    bury(dead)
    assert [row(each).why for each in (mine, waiting)] == [census.VANISHED] * 2
    assert RouterProcess.objects.get(pk=dead.id).why == census.VANISHED
    settled = other.settle()
    assert list(settled.seats) == [next_.id]
    assert names([theirs]) == ["a"]


def test_a_process_that_has_counted_up_since_is_not_buried() -> None:
    """Nor one that is buried already."""
    add_replica()
    process = Process()
    process.place_one()
    seen = counted(process)
    census.beat(process.id)
    assert not census.bury(process.id, seen)
    assert live() == 1
    bury(process)
    assert not census.bury(process.id, counted(process))


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_beat_that_comes_within_the_burial_stops_it() -> None:
    """Beats take no turn: one can be under way while another process buries this one. (SQLite has one writer.)"""
    add_replica()
    process = Process()
    process.place_one()
    seen = counted(process)

    def waits() -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            return bool(cursor.fetchone()[0])

    with ThreadPoolExecutor(1) as other:
        with transaction.atomic():
            census.beat(process.id)
            burial = other.submit(apart, lambda: census.bury(process.id, seen))
            wait_until(waits)
        assert burial.result(10) is False
    assert live() == 1


def test_a_process_that_stops_takes_its_sessions_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is left behind where the database fails in between: then others find it, and its sessions."""
    add_replica()
    process = Process()
    process.place_one()
    with monkeypatch.context() as broken:
        broken.setattr(Session.objects, "filter", _away)
        with pytest.raises(OperationalError):
            census.retire(process.id)
    assert RouterProcess.objects.get().ended_at is None
    census.retire(process.id)
    assert (live(), RouterProcess.objects.get().why) == (0, "stopped")


def _away(*arguments: object, **fields: object) -> None:
    raise OperationalError("away")


def test_a_draining_process_shows_it() -> None:
    """For people."""
    process = Process()
    census.set_draining(process.id)
    assert RouterProcess.objects.get().draining


# --- again ------------------------------------------------------------------------------------------------------------


def test_a_process_that_was_given_up_claims_its_sessions_again() -> None:
    """It was only slow: where nobody has taken the slots, all goes on, the line in its order too."""
    add_replica(max_sessions=2)
    dead, other = Process(), Process()
    first, second, waiting = dead.place(3)
    behind = other.place_one()
    bury(dead)
    assert census.reclaim(dead.id, [first, second, waiting]) == []
    assert (names([first, second]), line()) == (["a", "a"], [waiting.uid, behind.uid])
    assert row(first).why == ""
    census.beat(dead.id)


def test_what_was_given_away_meanwhile_is_lost() -> None:
    """The sessions that came first keep theirs; nobody is overbooked."""
    add_replica(max_sessions=3)
    dead, other = Process(), Process()
    claims = dead.place(3)
    waiting = other.place_one()
    bury(dead)
    other.settle()
    assert names([waiting]) == ["a"]
    assert census.reclaim(dead.id, claims[::-1]) == [claims[2]]
    assert row(claims[2]).ended_at is not None
    assert most_over() == 0


def test_a_slot_that_it_had_not_heard_of_is_counted_too() -> None:
    """Another process had given it to a session of this one, which was buried before it looked."""
    add_replica()
    dead, other = Process(), Process()
    holder = other.place_one()
    waiting = dead.place_one()
    other.settle(endings=[holder])
    assert (names([waiting]), waiting.seat) == (["a"], None)
    bury(dead)
    taken = other.place_one()
    assert names([taken]) == ["a"]
    assert census.reclaim(dead.id, [waiting]) == []
    # It has lost nothing that it knew of: it stands in the line again, where it stood.
    assert (most_over(), line()) == (0, [waiting.uid])
    other.settle(endings=[taken])
    assert names([waiting]) == ["a"]


def test_a_slot_that_it_had_not_heard_of_and_that_is_free_is_its() -> None:
    """Nobody has taken it meanwhile."""
    add_replica()
    dead, other = Process(), Process()
    holder = other.place_one()
    waiting = dead.place_one()
    other.settle(endings=[holder])
    bury(dead)
    assert census.reclaim(dead.id, [waiting]) == []
    assert (names([waiting]), live()) == (["a"], 1)


def test_on_a_replica_that_is_gone_or_has_no_slots_there_is_room() -> None:
    """Deleted, edited or unlimited: nobody else has been put there."""
    a, b = add_replica("a"), add_replica("b", max_sessions=None)
    dead = Process()
    claims = dead.place(2)
    Replica.everything.filter(pk=a.pk).update(deleted_at=timezone.now())
    bury(dead)
    assert census.reclaim(dead.id, claims) == []
    assert names(claims) == [a.name, b.name]


def test_a_process_that_lives_claims_nothing() -> None:
    """Its beat and its turn may both have heard of its end: the second one does nothing."""
    add_replica()
    process = Process()
    claim = process.place_one()
    assert census.reclaim(process.id, [claim]) == []
    census.retire(process.id)
    assert census.reclaim(process.id, []) == []
    assert census.reclaim(process.id, [claim]) == []
    assert row(claim).ended_at is not None


# --- strays -----------------------------------------------------------------------------------------------------------


def test_a_row_that_its_process_does_not_know_is_ended() -> None:
    """Its slot must not leak; those of other processes are theirs."""
    add_replica(max_sessions=5)
    process, other = Process(), Process()
    known, stray, waiting = (process.place_one() for _ in range(3))
    theirs = other.place_one()
    assert census.end_strays(process.id, [known.id or 0, waiting.id or 0]) == 1
    assert [row(each).ended_at is None for each in (known, stray, waiting, theirs)] == [True, False, True, True]
    assert row(stray).why == "given up"
    assert census.end_strays(process.id, [known.id or 0, waiting.id or 0]) == 0


def test_a_stray_is_found_however_many_are_known() -> None:
    """Of what a process knows, some may have been ended: a count would say that nothing is amiss."""
    add_replica(max_sessions=5)
    process = Process()
    ended, stray = process.place(2)
    process.settle(endings=[ended])
    assert census.end_strays(process.id, [ended.id or 0]) == 1
    assert row(stray).ended_at is not None


# --- looks ------------------------------------------------------------------------------------------------------------


def test_a_look_sees_what_others_have_given() -> None:
    """Of those it asks for, those that have a seat; and the whole line."""
    replica = add_replica(since=timedelta(seconds=1))
    one, other = Process(), Process()
    holder = one.place_one()
    mine, theirs = one.place_one(), other.place_one()
    other.settle(endings=[holder])
    seen = census.look(one.id, [mine.id or 0])
    assert list(seen.seats) == [mine.id]
    assert (seen.seats[mine.id or 0].name, seen.seats[mine.id or 0].slow_start) == ("a", True)
    assert list(seen.slow_starting) == [replica.pk]
    assert seen.line == [theirs.id]


def test_a_replica_that_has_just_become_unhealthy_is_not_in_slow_start() -> None:
    """So its pace is forgotten before the next one begins (proxy/pace.py)."""
    replica = add_replica(since=timedelta(seconds=1))
    assert census.look(Process().id, []).slow_starting == {replica.pk: replica.health.status_since}
    ReplicaHealth.objects.update(status=UNHEALTHY)
    assert census.look(Process().id, []).slow_starting == {}


def test_a_look_without_anybody_waiting_reads_no_line() -> None:
    """Nor settings that nobody has saved."""
    seen = census.look(Process().id, [])
    assert (seen.line, seen.seats, seen.disconnects, seen.drains) == ([], {}, {}, {})
    assert seen.settings.queue_max_length == RouterSettings().queue_max_length
    configure(queue_max_length=7)
    assert census.look(Process().id, []).settings.queue_max_length == 7


def test_a_look_sees_the_wishes_for_its_own_sessions() -> None:
    """Not those for others', nor for such as are over."""
    add_replica(max_sessions=3)
    one, other = Process(), Process()
    mine, over = one.place(2)
    other.place_one()
    Session.objects.update(disconnect_reason="maintenance")
    one.settle(endings=[over])
    assert census.look(one.id, []).disconnects == {mine.id: "maintenance"}


def test_a_look_sees_drains() -> None:
    """Of replicas that are deleted meanwhile too: their sessions live on."""
    add_replica("a")
    b = add_replica("b", state="draining", drains=3, drain_deadline_seconds=60.0)
    c = add_replica("c", state="draining", drains=1)
    Replica.everything.filter(pk=b.pk).update(deleted_at=timezone.now())
    assert census.look(Process().id, []).drains == {b.pk: Drain(3, 60.0), c.pk: Drain(1, None)}


def test_a_seat_on_a_replica_that_is_gone_is_a_seat() -> None:
    """The row has its name and its URL."""
    replica = add_replica()
    one, other = Process(), Process()
    holder = other.place_one()
    mine = one.place_one()
    other.settle(endings=[holder])
    seat = seat_of(replica)
    replica.delete()
    found = census.look(one.id, [mine.id or 0]).seats[mine.id or 0]
    assert (found.name, found.url) == (seat.name, seat.url)


def test_a_replica_that_went_down_after_its_slot_was_given_is_still_looked_up() -> None:
    """Trying is what finds it out."""
    replica = add_replica()
    one, other = Process(), Process()
    holder, mine = other.place_one(), one.place_one()
    other.settle(endings=[holder])
    set_health(replica, "unhealthy")
    assert list(census.look(one.id, [mine.id or 0]).seats) == [mine.id]
