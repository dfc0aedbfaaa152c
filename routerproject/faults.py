"""What a browser gets where a view has failed, or a form was not accepted. Named in urls.py and settings.py."""

from __future__ import annotations

import sys

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from django.views.csrf import csrf_failure
from django.views.defaults import server_error

RETRY_SECONDS = 3


def failed(request: HttpRequest) -> HttpResponse:
    """503 while the database is away: then nothing is broken, and a later try will do. Asks no database itself.

    Other faults that it reports, of a value that it does not take or of a table that is missing, are ours.
    """
    if not isinstance(sys.exc_info()[1], OperationalError | InterfaceError):
        return server_error(request)
    page = HttpResponse(render_to_string("503.html"), status=503)
    page.headers["Retry-After"] = str(RETRY_SECONDS)
    return page


def not_accepted(request: HttpRequest, reason: str = "") -> HttpResponse:
    """To a script in its own language."""
    if request.path_info.startswith("/dashboard/"):
        said = (
            "This page stood open while you signed in or out elsewhere. Nothing was changed: reload it, and try again."
        )
        return JsonResponse({"error": said}, status=403)
    return csrf_failure(request, reason=reason)
