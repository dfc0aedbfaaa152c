"""What the control plane asks of this room (replicas/signals.py).

Imported by apps.py. Must stay cheap: /readyz and the prober wait for the answers.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from django.dispatch import receiver

from proxy import process, steering, tickets
from proxy.models import RouterProcess, Sample, Session
from replicas.signals import asking_for_long_histories, asking_what_is_missing, counting_sessions, pruning

PRUNE_ROWS = 500  # a batch
LONG_ROWS = 1000

counting_sessions.connect(steering.live_by_replica)


@receiver(asking_what_is_missing)
def a_process_that_takes_new_sessions(**kwargs: Any) -> str | None:
    return "draining: this process takes no new sessions" if process.draining else None


@receiver(asking_for_long_histories)
def who_has_a_long_history(ids: Collection[int], using: str, **kwargs: Any) -> set[int]:
    """Those for whom there is no room in one statement with all before them."""
    rows, room, long = Session.objects.using(using).order_by(), LONG_ROWS, set()
    for id in ids:
        found = rows.filter(replica_id=id).values("pk")[: room + 1].count()
        if found > room:
            long.add(id)
        else:
            room -= found
    return long


@receiver(pruning)
def prune_history(before: datetime, **kwargs: Any) -> int:
    """Some of what has ended before that; called again until nothing is left."""
    old = Session.objects.filter(ended_at__lt=before).order_by("ended_at").values_list("pk", flat=True)[:PRUNE_ROWS]
    sessions, _ = Session.objects.filter(pk__in=list(old)).delete()
    if sessions:
        return sessions
    past = Sample.objects.filter(at__lt=before).order_by("at").values_list("pk", flat=True)[:PRUNE_ROWS]
    if samples := Sample.objects.filter(pk__in=list(past)).delete()[0]:
        return samples
    if unused := tickets.prune(PRUNE_ROWS):
        return unused
    gone = RouterProcess.objects.filter(ended_at__lt=before).values_list("pk", flat=True)[:PRUNE_ROWS]
    return RouterProcess.objects.filter(pk__in=list(gone)).delete()[0]
