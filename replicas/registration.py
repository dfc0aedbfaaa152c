"""Replicas that add themselves, and are gone when they no longer say that they are there.

`register` is called by the API for each renewal; the prober, which works alone, watches that they keep coming. What is
watched is a count (design, decision 8): no clock of another machine is asked, and while the database is away nothing
lapses. Replicas that people or files made are never touched.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet

from replicas import rules
from replicas.models import Replica, ReplicaState
from replicas.stillness import Stillness

MIN_TTL_SECONDS, MAX_TTL_SECONDS = 5.0, 3600.0


class Conflict(Exception):
    """What is to be registered is somebody else's; the text says what, and whose."""


@dataclass(frozen=True)
class Wanted:
    """What a replica says of itself. `url` as rules.replica_url gives it."""

    name: str
    url: str
    ttl_seconds: float
    weight: float = 1.0
    max_sessions: int | None = None


def register(wanted: Wanted, by: int, *, anybodys: bool = False) -> tuple[Replica, Replica | None]:
    """Add it, or renew it and take over what has changed; give it, and as it was before (None: it is new).

    `by`: the id of the API token that says so. Another token renews it only where it may renew `anybodys`, and it stays
    the first one's. Drained because it had lapsed, it takes sessions again; drained by an operator it stays so. Raises
    Conflict, or ValidationError.
    """
    try:
        with transaction.atomic():
            return _register(wanted, by, anybodys)
    except IntegrityError as fault:
        raise Conflict("somebody else has added the same replica at this moment; try again") from fault


def _register(wanted: Wanted, by: int, anybodys: bool) -> tuple[Replica, Replica | None]:
    said = {
        "url": wanted.url,
        "weight": wanted.weight,
        "max_sessions": wanted.max_sessions,
        "registered_ttl_seconds": wanted.ttl_seconds,
    }
    was = _renewed_by(wanted, by, anybodys)
    if was is None:
        _refuse_anothers(wanted.name)
        replica = Replica(name=wanted.name, registered_by=by, **said)
        _check(replica)
        replica.save()
        return replica, None
    replica = copy.copy(was)
    for name, value in said.items():
        setattr(replica, name, value)
    _check(replica)
    back = {"state": ReplicaState.ACTIVE} if was.lapsed and was.state == ReplicaState.DRAINING else {}
    Replica.objects.filter(pk=was.pk).update(**said, **back, lapsed=False, renewals=F("renewals") + 1)
    return Replica.objects.select_related("health").get(pk=was.pk), was


def _renewed_by(wanted: Wanted, by: int, anybodys: bool) -> Replica | None:
    """The registration that is meant: the one of that server, or else of that name, which then has a new URL.

    The server's first, because people may rename it, and give its name to another: it is to stay in service.
    """
    servers = rules.spellings(wanted.url)
    rows = Replica.objects.select_for_update(no_key=True).exclude(registered_ttl_seconds=None).order_by("pk")
    if not anybodys:
        rows = rows.filter(registered_by=by)
    meant = list(rows.filter(Q(url__in=servers) | Q(name=wanted.name)))
    return min(meant, key=lambda each: (each.url not in servers, each.registered_by != by), default=None)


def _refuse_anothers(name: str) -> None:
    """Raises Conflict. Says not which URL it has: a token of the scope register reads nothing."""
    there = list(Replica.objects.filter(name=name))
    if not all(replica.registered for replica in there):
        raise Conflict(f"the name “{name}” is that of a replica that people made")
    if there:
        raise Conflict(f"“{name}” was registered with another token, and is that one’s until it is removed")


def _check(replica: Replica) -> None:
    """Raises Conflict where its URL is another's, ValidationError where a value is not allowed."""
    try:
        replica.full_clean()
    except ValidationError as error:
        if any(each.code == Replica.TAKEN for each in error.error_dict.get("url", ())):
            raise Conflict(f"the URL {replica.url} is another replica's") from error
        raise


class Renewals:
    """How long the registrations have been standing still, as one prober has seen it."""

    def __init__(self) -> None:
        self._watched: dict[int, Stillness] = {}

    def see(self, replicas: Iterable[Replica], now: float) -> tuple[list[Replica], list[Replica]]:
        """As read just `now`, by a monotonic clock: those that lapse, and those that are to go."""
        registered = {replica.pk: replica for replica in replicas if replica.registered}
        self._watched = {pk: self._watched.get(pk) or Stillness() for pk in registered}
        lapsing, going = list[Replica](), list[Replica]()
        for pk, replica in registered.items():
            still, ttl = self._watched[pk].see(replica.renewals, now), replica.registered_ttl_seconds or 0.0
            if still >= 2 * ttl:
                going.append(replica)
            elif still >= ttl and replica.state == ReplicaState.ACTIVE and not replica.lapsed:
                lapsing.append(replica)
        return lapsing, going

    def forget_last_read(self) -> None:
        for watched in self._watched.values():
            watched.forget_last_read()


def expire(lapsing: Iterable[Replica], going: Iterable[Replica]) -> list[str]:
    """Drain the first, delete the others (with sessions they stay to the last one's end); those renewed meanwhile stay.

    Gives a line for the log for each.
    """
    done = []
    for replica in lapsing:
        mine = _as_read(replica).filter(state=ReplicaState.ACTIVE)
        if mine.update(state=ReplicaState.DRAINING, lapsed=True):
            done.append(f"replica {replica}: not renewed within {replica.registered_ttl_seconds:g} s; draining")
    for replica in going:
        with transaction.atomic():
            # Locked, so that a renewal comes before this and keeps it, or after and adds it anew.
            lapsed = _as_read(replica).select_for_update().first()
            if lapsed is not None:
                lapsed.delete()
        if lapsed is not None:
            done.append(f"replica {replica}: not renewed again; removed")
    return done


def _as_read(replica: Replica) -> QuerySet[Replica]:
    """It, if it was neither renewed since nor made its own by a file: what people made is no registration's."""
    return Replica.objects.filter(pk=replica.pk, renewals=replica.renewals).exclude(registered_ttl_seconds=None)
