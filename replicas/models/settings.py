"""What operators change while the router runs. Written by the admin and by files; prober and placement read it."""

from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.db.models import Q

from replicas import health, rules
from replicas.models.choices import ClientAuth, Policy
from replicas.models.fields import (
    CountField,
    Singleton,
    validate_affinity,
    validate_health_path,
    validate_length,
    validate_limit,
    validate_pause,
    validate_seconds,
    validate_threshold,
)


class RouterSettings(Singleton):
    """What operators change while the router runs: health_check (contract A6), balancing, queue and access."""

    health_path = models.CharField(
        "path",
        max_length=rules.MAX_URL_LENGTH,
        default="/health",
        validators=[validate_health_path],
        help_text="Probes ask GET for this path of each replica; /readyz tells a warming server from a ready one.",
    )
    interval_seconds = models.FloatField(
        default=5.0, validators=[validate_seconds], help_text="Seconds between two probes of a replica."
    )
    timeout_seconds = models.FloatField(
        default=2.0, validators=[validate_seconds], help_text="A probe that takes longer, in seconds, has failed."
    )
    failure_threshold = CountField(
        default=3, validators=[validate_threshold], help_text="So many failed probes in a row: unhealthy."
    )
    recovery_threshold = CountField(
        default=2, validators=[validate_threshold], help_text="So many good probes in a row: healthy again."
    )

    policy = models.CharField(
        max_length=20,
        choices=Policy,
        default=Policy.LEAST_SESSIONS,
        help_text="How sessions are shared among replicas of the same rank. The primary is filled first in any case.",
    )
    slow_start_seconds = models.FloatField(
        "slow start (s)",
        default=30.0,
        validators=[validate_pause],
        help_text="A replica that becomes healthy gets a growing share for so many seconds; 0: its full share at once. "
        "A slot that someone waits for is never withheld.",
    )
    affinity = models.CharField(
        max_length=100,
        default="none",
        validators=[validate_affinity],
        help_text="What brings a client back to the replica of its last session: none, query:NAME, header:NAME or "
        "cookie:NAME.",
    )
    affinity_ttl_seconds = models.FloatField(
        "affinity kept (s)",
        default=600.0,
        validators=[validate_seconds],
        help_text="For so many seconds after a session has ended its key leads back to its replica.",
    )
    queue_max_length = CountField(
        "longest line",
        default=100,
        validators=[validate_length],
        help_text="So many clients may wait for a slot, over all router processes; the next is refused (queue_full). "
        "0: nobody waits.",
    )
    queue_timeout_seconds = models.FloatField(
        "longest wait (s)",
        default=120.0,
        validators=[validate_seconds],
        help_text="A client that has waited so many seconds is refused (queue_timeout).",
    )
    queue_when_down = models.BooleanField(
        "wait when all are down",
        default=False,
        help_text="Off: with no healthy replica at all a client is refused at once. On: it waits in the line.",
    )

    client_auth = models.CharField(
        "who may stream",
        max_length=10,
        choices=ClientAuth,
        default=ClientAuth.OPEN,
        help_text="What a client must show to get a session.",
    )
    max_sessions_per_address = CountField(
        "sessions per address",
        default=0,
        validators=[validate_limit],
        help_text="So many at once, the waiting ones among them, over all router processes; 0: no limit.",
    )
    new_sessions_per_minute = CountField(
        "new sessions per address and minute",
        default=0,
        validators=[validate_limit],
        help_text="So many in any 60 s, over all router processes; 0: no limit.",
    )

    class Meta:
        verbose_name = verbose_name_plural = "router settings"
        constraints = [models.CheckConstraint(condition=Q(id=1), name="one_router_settings")]

    def __str__(self) -> str:
        return "Router settings"

    @classmethod
    def current(cls) -> RouterSettings:
        """The row, or the defaults where nobody has saved any."""
        return cls.objects.first() or cls()

    @property
    def thresholds(self) -> health.Thresholds:
        return health.Thresholds(self.failure_threshold, self.recovery_threshold)

    @property
    def stale_after(self) -> timedelta:
        """How old a probe may be before it is shown as stale: three missed rounds, 15 s at the least.

        15 s, because a second prober needs as long to take over from a dead one (faults.md, 53).
        """
        return timedelta(seconds=max(15.0, 3 * (self.interval_seconds + self.timeout_seconds)))
