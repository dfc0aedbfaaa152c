"""A replica with slots, on a real socket: it keeps a record of every session, and can be told to misbehave.

Used by the placement tests as `async with slotted_replica(slots=2) as replica:`. It serves what comes, also beyond its
slots: that the router never brings more is for the test to see, in `replica.most`. Knows nothing of the router.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from tests.fake_replica import answer_to
from tests.raw import CLOSE, TEXT, Peer, close_frame, frame
from tests.serving import refuse, stop_serving

ASSIGNED = json.dumps({"type": "gpu_assigned", "gpu_id": 0, "session_timeout": 600})
QUEUED = json.dumps({"type": "queue_status", "position": 1, "queue_depth": 1})
REJECTION = json.dumps({"type": "error", "code": "session_rejected", "message": "no slot", "retryable": True})
LEAVE = "please end it"  # a client's message after which the replica closes


@dataclass
class Stay:
    """One session at the replica. Times are of time.monotonic(); it has left when either side has said its close."""

    peer: Peer
    came_at: float
    head: bytes  # of its handshake
    left_at: float | None = None
    close: tuple[int | None, str] | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def live(self) -> bool:
        return self.left_at is None

    def left(self) -> None:
        if self.left_at is None:
            self.left_at = time.monotonic()


Serve = Callable[[Stay], Awaitable[None]]


@dataclass
class SlottedReplica:
    """`mode`: serve, reject (session_rejected, 1013), strict (reject beyond `really` sessions) or hang (no answer).

    See also `refuse` and `die`.
    """

    slots: int
    serve: Serve
    mode: str = "serve"
    really: int = 0
    url: str = ""
    stays: list[Stay] = field(default_factory=list)
    most: int = 0  # sessions at once, counted at each handshake
    rejected: int = 0
    attempts: int = 0  # connections, whatever became of them
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def live(self) -> list[Stay]:
        return [stay for stay in self.stays if stay.live]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def listen(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", port, backlog=1024)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def refuse(self) -> None:
        """New connections are refused; live sessions go on. `recover` ends it."""
        server, self._server = self._server, None
        if server is not None:
            refuse(server)

    async def recover(self) -> None:
        self.mode = "serve"
        if self._server is None:
            await self.listen(self.port)

    def die(self) -> None:
        """As a process that is killed: every connection is reset, and new ones are refused."""
        self.refuse()
        for stay in self.live:
            stay.left()
            stay.peer.abort()

    async def end(self) -> None:
        if self._server is not None:
            await stop_serving(self._server)
        for task in self._tasks.copy():
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.attempts += 1
        try:
            if self.mode == "hang":
                await reader.read(-1)
                return
            head = await reader.readuntil(b"\r\n\r\n")
            answer = answer_to(head)
            if self.mode == "reject" or (self.mode == "strict" and len(self.live) >= self.really):
                self.rejected += 1
                writer.write(answer + frame(TEXT, REJECTION.encode()) + close_frame(1013, "session_rejected"))
                await Peer(reader, writer, client=False).rest()
                return
            stay = Stay(Peer(reader, writer, client=False), time.monotonic(), head)
            self.stays.append(stay)
            for _ in range(
                4
            ):  # the close of another may lie unread in its socket: this process is slow, not the router
                await asyncio.sleep(0)
            self.most = max(self.most, len(self.live))
            writer.write(answer)
            try:
                await self.serve(stay)
            finally:
                stay.left()
                stay.over.set()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


async def echo(stay: Stay) -> None:
    """Begin at once, echo what comes, and close when asked to."""
    await stay.peer.say(ASSIGNED)
    while (found := await stay.peer.frame()) is not None:
        if found.opcode == CLOSE:
            stay.left()
            stay.close = int.from_bytes(found.payload[:2], "big") if found.payload else None, found.payload[2:].decode()
            await stay.peer.send(frame(CLOSE, found.payload[:2]))
            return
        if found.opcode == TEXT and found.payload == LEAVE.encode():
            stay.left()
            stay.close = 1000, "segment_cap"
            await stay.peer.close(1000, "segment_cap")
            await stay.peer.rest()
            return
        await stay.peer.send(frame(found.opcode, found.payload, fin=found.fin))


async def stream(stay: Stay) -> None:
    """Numbered chunks of media, 20 a second, until the client leaves."""
    await stay.peer.say(ASSIGNED)
    reading = asyncio.create_task(_hears(stay))
    try:
        number = 0
        while not reading.done():
            await stay.peer.say(chunk(number))
            number += 1
            await asyncio.wait({reading}, timeout=0.05)
    finally:
        reading.cancel()
        await asyncio.wait({reading})


async def _hears(stay: Stay) -> None:
    last = await stay.peer.rest()
    stay.left()
    stay.close = last.close


def chunk(number: int) -> bytes:
    return number.to_bytes(8, "big") * 128


@contextlib.asynccontextmanager
async def slotted_replica(slots: int = 1, serve: Serve = echo) -> AsyncIterator[SlottedReplica]:
    replica = SlottedReplica(slots, serve)
    await replica.listen()
    try:
        yield replica
    finally:
        await replica.end()


@contextlib.asynccontextmanager
async def slotted_replicas(count: int, slots: int = 1, serve: Serve = echo) -> AsyncIterator[list[SlottedReplica]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(slotted_replica(slots, serve)) for _ in range(count)]
