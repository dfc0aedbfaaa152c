"""The tokens of the API. Made in the admin, shown once; of a token itself only the digest is kept."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.db import models
from django.utils import timezone

from replicas import tokens


class Scope(models.TextChoices):
    """What a token may do; each of the first three includes those before it. Its user's permissions bound it too."""

    READ = "read", "Read: see everything"
    OPERATE = "operate", "Operate: also drain, take drains back, probe, disconnect"
    EDIT = "edit", "Edit: also add, change and delete replicas"
    REGISTER = "register", "Register: a streaming server that adds itself, and nothing else"


INCLUDED = {
    Scope.READ: {Scope.READ},
    Scope.OPERATE: {Scope.READ, Scope.OPERATE},
    Scope.EDIT: {Scope.READ, Scope.OPERATE, Scope.EDIT, Scope.REGISTER},
    Scope.REGISTER: {Scope.REGISTER},
}


class ApiToken(models.Model):
    """Acts as its user, whose name stands in the log of acts, with the token's."""

    name = models.CharField(max_length=63, unique=True)
    digest = models.CharField(max_length=tokens.DIGEST_CHARACTERS, unique=True, editable=False)
    beginning = models.CharField(max_length=20, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    scope = models.CharField(max_length=10, choices=Scope, default=Scope.READ)
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField("expires at (UTC)", null=True, blank=True)
    # To the minute: a machine that asks each second is no reason to write each second.
    last_used_at = models.DateTimeField(null=True, editable=False)

    kind = tokens.API

    class Meta:
        verbose_name = "API token"
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def usable(self, now: datetime) -> bool:
        return self.enabled and (self.expires_at is None or now < self.expires_at)
