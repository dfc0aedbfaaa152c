"""The replicas as one turn of placement sees them: who could take a session, and how many it has.

Called by settling.py inside its transaction. Reads the tables of replicas/ and of sessions, and keeps what sessions
find out about a replica (replicas/passive.py). Must not decide who gets what: selection.py does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone

from proxy.selection import Candidate, ramp
from proxy.turn import Asked
from replicas import passive, rules
from replicas.models import PlacementRecord, Replica, RouterSettings
from replicas.passive import Outcome, Passive


@dataclass
class Fleet:
    """What one turn has read."""

    settings: RouterSettings
    candidates: list[Candidate]
    standing: set[int]  # active and healthy: those that a session may wait for
    ejected: int  # so many replicas, by what this turn has learned


# Statements whose rows are for by_server and router_settings.
LIVE_BY_URL = "SELECT url, COUNT(*) FROM proxy_session WHERE ended_at IS NULL AND url IS NOT NULL GROUP BY url"
_SETTINGS = [str(field.column) for field in RouterSettings._meta.concrete_fields]
SETTINGS = f"SELECT {', '.join(_SETTINGS)} FROM {RouterSettings._meta.db_table}"  # noqa: S608  (names of ours)


def by_server(rows: Iterable[tuple[str, int]]) -> Counter[str]:
    """Live sessions by where they are, whoever holds them and whatever has become of the replica's row since."""
    counted: Counter[str] = Counter()
    for url, number in rows:
        counted[rules.same_replica(url)] += number
    return counted


def router_settings(rows: Sequence[Sequence[Any]]) -> RouterSettings:
    """The row, or the defaults where nobody has saved any."""
    return RouterSettings.from_db(None, _SETTINGS, rows[0]) if rows else RouterSettings()


def read_replicas() -> list[Replica]:
    """In insertion order, with what is known of them."""
    return list(Replica.objects.select_related("health", "record").order_by("id"))


def assess(
    replicas: Sequence[Replica],
    settings: RouterSettings,
    sessions: Counter[str],
    outcomes: Iterable[tuple[int, Outcome]],
    now: float,
) -> Fleet:
    """The fleet after `outcomes`, which are written down. `sessions`: how many are live on each server."""
    standing = {replica.pk for replica in replicas if replica.available}
    before = {replica.pk: _record(replica).ejections for replica in replicas}
    records = _learn(replicas, standing, outcomes, now)
    ejected = sum(records[replica].ejections > ejections for replica, ejections in before.items())
    at = timezone.now()
    candidates = [
        Candidate(
            id=replica.pk,
            name=replica.name,
            url=replica.url,
            primary=replica.primary,
            available=replica.pk in standing
            and not records[replica.pk].ejected(now)
            and not records[replica.pk].full(now),
            stale=replica.is_stale(at, settings.stale_after),
            weight=replica.weight,
            share=ramp(_seconds_healthy(replica, at), settings.slow_start_seconds),
            slots=replica.slots,
            sessions=sessions[rules.same_replica(replica.url)],
            last_turn=_record(replica).last_turn,
        )
        for replica in replicas
    ]
    return Fleet(settings, candidates, standing, ejected)


def live_by_server() -> Counter[str]:
    return by_server(Asked(LIVE_BY_URL).rows())


def write_turns(turns: dict[int, int]) -> None:
    """For round_robin: which of the replicas was placed on last."""
    PlacementRecord.objects.bulk_create(
        [PlacementRecord(replica_id=replica, last_turn=number) for replica, number in turns.items()],
        update_conflicts=True,
        unique_fields=["replica"],
        update_fields=["last_turn"],
    )


def _seconds_healthy(replica: Replica, now: datetime) -> float | None:
    since = replica.observed.status_since if replica.observed else None
    return (now - since).total_seconds() if since is not None else None


def _learn(
    replicas: Sequence[Replica], standing: set[int], outcomes: Iterable[tuple[int, Outcome]], now: float
) -> dict[int, Passive]:
    """What is known of each replica after `outcomes`; what has changed is written."""
    before = {replica.pk: _passive(_record(replica)) for replica in replicas}
    known = dict(before)
    for replica, outcome in outcomes:
        if replica in known:
            others = [known[other] for other in standing if other != replica]
            known[replica] = passive.learn(known[replica], outcome, now, may_eject=passive.may_eject(others, now))
    changed = [
        _changed(_record(replica), known[replica.pk]) for replica in replicas if known[replica.pk] != before[replica.pk]
    ]
    if changed:
        fields = ["failures", "ejections", "ejected_until", "rejections", "full_until"]
        PlacementRecord.objects.bulk_create(
            changed, update_conflicts=True, unique_fields=["replica"], update_fields=fields
        )
    return known


def _record(replica: Replica) -> PlacementRecord:
    found: PlacementRecord | None = getattr(replica, "record", None)
    return found if found is not None else PlacementRecord(replica=replica)


def _passive(record: PlacementRecord) -> Passive:
    return Passive(record.failures, record.ejections, record.ejected_until, record.rejections, record.full_until)


def _changed(record: PlacementRecord, known: Passive) -> PlacementRecord:
    record.failures, record.ejections, record.ejected_until = known.failures, known.ejections, known.ejected_until
    record.rejections, record.full_until = known.rejections, known.full_until
    return record
