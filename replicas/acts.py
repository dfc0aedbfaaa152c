"""What people do to replicas with one click, as statements that hold whoever else acts at the same moment.

Each gives what was, so that the log can say from what to what. Called by the dashboard; forms go their own way.
Rows are locked with `no_key`: placement names a replica by its key, and must not wait for an operator's transaction.
"""

from __future__ import annotations

from django.db import transaction
from django.db.models import F

from replicas.models import Replica, ReplicaState


def make_primary(replica: Replica) -> list[Replica] | None:
    """Move the mark; give those that had it (one, or none). None: the replica is gone, and the mark where it was."""
    with transaction.atomic():
        # All rows, locked: two operators who mark different replicas at once come one after the other.
        there = {each.pk: each for each in Replica.objects.select_for_update(no_key=True)}
        if replica.pk not in there:
            return None
        before = [each for each in there.values() if each.primary]
        if not there[replica.pk].primary:
            Replica.objects.filter(primary=True).update(primary=False)
            Replica.objects.filter(pk=replica.pk).update(primary=True)
        return before


def set_state(replica: Replica, state: ReplicaState) -> str | None:
    """Give the state that was; None: the replica is gone."""
    with transaction.atomic():
        was = (
            Replica.objects.select_for_update(no_key=True).filter(pk=replica.pk).values_list("state", flat=True).first()
        )
        if was is not None:
            Replica.objects.filter(pk=replica.pk).exclude(state=state, lapsed=False).update(state=state)
        return was


def ask_for_probe(replica: Replica) -> bool:
    """Have the prober probe it within a second, beside its usual rounds; False: it is gone."""
    return Replica.objects.filter(pk=replica.pk).update(probe_asked=F("probe_asked") + 1) > 0
