"""A real WebSocket server on a real socket that behaves as a test says: echoes, hangs, dies, closes, lies.

Used by the session tests as `async with fake_replica(behaviour=...) as replica:`. What it saw is in `replica.seen`.
Knows nothing of the router: it is what stands behind it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.serving import stop_serving

Talk = Callable[[ServerConnection], Awaitable[None]]
RawTalk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Seen:
    """One connection as the replica saw it."""

    request: Request
    messages: list[str | bytes] = field(default_factory=list)
    close_code: int | None = None
    close_reason: str | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class FakeReplica:
    url: str
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0  # upgrades asked for, whether or not they became sessions
    _arrival: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def wait_seen(self, count: int = 1) -> Seen:
        """The `count`-th session, as soon as it is there."""
        async with asyncio.timeout(60), self._arrival:
            await self._arrival.wait_for(lambda: len(self.seen) >= count)
        return self.seen[count - 1]

    async def arrived(self, seen: Seen) -> None:
        async with self._arrival:
            self.seen.append(seen)
            self._arrival.notify_all()


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@contextlib.asynccontextmanager
async def fake_replica(
    talk: Talk = echo,
    *,
    status: int | None = None,
    headers: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    port: int = 0,
    **options: Any,
) -> AsyncIterator[FakeReplica]:
    """A replica whose sessions run `talk`; with `status` it answers every upgrade with that status instead.

    GET /health is answered as contract B says.
    """
    replica = FakeReplica("")

    def process_request(connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/health":
            body = b'{"status": "ok", "sessions": 0, "stream_mode": "av_fmp4"}'
            return Response(200, "OK", Headers({"Content-Length": str(len(body)), "Connection": "close"}), body)
        replica.connections += 1
        if status is None:
            return None
        return Response(status, "Refused", Headers({"Content-Length": "0", "Connection": "close"} | (headers or {})))

    async def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen = Seen(connection.request)
        await replica.arrived(seen)
        connection.seen = seen  # type: ignore[attr-defined]
        try:
            await talk(connection)
        except ConnectionClosed:
            pass
        finally:
            if connection.close_code is None:
                await connection.close()
            await connection.wait_closed()
            seen.close_code, seen.close_reason = connection.close_code, connection.close_reason
            seen.over.set()

    options = {"compression": None, "max_size": 64 * 1024 * 1024, "ping_interval": None} | options
    async with serve(handle, "127.0.0.1", port, process_request=process_request, ssl=tls, **options) as server:
        found_port = next(iter(server.sockets)).getsockname()[1]
        replica.url = (
            f"{'https' if tls else 'http'}://localhost:{found_port}" if tls else f"http://127.0.0.1:{found_port}"
        )
        yield replica


@contextlib.asynccontextmanager
async def raw_server(talk: RawTalk) -> AsyncIterator[FakeReplica]:
    """A server that speaks bytes: hung handshakes, wrong ones, garbage after the 101."""
    replica = FakeReplica("")
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        replica.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    replica.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield replica
    finally:
        await stop_serving(server)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


def upgraded(then: RawTalk) -> RawTalk:
    """A talk of raw_server(): the handshake done right, then `then`."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await handshake_answer(reader))
        await then(reader, writer)

    return talk


async def handshake_answer(reader: asyncio.StreamReader) -> bytes:
    """The 101 to the handshake that `reader` brings (RFC 6455 §4.2.2)."""
    return answer_to(await reader.readuntil(b"\r\n\r\n"))


def answer_to(request: bytes) -> bytes:
    head = request.decode()
    key = next(line.split(": ")[1] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key"))
    magic = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(magic) + b"\r\n\r\n"
    )
