"""Who is where: the router processes, and the sessions of all of them. One source of truth (design, decision 7).

A slot is a live `Session` row with a URL; the line is those without one, in the order of their ids. Written by
settling.py and census.py alone, in one transaction at a time; an operator's wish is written by steering.py. Kept for
ROUTER_HISTORY_DAYS as the access log. What it all amounts to, over time, is written by pulse.py.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils import timezone

from proxy.credentials import is_origin_rule
from replicas import rules, tokens
from replicas.models import CountField, Replica, validate_limit

LIVE = Q(ended_at__isnull=True)
PLACED = LIVE & Q(url__isnull=False)
WAITING = LIVE & Q(url__isnull=True)
# Ended by a fault of a replica's or of ours, or for want of a slot: 1011, 1013, and what a dead process has left.
FAILED = ~LIVE & (Q(close_code__in=(1011, 1013)) | Q(ended_by="router", close_code__isnull=True))


MAX_TOKEN_NAME = 63


def validate_origins(value: Any) -> None:
    wrong = [each for each in str(value).replace(",", " ").split() if not is_origin_rule(each)]
    if wrong:
        raise ValidationError(
            f"“{wrong[0]}” is no origin; write one a line, like https://app.example.com or https://*.example.com."
        )


class RouterProcess(models.Model):
    """One process of the router, while it lives and after.

    It counts `beat` up; who sees it stand still long enough ends it and its sessions (design, decision 8). `beaten_at`
    is for people: no times of two machines are ever compared.
    """

    name = models.CharField(max_length=120, help_text="Host and process id.")
    version = models.CharField(max_length=40, blank=True)
    started_at = models.DateTimeField(default=timezone.now)
    beat = models.PositiveBigIntegerField(default=0)
    beaten_at = models.DateTimeField(default=timezone.now)
    draining = models.BooleanField(default=False, help_text="Takes no new sessions, keeps those there are.")
    ended_at = models.DateTimeField(null=True)
    why = models.CharField("why it ended", max_length=100, blank=True)

    class Meta:
        verbose_name_plural = "router processes"
        indexes = [models.Index(fields=["id"], condition=LIVE, name="process_live")]

    def __str__(self) -> str:
        return self.name


class Session(models.Model):
    """One client's WebSocket, from 101 to close. `id` is the order of arrival over all router processes."""

    uid = models.CharField("session", max_length=32, unique=True, help_text="As in the logs and in error messages.")
    process = models.ForeignKey(RouterProcess, models.SET_NULL, null=True, related_name="sessions", db_index=False)
    replica = models.ForeignKey(Replica, models.SET_NULL, null=True, related_name="sessions")
    replica_name = models.CharField(max_length=rules.MAX_NAME_LENGTH, blank=True)
    # Where its slot is. Not the replica's own: that may be edited while the session lives.
    url = models.CharField("URL", max_length=rules.MAX_URL_LENGTH, null=True)  # noqa: DJ001  (null: it waits)
    client = models.CharField("client address", max_length=64, blank=True)
    # By which limits count it; null where there is none, so that no index has to keep it. `token` is the id of a
    # StreamToken that may be gone: to clear it from a long history would take longer than a database may.
    address = models.CharField(max_length=64, null=True)  # noqa: DJ001  (null: not in the index)
    token = models.PositiveBigIntegerField(null=True)
    token_name = models.CharField("stream token", max_length=MAX_TOKEN_NAME, blank=True, db_default="")
    # Of the key only a digest: the key itself may be a secret.
    affinity_key = models.CharField(max_length=32, null=True)  # noqa: DJ001  (null: none, and not in the index)
    opened_at = models.DateTimeField()
    placed_at = models.DateTimeField(null=True)
    first_media_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0, db_default=0, help_text="Replicas tried.")
    avoid = models.JSONField(null=True, help_text="Replicas that have failed it: id → when, in Unix seconds.")
    frames_up = models.PositiveBigIntegerField(default=0, db_default=0)
    bytes_up = models.PositiveBigIntegerField(default=0, db_default=0)
    frames_down = models.PositiveBigIntegerField(default=0, db_default=0)
    bytes_down = models.PositiveBigIntegerField(default=0, db_default=0)
    close_code = models.PositiveIntegerField(null=True)
    ended_by = models.CharField(max_length=10, blank=True)
    why = models.CharField("why it ended", max_length=100, blank=True)
    # An operator's wish: end it, with this reason.
    disconnect_reason = models.CharField(max_length=123, null=True)  # noqa: DJ001  (null: none, and not in the index)

    # What has a default in the database is not named by the insert of settling.py.
    class Meta:
        ordering = ["-id"]
        permissions = [("disconnect_session", "Can disconnect sessions")]
        indexes = [
            models.Index(fields=["url"], condition=PLACED, name="session_slots"),
            models.Index(fields=["id"], condition=WAITING, name="session_line"),
            models.Index(fields=["process"], condition=LIVE, name="session_of_process"),
            models.Index(
                fields=["process"], condition=LIVE & Q(disconnect_reason__isnull=False), name="session_to_disconnect"
            ),
            models.Index(
                fields=["affinity_key", "-id"], condition=Q(affinity_key__isnull=False), name="session_by_key"
            ),
            # For pruning alone. With the live ones in it, SQLite takes it for all that asks for them.
            models.Index(fields=["ended_at"], condition=~LIVE, name="session_ended"),
            # For limits: who has how many now. (How many came in the last minute says the index below.)
            models.Index(fields=["address"], condition=LIVE & Q(address__isnull=False), name="session_address_live"),
            models.Index(fields=["token"], condition=LIVE & Q(token__isnull=False), name="session_token_live"),
            # For people: by date, newest first, and how many came in a while.
            models.Index(fields=["opened_at"], name="session_opened"),
        ]

    def __str__(self) -> str:
        return self.uid


