"""One probe against real servers, good and bad (contract A4, faults.md 37 and 38)."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from django.test import override_settings

from replicas.probe import MAX_BODY_BYTES, Report, http_client, probe
from tests.acceptance.moments import Moment
from tests.integration.http_servers import answering, drips, hangs, http_server
from tests.ports import free_port


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with http_client() as made:
        yield made


async def probed(url: str, timeout: float = 30.0, path: str = "/health"):
    async with http_client() as client:
        return await probe(client, url, path, timeout)


async def test_an_answer_is_a_success_with_its_latency() -> None:
    """Any status below 400 is a success; the path is the one asked for."""
    async with http_server() as server:
        started = time.monotonic()
        result, _ = await probed(server.url, path="/readyz?deep=1")
        took = time.monotonic() - started
    assert result.ok
    assert result.error == ""
    assert result.latency_ms is not None
    assert 0 < result.latency_ms < 1000 * took
    assert server.requests[0].startswith("GET /readyz?deep=1 HTTP/1.1")


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_a_status_from_400_on_is_a_failure(status: int) -> None:
    """The status is the reason."""
    async with http_server(answering(status=status)) as server:
        result, _ = await probed(server.url)
    assert (result.ok, result.error, result.latency_ms) == (False, f"HTTP {status}", None)


async def test_a_refused_connection_is_a_failure() -> None:
    """The reason is the system's own word, without the address."""
    result, _ = await probed(f"http://127.0.0.1:{free_port()}")
    assert (result.ok, result.error) == (False, "connection refused")


async def test_a_name_that_does_not_resolve_is_a_failure() -> None:
    """A look-up that fails is told from a server that is down."""
    result, _ = await probed("http://no-such-host.invalid:8000", timeout=5)
    assert not result.ok
    assert result.error.startswith("name look-up failed")


async def test_a_name_that_hangs_is_asked_for_once_at_a_time(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each probe of it says so, and it takes one thread however often it is probed; others' names are resolved."""
    asked, answered = [], threading.Event()

    def look_up(host: bytes | str, port: int, *rest: int) -> list[Any]:
        asked.append(host)
        answered.wait(60)
        return getaddrinfo("127.0.0.1", port, *rest)

    getaddrinfo = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    async with http_server() as server:
        url = server.url.replace("127.0.0.1", "hanging.invalid")
        results = [(await probe(client, url, "/", 0.1))[0].error for _ in range(3)]
        others = [url.replace("hanging", f"hanging-{number}") for number in range(70)]
        probing = [asyncio.create_task(probe(client, other, "/", 30)) for other in others]
        while len(asked) < 71:
            await asyncio.sleep(0.01)
        answered.set()
        assert [(await task)[0].error for task in probing] == [""] * 70
        assert (await probe(client, url, "/", 30))[0].ok
    assert results == ["timeout after 0.1 s: the name look-up hangs"] * 3
    assert len(asked) == 72  # of that name once for the three that waited, and once when it was over


@pytest.mark.parametrize("behaviour", [hangs, drips])
async def test_a_server_that_is_too_slow_is_a_timeout(behaviour: object) -> None:
    """The deadline is for the whole probe: dripping one byte after the other does not stretch it."""
    async with http_server(behaviour) as server:  # type: ignore[arg-type]
        async with http_client() as client:
            began = Moment()
            result, _ = await probe(client, server.url, "/health", 0.3)
        assert began.ago < 1
    assert (result.ok, result.error) == (False, "timeout after 0.3 s")


async def test_a_gigabyte_is_not_read() -> None:
    """At most 64 KiB of a body are read; then the connection is dropped."""
    sent = 0

    async def floods(head: str, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    async with http_server(floods) as server:
        result, report = await probed(server.url)
    assert result.ok
    assert report == Report()
    assert sent < 16 * 1024 * 1024  # what kernel buffers take on top of MAX_BODY_BYTES
    assert MAX_BODY_BYTES == 64 * 1024


async def test_a_redirect_is_not_followed() -> None:
    """It could lead anywhere. By contract A4 a status below 400 is an answer."""
    async with (
        http_server() as elsewhere,
        http_server(answering(status=302, headers=f"Location: {elsewhere.url}/health\r\n")) as server,
    ):
        result, _ = await probed(server.url)
    assert result.ok
    assert elsewhere.requests == []


@pytest.mark.parametrize("word", ["warming", "draining", "error"])
async def test_a_server_that_says_it_is_not_ready_gets_no_session(word: str) -> None:
    """200 with another word than ok or ready is a failure, and the word its reason (A7.8, faults.md 38)."""
    body = json.dumps({"status": word, "total_gpus": 4}).encode()
    async with http_server(answering(body)) as server:
        result, report = await probed(server.url)
    assert (result.ok, result.error) == (False, word)
    assert report == Report(slots=4, readiness=word)


@pytest.mark.parametrize(
    ("answer", "report"),
    [
        ({"status": "ok", "sessions": 3, "stream_mode": "av_fmp4"}, Report(sessions=3, readiness="ok")),
        ({"status": "ready", "total_gpus": 4, "available_gpus": 1}, Report(4, 3, "ready")),
        ({"total_gpus": -1, "sessions": 10**12}, Report()),
        ({"total_gpus": "4", "sessions": True, "available_gpus": None}, Report()),
        ([1, 2], Report()),
        ("ready", Report()),
    ],
)
async def test_what_a_replica_reports_is_kept_where_it_makes_sense(answer: object, report: Report) -> None:
    """Slots, sessions and readiness come from JSON that says so; nonsense counts as not said."""
    async with http_server(answering(json.dumps(answer).encode())) as server:
        result, found = await probed(server.url)
    assert result.ok
    assert found == report


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b"[" * 60_000])
async def test_an_answer_that_is_no_json_is_a_success(body: bytes) -> None:
    """A plain web server's 200 is enough."""
    async with http_server(answering(body)) as server:
        result, report = await probed(server.url)
    assert (result.ok, report) == (True, Report())


