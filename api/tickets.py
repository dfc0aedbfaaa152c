"""/tickets: a stream token turned into a browser's ticket (proxy/tickets.py). Asked by the backend of a page."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from ninja import Router, Status
from ninja.security import HttpBearer

from api.auth import CHALLENGE
from api.problems import Problem, wrong
from api.schemas import TicketGiven, TicketWanted
from dashboard.database import in_time
from proxy import tickets
from proxy.credentials import allows, origin
from proxy.models import StreamToken
from replicas import tokens

router = Router(tags=["tickets"])

# Not the dashboard's: an operator's slow look, or a stranger with many wrong tokens, must not keep the other waiting.
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tickets")


class StreamBearer(HttpBearer):
    """Lets in a stream token; an API token is none."""

    async def __call__(self, request: HttpRequest) -> StreamToken:
        text = tokens.bearer(request.headers.get("Authorization", "").strip())
        return await self.authenticate(request, text or "")

    async def authenticate(self, request: HttpRequest, token: str) -> StreamToken:
        found = await in_time(lambda: _usable(token), _threads) if tokens.is_token(token, tokens.STREAM) else None
        if found is None:
            raise Problem(401, "A stream token is needed: Authorization: Bearer stream_….", headers=CHALLENGE)
        return found


def _usable(text: str) -> StreamToken | None:
    found = StreamToken.objects.filter(digest=tokens.digest(text)).first()
    return found if found is not None and found.usable(timezone.now()) else None


@router.post("", response={201: TicketGiven}, auth=StreamBearer(), summary="A ticket for one session of a page")
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
    ticket = await in_time(lambda: tickets.issue(token, page), _threads)
    return Status(201, {"ticket": ticket, "expires_in": tickets.TICKET_SECONDS})
