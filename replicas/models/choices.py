"""The words that operators choose from, in the admin and in files."""

from __future__ import annotations

from django.db import models


class ReplicaState(models.TextChoices):
    """What an operator wants of a replica, apart from what the prober sees (design, decision 10)."""

    ACTIVE = "active", "Active"
    DRAINING = "draining", "Draining"
    DISABLED = "disabled", "Disabled"


class ClientAuth(models.TextChoices):
    """What a client must show to get a session (proxy/admission.py)."""

    OPEN = "open", "Open: whoever reaches the router"
    TOKEN = "token", "Token: who shows a stream token, or a ticket made with one"


class Policy(models.TextChoices):
    """How sessions are shared within a tier (proxy/selection.py has them as functions, by these names)."""

    LEAST_SESSIONS = "least_sessions", "Least sessions: the fewest sessions ÷ weight"
    ROUND_ROBIN = "round_robin", "Round robin: the one placed on longest ago"
    RANDOM = "random", "Random: of two drawn by weight, the less loaded"
