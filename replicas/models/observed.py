"""What the prober sees, and which prober works; and what sessions find. Written by them, never by people."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from replicas import health, rules
from replicas.models.fields import Singleton
from replicas.models.intent import Replica
from replicas.passive import Passive


class ReplicaHealth(models.Model):
    """What the prober knows of one replica. Written by the prober alone, one row a replica."""

    replica = models.OneToOneField(Replica, models.CASCADE, primary_key=True, related_name="health")
    # Where it was seen: after an edit of the replica's URL, what was seen at the old one counts for nothing.
    url = models.CharField("URL", max_length=rules.MAX_URL_LENGTH)
    status = models.CharField(
        max_length=10, choices=[(s, s.capitalize()) for s in health.STATUSES], default=health.UNKNOWN
    )
    status_since = models.DateTimeField("last change", null=True)
    checked_at = models.DateTimeField(null=True)
    last_ok_at = models.DateTimeField(null=True)
    last_failure_at = models.DateTimeField(null=True)
    consecutive_successes = models.PositiveIntegerField(default=0)
    consecutive_failures = models.PositiveIntegerField(default=0)
    last_latency_ms = models.FloatField("latency (ms)", null=True)
    last_error = models.CharField(max_length=200, blank=True)
    # What the replica says of itself, where its answer is JSON that says so (contract B).
    reported_slots = models.PositiveIntegerField(null=True)
    reported_sessions = models.PositiveIntegerField(null=True)
    reported_readiness = models.CharField(max_length=32, blank=True)
    # Of the last half an hour, for people to see at a glance: see latencies.py. Null: none yet.
    latencies = models.JSONField(default=list, null=True)

    class Meta:
        verbose_name_plural = "replica health"

    def __str__(self) -> str:
        return f"{self.url}: {self.status}"


class PlacementRecord(models.Model):
    """What sessions found out about a replica (passive.py). Written by placement alone, one row a replica."""

    replica = models.OneToOneField(Replica, models.CASCADE, primary_key=True, related_name="record")
    failures = models.PositiveIntegerField(default=0)
    ejections = models.PositiveIntegerField(default=0)
    ejected_until = models.FloatField(null=True)  # Unix seconds, as all times of passive.py
    rejections = models.PositiveIntegerField(default=0)
    full_until = models.FloatField(null=True)
    last_turn = models.PositiveBigIntegerField(default=0)  # for round_robin: the replica with the least is next

    def __str__(self) -> str:
        return f"{self.replica}: {self.failures} failed connects in a row"

    @property
    def passive(self) -> Passive:
        """The row as the machine of passive.py knows it."""
        return Passive(self.failures, self.ejections, self.ejected_until, self.rejections, self.full_until)


class HealthTransition(models.Model):
    """One change of a replica's status. Kept for ROUTER_HISTORY_DAYS, pruned by the prober."""

    replica = models.ForeignKey(Replica, models.CASCADE, related_name="transitions")
    at = models.DateTimeField(db_index=True)
    old_status = models.CharField(max_length=10)
    new_status = models.CharField(max_length=10)
    reason = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["-at", "-id"]

    def __str__(self) -> str:
        return f"{self.replica}: {self.old_status} → {self.new_status}"


class ProberLease(Singleton):
    """Which prober works (design, decision 8). It counts `beat` up; who sees it stand still takes over.

    `epoch` grows with every change of holder: a prober that was stopped and comes back finds its epoch gone and
    writes nothing. No time is compared between machines; `beaten_at` is for people.
    """

    epoch = models.PositiveBigIntegerField(default=0)
    beat = models.PositiveBigIntegerField(default=0)
    holder = models.CharField(max_length=120, blank=True)
    beaten_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="one_prober_lease")]

    def __str__(self) -> str:
        return f"epoch {self.epoch}, held by {self.holder or 'nobody'}"