class StreamToken(models.Model):
    """What a client, or the backend of a page, shows to get sessions. Of the token itself only its digest is kept."""

    name = models.CharField(max_length=MAX_TOKEN_NAME, unique=True)
    digest = models.CharField(max_length=tokens.DIGEST_CHARACTERS, unique=True, editable=False)
    beginning = models.CharField(max_length=20, editable=False)
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField("expires at (UTC)", null=True, blank=True)
    origins = models.TextField("allowed origins", blank=True, validators=[validate_origins])
    max_sessions = CountField("sessions at once", default=0, validators=[validate_limit])
    new_sessions_per_minute = CountField("new sessions per minute", default=0, validators=[validate_limit])

    kind = tokens.STREAM

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def allowed_origins(self) -> list[str]:
        return self.origins.replace(",", " ").split()

    def usable(self, now: datetime) -> bool:
        return self.enabled and (self.expires_at is None or now < self.expires_at)


class Ticket(models.Model):
    """A browser's: good for one session of a page of `origin`, within seconds. Deleted by whoever uses it."""

    digest = models.CharField(max_length=tokens.DIGEST_CHARACTERS, unique=True)
    token = models.ForeignKey(StreamToken, models.CASCADE, related_name="tickets")
    origin = models.CharField(max_length=255)
    expires_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"a ticket of {self.token}"


class ProcessTraffic(models.Model):
    """What one router process has carried, as it says itself every second or so. Gone with the process.

    One row a process, however many sessions it has: nothing is ever written for a single one while it lives. Bytes are
    those of payloads, as in `Session`; rates are of the time since the last such count, by the monotonic clock of the
    process.
    """

    process = models.OneToOneField(RouterProcess, models.CASCADE, primary_key=True, related_name="traffic")
    taken_at = models.DateTimeField(default=timezone.now)  # for people
    # Since the process began, those of ended sessions among them.
    bytes_up = models.PositiveBigIntegerField(default=0)
    bytes_down = models.PositiveBigIntegerField(default=0)
    up_per_second = models.FloatField(default=0.0)
    down_per_second = models.FloatField(default=0.0)
    # Of each live session: its id → [bytes up, bytes down, up per second, down per second], whole numbers.
    sessions = models.JSONField(default=dict)

    def __str__(self) -> str:
        return f"{self.process}: {self.bytes_up} up, {self.bytes_down} down"


class Sample(models.Model):
    """All router processes together at one moment, every ten seconds. Kept for ROUTER_HISTORY_DAYS.

    `opened`, `failed` and bytes are what came in the ten seconds that end `at`.
    """

    at = models.DateTimeField(unique=True)
    sessions = models.PositiveIntegerField()
    waiting = models.PositiveIntegerField()
    opened = models.PositiveIntegerField()
    failed = models.PositiveIntegerField()
    bytes_up = models.PositiveBigIntegerField()
    bytes_down = models.PositiveBigIntegerField()

    class Meta:
        ordering = ["at"]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S}: {self.sessions} sessions"
