"""Who is let in: tokens, tickets, origins (proxy/admission.py, proxy/tickets.py)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from django.db.models import F
from django.utils import timezone

from proxy import admission, tickets
from proxy.admission import NotAdmitted, admit
from proxy.claims import ORIGIN_NOT_ALLOWED, UNAUTHORIZED, Access
from proxy.credentials import Credentials
from proxy.models import StreamToken, Ticket
from replicas import tokens
from replicas.models import RouterSettings
from tests.databases import at_once
from tests.integration.clients import db

pytestmark = pytest.mark.usefixtures("database")

PAGE = "https://app.example.com"
OPEN, TOKEN = RouterSettings(), RouterSettings(client_auth="token")


@pytest_asyncio.fixture(autouse=True)
async def _ended() -> AsyncIterator[None]:
    yield
    await admission.end()


def _token(**fields: Any) -> tuple[str, StreamToken]:
    token = tokens.new_token(tokens.STREAM)
    fields.setdefault("name", tokens.beginning(token))
    return token, StreamToken.objects.create(digest=tokens.digest(token), beginning=tokens.beginning(token), **fields)


async def token(**fields: Any) -> tuple[str, StreamToken]:
    made: tuple[str, StreamToken] = await db(_token, **fields)
    return made


async def refusal(shown: Credentials, current: RouterSettings = TOKEN) -> str:
    with pytest.raises(NotAdmitted) as refused:
        await admit(shown, None, current)
    return refused.value.reason


async def test_where_nothing_is_asked_for_everybody_is_let_in() -> None:
    """And nothing is counted, or asked of the database."""
    assert await admit(Credentials(), "192.0.2.1", OPEN) == Access()
    assert await admit(Credentials("stream_x", "ticket_x", "null"), "192.0.2.1", OPEN) == Access()
    assert asyncio.get_running_loop() not in admission._databases


async def test_an_address_is_counted_where_it_has_a_limit() -> None:
    for limits in ({"max_sessions_per_address": 1}, {"new_sessions_per_minute": 1}):
        assert await admit(Credentials(), "2001:db8::1", RouterSettings(**limits)) == Access("2001:db8::/64")
        assert await admit(Credentials(), None, RouterSettings(**limits)) == Access()


async def test_a_token_lets_in_with_its_limits() -> None:
    text, made = await token(name="web", max_sessions=3, new_sessions_per_minute=7)
    assert await admit(Credentials(text), "192.0.2.1", TOKEN) == Access(None, made.pk, "web", 3, 7)


@pytest.mark.parametrize(
    "fields", [{"enabled": False}, {"expires_at": timezone.now() - timedelta(seconds=1)}], ids=["off", "expired"]
)
async def test_what_is_no_good_and_what_there_never_was_are_refused_alike(fields: dict[str, Any]) -> None:
    text, made = await token(**fields)
    assert await refusal(Credentials(text)) == UNAUTHORIZED
    assert await refusal(Credentials(tokens.new_token(tokens.STREAM))) == UNAUTHORIZED
    assert await refusal(Credentials()) == UNAUTHORIZED
    ticket = await db(tickets.issue, made, PAGE)
    assert await refusal(Credentials(ticket=ticket, origin=PAGE)) == UNAUTHORIZED


async def test_a_token_of_some_origins_is_for_these_alone() -> None:
    text, _ = await token(origins=f"{PAGE}\nhttps://*.example.org")
    assert (await admit(Credentials(text, origin=PAGE), None, TOKEN)).token
    assert (await admit(Credentials(text, origin="https://a.example.org"), None, TOKEN)).token
    for origin in ("https://example.org", "null", None):
        assert await refusal(Credentials(text, origin=origin)) == UNAUTHORIZED  # as if there were no such token


async def test_where_origins_are_narrowed_a_native_client_needs_a_token(settings: Any) -> None:
    """Also where who may stream is open: anything but a browser says what origin it likes."""
    settings.ROUTER_ALLOWED_ORIGINS = [PAGE]
    text, _ = await token()
    for current in (OPEN, TOKEN):
        assert await refusal(Credentials(), current) == UNAUTHORIZED
        assert (await admit(Credentials(text), None, current)).token
        assert await refusal(Credentials(text, origin="https://evil.example.com"), current) == ORIGIN_NOT_ALLOWED
    assert await admit(Credentials(origin=PAGE), None, OPEN) == Access()


async def test_a_ticket_is_good_once_and_on_its_page() -> None:
    _, made = await token(max_sessions=2)
    ticket = await db(tickets.issue, made, PAGE)
    found = await admit(Credentials(ticket=ticket, origin=PAGE), None, TOKEN)
    assert (found.token, found.max_sessions) == (made.pk, 2)
    assert await refusal(Credentials(ticket=ticket, origin=PAGE)) == UNAUTHORIZED
    for origin in ("https://evil.example.com", None):
        ticket = await db(tickets.issue, made, PAGE)
        assert await refusal(Credentials(ticket=ticket, origin=origin)) == UNAUTHORIZED
        assert await refusal(Credentials(ticket=ticket, origin=PAGE)) == UNAUTHORIZED  # it was shown elsewhere: spent


async def test_a_ticket_is_good_for_half_a_minute() -> None:
    _, made = await token()
    ticket = await db(tickets.issue, made, PAGE)
    assert 0 < tickets.TICKET_SECONDS <= 30
    await db(pass_seconds, tickets.TICKET_SECONDS - 5)
    assert await db(tickets.redeem, ticket, PAGE) == made
    ticket = await db(tickets.issue, made, PAGE)
    await db(pass_seconds, tickets.TICKET_SECONDS + 0.1)
    assert await db(tickets.redeem, ticket, PAGE) is None


@pytest.mark.parametrize("ahead", [timedelta(minutes=-10), timedelta(minutes=10)], ids=["behind", "ahead"])
async def test_a_ticket_is_good_on_a_host_whose_clock_is_another(
    ahead: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the database's clock is asked: it made the ticket on one host, and is taken on another."""
    _, made = await token()
    ticket = await db(tickets.issue, made, PAGE)
    there = timezone.now() + ahead
    monkeypatch.setattr(timezone, "now", lambda: there)
    assert (await admit(Credentials(ticket=ticket, origin=PAGE), None, TOKEN)).token == made.pk
    late = await db(tickets.issue, made, PAGE)
    await db(pass_seconds, tickets.TICKET_SECONDS + 0.1)
    assert await refusal(Credentials(ticket=late, origin=PAGE)) == UNAUTHORIZED


