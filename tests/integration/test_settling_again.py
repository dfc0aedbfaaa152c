"""One turn of placement: sessions that come back for another replica, and turns that are taken again."""

from __future__ import annotations

import copy
import time

import pytest
from django.utils import timezone

from proxy import census, settling
from proxy.claims import EXHAUSTED, NO_HEALTHY_REPLICA, QUEUE_FULL, Batch, ProcessEnded
from proxy.models import RouterProcess, Session
from proxy.settling import settle
from replicas.models import Replica
from replicas.passive import Outcome
from tests.integration.placing import (
    Process,
    add_replica,
    configure,
    ending,
    line,
    live,
    most_over,
    names,
    new_claim,
    new_claims,
    row,
    seat_of,
    set_health,
)

pytestmark = pytest.mark.usefixtures("database")


# --- returns ----------------------------------------------------------------------------------------------------------


def test_one_whose_replica_failed_gets_another() -> None:
    """In the same row, as its second attempt; the slot it had is another's."""
    add_replica("a")
    b = add_replica("b")
    process = Process()
    claim = process.place_one()
    settled = process.fail(claim, time.time())
    assert settled.seats == {claim.id: seat_of(b)}
    assert (names([claim]), row(claim).attempts) == (["b"], 2)
    assert names([process.place_one()]) == ["a"]


def test_one_who_returns_stands_at_the_head() -> None:
    """It came before all that wait, of any process; and is given nothing that has failed it."""
    a, b = add_replica("a"), add_replica("b")
    one, other = Process(), Process()
    first, second = one.place(2)
    waiting = other.place(2)
    settled = one.fail(first, time.time())
    # What it gave back is for the next, not for itself.
    assert settled.seats == {}
    assert settled.seated == {other.id}
    assert names([first, second, *waiting]) == [None, "b", "a", None]
    assert row(first).avoid == {str(a.pk): first.avoid[a.pk]}
    assert line() == [first.uid, waiting[1].uid]
    # Of two that come free it takes the one that has not failed it.
    waiting[0].id, waiting[0].seat = row(waiting[0]).pk, seat_of(a)
    settled = other.settle(endings=[waiting[0]])
    assert names([first, waiting[1]]) == [None, "a"]
    settled = one.settle(endings=[second])
    assert settled.seats == {first.id: seat_of(b)}


def test_what_has_failed_a_session_is_given_to_it_again_later() -> None:
    """After 30 s; a clock that was put back forgets it too."""
    add_replica()
    process = Process()
    for at in (time.time() - 31, time.time() + 86_400):
        claim = process.place_one()
        settled = process.fail(claim, at)
        assert list(settled.seats) == [claim.id]
        process.settle(endings=[claim])


def test_one_whom_all_have_failed_is_told() -> None:
    """Nothing is left that could take it: no wait for nothing. Replicas that are down do not count."""
    add_replica("a")
    add_replica("b", status="unhealthy")
    process = Process()
    claim = process.place_one()
    settled = process.fail(claim, time.time())
    assert settled.refused == {claim.id: EXHAUSTED}
    assert (names([claim]), row(claim).ended_at) == ([None], None)  # its process ends it


@pytest.mark.parametrize(
    ("fields", "failed", "reason"),
    [
        ({"queue_max_length": 0}, True, EXHAUSTED),
        ({"queue_max_length": 0}, False, QUEUE_FULL),
        ({}, False, NO_HEALTHY_REPLICA),
        ({}, True, EXHAUSTED),
    ],
)
def test_one_who_returns_may_be_refused(fields: dict[str, int], failed: bool, reason: str) -> None:
    """Where nobody waits, or nothing is left to wait for."""
    configure(**fields)
    replica, process = add_replica(), Process()
    claim = process.place_one()
    if failed:
        claim.avoid[replica.pk] = time.time()
    set_health(replica, "unhealthy")
    settled = process.settle(returns=[claim])
    assert settled.refused == {claim.id: reason}


