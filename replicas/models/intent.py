"""What people want: which replicas there are, and each one's state. Written by the admin, by files and by commands.

Two rules hold whoever writes: a drain that begins is counted, and a deletion cuts no session. Both are kept by the
statement that writes, so that no reader sees one without the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Case, F, Q, When
from django.utils import timezone

from replicas import health, rules
from replicas.models.choices import ReplicaState
from replicas.models.fields import (
    CountField,
    validate_deadline,
    validate_max_sessions,
    validate_name,
    validate_url,
    validate_weight,
)
from replicas.passive import NEW, Passive
from replicas.signals import live_sessions, long_histories

if TYPE_CHECKING:
    from replicas.models.observed import PlacementRecord, ReplicaHealth

_BEGINS_A_DRAIN = frozenset({"state", "drain_deadline_seconds"})


def _drains_after(written: Mapping[str, Any]) -> Case:
    """The value of `drains` in an UPDATE that writes `written`: one more where a drain begins.

    It begins when the state becomes draining. And when the deadline is changed: its time counts from then, so that a
    deadline set an hour into a drain does not end sessions at once. The database compares with the row as it is.
    """
    begins = Q(pk__in=[])
    if written.get("state") == ReplicaState.DRAINING:
        begins |= ~Q(state=ReplicaState.DRAINING)
    if "drain_deadline_seconds" in written:
        begins |= ~Q(drain_deadline_seconds=written["drain_deadline_seconds"])
    return Case(When(begins, then=F("drains") + 1), default=F("drains"), output_field=models.PositiveIntegerField())


class ReplicaQuerySet(models.QuerySet["Replica"]):
    def with_health(self) -> ReplicaQuerySet:
        return self.select_related("health")

    def kept(self) -> ReplicaQuerySet:
        return self.filter(deleted_at=None)

    def deleted(self) -> ReplicaQuerySet:
        """Taken away by an operator, and here only until the last of their sessions has ended."""
        return self.exclude(deleted_at=None)

    def update(self, **values: Any) -> int:
        if values.keys() & _BEGINS_A_DRAIN:
            values.setdefault("drains", _drains_after(values))
        if "state" in values:
            values.setdefault("lapsed", False)  # whoever says what it is to be has taken it over from its lapse
        return super().update(**values)

    def delete(self) -> tuple[int, dict[str, int]]:
        """Those with live sessions are marked as deleted, and go after the last (`purge_deleted`); the others at once.

        Also marked are those with a long history: to let go of it in one statement would outlast the database's bound.

        Returns what has gone at once, as Django's own does.
        """
        rows = ReplicaQuerySet(self.model, using=self.db)
        with transaction.atomic(using=self.db):
            # Locked: a placement that is just giving one a session comes before the count, or finds it gone.
            chosen = rows.filter(pk__in=list(self.values_list("pk", flat=True))).order_by("pk")
            ids = list(chosen.select_for_update().values_list("pk", flat=True))
            later = (live_sessions(self.db).keys() & ids) | long_histories(ids, self.db)
            rows.filter(pk__in=later).kept().update(deleted_at=timezone.now(), primary=False)
            return rows.filter(pk__in=set(ids) - later)._delete_at_once()

    delete.alters_data = True  # type: ignore[attr-defined]  # Django's marks: not from a template, nor from a manager
    delete.queryset_only = True  # type: ignore[attr-defined]

    def purge_deleted(self, live: Collection[int]) -> int:
        """Let go of deleted ones whose last session has ended; return how many went. One query where there are none.

        `live`: the ids of those with live sessions, read in the same transaction.
        """
        gone = list(self.deleted().exclude(pk__in=live).values_list("pk", flat=True))
        if gone:
            self.filter(pk__in=gone)._delete_at_once()
        return len(gone)

    purge_deleted.alters_data = True  # type: ignore[attr-defined]

    def _delete_at_once(self) -> tuple[int, dict[str, int]]:
        return super().delete()


class _KeptManager(models.Manager["Replica"]):
    """Those that are not deleted: what everything but the admin's list and the sessions' history is about."""

    def get_queryset(self) -> ReplicaQuerySet:
        return ReplicaQuerySet(self.model, using=self._db).kept()

    def with_health(self) -> ReplicaQuerySet:
        return self.get_queryset().with_health()


class Replica(models.Model):
    """One streaming server. Insertion order is the order of `id` (contract A2)."""

    State = ReplicaState
    TAKEN = "taken"  # the code of a ValidationError where another replica has what this one wants

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
        help_text="Of a drain: sessions left after so many seconds are closed (1012), spread over 10 s. Counts from "
        "the drain’s beginning, or from a change of this. Left empty: they go on to their end.",
    )
    # Counted up when a drain begins (below): each router process counts the deadline from when it first sees it.
    drains = models.PositiveIntegerField(default=0, editable=False)
    # Counted up by an operator who wants a probe now: the prober compares it with the count that it saw last.
    probe_asked = models.PositiveIntegerField(default=0, db_default=0, editable=False)
    # Of one that added itself (registration.py); null: people or a file did. `lapsed`: not renewed in time,
    # and so drained, which the next renewal takes back.
    registered_ttl_seconds = models.FloatField(null=True, editable=False)
    registered_by = models.PositiveBigIntegerField(null=True, editable=False)  # the id of an API token; it may be gone
    renewals = models.PositiveIntegerField(default=0, db_default=0, editable=False)
    lapsed = models.BooleanField(default=False, db_default=False, editable=False)
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
        permissions = [("drain_replica", "Can drain replicas")]
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

    def save(self, *args: Any, update_fields: Iterable[str] | None = None, **kwargs: Any) -> None:
        self.name = self.name or rules.default_name(self.url)
        written = _BEGINS_A_DRAIN if update_fields is None else _BEGINS_A_DRAIN & set(update_fields)
        if self._state.adding or not written:
            super().save(*args, update_fields=update_fields, **kwargs)
            return
        self.drains = _drains_after({name: getattr(self, name) for name in written})
        also = {"drains"}
        if update_fields is not None and "state" in written:
            self.lapsed = False  # as in ReplicaQuerySet.update
            also.add("lapsed")
        try:
            super().save(*args, update_fields=update_fields and {*update_fields, *also}, **kwargs)
        finally:
            del self.drains  # read from the row again when somebody asks: the database has counted

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """At once, or after its last session: see ReplicaQuerySet.delete."""
        return Replica.everything.filter(pk=self.pk).delete()

    def clean_fields(self, exclude: Any = None) -> None:
        super().clean_fields(exclude)
        if "url" not in (exclude or ()):
            self.url = rules.replica_url(self.url)

    def clean(self) -> None:
        problems = dict[str, ValidationError]()
        others = Replica.objects.exclude(pk=self.pk)
        try:
            spellings = rules.spellings(rules.replica_url(self.url))
        except rules.RuleBroken:
            spellings = ()  # clean_fields has said so
        twin = others.filter(url__in=spellings).first()
        if twin and twin.url == self.url:
            problems["url"] = ValidationError("A replica with this URL exists already.", self.TAKEN)
        elif twin:
            said = f"“{self.url}” is the same server as the replica “{twin}” ({twin.url})."
            problems["url"] = ValidationError(said, self.TAKEN)
        marked = others.filter(primary=True).first()
        if self.primary and marked:
            said = f"“{marked}” is the primary; the list’s action “Make primary” moves the mark."
            problems["primary"] = ValidationError(said, self.TAKEN)
        if problems:
            raise ValidationError(problems)

    @property
    def registered(self) -> bool:
        """Did it add itself?"""
        return self.registered_ttl_seconds is not None

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
        return self.state == ReplicaState.ACTIVE and self.deleted_at is None

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

    @property
    def passive(self) -> Passive:
        """What sessions found out about it; the prober's verdict comes on top."""
        record: PlacementRecord | None = getattr(self, "record", None)
        return record.passive if record is not None else NEW

    def is_stale(self, now: datetime, max_age: timedelta) -> bool:
        """Is the last probe older than `max_age`? Stale is not dead: its last word stands (design, decision 12).

        One that was never probed has waited for that since it was added.
        """
        checked = self.observed.checked_at if self.observed else None
        return now - (checked or self.created_at) > max_age
