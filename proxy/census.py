"""Which router processes live, and what each must know of its own sessions (design, decision 8).

Called by placement.py in its database thread. A process counts up its row; who sees another's count stand still ends it
and its sessions, so that their slots are free again. A process that finds itself ended begins anew, and claims its
sessions again where there is room.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from proxy.claims import Claim, ProcessEnded, Seat
from proxy.fleet import live_by_server
from proxy.models import LIVE, WAITING, ProcessTraffic, RouterProcess, Session
from proxy.pulse import write_traffic
from proxy.steering import live_by_replica
from proxy.traffic import Count
from proxy.turn import turn
from replicas import rules
from replicas.health import HEALTHY
from replicas.lease import own_name
from replicas.models import Replica, ReplicaState, RouterSettings
from replicas.version import VERSION

BEAT_SECONDS = 1.0
# Seen standing still for so long, a process is dead. With a beat and a look of a second each, its slots are free within
# 10 s of its end (faults.md 55), and a loop that stalls for 5 s kills nobody (58).
DEAD_SECONDS = 7.5
VANISHED = "router process vanished"
# So many rows of the history of deleted replicas are cleared at a time.
PURGE_ROWS = 1000


@dataclass(frozen=True)
class Drain:
    """A replica that is being drained: its drain's number, and after how many seconds what is left is closed."""

    number: int
    deadline_seconds: float | None


@dataclass
class Look:
    """What a process reads of what others have decided, every half second and when nudged."""

    seats: dict[int, Seat] = field(default_factory=dict)  # of its waiting sessions, by id: given by another process
    line: list[int] = field(default_factory=list)  # ids of all that wait, in order
    disconnects: dict[int, str] = field(default_factory=dict)  # id → reason
    drains: dict[int, Drain] = field(default_factory=dict)
    slow_starting: dict[int, datetime] = field(default_factory=dict)  # replicas, and since when
    settings: RouterSettings = field(default_factory=RouterSettings)


def register() -> int:
    """A row for this process; gives its id."""
    return RouterProcess.objects.create(name=own_name(), version=VERSION).pk


def beat(process: int, carried: Count | None = None) -> dict[int, int]:
    """Count up; give the counts of all other live processes. Raises ProcessEnded when others have ended us.

    What this process has `carried` is written in the same transaction.
    """
    mine = RouterProcess.objects.filter(pk=process, ended_at=None)
    with transaction.atomic():
        if not mine.update(beat=F("beat") + 1, beaten_at=timezone.now()):
            raise ProcessEnded
        if carried is not None:
            write_traffic(process, carried)
    return dict(RouterProcess.objects.filter(ended_at=None).exclude(pk=process).values_list("pk", "beat"))


def set_draining(process: int) -> None:
    RouterProcess.objects.filter(pk=process).update(draining=True)


def retire(process: int) -> None:
    """A process ends in order, its sessions before it."""
    with turn():
        _end(process, "stopped")


def bury(process: int, seen_beat: int) -> bool:
    """End a dead process and its sessions, unless it has counted up since; give whether it was ended."""
    with turn():
        return _end(process, VANISHED, beat=seen_beat)


def _end(process: int, why: str, **as_seen: int) -> bool:
    now = timezone.now()
    # Compare and set: beats take no turn, and one may come at any moment.
    if not RouterProcess.objects.filter(pk=process, ended_at=None, **as_seen).update(ended_at=now, why=why):
        return False
    Session.objects.filter(LIVE, process=process).update(ended_at=now, ended_by="router", why=why)
    ProcessTraffic.objects.filter(process=process).delete()
    return True