def test_one_who_returns_is_let_past_a_full_line() -> None:
    """It was in before."""
    configure(queue_max_length=1)
    add_replica("a")
    b = add_replica("b")
    process = Process()
    claim, other, waiting = process.place(3)
    claim.avoid[b.pk] = time.time()
    settled = process.fail(claim, time.time() - 1)
    # `a` went to who waited; `claim` has nothing left.
    assert settled.refused == {claim.id: EXHAUSTED}
    assert names([waiting, other]) == ["a", "b"]


def test_ids_past_32_bits_change_no_order() -> None:
    """A busy router has them within a month: a newcomer stands behind one that returns all the same."""
    add_replica("a")
    process = Process()
    claim = process.place_one()
    Session.objects.filter(pk=claim.id).update(id=2**33)
    claim.id = 2**33
    late = new_claim()
    settled = process.settle([late], returns=[claim])
    assert list(settled.seats) == [claim.id]


# --- the process ------------------------------------------------------------------------------------------------------


def test_a_process_that_was_ended_settles_nothing() -> None:
    """It raises, and nothing of the batch is written."""
    add_replica()
    process = Process()
    claim = process.place_one()
    RouterProcess.objects.update(ended_at=timezone.now())
    with pytest.raises(ProcessEnded):
        settle(process.id, Batch([new_claim()], [], [ending(claim)]))
    assert Session.objects.count() == live() == 1


def test_a_turn_that_fails_has_done_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an ending nor an arrival, and the next one may do them all."""
    add_replica()
    process = Process()
    holder, waiting = process.place(2)
    late = new_claim()
    with monkeypatch.context() as broken:
        broken.setattr(settling, "write_arrivals", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            process.settle([late], endings=[holder])
    assert names([holder, waiting]) == ["a", None]
    assert live() == 2
    assert list(process.settle([late], endings=[holder]).seats) == [waiting.id]


def test_what_came_through_after_it_was_given_up_is_settled_again() -> None:
    """The answer to a commit was lost: the next turn has the same arrival, return and ending, and counts none twice."""
    a, _ = add_replica("a"), add_replica("b")
    process = Process()
    returning, holder = process.place(2)
    returning.avoid[a.pk] = time.time()
    late = new_claim()
    batch = Batch([late], [returning], [ending(holder)])
    settle(process.id, batch)
    retry = Batch()
    retry.put_back(batch)
    settled = settle(process.id, retry)
    assert Session.objects.filter(uid=late.uid, pk=settled.ids[late.uid]).exists()
    assert settled.seats[returning.id].name == "b"
    assert settled.seats[settled.ids[late.uid]].name == "a"
    assert (live(), most_over()) == (2, 0)


def test_a_turn_changes_nothing_that_the_loop_owns() -> None:
    """It runs in another thread: what comes of it is in `Settled` alone."""
    a, _ = add_replica("a"), add_replica("b")
    process = Process()
    returning, over = process.place(2)
    returning.avoid[a.pk] = time.time()
    batch = Batch(new_claims(2), [returning], [ending(over)], [(a.pk, Outcome.FAILED)])
    before = copy.deepcopy(batch)
    settle(process.id, batch)
    assert batch == before


def test_who_else_must_be_woken_is_said() -> None:
    """`seated`: a session of theirs has a slot. `moved`: theirs have other places. Never this process."""
    add_replica(max_sessions=1)
    one, two, three = Process(), Process(), Process()
    holder = one.place_one()
    two.place_one()
    three.place_one()
    mine = one.place_one()
    settled = one.settle(endings=[holder])
    assert (settled.seated, settled.moved) == ({two.id}, {three.id})
    assert one.settle(endings=[mine]).moved == {three.id}
    assert one.settle().moved == set()


def test_a_replica_that_is_taken_away_while_a_session_lives_keeps_it() -> None:
    """Its slot is known by the URL; its row goes after the last session, and the history keeps its name."""
    replica, process = add_replica(), Process()
    claim = process.place_one()
    replica.delete()
    assert not Replica.objects.exists()
    assert (row(claim).url, row(claim).replica_id) == ("http://a:8000", replica.pk)
    assert most_over() <= 0
    census.purge_replicas()
    process.settle(endings=[claim])
    assert row(claim).ended_at is not None
    assert Replica.everything.count() == 1
    census.purge_replicas()
    assert not Replica.everything.exists()
    assert (row(claim).replica_id, row(claim).replica_name) == (None, replica.name)
