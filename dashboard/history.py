"""What one replica has been through: changes of its health, its sessions, what people did to it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Q

from dashboard.refused import Refused
from dashboard.replicas import replica_row, unix
from dashboard.sessions import read_carried
from proxy.explain import explain
from proxy.models import LIVE, PLACED, Session
from replicas.models import HealthTransition, Replica, RouterSettings

HOURS = 24
# What the page offers, as far as it is kept.
OFFERED = ((1, "1 h"), (6, "6 h"), (24, "24 h"), (72, "3 d"), (168, "7 d"))
MOST_SESSIONS = 500
MOST_TRANSITIONS = 1000
MOST_ACTS = 200


def hours_of(text: str | None) -> float:
    """How far back, in hours, up to all that is kept. Raises Refused."""
    most = settings.ROUTER_HISTORY_DAYS * 24
    try:
        hours = float(text) if text else min(HOURS, most)
    except ValueError:
        hours = 0
    if not 0 < hours <= most:
        raise Refused(400, f"hours: “{text}” is no number above 0 and up to {most} (ROUTER_HISTORY_DAYS).")
    return hours


def offered() -> list[tuple[int, str]]:
    """How far back the page may be asked to look: hours, and how that is written."""
    most = settings.ROUTER_HISTORY_DAYS * 24
    return [(hours, words) for hours, words in OFFERED if hours <= most]


def read_history(id: int, hours: float) -> dict[str, Any]:
    """The newest first, and of each no more than fits a page. Raises Refused (404)."""
    replica = Replica.everything.select_related("health", "record").filter(pk=id).first()
    if replica is None:
        raise Refused(404, f"There is no replica {id} (any more).")
    to = datetime.fromtimestamp(time.time(), UTC)
    since = to - timedelta(hours=hours)
    live = Session.objects.filter(PLACED, replica=replica).count()
    latencies = replica.observed.latencies if replica.observed else []
    return {
        "replica": replica_row(replica, RouterSettings.current(), live, latencies or [], to),
        "from": since.timestamp(),
        "to": to.timestamp(),
        "transitions": _transitions(replica, since),
        "sessions": _sessions(replica, since),
        "acts": _acts(replica, since),
    }


def _transitions(replica: Replica, since: datetime) -> list[dict[str, Any]]:
    rows = HealthTransition.objects.filter(replica=replica, at__gte=since).order_by("-at", "-id")[:MOST_TRANSITIONS]
    return [{"at": unix(t.at), "old": t.old_status, "new": t.new_status, "reason": t.reason} for t in rows]


def _sessions(replica: Replica, since: datetime) -> list[dict[str, Any]]:
    """Those that were there at some time of it."""
    there = Session.objects.filter(LIVE | Q(ended_at__gte=since), replica=replica, url__isnull=False)
    carried = read_carried()
    return [
        {
            "uid": session.uid,
            "placed_at": unix(session.placed_at),
            "ended_at": unix(session.ended_at),
            "sentence": explain(session),
            "close_code": session.close_code,
            "bytes_down": carried[session.pk][1] if session.pk in carried else session.bytes_down,
        }
        for session in there.order_by("-id")[:MOST_SESSIONS]
    ]


def _acts(replica: Replica, since: datetime) -> list[dict[str, Any]]:
    about = LogEntry.objects.filter(
        content_type=ContentType.objects.get_for_model(Replica), object_id=str(replica.pk), action_time__gte=since
    )
    return [
        {"at": unix(entry.action_time), "who": entry.user.get_username(), "text": entry.get_change_message()}
        for entry in about.select_related("user").order_by("-action_time", "-id")[:MOST_ACTS]
    ]
