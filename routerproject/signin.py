"""Sign-ins to the admin: throttled by the rows of django-axes, and told in our own words. Named in settings.py.

Counted by user name and client address together, so that nobody is locked out from elsewhere by a stranger who types
their name; and by address alone, so that nobody tries one password for many names. A try is counted before its password
is looked at, and forgotten with all before it where that was right: so five are five also where a hundred come at once,
to whichever process. A process looks at one password at a time, because hashing one takes a core for half a second.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from axes.backends import AxesStandaloneBackend
from axes.handlers.database import AxesDatabaseHandler
from axes.handlers.proxy import AxesProxyHandler
from axes.helpers import get_cool_off, get_credentials
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.models import Session
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.db.models import F, Sum
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from replicas.client_address import client_address, counted_as
from replicas.signals import pruning

logger = logging.getLogger(__name__)

PRUNE_ROWS = 500
# Of one address, whatever names it tries, within AXES_COOLOFF_TIME. An office is behind one address, too.
MOST_OF_AN_ADDRESS = 50
NAME_CHARACTERS = 255  # the column's; an account's name has 150 at most
# Beside the one whose password is looked at: who finds the places taken, or waits for so long, is to come again.
MOST_WAITING, WAIT_SECONDS = 8, 5.0
CROWDED_SECONDS = 5

_places = threading.BoundedSemaphore(1 + MOST_WAITING)
_looking = threading.Lock()


class Throttle(AxesDatabaseHandler):  # type: ignore[misc]  # it has no types
    def is_locked(self, request: HttpRequest, credentials: Any = None) -> bool:
        named: bool = super().is_locked(request, credentials)
        return named or _failures_of(address(request)) >= MOST_OF_AN_ADDRESS

    def count(self, request: HttpRequest, credentials: Any) -> bool:
        """One try more. False: it would be one too many, and its password is not to be looked at."""
        self.clean_expired_user_attempts(request, credentials)
        # A row a name and address: what a client calls itself could make it many.
        row = {"username": name(request, credentials), "ip_address": address(request), "user_agent": ""}
        if not _one_more(row):
            try:
                with transaction.atomic():
                    AccessAttempt.objects.create(**row, path_info=request.path[:255], failures_since_start=1)
            except IntegrityError:  # it is full, or another has made it meanwhile
                if not _one_more(row):
                    return False
        # Written first and read then: of many at once the nth to write reads n or more.
        return _failures_of(address(request)) <= MOST_OF_AN_ADDRESS

    def user_login_failed(self, sender: Any, credentials: Any, request: Any = None, **kwargs: Any) -> None:
        """It is counted already. The last of those that may be wrong hears so at once."""
        if not request.axes_locked_out:
            request.axes_locked_out = self.is_locked(request, credentials)
            then = "; from there it is locked out now" if request.axes_locked_out else ""
            # Not the name: people type their password there.
            logger.warning("a sign-in from %s failed%s", address(request), then)


class OneAtATime(AxesStandaloneBackend, ModelBackend):  # type: ignore[misc]  # the first has no types
    def authenticate(  # type: ignore[override]  # the stubs have a keyword for each
        self, request: Any, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> AbstractBaseUser | None:
        """Raises PermissionDenied for whoever is locked out, or finds too many before them."""
        AxesStandaloneBackend.authenticate(self, request, username, password)
        try:
            with _in_turn():
                if not AxesProxyHandler.get_implementation().count(request, get_credentials(username)):
                    request.axes_locked_out = True
                    raise PermissionDenied
                return ModelBackend.authenticate(self, request, username, password, **kwargs)
        except TimeoutError as crowded:
            request.axes_locked_out = request.signin_is_crowded = True
            raise PermissionDenied from crowded


@contextlib.contextmanager
def _in_turn() -> Iterator[None]:
    """Raises TimeoutError."""
    if not _places.acquire(blocking=False):
        raise TimeoutError
    try:
        if not _looking.acquire(timeout=WAIT_SECONDS):
            raise TimeoutError
        try:
            yield
        finally:
            _looking.release()
    finally:
        _places.release()


def _one_more(row: dict[str, Any]) -> bool:
    tries = AccessAttempt.objects.filter(**row, failures_since_start__lt=settings.AXES_FAILURE_LIMIT)
    return bool(tries.update(failures_since_start=F("failures_since_start") + 1, attempt_time=timezone.now()))


def _failures_of(address: str | None) -> int:
    recent = AccessAttempt.objects.filter(
        ip_address=address, attempt_time__gt=timezone.now() - settings.AXES_COOLOFF_TIME
    )
    return recent.aggregate(failures=Sum("failures_since_start"))["failures"] or 0


def name(request: HttpRequest, credentials: Any = None) -> str | None:
    """Whose password is tried, as it is counted: cut to what the column holds."""
    given = (credentials or request.POST).get("username")
    return given and str(given)[:NAME_CHARACTERS]


def address(request: HttpRequest) -> str | None:
    """Whose attempt it is: of IPv6 the first address of its network, all of which one client has."""
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR")
    found = client_address(
        request.META.get("REMOTE_ADDR"), [forwarded] if forwarded else [], settings.ROUTER_TRUSTED_PROXIES
    )
    return found and counted_as(found).partition("/")[0]


def locked_out(request: HttpRequest, response: HttpResponse | None = None, credentials: Any = None) -> HttpResponse:
    """The same whether the password was right or not."""
    crowded = getattr(request, "signin_is_crowded", False)
    wait = get_cool_off(request)
    seconds = CROWDED_SECONDS if crowded else int(wait.total_seconds()) if wait is not None else 0
    said = {"crowded": crowded, "seconds": seconds, "minutes": max(1, seconds // 60)}
    page = render(request, "429.html", said, status=429)
    page.headers["Retry-After"] = str(seconds)
    return page


@receiver(pruning)
def prune_attempts(before: datetime, **_: Any) -> int:
    old = AccessAttempt.objects.filter(attempt_time__lt=before).values_list("pk", flat=True)[:PRUNE_ROWS]
    return int(AccessAttempt.objects.filter(pk__in=list(old)).delete()[0])


@receiver(pruning)
def prune_sessions(**_: Any) -> int:
    """Sign-ins that nobody has ended: they are good for SESSION_COOKIE_AGE, and nobody's after it."""
    over = Session.objects.filter(expire_date__lt=timezone.now()).values_list("pk", flat=True)[:PRUNE_ROWS]
    return int(Session.objects.filter(pk__in=list(over)).delete()[0])
