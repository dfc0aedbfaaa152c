"""Who may ask for /status and /metrics: anyone, staff, or a machine with the token.

Wraps views that routerproject's MachinePaths reaches before any middleware: whoever is signed in is found here.
instruments.py asks for the token where it serves metrics itself.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.db import Error as DatabaseFault
from django.db import connection
from django.http import HttpRequest, HttpResponse

STAFF, TOKEN = "staff", "token"  # beside "public"
REFUSED = "A bearer token is needed."

_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="access")

View = Callable[[HttpRequest], Awaitable[HttpResponse]]


def guarded(setting: str) -> Callable[[View], Callable[[HttpRequest], Coroutine[Any, Any, HttpResponse]]]:
    """A view for those that the setting of this name lets in; the others get 401 or 403 and a line of text."""

    def guard(view: View) -> Callable[[HttpRequest], Coroutine[Any, Any, HttpResponse]]:
        @wraps(view)
        async def guarded_view(request: HttpRequest) -> HttpResponse:
            refusal = await _refusal(request, getattr(settings, setting))
            return await view(request) if refusal is None else refusal

        return guarded_view

    return guard


async def _refusal(request: HttpRequest, access: str) -> HttpResponse | None:
    if access == TOKEN and not has_token(request.headers.get("Authorization", "")):
        return _said(401, REFUSED, headers={"WWW-Authenticate": "Bearer"})
    if access == STAFF:
        try:
            async with asyncio.timeout(settings.DATABASE_TIMEOUT_SECONDS):
                known = await asyncio.get_running_loop().run_in_executor(_threads, _is_staff, request)
        except (TimeoutError, DatabaseFault):
            return _said(503, "The database, which knows who is staff, does not answer.")
        if not known:
            return _said(403, "For staff only: sign in at /admin/.")
    return None


def has_token(authorization: str) -> bool:
    """Is the machines' token in this Authorization header?"""
    kind, _, token = authorization.partition(" ")
    # Octets: of text with other than ASCII compare_digest raises.
    given, wanted = token.strip().encode(), settings.ROUTER_MACHINE_TOKEN.encode()
    return kind.lower() == "bearer" and bool(wanted) and secrets.compare_digest(given, wanted)


def _is_staff(request: HttpRequest) -> bool:
    try:
        key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
        if not key:
            return False
        request.session = import_module(settings.SESSION_ENGINE).SessionStore(key)
        user = get_user(request)
        return bool(user.is_active and getattr(user, "is_staff", False))
    finally:
        connection.close()


def _said(status: int, words: str, headers: dict[str, str] | None = None) -> HttpResponse:
    return HttpResponse(f"{words}\n", status=status, headers=headers, content_type="text/plain; charset=utf-8")