def pass_seconds(seconds: float) -> None:
    """For all tickets that there are."""
    Ticket.objects.update(expires_at=F("expires_at") - timedelta(seconds=seconds))


def _use(ticket: str, got: list[bool]) -> None:
    got.append(tickets.redeem(ticket, PAGE) is not None)


def test_of_two_that_show_a_ticket_one_gets_in() -> None:
    """A hundred times, at the same moment."""
    _, made = _token()
    for _ in range(100):
        ticket, got = tickets.issue(made, PAGE), list[bool]()
        at_once([partial(_use, ticket, got)] * 2)
        assert sorted(got) == [False, True]


def test_tickets_that_nobody_used_are_pruned() -> None:
    _, made = _token()
    for _ in range(5):
        tickets.issue(made, PAGE)
    Ticket.objects.filter(pk__in=list(Ticket.objects.values_list("pk", flat=True)[:3])).update(
        expires_at=timezone.now() - timedelta(seconds=1)
    )
    assert [tickets.prune(2), tickets.prune(2), tickets.prune(2)] == [2, 1, 0]
    assert Ticket.objects.count() == 2


def test_who_asks_for_many_tickets_leaves_few() -> None:
    _, made = _token()
    for _ in range(30):
        tickets.issue(made, PAGE)
    Ticket.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    for _ in range(4):
        tickets.issue(made, PAGE)
    assert Ticket.objects.count() == 4


def test_of_a_token_and_a_ticket_only_digests_are_stored() -> None:
    text, made = _token()
    ticket = tickets.issue(made, PAGE)
    stored = str([list(model.objects.values()) for model in (StreamToken, Ticket)])
    assert text not in stored
    assert ticket not in stored
