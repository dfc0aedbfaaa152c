"""What a stream path answers to plain HTTP: that it wants a WebSocket."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse


async def upgrade_required(request: HttpRequest) -> HttpResponse:
    """426 with what to do instead (RFC 9110 §15.5.22)."""
    return HttpResponse(
        "This address is a WebSocket: connect to it with ws:// or wss://.\n",
        status=426,
        headers={"Upgrade": "websocket", "Connection": "Upgrade"},
        content_type="text/plain; charset=utf-8",
    )
