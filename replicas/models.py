"""Which replicas exist, and are they healthy?

`Replica` and `RouterSettings` are written by people (admin, loadreplicas); `ReplicaHealth`, `HealthTransition` and
`ProberLease` by the prober alone. Read by the proxy at every placement. The rules of each field are in rules.py.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils import timezone

from replicas import health, rules


def _validator(rule: Callable[[object], object]) -> Callable[[Any], None]:
    def validate(value: Any) -> None:
        try:
            rule(value)
        except rules.RuleBroken as broken:
            raise ValidationError(f"“%(value)s” {broken}.", params={"value": value}) from broken

    return validate


# Named functions: migrations refer to validators by name.
def validate_url(value: Any) -> None:
    _validator(rules.replica_url)(value)


def validate_name(value: Any) -> None:
    _validator(rules.replica_name)(value)


def validate_weight(value: Any) -> None:
    _validator(rules.weight)(value)


def validate_max_sessions(value: Any) -> None:
    _validator(rules.max_sessions)(value)


def validate_seconds(value: Any) -> None:
    _validator(rules.seconds)(value)


def validate_threshold(value: Any) -> None:
    _validator(rules.threshold)(value)


def validate_health_path(value: Any) -> None:
    _validator(rules.health_path)(value)


class CountField(models.PositiveIntegerField):  # type: ignore[type-arg]  # no subscript at run time
    """A whole number. Django's own field silently makes 1 of 1.5."""

    def to_python(self, value: Any) -> Any:
        if isinstance(value, float) and not value.is_integer():
            raise ValidationError(self.error_messages["invalid"], code="invalid", params={"value": value})
        return super().to_python(value)


class ReplicaState(models.TextChoices):
    """What an operator wants of a replica, apart from what the prober sees (design, decision 10)."""

    ACTIVE = "active", "Active"
    DRAINING = "draining", "Draining"
    DISABLED = "disabled", "Disabled"


class ReplicaQuerySet(models.QuerySet["Replica"]):
    def with_health(self) -> ReplicaQuerySet:
        return self.select_related("health")


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
        unique=True,
        validators=[validate_url],
        error_messages={"unique": "A replica with this URL exists already."},
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
    from_file = models.BooleanField(
        "from a file",
        default=False,
        editable=False,
        help_text="Brought in by loadreplicas; only such replicas are removed by its --prune.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ReplicaQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
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
        if twin and twin.url != self.url:  # the same URL is the unique constraint's to name
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
        """May a new session go here? (Slots come on top, at placement.)"""
        return self.active and self.healthy

    def is_stale(self, now: datetime, max_age: timedelta) -> bool:
        """Is the last probe older than `max_age`? Stale is not dead: its last word stands (design, decision 12)."""
        checked = self.observed.checked_at if self.observed else None
        return checked is None or now - checked > max_age


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

    class Meta:
        verbose_name_plural = "replica health"

    def __str__(self) -> str:
        return f"{self.url}: {self.status}"


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


class Singleton(models.Model):
    """A table with one row, whose id is 1."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)

    class Meta:
        abstract = True


class RouterSettings(Singleton):
    """What operators change while the router runs: the health_check block of contract A6."""

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