PADDED = json.dumps({"pad": "x" * 70_000, "status": "warming"}).encode()
ZIPPED = gzip.compress(b'{"status": "warming"}')
UNREADABLE = [
    (PADDED, "", "JSON over 64 KiB"),
    (ZIPPED, "Content-Encoding: gzip\r\n", "JSON in gzip, which was not asked for"),
    (b'{"status": "warm', "", "JSON that cannot be read"),
    (b"", "", "JSON that cannot be read"),
    (b"[" * 60_000, "", "JSON that cannot be read"),
]


@pytest.mark.parametrize(("body", "headers", "why"), UNREADABLE, ids=["long", "zipped", "cut", "empty", "deep"])
@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/health+json"])
async def test_what_calls_itself_json_and_cannot_be_read_is_a_failure(
    body: bytes, headers: str, why: str, kind: str
) -> None:
    """It may say that the server is warming: a guess would send it sessions (A7.8)."""
    async with http_server(answering(body, headers=f"Content-Type: {kind}\r\n{headers}")) as server:
        result, report = await probed(server.url)
    assert (result.ok, result.error, report) == (False, why, Report())


@pytest.mark.parametrize(("body", "headers", "_"), UNREADABLE, ids=["long", "zipped", "cut", "empty", "deep"])
async def test_of_another_kind_the_same_body_is_a_success(body: bytes, headers: str, _: str) -> None:
    """A page, however long and however coded, says no more than that there is one."""
    async with http_server(answering(body, headers=f"Content-Type: text/html\r\n{headers}")) as server:
        assert (await probed(server.url))[0].ok


async def test_what_is_not_http_is_a_failure() -> None:
    """Garbage is one failed probe, not an exception."""

    async def garbage(head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 smtp ready\r\n")
        writer.close()

    async with http_server(garbage) as server:
        result, _ = await probed(server.url)
    assert (result.ok, result.error) == (False, "not HTTP, or cut off")


async def test_probes_carry_the_routers_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """ROUTER_UPSTREAM_AUTHORIZATION goes with probes; proxies of the environment are not used."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    async with http_server() as server:
        with override_settings(ROUTER_UPSTREAM_AUTHORIZATION="Bearer secret"):
            result, _ = await probed(server.url)
    assert result.ok
    assert "authorization: bearer secret" in server.requests[0].lower()


def test_the_client_follows_nothing_and_trusts_nothing() -> None:
    """The options that contract A7.11 asks for."""
    client = http_client()
    assert (client.follow_redirects, client.trust_env) == (False, False)
    assert client.timeout == httpx.Timeout(None)


async def test_no_connection_is_kept(client: httpx.AsyncClient) -> None:
    """A kept one that the replica closes as the next probe goes out would look like a failure of the replica."""
    async with http_server() as server:
        for _ in range(2):
            assert (await probe(client, server.url, "/health", 2))[0].ok
    assert all("connection: close" in head.lower() for head in server.requests)


async def test_a_probe_beside_300_hung_ones_is_answered_at_once(client: httpx.AsyncClient) -> None:
    """There is no pool to wait for (contract A4)."""
    async with http_server(hangs) as hung, http_server() as well:
        waiting = [asyncio.create_task(probe(client, hung.url, "/health", 600)) for _ in range(300)]
        async with asyncio.timeout(60):
            while len(hung.requests) < 300:
                await asyncio.sleep(0.01)
        began = Moment()
        assert (await probe(client, well.url, "/health", 60))[0].ok
        assert began.ago < 0.5
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)


async def test_a_stall_of_this_process_is_no_timeout_of_the_replica(client: httpx.AsyncClient) -> None:
    """The answer was there when the deadline came up, late: the replica is asked once more (faults.md, 58)."""

    async def soon(head: str, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        await answering()(head, writer)

    async with http_server(soon) as server:
        probing = asyncio.create_task(probe(client, server.url, "/health", 2))
        while not server.requests:
            await asyncio.sleep(0.005)
        time.sleep(3)  # noqa: ASYNC251  (the stall)
        assert (await probing)[0].ok
