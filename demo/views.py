"""The player page: a client of the router that any browser can open."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

# Video comes from a MediaSource, whose address is a blob: URL. 'self' covers the WebSocket of the same host.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def player(request: HttpRequest) -> HttpResponse:
    """The page; it is told the first stream path, and finds host and scheme from its own address."""
    response = render(request, "demo/player.html", {"stream_path": settings.ROUTER_STREAM_PATHS[0]})
    response.headers["Content-Security-Policy"] = POLICY
    return response
