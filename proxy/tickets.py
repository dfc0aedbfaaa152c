"""Tickets: what a browser shows instead of a stream token, which no page may know. Good once, and for seconds.

Called by the API, which gives them out, and by admission.py, which takes them. One statement takes a ticket, so that of
two that show it one gets in, on whatever processes and hosts. When it was made and whether it is late says the
database's clock alone: those of two hosts are never compared.
"""

from __future__ import annotations

from datetime import timedelta

from django.db.models.functions import Now

from proxy.models import StreamToken, Ticket
from replicas import tokens

TICKET_SECONDS = 30
SOME = 10


def issue(token: StreamToken, origin: str) -> str:
    """A ticket for one session of a page of `origin` (credentials.origin's form), within TICKET_SECONDS."""
    prune(SOME)  # so that there are never more than half a minute's, however many are asked for
    ticket = tokens.new_token(tokens.TICKET)
    expires_at = Now() + timedelta(seconds=TICKET_SECONDS)
    Ticket.objects.create(digest=tokens.digest(ticket), token=token, origin=origin, expires_at=expires_at)
    return ticket


def redeem(ticket: str, origin: str | None) -> StreamToken | None:
    """The token that a ticket was made with, and the ticket's end; None: it is not good, here or any more."""
    kept = Ticket.objects.select_related("token").annotate(now=Now())
    found = kept.filter(digest=tokens.digest(ticket)).first()
    if found is None or not Ticket.objects.filter(pk=found.pk).delete()[0]:
        return None  # nobody's, or somebody else was first
    return found.token if found.origin == origin and found.now < found.expires_at else None


def prune(limit: int) -> int:
    """Delete some that nobody has used; return how many."""
    old = Ticket.objects.filter(expires_at__lt=Now()).values_list("pk", flat=True)[:limit]
    return Ticket.objects.filter(pk__in=list(old)).delete()[0]
