"""One turn of placement on both databases: who comes, who goes, who gets a slot, who is refused (proxy/settling.py)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from proxy.claims import NO_HEALTHY_REPLICA, QUEUE_FULL, Seat
from proxy.models import Session
from replicas.models import RouterSettings
from tests.integration.placing import (
    Process,
    add_replica,
    configure,
    ending,
    line,
    live,
    names,
    new_claim,
    new_claims,
    row,
    seats_taken,
    set_health,
)

pytestmark = pytest.mark.usefixtures("database")


# --- arrivals ---------------------------------------------------------------------------------------------------------


def test_one_who_comes_gets_a_slot_and_a_row() -> None:
    """The row is the slot: the URL, since when, whose, and one attempt."""
    replica, process = add_replica(), Process()
    claim = process.place_one(key="k" * 32, client="[::1]:5")
    found = row(claim)
    assert claim.seat == Seat(replica.pk, "a", "http://a:8000")
    assert (found.pk, found.process_id, found.replica_id) == (claim.id, process.id, replica.pk)
    assert (found.replica_name, found.url, found.attempts) == ("a", "http://a:8000", 1)
    assert (found.client, found.affinity_key, found.opened_at) == ("[::1]:5", "k" * 32, claim.opened_at)
    assert found.placed_at is not None
    assert found.ended_at is None


def test_without_settings_their_defaults_count() -> None:
    """Nobody has saved any: a line of 100, and then no more."""
    assert not RouterSettings.objects.exists()
    add_replica()
    process = Process()
    claims = new_claims(102)
    settled = process.settle(claims)
    assert (seats_taken(), len(line())) == (1, 100)
    assert settled.refused == {claims[101].id: QUEUE_FULL}


def test_who_comes_at_once_stands_in_the_order_of_coming() -> None:
    """All in one transaction; each is told its own id, however many rows one statement takes."""
    process = Process()
    add_replica(max_sessions=3)
    configure(queue_max_length=1000)
    claims = new_claims(700)
    process.settle(claims)
    ids = dict(Session.objects.values_list("uid", "pk"))
    assert [claim.id for claim in claims] == [ids[claim.uid] for claim in claims] == sorted(ids.values())
    assert [bool(claim.seat) for claim in claims] == [True] * 3 + [False] * 697
    assert line() == [claim.uid for claim in claims[3:]]


def test_a_turn_is_a_handful_of_statements_however_many_it_settles() -> None:
    """Group commit: that is what makes it fast."""
    add_replica(max_sessions=None)
    process = Process()
    counted = []
    for number in (2, 40):
        endings = process.place(number)
        with CaptureQueriesContext(connection) as queries:
            process.settle(new_claims(number), endings=endings)
        counted.append(len(queries))
    assert counted[0] == counted[1] <= 12


def test_a_newcomer_never_overtakes_the_line() -> None:
    """A slot is free in the same turn: the line has it, of whichever process it is."""
    add_replica()
    one, other = Process(), Process()
    first = one.place_one()
    waiting = one.place_one()
    newcomer = new_claim()
    one.settle(endings=[first])
    assert names([waiting]) == ["a"]
    another = other.place_one()
    settled = other.settle([newcomer])
    assert line() == [another.uid, newcomer.uid]
    assert settled.seats == {}


def test_a_slot_is_given_in_the_turn_in_which_it_comes_free() -> None:
    """To the head of the line, not to who comes in the same turn."""
    add_replica()
    process = Process()
    holder, head = process.place(2)
    late = new_claim()
    settled = process.settle([late], endings=[holder])
    assert head.id in settled.seats
    assert late.id not in settled.seats
    assert row(holder).ended_at is not None


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["unhealthy", "unknown"])
def test_with_no_healthy_replica_nobody_waits(status: str) -> None:
    """Refused at once, as the original did, and in the log; those who wait already are told too."""
    replica, process = add_replica(), Process()
    _, waiting = process.place(2)
    set_health(replica, status)
    late = new_claim()
    settled = process.settle([late])
    assert settled.stranded
    assert settled.refused == {late.id: NO_HEALTHY_REPLICA}
    assert (row(late).ended_by, row(late).why) == ("router", NO_HEALTHY_REPLICA)
    assert line() == [waiting.uid]  # until its process has told it


@pytest.mark.parametrize("state", ["draining", "disabled"])
def test_a_replica_that_takes_none_by_its_operators_wish_is_none_to_wait_for(state: str) -> None:
    """Healthy or not."""
    add_replica(state=state)
    late = new_claim()
    assert Process().settle([late]).refused == {late.id: NO_HEALTHY_REPLICA}


def test_when_down_lets_them_wait() -> None:
    """And a replica that recovers is filled from the head."""
    configure(queue_when_down=True)
    replica, process = add_replica(status="unhealthy"), Process()
    claims = new_claims(3)
    settled = process.settle(claims)
    assert not settled.stranded
    assert settled.refused == {}
    set_health(replica, "healthy")
    assert list(process.settle().seats) == [claims[0].id]


def test_without_any_replica_nobody_waits() -> None:
    """A router that is not set up yet says so."""
    claim = new_claim()
    assert Process().settle([claim]).refused == {claim.id: NO_HEALTHY_REPLICA}


def test_past_its_length_the_line_takes_nobody() -> None:
    """Those who come at once are let in one by one; who waits in other processes counts too."""
    configure(queue_max_length=3)
    add_replica()
    one, other = Process(), Process()
    one.place(3)
    claims = new_claims(3)
    settled = other.settle(claims)
    assert settled.refused == {claims[1].id: QUEUE_FULL, claims[2].id: QUEUE_FULL}
    assert len(line()) == 3


def test_who_gets_the_slot_that_comes_free_makes_room_in_the_line() -> None:
    """In the same turn."""
    configure(queue_max_length=1)
    add_replica()
    process = Process()
    holder, waiting = process.place(2)
    late = new_claim()
    settled = process.settle([late], endings=[holder])
    assert list(settled.seats) == [waiting.id]
    assert settled.refused == {}
    assert line() == [late.uid]


def test_a_length_of_0_means_that_nobody_waits() -> None:
    """Refused where nothing is free; served where something is."""
    configure(queue_max_length=0)
    add_replica()
    claims = new_claims(2)
    process = Process()
    settled = process.settle(claims)
    assert settled.refused == {claims[1].id: QUEUE_FULL}
    assert line() == []
    late = new_claim()
    assert list(process.settle([late], endings=[claims[0]]).seats) == [late.id]


def test_who_was_refused_is_in_the_log_and_never_in_the_line() -> None:
    """Its row is over from the beginning; its ending only adds what its client was told."""
    configure(queue_max_length=0)
    add_replica(max_sessions=1)
    process = Process()
    _, refused = process.place(2)
    assert (row(refused).why, row(refused).ended_at is None) == (QUEUE_FULL, False)
    process.settle(endings=[ending(refused, QUEUE_FULL, code=1013)])
    assert (row(refused).why, row(refused).close_code) == (QUEUE_FULL, 1013)
    assert live() == 1


# --- endings ----------------------------------------------------------------------------------------------------------


def test_an_ending_is_the_access_logs_row() -> None:
    """All that it says, once."""
    add_replica()
    process = Process()
    claim = process.place_one()
    began, at = timezone.now() - timedelta(seconds=3), timezone.now()
    told = ending(
        claim, "x" * 150, code=4000, first_media_at=began, frames_up=1, bytes_up=2**40, frames_down=3, bytes_down=2**41
    )
    process.settle(endings=[told])
    process.settle(endings=[ending(claim, "again", code=1000)])
    found = row(claim)
    assert (found.ended_by, found.why, found.close_code) == ("client", "x" * 100, 4000)
    assert (found.frames_up, found.bytes_up, found.frames_down, found.bytes_down) == (1, 2**40, 3, 2**41)
    assert found.first_media_at == began
    assert abs(found.ended_at - at) < timedelta(seconds=1)
    assert seats_taken() == 0


def test_an_ending_without_a_code_or_media_has_none() -> None:
    """Null, not 0."""
    add_replica()
    process = Process()
    claim = process.place_one()
    process.settle(endings=[claim])
    assert (row(claim).close_code, row(claim).first_media_at) == (None, None)


def test_one_who_leaves_the_line_is_given_nothing() -> None:
    """Though a slot comes free in the same turn."""
    add_replica()
    process = Process()
    holder, leaver, next_ = process.place(3)
    settled = process.settle(endings=[holder, leaver])
    assert list(settled.seats) == [next_.id]
    assert row(leaver).url is None


@pytest.mark.parametrize("text", ["a\0b", "\udcff", "x" * 5000, "\0" * 5000])
def test_what_a_peer_says_can_be_written(text: str) -> None:
    """An address by way of another server's headers, an exception's text: no database refuses the turn for it."""
    add_replica(max_sessions=2)
    process = Process()
    claim, other = new_claim(client=text), new_claim()
    process.settle([claim, other])
    process.settle(endings=[ending(claim, text)])
    assert "\0" not in row(claim).client + row(claim).why
    assert live() == 1
