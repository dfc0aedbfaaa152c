"""What operators want of sessions: count them, let a replica drain, end one. Written here as rows; others act on them.

Called by the admin and by the commands; `live_by_replica` answers the replicas' own question (replicas/signals.py). A
wish is a column of its own: the process that holds the session reads it on a timer, also where no nudge reaches it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.models import Count

from proxy.errors import cut_reason
from proxy.models import LIVE, PLACED, Session
from replicas.models import Replica, ReplicaState

DEFAULT_REASON = "disconnected by an operator"
BATCH = 500  # uids in a statement: databases bound the number of its parameters


def live_by_replica(using: str = DEFAULT_DB_ALIAS, **_: Any) -> dict[int, int]:
    """How many sessions are live on each replica that has any, by the replica's id."""
    live = Session.objects.using(using).filter(PLACED, replica__isnull=False).order_by()
    return dict(live.values_list("replica").annotate(Count("id")))


def drain(replica: Replica, deadline_seconds: float | None = None) -> bool:
    """Let `replica` take no new sessions; False where nothing had to be changed for that.

    With `deadline_seconds` those left when it is over are closed; None: the replica's own deadline stands, if any.
    """
    wanted: dict[str, Any] = {"state": ReplicaState.DRAINING}
    if deadline_seconds is not None:
        wanted["drain_deadline_seconds"] = deadline_seconds
    # One that drains because its registration has lapsed drains from now on because an operator wants it to.
    return Replica.objects.filter(pk=replica.pk).exclude(**wanted, lapsed=False).update(**wanted) > 0


def disconnect(uids: Iterable[str], reason: str = DEFAULT_REASON) -> int:
    """Ask for the end of these sessions with 1012 and `reason`, cut to 123 bytes; return how many of them are live."""
    left, asked = iter(uids), 0
    while batch := list(islice(left, BATCH)):
        asked += Session.objects.filter(LIVE, uid__in=batch).update(disconnect_reason=cut_reason(reason))
    return asked
