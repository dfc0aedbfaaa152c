"""The dashboard's pages, and the JSON that they ask for. All of it for staff only.

Pages send others to the sign-in, JSON answers 403. Errors of JSON are {"error": a sentence}. Must not ask the database
in the threads of others: database.py.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial, wraps
from typing import Any

from django.contrib.admin.views.decorators import staff_member_required
from django.core.exceptions import BadRequest
from django.db import Error as DatabaseFault
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_POST, require_safe

from dashboard import access, actions, history, sessions
from dashboard.changes import as_json, snapshot
from dashboard.database import in_time
from dashboard.live import reader
from dashboard.refused import Refused
from replicas.models import Replica

# Of what a page of ours asks for: parsing holds up all sessions of the process.
MAX_BODY_BYTES = 64 * 1024

Answering = Callable[..., Awaitable[dict[str, Any] | HttpResponse]]


def for_staff(answer: Answering) -> Callable[..., Coroutine[Any, Any, HttpResponse]]:
    """A view of what `answer`(request, user, …) gives."""

    @wraps(answer)
    async def view(request: HttpRequest, **arguments: Any) -> HttpResponse:
        try:
            user = await request.auser()
            if not access.is_staff(user):
                return _error(403, "Only for staff: sign in.")
            found = await answer(request, user, **arguments)
            return found if isinstance(found, HttpResponse) else JsonResponse(found)
        except Refused as refused:
            return _error(refused.status, refused.said)
        except DatabaseFault:
            return _error(503, "The database does not answer.")

    return view


def _error(status: int, said: str) -> JsonResponse:
    return JsonResponse({"error": said}, status=status)


# --- pages ---


@never_cache
@require_safe
@ensure_csrf_cookie
@staff_member_required(login_url="admin:login")  # type: ignore[untyped-decorator]  # the stubs
def index(request: HttpRequest) -> HttpResponse:
    return render(request, "dashboard/index.html")


@never_cache
@require_safe
@ensure_csrf_cookie
@staff_member_required(login_url="admin:login")  # type: ignore[untyped-decorator]  # the stubs
def replica(request: HttpRequest, id: int) -> HttpResponse:
    found = Replica.everything.filter(pk=id).first()
    if found is None:
        raise Http404("There is no such replica (any more).")
    shown = {"replica": found, "offered": history.offered(), "hours": history.HOURS}
    return render(request, "dashboard/replica.html", shown)


# --- JSON ---


@never_cache
@require_safe
@for_staff
async def state(request: HttpRequest, user: Any) -> HttpResponse:
    """As a watcher hears it first."""
    now = await reader().recent()
    told = as_json(snapshot(now | {"may": await in_time(partial(access.may, user))}))
    return HttpResponse(told, content_type="application/json")


@never_cache
@require_safe
@for_staff
async def session_table(request: HttpRequest, user: Any) -> dict[str, Any]:
    return await in_time(partial(sessions.read_sessions, sessions.Wanted.of(request.GET)))


@never_cache
@require_safe
@for_staff
async def replica_history(request: HttpRequest, user: Any, id: int) -> dict[str, Any]:
    return await in_time(partial(history.read_history, id, history.hours_of(request.GET.get("hours"))))


@never_cache
@require_POST
@for_staff
async def act(request: HttpRequest, user: Any) -> dict[str, Any]:
    if len(request.body) > MAX_BODY_BYTES:
        raise Refused(413, f"The body is longer than {MAX_BODY_BYTES} bytes.")
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError, BadRequest) as error:
        raise Refused(400, "The body must be JSON.") from error
    return {"said": await in_time(partial(actions.act, user, body))}
