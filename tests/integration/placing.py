"""What tests of placement are made of: replicas, router processes, sessions, and turns of one process."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from django.utils import timezone

from proxy import census
from proxy.claims import Batch, Claim, Ended, Seat, Settled
from proxy.fleet import live_by_server
from proxy.models import LIVE, PLACED, WAITING, Session
from proxy.settling import settle
from replicas import rules
from replicas.models import Replica, ReplicaHealth, RouterSettings
from replicas.passive import Outcome

LONG_AGO = timedelta(hours=1)


def add_replica(name: str = "a", status: str = "healthy", since: timedelta = LONG_AGO, **fields: Any) -> Replica:
    """A replica as the prober left it `since` ago (past its slow start)."""
    fields.setdefault("max_sessions", 1)
    fields.setdefault("url", f"http://{name}:8000")
    made = Replica.objects.create(name=name, **fields)
    now = timezone.now()
    ReplicaHealth.objects.create(replica=made, url=made.url, status=status, status_since=now - since, checked_at=now)
    return made


def set_health(replica: Replica, status: str) -> None:
    ReplicaHealth.objects.filter(replica=replica).update(status=status)


def configure(**fields: Any) -> None:
    """What operators set."""
    RouterSettings.objects.update_or_create(id=1, defaults=fields)


def new_claim(key: str | None = None, client: str = "10.0.0.1:5000") -> Claim:
    return Claim(uuid.uuid4().hex, client, key, timezone.now())


def new_claims(number: int, **fields: Any) -> list[Claim]:
    return [new_claim(**fields) for _ in range(number)]


def ending(claim: Claim, why: str = "closed", **fields: Any) -> Ended:
    return Ended(claim, timezone.now(), "client", why, **fields)


class Process:
    """A router process: its turns, with what placement.py does to claims around them."""

    def __init__(self) -> None:
        self.id = census.register()

    def settle(
        self,
        arrivals: Sequence[Claim] = (),
        returns: Sequence[Claim] = (),
        endings: Iterable[Claim | Ended] = (),
        outcomes: Iterable[tuple[Replica, Outcome]] = (),
    ) -> Settled:
        over = [each if isinstance(each, Ended) else ending(each) for each in endings]
        batch = Batch(list(arrivals), list(returns), over, [(replica.pk, what) for replica, what in outcomes])
        settled = settle(self.id, batch)
        for claim in arrivals:
            claim.id, claim.seat = settled.ids.get(claim.uid), None
            assert (claim.id is None) == (claim.uid in settled.limited)
        for claim in (*arrivals, *returns):
            claim.seat = settled.seats.get(claim.id or 0)
        return settled

    def place(self, number: int = 1, **fields: Any) -> list[Claim]:
        """`number` sessions that come at once."""
        claims = new_claims(number, **fields)
        self.settle(claims)
        return claims

    def place_one(self, **fields: Any) -> Claim:
        return self.place(1, **fields)[0]

    def fail(self, claim: Claim, at: float) -> Settled:
        """The replica of `claim` has failed it, and it comes back."""
        assert claim.seat is not None
        claim.avoid[claim.seat.replica] = at
        return self.settle(returns=[claim])


def row(claim: Claim) -> Session:
    return Session.objects.get(uid=claim.uid)


def names(claims: Iterable[Claim]) -> list[str | None]:
    """Where they are, as the table says: the name of the replica; None: nowhere."""
    return [found.replica_name or None for found in map(row, claims)]


def live() -> int:
    return Session.objects.filter(LIVE).count()


def line() -> list[str]:
    """The uids of those that wait, in order."""
    return list(Session.objects.filter(WAITING).order_by("id").values_list("uid", flat=True))


def most_over() -> int:
    """By how many sessions the fullest server has more than its slots; ≤ 0: none has."""
    counted = live_by_server()
    limits = {rules.same_replica(r.url): r.slots for r in Replica.objects.with_health()}
    return max((counted[s] - slots for s, slots in limits.items() if slots is not None), default=0)


def seats_taken() -> int:
    return Session.objects.filter(PLACED).count()


def seat_of(replica: Replica) -> Seat:
    return Seat(replica.pk, replica.name, replica.url)
