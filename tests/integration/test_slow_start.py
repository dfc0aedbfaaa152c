"""A replica in slow start whose handshakes take their time: connects are paced, and nobody is sent away for that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
import pytest_asyncio
from django.conf import settings
from django.db import connection
from django.utils import timezone
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request

from proxy import errors, pace
from proxy.claims import Claim
from proxy.forwarding import REQUEST_ID, Handshake
from proxy.links import Link
from proxy.placement import Placement
from proxy.search import Search
from proxy.session import SessionLog
from proxy.wire import WireLink
from replicas.models import PlacementRecord, Replica, ReplicaHealth

pytestmark = pytest.mark.django_db(transaction=True)

HANDSHAKE_SECONDS = 1.0


async def db(work: Callable[[], Any]) -> Any:
    def apart() -> Any:
        try:
            return work()
        finally:
            connection.close()

    return await asyncio.to_thread(apart)


def add_replicas(*ports: int) -> None:
    """Healthy since this moment."""
    for port in ports:
        url = f"http://127.0.0.1:{port}"
        now = timezone.now()
        replica = Replica.objects.create(url=url)
        ReplicaHealth.objects.create(replica=replica, url=url, status="healthy", status_since=now, checked_at=now)


class Server:
    """A replica; `most` is how many handshakes it had at a time."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def handshake(self, connection: ServerConnection, request: Request) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(HANDSHAKE_SECONDS)
        self.now -= 1


async def stay(connection: ServerConnection) -> None:
    await connection.wait_closed()


@pytest_asyncio.fixture
async def placement() -> AsyncIterator[Placement]:
    made = Placement(lambda uid, reason: None)
    yield made
    await made.stop()


class _Client:
    """As much of a link as a search touches."""

    def __init__(self) -> None:
        self.gone: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def send_text(self, text: str) -> None: ...


def new_search(number: int, placement: Placement) -> Search:
    uid = f"{number:032x}"
    claim = Claim(uid, "127.0.0.1:1", None, timezone.now())
    handshake = Handshake("", None, ((REQUEST_ID, uid),))
    return Search(SessionLog(uid, "c"), claim, placement, cast("Link", _Client()), handshake, lambda link, close: None)


@pytest.mark.parametrize("servers", [1, 2])
async def test_a_slow_handshake_sends_nobody_away(
    placement: Placement, servers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many at once, more than can have their turn in the time of a connect: all get a session in the end, and the
    replica has failed nobody."""
    monkeypatch.setattr(settings, "ROUTER_CONNECT_TIMEOUT_SECONDS", 2.5)
    monkeypatch.setattr(settings, "ROUTER_FAILOVER_TIMEOUT_SECONDS", 60)
    monkeypatch.setattr(pace, "_ramps", {})
    server = Server()
    async with (
        serve(stay, "127.0.0.1", 0, process_request=server.handshake) as one,
        serve(stay, "127.0.0.1", 0, process_request=server.handshake) as other,
    ):
        ports = [listener.sockets[0].getsockname()[1] for listener in (one, other)]
        await db(lambda: add_replicas(*ports[:servers]))
        found = await asyncio.gather(*(new_search(number, placement).next() for number in range(20)))
        refused = [each for each in found if isinstance(each, errors.Ending)]
        for each in found:
            if isinstance(each, WireLink):
                each.abort()
        assert refused == []
        assert server.most < 20
        assert await db(lambda: list(PlacementRecord.objects.filter(failures__gt=0))) == []


async def test_where_the_others_are_full_who_had_no_turn_is_back_in_a_moment(
    placement: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after the time for which one that has failed is avoided: slots are free, and it waits for one."""
    monkeypatch.setattr(settings, "ROUTER_CONNECT_TIMEOUT_SECONDS", 2.5)
    monkeypatch.setattr(settings, "ROUTER_FAILOVER_TIMEOUT_SECONDS", 60)
    monkeypatch.setattr(pace, "_ramps", {})
    server = Server()
    async with serve(stay, "127.0.0.1", 0, process_request=server.handshake) as listener:
        await db(lambda: add_replicas(1, listener.sockets[0].getsockname()[1]))
        full = await db(lambda: Replica.objects.order_by("id")[0])
        await db(lambda: Replica.objects.filter(pk=full.pk).update(max_sessions=1, primary=True))
        holder = Claim("f" * 32, "127.0.0.1:1", None, timezone.now())
        assert (await placement.seat(holder, lambda position, depth: None)).replica == full.pk
        async with asyncio.timeout(60):
            found = await asyncio.gather(*(new_search(number, placement).next() for number in range(20)))
        assert all(isinstance(each, WireLink) for each in found)
        for each in found:
            if isinstance(each, WireLink):
                each.abort()
