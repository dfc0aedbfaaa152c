"""What people want: the replicas and how to probe them. Written by the admin and by loadreplicas."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from replicas import health, rules
from replicas.models.fields import (
    CountField,
    Singleton,
    validate_affinity,
    validate_deadline,
    validate_health_path,
    validate_length,
    validate_max_sessions,
    validate_name,
    validate_pause,
    validate_seconds,
    validate_threshold,
    validate_url,
    validate_weight,
)

if TYPE_CHECKING:
    from replicas.models.observed import ReplicaHealth


class ReplicaState(models.TextChoices):
    """What an operator wants of a replica, apart from what the prober sees (design, decision 10)."""

    ACTIVE = "active", "Active"
    DRAINING = "draining", "Draining"
    DISABLED = "disabled", "Disabled"


class Policy(models.TextChoices):
    """How sessions are shared within a tier (proxy/selection.py has them as functions, by these names)."""

    LEAST_SESSIONS = "least_sessions", "Least sessions: the fewest sessions ÷ weight"
    ROUND_ROBIN = "round_robin", "Round robin: the one placed on longest ago"
    RANDOM = "random", "Random: of two drawn by weight, the less loaded"


class ReplicaQuerySet(models.QuerySet["Replica"]):
    def with_health(self) -> ReplicaQuerySet:
        return self.select_related("health")

    def kept(self) -> ReplicaQuerySet:
        return self.filter(deleted_at=None)

    def deleted(self) -> ReplicaQuerySet:
        """Taken away by an operator, and here only until the last of their sessions has ended."""
        return self.exclude(deleted_at=None)


class _KeptManager(models.Manager["Replica"]):
    """Those that are not deleted: what everything but the admin's list and the sessions' history is about."""

    def get_queryset(self) -> ReplicaQuerySet:
        return ReplicaQuerySet(self.model, using=self._db).kept()

    def with_health(self) -> ReplicaQuerySet:
        return self.get_queryset().with_health()


class Replica(models.Model):
    """One streaming server. Insertion order is the order of `id` (contract A2)."""

    State = ReplicaState

    name = models.CharField(
        max_length=rules.MAX_NAME_LENGTH,
        blank=True,
        validators=[validate_name],
        help_text="A label for people. Left empty: the URL's host and port.",
    )
    url = models.CharField(
        "URL",
        max_length=rules.MAX_URL_LENGTH,
        validators=[validate_url],
        help_text="http://host:port or https://host:port of the streaming server, without a path.",
    )
    primary = models.BooleanField(
        default=False,
        help_text="The primary is filled first. At most one replica is; “Make primary” in the list moves the mark.",
    )
    weight = models.FloatField(
        default=1.0, validators=[validate_weight], help_text="Its share of the sessions, relative to the others; > 0."
    )
    max_sessions = CountField(
        null=True,
        blank=True,
        validators=[validate_max_sessions],
        help_text="Its slots: how many sessions it can hold at once. Left empty: what it reports itself.",
    )
    state = models.CharField(
        max_length=10,
        choices=ReplicaState,
        default=ReplicaState.ACTIVE,
        help_text="Draining: keeps its sessions, takes no new ones. Disabled: the same, and it is not probed.",
    )
    drain_deadline_seconds = models.FloatField(
        "drain deadline (s)",
        null=True,
        blank=True,
        validators=[validate_deadline],
        help_text="While it is draining: sessions left after so many seconds are closed (1012). Left empty: never.",
    )
    # Counted up when a drain begins: each router process counts the deadline from when it first sees this drain.
    drains = models.PositiveIntegerField(default=0, editable=False)
    deleted_at = models.DateTimeField(null=True, editable=False)
    from_file = models.BooleanField(
        "from a file",
        default=False,
        editable=False,
        help_text="Brought in by loadreplicas; only such replicas are removed by its --prune.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = _KeptManager()
    everything = ReplicaQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["url"],
                condition=Q(deleted_at=None),
                name="one_replica_a_url",
                violation_error_message="A replica with this URL exists already.",
            ),
            models.UniqueConstraint(
                fields=["primary"],
                condition=Q(primary=True),
                name="at_most_one_primary",
                violation_error_message="Another replica is the primary.",
            ),
            models.CheckConstraint(
                condition=Q(weight__gt=0), name="weight_positive", violation_error_message="Weight must be > 0."
            ),
        ]

    def __str__(self) -> str:
        return self.name or self.url

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.name = self.name or rules.default_name(self.url)
        super().save(*args, **kwargs)

    def clean_fields(self, exclude: Any = None) -> None:
        super().clean_fields(exclude)
        if "url" not in (exclude or ()):
            self.url = rules.replica_url(self.url)

    def clean(self) -> None:
        problems = {}
        others = Replica.objects.exclude(pk=self.pk)
        try:
            spellings = rules.spellings(rules.replica_url(self.url))
        except rules.RuleBroken:
            spellings = ()  # clean_fields has said so
        twin = others.filter(url__in=spellings).first()
        if twin and twin.url == self.url:
            problems["url"] = "A replica with this URL exists already."
        elif twin:
            problems["url"] = f"“{self.url}” is the same server as the replica “{twin}” ({twin.url})."
        marked = others.filter(primary=True).first()
        if self.primary and marked:
            problems["primary"] = f"“{marked}” is the primary; the list’s action “Make primary” moves the mark."
        if problems:
            raise ValidationError(problems)

    # What follows is read at placement, in the status page and in the admin alike. Each reason has its name.

    @property
    def observed(self) -> ReplicaHealth | None:
        """What the prober last saw at this URL; None when it has seen nothing there (a new or edited replica)."""
        found: ReplicaHealth | None = getattr(self, "health", None)
        return found if found is not None and found.url == self.url else None

    @property
    def status(self) -> str:
        return self.observed.status if self.observed else health.UNKNOWN

    @property
    def active(self) -> bool:
        return self.state == ReplicaState.ACTIVE

    @property
    def healthy(self) -> bool:
        return self.status == health.HEALTHY

    @property
    def available(self) -> bool:
        """May a new session go here? (Slots and passive health come on top, at placement.)"""
        return self.active and self.healthy

    @property
    def slots(self) -> int | None:
        """How many sessions it can hold: what an operator says, or else what it reports; None: unlimited."""
        reported = self.observed.reported_slots if self.observed else None
        return self.max_sessions if self.max_sessions is not None else reported

    def is_stale(self, now: datetime, max_age: timedelta) -> bool:
        """Is the last probe older than `max_age`? Stale is not dead: its last word stands (design, decision 12)."""
        checked = self.observed.checked_at if self.observed else None
        return checked is None or now - checked > max_age


class RouterSettings(Singleton):
    """What operators change while the router runs: the blocks health_check (contract A6), balancing and queue."""

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
