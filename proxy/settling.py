"""One turn of placement: what has gathered since the last one, and who gets a slot (design, decision 7).

Called by placement.py in its database thread, and only there. In one transaction it writes down who has ended, reads
replicas, slots and line, decides with selection.py, and writes who goes where: for all processes, because a slot that
comes free here may be for a client that another process holds.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.utils import timezone

from proxy.claims import EXHAUSTED, NO_HEALTHY_REPLICA, QUEUE_FULL, Batch, ProcessEnded, Seat, Settled
from proxy.fleet import (
    LIVE_BY_URL,
    SETTINGS,
    Fleet,
    assess,
    by_server,
    read_replicas,
    router_settings,
    write_turns,
)  # fmt: skip
from proxy.limits import over_limits
from proxy.models import Session
from proxy.rows import write_arrivals, write_endings, write_seats, write_unseated, write_unseen
from proxy.selection import Candidate, Wish, assign
from proxy.turn import Asked, brief_turn, refuse_what_was_given_up
from replicas import rules
from replicas.models import Policy, RouterSettings
from replicas.passive import Outcome

# So long a replica that has failed a session is not given to it again, in seconds.
AVOID_SECONDS = 30.0
# Where arrivals stand, which have no id yet: behind all ids that there can be.
BEHIND_ALL = 2**63

LINE = (
    "SELECT id, process_id, avoid, affinity_key FROM proxy_session WHERE ended_at IS NULL AND url IS NULL ORDER BY id"
)

LEAVING = "SELECT url FROM proxy_session WHERE ended_at IS NULL AND url IS NOT NULL AND id IN"

# Draws, no secrets; a test may seed it.
rng = random.Random()  # noqa: S311


def settle(process: int, batch: Batch) -> Settled:
    """Take a turn for router process `process`. Raises ProcessEnded, or a database's fault: then nothing was done."""
    with brief_turn():
        if batch.again:
            Session.objects.filter(uid__in=[claim.uid for claim in batch.arrivals]).delete()
        write_unseen(process, batch.endings)
        write_endings(batch.endings)
        alive = Asked("SELECT 1 FROM proxy_routerprocess WHERE id = %s AND ended_at IS NULL", [process])
        line, live, settings = Asked(LINE), Asked(LIVE_BY_URL), Asked(SETTINGS)
        replicas = read_replicas()
        refuse_what_was_given_up()
        if not alive.rows():
            raise ProcessEnded
        now = time.time()
        freed = [(e.claim.seat.replica, Outcome.ROOM) for e in batch.endings if e.claim.seat is not None]
        returning = {claim.id for claim in batch.returns if claim.id is not None}
        # By the table, not by the claim: a turn that was given up may have moved it.
        leaving = Asked(f"{LEAVING} ({', '.join(['%s'] * len(returning))})", list(returning)) if returning else None
        sessions = by_server(live.rows())
        if leaving is not None:
            sessions.subtract(rules.same_replica(url) for (url,) in leaving.rows())
        current = router_settings(settings.rows())
        fleet = assess(replicas, current, sessions, [*freed, *batch.outcomes], now)
        limited = over_limits(batch.arrivals, current)
        waiting = [row for row in line.rows() if row[0] not in returning]
        return _Turn(process, batch, fleet, waiting, now, limited).take()


