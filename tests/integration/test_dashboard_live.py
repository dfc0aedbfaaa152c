"""Watchers (dashboard/consumers.py, live.py): who may watch, what they hear, and what the one reader does."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import Client

from dashboard import consumers, live
from dashboard.consumers import LiveConsumer
from dashboard.routing import watching
from proxy import routing
from tests.integration.placing import add_replica

pytestmark = pytest.mark.django_db(transaction=True)

ORIGIN = (b"origin", b"http://localhost:8000")


@pytest.fixture
def cookie() -> bytes:
    """Of an operator who may edit everything."""
    return signed_in(User.objects.create_superuser("root"))


def signed_in(user: User) -> bytes:
    client = Client()
    client.force_login(user)
    return f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}".encode()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "READ_SECONDS", 0.05)


class Watcher(WebsocketCommunicator):
    """A page."""

    def __init__(self, cookie: bytes = b"", *headers: tuple[bytes, bytes]) -> None:
        super().__init__(
            routing.application(watching), "/dashboard/live", headers=[*(headers or [ORIGIN]), (b"cookie", cookie)]
        )

    async def connect(self, timeout: float = 60) -> tuple[bool, Any]:
        found: tuple[bool, Any] = await super().connect(timeout)
        return found

    async def disconnect(self, code: int = 1000, timeout: float = 60) -> None:
        await super().disconnect(code, timeout)

    async def hear(self) -> dict[str, Any]:
        return dict(json.loads(await self.receive_from(timeout=60)))

    async def hear_until(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        async with asyncio.timeout(60):
            while not condition(message := await self.hear()):
                pass
        return message

    async def close_code(self) -> int:
        async with asyncio.timeout(60):
            while (message := await self.receive_output(60))["type"] != "websocket.close":
                pass
        return int(message["code"])


@pytest.fixture
async def watcher(cookie: bytes) -> AsyncIterator[Watcher]:
    found = Watcher(cookie)
    assert (await found.connect())[0]
    yield found
    await found.disconnect()


async def test_a_snapshot_and_then_what_has_changed(watcher: Watcher) -> None:
    """And in any case a sign of life; with what this operator may do."""
    first = await watcher.hear()
    assert (first["type"], first["replicas"], first["may"]["edit"]) == ("snapshot", [], True)
    replica = await sync_to_async(add_replica)("a")
    told = await watcher.hear_until(lambda message: "replicas" in message)
    assert [row["name"] for row in told["replicas"]] == ["a"]
    assert told.keys() <= {"type", "at", "prober", "replicas", "totals"}
    await sync_to_async(replica.delete)()
    assert (await watcher.hear_until(lambda message: "gone" in message))["gone"] == [replica.pk]
    assert (await watcher.hear_until(lambda message: True))["type"] == "changes"


def readers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "dashboard-reader"}


async def test_all_watchers_share_a_reader_that_ends_with_the_last(cookie: bytes) -> None:
    """One thread, one connection, however many pages are open; nobody reads where nobody looks."""
    before = readers()
    watchers = [Watcher(cookie) for _ in range(3)]
    for watcher in watchers:
        assert (await watcher.connect())[0]
        assert (await watcher.hear())["type"] == "snapshot"
    (reader,) = readers() - before
    for watcher in watchers:
        await watcher.disconnect()
    await asyncio.to_thread(reader.join, 10)
    assert not reader.is_alive()
    again = Watcher(cookie)
    await again.connect()
    assert (await again.hear())["type"] == "snapshot"
    await again.disconnect()


async def test_a_database_that_is_away_is_tried_again(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile watchers hear nothing: their page sees by itself that nothing comes. A fault of ours is logged."""
    await watcher.hear()
    real, faults = live.read_state, [OperationalError("away"), RuntimeError("odd"), OperationalError("away")]
    told = threading.Event()

    def read() -> dict[str, Any]:
        if faults:
            raise faults.pop()
        told.set()
        return real()

    monkeypatch.setattr(live, "read_state", read)
    await watcher.hear_until(lambda message: told.is_set())
    assert faults == []


