"""Replicas as a probe meets them: real HTTP servers on real sockets, good ones and bad ones.

Used as `async with http_server(behaviour) as server:`; `server.url` is its address, `server.requests` counts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from tests.serving import stop_serving

Behaviour = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class HttpServer:
    url: str
    requests: list[str] = field(default_factory=list)  # the heads of all requests
    times: list[float] = field(default_factory=list)  # the loop's time of each
    bytes_sent: int = 0


def answering(body: bytes = b'{"status": "ok"}', status: int = 200, headers: str = "") -> Behaviour:
    async def behave(head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)

    return behave


async def hangs(head: str, writer: asyncio.StreamWriter) -> None:
    """Takes the request and never answers: a blackholed replica."""
    await asyncio.sleep(3600)


async def drips(head: str, writer: asyncio.StreamWriter) -> None:
    """Sends a byte of its body every 50 ms, for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def http_server(behaviour: Behaviour | None = None) -> AsyncIterator[HttpServer]:
    behaviour = behaviour or answering()
    server = HttpServer("")
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                server.requests.append(head)
                server.times.append(asyncio.get_running_loop().time())
                await behaviour(head, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        await stop_serving(listening)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the sockets of these are closed by the loop's next round