def reclaim(process: int, claims: Sequence[Claim]) -> list[Claim]:
    """A process that was ended begins anew; gives those of its `claims` for whom there is no room any more.

    One whose slot was given by another process just before, and is another's now, has lost nothing that it knows of: it
    stands in the line again.
    """
    with turn():
        if not RouterProcess.objects.filter(pk=process).exists():  # of a database that was restored, say
            RouterProcess.objects.create(pk=process, name=own_name(), version=VERSION, ended_at=timezone.now())
        ended = RouterProcess.objects.filter(pk=process, ended_at__isnull=False)
        if not ended.update(ended_at=None, why="", beat=F("beat") + 1):
            return []
        sessions = live_by_server()
        slots = {rules.same_replica(replica.url): replica.slots for replica in Replica.objects.with_health()}
        known = {claim.id: claim for claim in claims if claim.id is not None}
        lost: list[Claim] = []
        kept: list[int] = []
        waits: list[int] = []
        for id, url in Session.objects.filter(pk__in=list(known)).order_by("id").values_list("id", "url"):
            server = rules.same_replica(url) if url is not None else ""
            room = slots.get(server)
            if room is None or sessions[server] < room:
                sessions[server] += 1
                kept.append(id)
            elif known[id].seat is not None:
                lost.append(known[id])
            else:
                waits.append(id)
        Session.objects.filter(pk__in=waits).update(url=None, replica=None, replica_name="", placed_at=None)
        Session.objects.filter(pk__in=kept + waits).update(ended_at=None, ended_by="", why="")
        return lost


def end_strays(process: int, known: Collection[int]) -> int:
    """End sessions of this process that it knows nothing of, and give how many.

    A write can come through after it was given up: the connection was lost, or the server slow. Its slot must not leak.
    """
    live = Session.objects.filter(LIVE, process=process)
    strays = set(live.values_list("pk", flat=True)) - set(known)
    if not strays:
        return 0
    return Session.objects.filter(LIVE, pk__in=strays).update(
        ended_at=timezone.now(), ended_by="router", why="given up"
    )


def lost_slots(process: int, seated: Collection[int]) -> set[int]:
    """Those of `seated` that have no slot any more though their process is not given up.

    Where the answer to a claim of ours was lost, or someone ended rows by hand: the slots are others' by now.
    """
    with turn():
        if not RouterProcess.objects.filter(pk=process, ended_at=None).exists():
            return set()  # they are claimed again first
        return set(seated) - set(Session.objects.filter(LIVE, process=process).values_list("pk", flat=True))


def purge_replicas() -> None:
    """Let go of deleted replicas whose last session has ended; of their history some rows at a time.

    The sessions that a replica ever had name it, and there may be a million: to clear that in the one statement that
    deletes it takes longer than a database may take for one, and all placement would wait for the turn.
    """
    deleted = Replica.everything.deleted().exclude(pk__in=live_by_replica()).values_list("pk", flat=True)
    if not (gone := list(deleted)):
        return
    history = Session.objects.filter(replica__in=gone, ended_at__isnull=False).order_by()
    some = list(history.values_list("pk", flat=True)[:PURGE_ROWS])
    Session.objects.filter(pk__in=some).update(replica=None)
    if len(some) < PURGE_ROWS:
        with turn():
            Replica.everything.purge_deleted(live_by_replica())


def look(process: int, waiting: Collection[int]) -> Look:
    """Read what concerns this process. `waiting`: its sessions that have no slot as far as it knows."""
    seen = Look(settings=RouterSettings.current())
    since = timezone.now() - timedelta(seconds=seen.settings.slow_start_seconds)
    young = Replica.objects.filter(
        health__status=HEALTHY, health__status_since__gte=since, health__status_since__lte=timezone.now()
    )
    seen.slow_starting = {pk: since for pk, since in young.values_list("pk", "health__status_since") if since}
    seen.drains = {
        replica: Drain(number, deadline)
        for replica, number, deadline in Replica.everything.filter(state=ReplicaState.DRAINING).values_list(
            "pk", "drains", "drain_deadline_seconds"
        )
    }
    if waiting:
        rows = Session.objects.filter(LIVE, pk__in=waiting, url__isnull=False)
        for id, replica, name, url in rows.values_list("pk", "replica_id", "replica_name", "url"):
            seen.seats[id] = Seat(replica or 0, name, url or "", slow_start=replica in seen.slow_starting)
        seen.line = list(Session.objects.filter(WAITING).order_by("id").values_list("pk", flat=True))
    asked = Session.objects.filter(LIVE, process=process, disconnect_reason__isnull=False)
    seen.disconnects = {id: reason or "" for id, reason in asked.values_list("pk", "disconnect_reason")}
    return seen
