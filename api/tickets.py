"""/tickets: a stream token turned into a browser's ticket (proxy/tickets.py). Asked by the backend of a page."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from ninja import Router, Status

from api.auth import Bearer
from api.database import signed_in
from api.problems import Problem, wrong
from api.schemas import TicketGiven, TicketWanted
from proxy import tickets
from proxy.credentials import allows, origin
from proxy.models import StreamToken
from replicas import tokens

router = Router(tags=["tickets"])


class Streamer(Bearer):
    """Lets in a stream token; an API token is none."""

    kind, needed = tokens.STREAM, "A stream token is needed: Authorization: Bearer stream_…."

    def found(self, token: str) -> StreamToken | None:
        found = StreamToken.objects.filter(digest=tokens.digest(token)).first()
        return found if found is not None and found.usable(timezone.now()) else None


@router.post("", response={201: TicketGiven}, auth=Streamer(), summary="A ticket for one session of a page")
async def given(request: HttpRequest, body: TicketWanted) -> Any:
    """Good once, for 30 s, for pages of `origin` alone: the page opens `wss://…/v1/stream?ticket=…`."""
    token: StreamToken = request.auth  # type: ignore[attr-defined]  # ninja puts it there
    page = origin(body.origin)
    if page is None:
        fix = "give a scheme and a host in ASCII, like https://app.example.com"
        raise Problem(422, "Some of what was sent cannot be used.", [wrong("origin", body.origin, fix)])
    for allowed in (settings.ROUTER_ALLOWED_ORIGINS, token.allowed_origins):
        if allowed and not allows(allowed, page):
            raise Problem(403, f"Pages of {page} may not stream with this token.")
    ticket = await signed_in(lambda: tickets.issue(token, page))
    return Status(201, {"ticket": ticket, "expires_in": tickets.TICKET_SECONDS})
