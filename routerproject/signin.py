"""Sign-ins to the admin: throttled by django-axes, told in our own words. Named in settings.py.

Counted by user name and client address together, so that nobody is locked out from elsewhere by a stranger who types
their name; and by address alone, so that nobody tries one password for many names.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from axes.handlers.database import AxesDatabaseHandler
from axes.helpers import get_cool_off
from axes.models import AccessAttempt
from django.conf import settings
from django.db.models import Sum
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from replicas.client_address import client_address, counted_as
from replicas.signals import pruning

PRUNE_ROWS = 500
# Of one address, whatever names it tries, within AXES_COOLOFF_TIME. An office is behind one address, too.
MOST_OF_AN_ADDRESS = 50


class Throttle(AxesDatabaseHandler):  # type: ignore[misc]  # it has no types
    def is_locked(self, request: HttpRequest, credentials: Any = None) -> bool:
        return super().is_locked(request, credentials) or _failures_of(address(request)) >= MOST_OF_AN_ADDRESS


def _failures_of(address: str | None) -> int:
    recent = AccessAttempt.objects.filter(
        ip_address=address, attempt_time__gt=timezone.now() - settings.AXES_COOLOFF_TIME
    )
    return recent.aggregate(failures=Sum("failures_since_start"))["failures"] or 0


def address(request: HttpRequest) -> str | None:
    """Whose attempt it is: of IPv6 the first address of its network, all of which one client has."""
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR")
    found = client_address(
        request.META.get("REMOTE_ADDR"), [forwarded] if forwarded else [], settings.ROUTER_TRUSTED_PROXIES
    )
    return found and counted_as(found).partition("/")[0]


def locked_out(request: HttpRequest, response: HttpResponse | None = None, credentials: Any = None) -> HttpResponse:
    """The same whether the password was right or not."""
    wait = get_cool_off(request)
    seconds = int(wait.total_seconds()) if wait is not None else 0
    page = render(request, "429.html", {"minutes": max(1, seconds // 60)}, status=429)
    page.headers["Retry-After"] = str(seconds)
    return page


@receiver(pruning)
def prune_attempts(before: datetime, **_: Any) -> int:
    old = AccessAttempt.objects.filter(attempt_time__lt=before).values_list("pk", flat=True)[:PRUNE_ROWS]
    return int(AccessAttempt.objects.filter(pk__in=list(old)).delete()[0])