async def test_nobody_who_polls_waits_for_the_others_to_give_up(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that hangs: each hears so in the time of one, not one after the other."""
    settings.DATABASE_TIMEOUT_SECONDS = 0.3
    hang, looked = threading.Event(), []

    def read_state() -> dict[str, Any]:
        looked.append(1)
        hang.wait(20)
        raise OperationalError("away")

    monkeypatch.setattr(live, "read_state", read_state)
    reader = live.Reader()
    try:
        async with asyncio.timeout(20):
            found = await asyncio.gather(*(reader.recent() for _ in range(200)), return_exceptions=True)
    finally:
        hang.set()
    assert all(isinstance(each, OperationalError) for each in found)
    assert len(looked) <= 2


@pytest.mark.parametrize("who", ["nobody", "a client", "staff that has signed out"])
async def test_who_is_no_staff_hears_4403(who: str) -> None:
    """After the accept: a browser cannot see why a handshake failed."""

    def cookie() -> bytes:
        made = signed_in(User.objects.create_user("eve", is_staff=who != "a client"))
        if who == "staff that has signed out":
            client = Client()
            client.cookies[settings.SESSION_COOKIE_NAME] = made.decode().partition("=")[2]
            client.logout()
        return made

    watcher = Watcher(b"" if who == "nobody" else await sync_to_async(cookie)())
    assert (await watcher.connect())[0]
    assert await watcher.close_code() == 4403


@pytest.mark.parametrize("origin", [b"http://evil.example", b"null", b"http://localhost.evil.example"])
async def test_a_page_of_another_site_is_refused(cookie: bytes, origin: bytes) -> None:
    """It would come with the operator's cookie."""
    assert not (await Watcher(cookie, (b"origin", origin)).connect())[0]


async def test_a_permission_that_was_taken_is_a_change(cookie: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """And who is no staff any more is told so."""
    monkeypatch.setattr(consumers, "ASK_AGAIN_SECONDS", 0.0)
    watcher = Watcher(cookie)
    await watcher.connect()
    assert (await watcher.hear())["may"] == {"drain": True, "edit": True, "disconnect": True}
    await sync_to_async(lambda: User.objects.update(is_superuser=False))()
    told = await watcher.hear_until(lambda message: "may" in message)
    assert told["may"] == {"drain": False, "edit": False, "disconnect": False}
    await sync_to_async(lambda: User.objects.update(is_staff=False))()
    assert await watcher.close_code() == 4403


async def test_a_database_that_is_away_at_the_start_is_said(cookie: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """1013: the page tries again, and polls."""

    def away(key: str | None) -> None:
        raise OperationalError("away")

    monkeypatch.setattr(consumers, "may_by_session", away)
    watcher = Watcher(cookie)
    await watcher.connect()
    assert await watcher.close_code() == 1013


class SlowLink:
    """A page that takes nothing for a while; keeps what it was sent."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.room = asyncio.Event()
        self.gone: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiting = asyncio.Event()

    async def writable(self) -> None:
        self.waiting.set()
        await self.room.wait()

    def send_text(self, text: str) -> None:
        self.taken.append(json.loads(text))


async def test_a_slow_watcher_is_told_the_newest_state(cookie: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never all that it has missed: nothing gathers for it, and it holds up no other."""
    states = iter(range(1, 10**9))
    read = threading.Event()

    def read_state() -> dict[str, Any]:
        number = next(states)
        if number > 5:
            read.set()
        return {"at": float(number), "replicas": [], "plots": {"at": None, "step": 10}, "number": number}

    monkeypatch.setattr(live, "read_state", read_state)
    consumer = LiveConsumer()
    consumer.scope = {"headers": [(b"cookie", cookie)]}
    link = SlowLink()
    consumer.link = link  # type: ignore[assignment]  # as much of one as is used
    telling = asyncio.create_task(consumer._tell())
    await link.waiting.wait()
    await asyncio.to_thread(read.wait, 10)
    assert link.taken == []
    link.room.set()
    async with asyncio.timeout(60):
        while len(link.taken) < 2:
            await asyncio.sleep(0.01)
    telling.cancel()
    await asyncio.wait({telling})
    first, second = link.taken[:2]
    assert first["type"] == "snapshot"
    assert first["number"] > 5
    assert second["number"] > first["number"]