class _Turn:
    """The line, and who of it goes where."""

    def __init__(
        self, process: int, batch: Batch, fleet: Fleet, waiting: list[Any], now: float, limited: dict[str, str]
    ) -> None:
        self._process, self._batch, self._fleet, self._waiting, self._now = process, batch, fleet, waiting, now
        stranded = not fleet.standing and not fleet.settings.queue_when_down
        self._settled = Settled(stranded=stranded, ejected=fleet.ejected, limited=limited)
        welcome = [claim for claim in batch.arrivals if claim.uid not in limited]
        self._arrivals = dict(enumerate(welcome, BEHIND_ALL))
        self._returns = {claim.id: claim for claim in batch.returns if claim.id is not None}

    def take(self) -> Settled:
        fleet, line = self._fleet, self._line()
        given = assign(line, fleet.candidates, fleet.settings.policy, rng)
        seats = {id: _seat(candidate) for id, candidate in given.items()}
        self._seat_waiting(seats)
        self._seat_returns(seats)
        self._seat_arrivals(
            seats, waiting=sum(wish.id not in seats for wish in line) - len(self._arrivals.keys() - seats)
        )
        if fleet.settings.policy == Policy.ROUND_ROBIN and given:
            write_turns({candidate.id: candidate.last_turn for candidate in given.values()})
        return self._settled

    def _line(self) -> list[Wish]:
        """All that want a slot, in order of arrival. A session that lost its replica came before all that wait."""
        wanting = [(row[0], _recent(json.loads(row[2] or "{}"), self._now), row[3]) for row in self._waiting]
        wanting += [(id, _recent(claim.avoid, self._now), claim.affinity_key) for id, claim in self._returns.items()]
        wanting += [(id, frozenset(), claim.affinity_key) for id, claim in self._arrivals.items()]
        sticky = _last_replicas({key for _, _, key in wanting if key}, self._fleet.settings)
        return [Wish(id, avoid, sticky.get(key or "")) for id, avoid, key in sorted(wanting, key=lambda item: item[0])]

    def _seat_waiting(self, seats: dict[int, Seat]) -> None:
        write_seats([(seats[id], id) for id, *_ in self._waiting if id in seats])
        for id, process, *_ in self._waiting:
            if id in seats:
                self._settled.seated.add(process)
                if process == self._process:
                    self._settled.seats[id] = seats[id]
            elif seats or self._batch:
                self._settled.moved.add(process)
        for processes in (self._settled.seated, self._settled.moved):
            processes -= {None, self._process}

    def _seat_returns(self, seats: dict[int, Seat]) -> None:
        standing = self._fleet.standing
        write_seats([(seats[id], id) for id in self._returns if id in seats])
        for id, claim in self._returns.items():
            if id in seats:
                self._settled.seats[id] = seats[id]
                continue
            write_unseated(id, claim)
            if self._fleet.settings.queue_max_length == 0:
                self._settled.refused[id] = EXHAUSTED if claim.avoid else QUEUE_FULL  # nobody waits
            elif not standing and not self._fleet.settings.queue_when_down:
                self._settled.refused[id] = EXHAUSTED if claim.avoid else NO_HEALTHY_REPLICA
            elif standing and standing <= _recent(claim.avoid, self._now):
                self._settled.refused[id] = EXHAUSTED

    def _seat_arrivals(self, seats: dict[int, Seat], waiting: int) -> None:
        """`waiting`: how many others are left in the line."""
        found: dict[str, tuple[Seat | None, str | None]] = {}
        for id, claim in self._arrivals.items():
            seat, refusal = seats.get(id), None
            if seat is None and self._settled.stranded:
                refusal = NO_HEALTHY_REPLICA
            elif seat is None and waiting >= self._fleet.settings.queue_max_length:
                refusal = QUEUE_FULL
            waiting += seat is None and refusal is None
            found[claim.uid] = seat, refusal
        self._settled.ids = write_arrivals(
            self._process, [(claim, *found[claim.uid]) for claim in self._arrivals.values()]
        )
        for uid, id in self._settled.ids.items():
            seat, refusal = found[uid]
            if seat is not None:
                self._settled.seats[id] = seat
            if refusal is not None:
                self._settled.refused[id] = refusal


def _seat(candidate: Candidate) -> Seat:
    return Seat(candidate.id, candidate.name, candidate.url, slow_start=candidate.share < 1)


def _recent(avoid: Mapping[Any, float], now: float) -> frozenset[int]:
    return frozenset(int(replica) for replica, at in avoid.items() if abs(now - at) <= AVOID_SECONDS)


def _last_replicas(keys: set[str], settings: RouterSettings) -> dict[str, int]:
    """Where each key's last session was, if that is not too long ago."""
    if not keys or settings.affinity == "none":
        return {}
    # One look into the index a key: MAX … GROUP BY would read every session that a key has ever had. Never one key
    # alone: PostgreSQL would plan for that one, and for a frequent one read the table from its end.
    found = Asked(
        f"WITH wanted(k) AS (VALUES (''){', (%s)' * len(keys)})"  # noqa: S608
        " SELECT (SELECT id FROM proxy_session WHERE affinity_key = k AND replica_id IS NOT NULL"
        " ORDER BY id DESC LIMIT 1) FROM wanted",
        list(keys),
    )
    last = [id for (id,) in found.rows() if id is not None]
    oldest = timezone.now() - timedelta(seconds=settings.affinity_ttl_seconds)
    rows = list(Session.objects.filter(id__in=last).values_list("affinity_key", "replica_id", "ended_at"))
    return {key or "": replica for key, replica, ended_at in rows if ended_at is None or ended_at >= oldest}
