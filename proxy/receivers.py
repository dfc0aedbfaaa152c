"""What the control plane asks of this room (replicas/signals.py).

Imported by apps.py. Must stay cheap: /readyz and the prober wait for the answers.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.dispatch import receiver

from proxy import process, steering
from proxy.models import RouterProcess, Session
from replicas.signals import asking_what_is_missing, counting_sessions, pruning

PRUNE_ROWS = 500  # a batch

counting_sessions.connect(steering.live_by_replica)


@receiver(asking_what_is_missing)
def a_process_that_takes_new_sessions(**kwargs: Any) -> str | None:
    return "draining: this process takes no new sessions" if process.draining else None


@receiver(pruning)
def prune_history(before: datetime, **kwargs: Any) -> int:
    """Some of what has ended before that; called again until nothing is left."""
    old = Session.objects.filter(ended_at__lt=before).order_by("ended_at").values_list("pk", flat=True)[:PRUNE_ROWS]
    sessions, _ = Session.objects.filter(pk__in=list(old)).delete()
    if sessions:
        return sessions
    gone = RouterProcess.objects.filter(ended_at__lt=before).values_list("pk", flat=True)[:PRUNE_ROWS]
    return RouterProcess.objects.filter(pk__in=list(gone)).delete()[0]
