"""How much one client may have, exactly, whoever races whom (proxy/limits.py)."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.utils import timezone

from proxy.claims import (
    ADDRESS_RATE,
    ADDRESS_SESSIONS,
    TOKEN_RATE,
    TOKEN_SESSIONS,
    Access,
    Batch,
    Claim,
)
from proxy.models import Session
from proxy.settling import settle
from tests.databases import at_once
from tests.integration.placing import Process, add_replica, configure, live, new_claim, set_health

pytestmark = pytest.mark.usefixtures("database")


def claims(number: int, **access: Any) -> list[Claim]:
    made = [new_claim() for _ in range(number)]
    for claim in made:
        claim.access = Access(**access)
    return made


def refused(process: Process, arrivals: list[Claim]) -> list[str | None]:
    limited = process.settle(arrivals).limited
    return [limited.get(claim.uid) for claim in arrivals]


def test_where_no_limit_is_set_all_come_in() -> None:
    add_replica(max_sessions=None)
    assert refused(Process(), claims(50, address="192.0.2.1", token=1)) == [None] * 50


def test_at_once_of_an_address() -> None:
    """Those in the line count, who has left does not; other addresses are others'."""
    add_replica(max_sessions=2)
    configure(max_sessions_per_address=3)
    process = Process()
    mine = claims(5, address="192.0.2.1")
    assert refused(process, mine) == [None, None, None, ADDRESS_SESSIONS, ADDRESS_SESSIONS]
    assert refused(process, claims(1, address="192.0.2.2")) == [None]
    assert refused(process, claims(1)) == [None]  # nobody knows its address
    process.settle(endings=[mine[0]])
    assert refused(process, claims(2, address="192.0.2.1")) == [None, ADDRESS_SESSIONS]


def test_new_ones_a_minute_of_an_address() -> None:
    """Also those that have ended; not those that were refused, nor those of a minute ago."""
    add_replica(max_sessions=None)
    configure(new_sessions_per_minute=3)
    process = Process()
    mine = claims(3, address="192.0.2.1")
    assert refused(process, mine) == [None] * 3
    process.settle(endings=mine)
    assert refused(process, claims(4, address="192.0.2.1")) == [ADDRESS_RATE] * 4
    Session.objects.filter(uid=mine[0].uid).update(opened_at=timezone.now() - timedelta(seconds=61))
    assert refused(process, claims(2, address="192.0.2.1")) == [None, ADDRESS_RATE]


def test_who_finds_no_replica_has_had_no_session() -> None:
    """And comes in as soon as one is back: an outage's tries again, which were asked for, count for nothing."""
    replica = add_replica(status="unhealthy")
    configure(new_sessions_per_minute=2)
    process = Process()
    for _ in range(3):
        assert refused(process, claims(2, address="192.0.2.1", token=1)) == [None] * 2
    assert Session.objects.filter(why="no_healthy_replica").count() == 6  # in the log they are
    set_health(replica, "healthy")
    assert refused(process, claims(3, address="192.0.2.1")) == [None, None, ADDRESS_RATE]


def test_of_a_token() -> None:
    add_replica(max_sessions=None)
    process = Process()
    assert refused(process, claims(3, token=1, max_sessions=2)) == [None, None, TOKEN_SESSIONS]
    assert refused(process, claims(3, token=2, new_sessions_per_minute=1)) == [None, TOKEN_RATE, TOKEN_RATE]


def test_the_tightest_of_all_limits_counts() -> None:
    """And who is refused by one uses up none of the others."""
    add_replica(max_sessions=None)
    configure(max_sessions_per_address=4)
    process = Process()
    assert refused(process, claims(3, address="192.0.2.1", token=1, max_sessions=2))[2] == TOKEN_SESSIONS
    assert refused(process, claims(3, address="192.0.2.1")) == [None, None, ADDRESS_SESSIONS]


def test_who_is_refused_leaves_no_row_and_takes_no_place() -> None:
    add_replica(max_sessions=1)
    configure(max_sessions_per_address=1)
    process = Process()
    first, second = claims(2, address="192.0.2.1")
    settled = process.settle([first, second])
    assert second.uid not in settled.ids
    assert list(Session.objects.values_list("uid", "address")) == [(first.uid, "192.0.2.1")]


def test_what_is_settled_again_does_not_count_itself() -> None:
    """A turn that came through without an answer is taken again."""
    add_replica(max_sessions=None)
    configure(max_sessions_per_address=1)
    process = Process()
    (claim,) = claims(1, address="192.0.2.1")
    settle(process.id, Batch([claim]))
    assert settle(process.id, Batch([claim], again=True)).limited == {}


def test_no_race_gets_past_a_limit() -> None:
    """Eight processes at once, again and again."""
    add_replica(max_sessions=None)
    configure(max_sessions_per_address=5)

    def come(process: Process) -> None:
        for _ in range(10):
            process.settle(claims(2, address="192.0.2.1"))

    at_once([partial(come, Process()) for _ in range(8)])
    assert live() == 5
