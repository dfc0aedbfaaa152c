"""Who may stream, and how much, over two daphne processes on PostgreSQL (issue 6, section 2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from django.utils import timezone
from playwright.async_api import Page
from pytest_django.plugin import DjangoDbBlocker

from proxy import tickets
from proxy.models import Session, StreamToken, Ticket
from replicas import tokens
from tests.acceptance.cluster import Cluster, running_cluster
from tests.acceptance.visitors import Visitor, leave_all, visitor
from tests.backing_servers import running_postgres
from tests.slotted_replica import SlottedReplica, slotted_replica

PAGE = "https://app.example.com"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Cluster]:
    """The second process stands behind a proxy of ours."""
    var = tmp_path_factory.mktemp("access")
    with (
        running_postgres() as postgres,
        running_cluster(var, django_db_blocker, DATABASE_URL=postgres.url) as found,
    ):
        found.start(ROUTER_TRUSTED_PROXIES=1, ROUTER_FORWARD_HEADERS="Authorization,Origin")
        yield found


@pytest_asyncio.fixture
async def replica(cluster: Cluster) -> AsyncIterator[SlottedReplica]:
    async with slotted_replica(slots=50) as found:
        await cluster.place(found)
        yield found
        await cluster.empty()


async def configured(cluster: Cluster, **fields: Any) -> None:
    """Until both processes know it."""
    await cluster.configure(**fields)
    await cluster.beats(2)


async def token(cluster: Cluster, **fields: Any) -> tuple[str, StreamToken]:
    text = tokens.new_token(tokens.STREAM)
    kept = {"name": text[:40], "digest": tokens.digest(text), "beginning": tokens.beginning(text)}
    return text, await cluster.ask(lambda db: StreamToken.objects.using(db).create(**kept, **fields))


async def ticket(cluster: Cluster, made: StreamToken) -> str:
    text = tokens.new_token(tokens.TICKET)
    until = timezone.now() + timedelta(seconds=tickets.TICKET_SECONDS)
    kept = {"digest": tokens.digest(text), "token_id": made.pk, "origin": PAGE, "expires_at": until}
    await cluster.ask(lambda db: Ticket.objects.using(db).create(**kept))
    return text


def bearer(text: str) -> dict[str, Any]:
    return {"headers": {"Authorization": f"Bearer {text}"}}


def with_ticket(text: str, origin: str = PAGE) -> dict[str, Any]:
    return {"path": f"/v1/stream?a=1&ticket={text}&b=2", "headers": {"Origin": origin}}


async def refused(cluster: Cluster, number: int = 0, **options: Any) -> tuple[str, int | None, str]:
    found = await visitor(cluster.routers[number], **options)
    await found.end(3)
    return found.refusal


async def test_without_a_token_nobody_streams(cluster: Cluster, replica: SlottedReplica) -> None:
    """Wrong, missing, switched off: session_rejected, 1008, alike; and no row of a stranger."""
    await configured(cluster, client_auth="token")
    text, _ = await token(cluster)
    off, _ = await token(cluster, enabled=False)
    first = await cluster.last_id()
    for options in ({}, bearer(tokens.new_token("stream")), bearer(off), with_ticket(tokens.new_token("ticket"))):
        for number in (0, 1):
            assert await refused(cluster, number, **options) == ("session_rejected", 1008, "unauthorized")
    assert replica.stays == []
    assert await cluster.last_id() == first
    there = [await visitor(router, **bearer(text)) for router in cluster.routers]
    for found in there:
        await found.served()
    await leave_all(there)
    named = await cluster.since(first)
    assert {row.token_name for row in named} == {text[:40]}


async def test_a_token_or_ticket_goes_no_further(cluster: Cluster, replica: SlottedReplica) -> None:
    """Neither to the replica, whatever ROUTER_FORWARD_HEADERS says, nor into any log."""
    await configured(cluster, client_auth="token")
    text, made = await token(cluster)
    ours = await ticket(cluster, made)
    there = [await visitor(cluster.routers[1], **bearer(text)), await visitor(cluster.routers[1], **with_ticket(ours))]
    for found in there:
        await found.served()
    await leave_all(there)
    heads = [stay.head for stay in replica.stays]
    assert len(heads) == 2
    for secret in (text, ours):
        assert all(secret.encode() not in head for head in heads)
        assert all(secret not in router.process.log for router in cluster.routers)
    assert b"GET /v1/stream?a=1&b=2 " in heads[1]


async def test_pages_of_other_sites_have_no_sessions(cluster: Cluster, replica: SlottedReplica) -> None:
    """Where ROUTER_ALLOWED_ORIGINS names some; who names no origin, no page, then needs a token also in open mode."""
    await configured(cluster)
    text, _ = await token(cluster)
    narrow = cluster.start(ROUTER_ALLOWED_ORIGINS=PAGE)
    cluster.routers.remove(narrow)  # of this test's alone
    for options, reason in (
        ({"headers": {"Origin": "https://evil.example.com"}}, "origin_not_allowed"),
        ({}, "unauthorized"),
    ):
        found = await visitor(narrow, **options)
        await found.end(5)
        assert found.refusal == ("session_rejected", 1008, reason)
    assert replica.stays == []
    there = [await visitor(narrow, **options) for options in ({"headers": {"Origin": PAGE}}, bearer(text))]
    for found in there:
        await found.served()
    await leave_all(there)


async def test_a_ticket_is_good_once_over_all_processes(cluster: Cluster, replica: SlottedReplica) -> None:
    await configured(cluster, client_auth="token")
    _, made = await token(cluster)
    for _ in range(20):
        ours = await ticket(cluster, made)
        both = await asyncio.gather(*(visitor(router, **with_ticket(ours)) for router in cluster.routers))
        await asyncio.gather(*(found.until(lambda v: v.served_at or v.over, 5) for found in both))
        assert sorted(found.served_at is None for found in both) == [False, True]
        await leave_all(list(both))
    ours = await ticket(cluster, made)
    elsewhere = with_ticket(ours, origin="https://evil.example.com")
    assert await refused(cluster, **elsewhere) == ("session_rejected", 1008, "unauthorized")


async def test_limits_hold_over_all_processes(cluster: Cluster, replica: SlottedReplica) -> None:
    """12 at once at two processes, 5 may: of a token, of an address. Who leaves makes room."""
    await configured(cluster, client_auth="token", max_sessions_per_address=0)
    text, _ = await token(cluster, max_sessions=5)
    await cluster.ask(lambda db: Session.objects.using(db).all().delete())
    there = await crowd(cluster, 12, **bearer(text))
    assert sum(found.served_at is not None for found in there) == 5
    assert {found.refusal for found in there if found.over} == {("session_rejected", 1008, "token_sessions")}
    await leave_all(there)

    await configured(cluster, max_sessions_per_address=5)
    there = await crowd(cluster, 12)
    inside = [found for found in there if not found.over]
    assert len(inside) == 5
    assert {found.refusal for found in there if found.over} == {("session_rejected", 1008, "address_sessions")}
    await inside[0].leave()
    await cluster.until(lambda db: Session.objects.using(db).filter(ended_at=None).count() == 4)
    again = await visitor(cluster.routers[0])
    await again.served()
    await leave_all([*there, again])
    await cluster.empty()


async def crowd(cluster: Cluster, number: int, **options: Any) -> list[Visitor]:
    """So many at once, until each is served or sent away."""
    there = await asyncio.gather(*(visitor(cluster.routers[each % 2], **options) for each in range(number)))
    await asyncio.gather(*(found.until(lambda v: v.served_at or v.over, 5) for found in there))
    return list(there)


async def test_a_forged_header_changes_nothing(cluster: Cluster, replica: SlottedReplica) -> None:
    """Behind our proxy the address that it wrote counts; without one only who connects."""
    await configured(cluster, max_sessions_per_address=1)
    direct, behind = 0, 1
    holder = await visitor(cluster.routers[direct])
    await holder.served()
    forged = {"headers": {"X-Forwarded-For": "198.51.100.7"}}
    assert (await refused(cluster, direct, **forged))[2] == "address_sessions"
    other = await visitor(cluster.routers[behind], headers={"X-Forwarded-For": "198.51.100.7, 203.0.113.5"})
    await other.served()
    again = {"headers": {"X-Forwarded-For": "198.51.100.8, 203.0.113.5"}}
    assert (await refused(cluster, behind, **again))[2] == "address_sessions"
    rows = await cluster.live()
    assert {row.address for row in rows} == {"127.0.0.1", "203.0.113.5"}
    await leave_all([holder, other])


async def test_new_sessions_a_minute(cluster: Cluster, replica: SlottedReplica) -> None:
    """And the message says which limit it was, and that a later try may succeed."""
    await cluster.ask(lambda db: Session.objects.using(db).all().delete())
    await configured(cluster, new_sessions_per_minute=3)
    for number in range(3):
        found = await visitor(cluster.routers[number % 2])
        await found.served()
        await found.leave()
    over = await visitor(cluster.routers[0])
    await over.end(3)
    assert over.refusal == ("session_rejected", 1008, "address_rate")
    assert over.errors[0]["retryable"]
    assert "a minute from this address" in over.errors[0]["message"]


async def test_a_browser_streams_with_a_ticket(cluster: Cluster, replica: SlottedReplica, page: Page) -> None:
    """Its page's backend has got the ticket by HTTP; a second tab with the same one is refused."""
    await configured(cluster, client_auth="token")
    text, _ = await token(cluster)
    host = f"127.0.0.1:{cluster.routers[0].port}"
    async with httpx.AsyncClient(trust_env=False, timeout=60) as backend:
        answer = await backend.post(
            f"http://{host}/api/v1/tickets",
            json={"origin": f"http://{host}"},
            headers={"Authorization": f"Bearer {text}"},
        )
    ours = answer.json()["ticket"]
    await page.goto(f"http://{host}/livez")
    script = """(address) => new Promise((told) => {
        const socket = new WebSocket(address), heard = [];
        socket.onmessage = ({data}) => { heard.push(JSON.parse(data)); if (heard[0].type !== "error") socket.close(); };
        socket.onclose = ({code, reason}) => told({heard, code, reason});
    })"""
    first = await page.evaluate(script, f"ws://{host}/v1/stream?ticket={ours}")
    second = await page.evaluate(script, f"ws://{host}/v1/stream?ticket={ours}")
    assert [each["type"] for each in first["heard"]] == ["gpu_assigned"]
    assert (second["heard"][0]["code"], second["code"], second["reason"]) == ("session_rejected", 1008, "unauthorized")
