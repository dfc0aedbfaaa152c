"""The table of sessions: searched, sorted, a page at a time, with what each live one carries now.

Of those that have ended the newest are looked at, or the one whose id is asked for: the history may be long, and an
operator's look at it must end in time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import DateTimeField, F, Q, QuerySet, Value
from django.db.models.functions import Coalesce, Lower
from django.urls import reverse

from dashboard.refused import Refused
from dashboard.replicas import unix
from proxy.explain import explain
from proxy.models import LIVE, PLACED, WAITING, ProcessTraffic, Session

PAGE_ROWS = 50
# So many of the newest sessions are looked at, beside all that are live.
NEWEST = 10_000
STATES = {"live": PLACED, "waiting": WAITING, "ended": Q(ended_at__isnull=False), "all": Q()}
# The beginning of an id: of any session, however old.
_ID = re.compile(r"[0-9a-f]{6,32}")
MAX_NUMBER = 2**31

# Bytes up, bytes down, up per second, down per second.
Carried = list[int]
NOTHING: Carried = [0, 0, 0, 0]


@dataclass(frozen=True)
class Wanted:
    """What the page asks for."""

    q: str = ""
    state: str = "live"
    replica: int | None = None
    sort: str = "-opened_at"
    page: int = 1

    @classmethod
    def of(cls, query: Any) -> Wanted:
        """Raises Refused, which names the field, the value and what is allowed."""
        state, sort = query.get("state") or "live", query.get("sort") or "-opened_at"
        if state not in STATES:
            raise Refused(400, f"state: “{state}” is none of {', '.join(STATES)}.")
        if sort.removeprefix("-") not in (*_BY_DATABASE, *_BY_TRAFFIC):
            raise Refused(400, f"sort: “{sort}” is none of {', '.join((*_BY_DATABASE, *_BY_TRAFFIC))}, or - and one.")
        replica = number("replica", query["replica"]) if query.get("replica") else None
        # The character 0 is in no database, and PostgreSQL refuses even to look for it.
        q = query.get("q", "").strip().replace("\0", "\N{REPLACEMENT CHARACTER}")
        return cls(q, state, replica, sort, number("page", query.get("page") or "1"))


def number(name: str, text: str) -> int:
    """A whole number from 1. Raises Refused."""
    if not (text.isdecimal() and text.isascii() and 0 < int(text[:12]) < MAX_NUMBER):
        raise Refused(400, f"{name}: “{text}” is no whole number from 1.")
    return int(text)


def read_sessions(wanted: Wanted) -> dict[str, Any]:
    """A page of the table; one past the last is the last."""
    now = datetime.now(UTC)
    carried = read_carried()
    chosen = _chosen(wanted)
    ids = _sorted(chosen, wanted.sort, carried, now)
    pages = max(1, -(-len(ids) // PAGE_ROWS))
    page = min(wanted.page, pages)
    some = ids[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]
    rows = Session.objects.select_related("process").in_bulk(some)
    return {
        "at": now.timestamp(),
        "page": page,
        "pages": pages,
        "total": len(ids),
        "rows": [_row(rows[id], carried.get(id, NOTHING), now) for id in some if id in rows],
    }


def read_carried() -> dict[int, Carried]:
    """Of each live session, as its process said last."""
    said = ProcessTraffic.objects.filter(process__ended_at=None).values_list("sessions", flat=True)
    return {int(id): figures for sessions in said for id, figures in sessions.items()}


def _chosen(wanted: Wanted) -> QuerySet[Session]:
    newest = Session.objects.order_by("-id").values_list("id", flat=True)[NEWEST - 1 : NEWEST].first()
    looked_at = Q(id__gte=newest) | LIVE if newest is not None and wanted.state in ("ended", "all") else Q()
    if wanted.q:
        q = wanted.q
        looked_at &= Q(uid__startswith=q) | Q(client__icontains=q) | Q(replica_name__icontains=q)
        if _ID.fullmatch(q.lower()):
            # As a range: an index answers it in any database.
            looked_at |= Q(uid__gte=q.lower(), uid__lt=q.lower() + "g")
    found = Session.objects.filter(STATES[wanted.state], looked_at).order_by()
    return found if wanted.replica is None else found.filter(replica=wanted.replica)


def _until(end: str, now: datetime) -> Any:
    return Coalesce(*(F(name) for name in end.split()), Value(now, output_field=DateTimeField())) - F("opened_at")


_BY_DATABASE: dict[str, Callable[[datetime], Any]] = {
    "opened_at": lambda now: F("opened_at"),
    "age": lambda now: _until("ended_at", now),
    "waited": lambda now: _until("placed_at ended_at", now),
    "replica": lambda now: Lower("replica_name"),
    "client": lambda now: F("client"),
}
_BY_TRAFFIC = {"bytes_up": 0, "bytes_down": 1, "up_per_second": 2, "down_per_second": 3}


def _sorted(chosen: QuerySet[Session], sort: str, carried: dict[int, Carried], now: datetime) -> list[int]:
    """The ids of all, in order."""
    field, falling = sort.removeprefix("-"), sort.startswith("-")
    if field in _BY_DATABASE:
        key = _BY_DATABASE[field](now)
        ordered = chosen.annotate(key=key).order_by("-key" if falling else "key", "-id")
        return list(ordered.values_list("id", flat=True))
    place = _BY_TRAFFIC[field]
    keyed = [
        (carried.get(id, [up, down, 0, 0])[place], id)
        for id, up, down in chosen.values_list("id", "bytes_up", "bytes_down")
    ]
    return [id for _, id in sorted(keyed, reverse=falling)]


def _row(session: Session, carried: Carried, now: datetime) -> dict[str, Any]:
    ended = session.ended_at is not None
    up, down, up_rate, down_rate = [session.bytes_up, session.bytes_down, 0, 0] if ended else carried
    waited = (session.placed_at or session.ended_at or now) - session.opened_at
    return {
        "uid": session.uid,
        "replica": session.replica_name,
        "replica_id": session.replica_id,
        "process": session.process.name if session.process is not None else "",
        "client": session.client,
        "state": "ended" if ended else "waiting" if session.url is None else "live",
        "opened_at": unix(session.opened_at),
        "placed_at": unix(session.placed_at),
        "ended_at": unix(session.ended_at),
        "age": _seconds((session.ended_at or now) - session.opened_at),
        "waited": _seconds(waited),
        "bytes_up": up,
        "bytes_down": down,
        "up_per_second": up_rate,
        "down_per_second": down_rate,
        "close_code": session.close_code,
        "sentence": explain(session),
        "disconnecting": not ended and session.disconnect_reason is not None,
        "admin": reverse("admin:proxy_session_change", args=[session.pk]),
    }


def _seconds(took: timedelta) -> float:
    return round(max(0.0, took.total_seconds()), 3)
