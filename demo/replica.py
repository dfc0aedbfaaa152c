"""A streaming replica without a GPU: contract B on one port, HTTP and WebSocket.

Run by `manage.py rundemoreplica`, and by tests. A slot holds one session; what happens beyond the slots is the
operator's choice, as with real servers: reject, or queue.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from demo.messages import build, error
from demo.session import Pace, Session
from demo.video import Format

logger = logging.getLogger("demo.replica")

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
QUEUE_STATUS_SECONDS = 5.0
# For a client's answer to our close. A stopped replica is gone within it, before `make run` would kill it (5 s).
CLOSE_TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True)
class Options:
    """One replica. `warmup_seconds`: how long it says "warming"; `queue`: how many may wait for a slot."""

    name: str = "demo"
    host: str = "127.0.0.1"
    port: int = 0
    path: str = "/v1/stream"
    slots: int = 1
    queue: int = 0
    warmup_seconds: float = 0.0
    format: Format = field(default_factory=Format)
    pace: Pace = field(default_factory=Pace)


class NoSlot(Exception):
    """Every slot is taken, and so is every place in the queue."""


class Slots:
    """The replica's GPUs: handed out in the order in which they were asked for."""

    def __init__(self, count: int, queue: int) -> None:
        self.count, self.queue = count, queue
        self.free: deque[int] = deque(range(count))
        self.waiting: deque[asyncio.Event] = deque()
        self.holders: dict[int, ServerConnection] = {}

    @property
    def sessions(self) -> int:
        return self.count - len(self.free)

    @asynccontextmanager
    async def slot(self, connection: ServerConnection) -> AsyncIterator[int]:
        """A slot's number, at once or after waiting, with `queue_status` meanwhile. Raises NoSlot."""
        turn = asyncio.Event()
        if self.waiting or not self.free:
            if len(self.waiting) >= self.queue + len(self.free) + self._being_left:
                raise NoSlot
            self.waiting.append(turn)
            try:
                await self._wait_in_line(turn, connection)
            finally:
                self.waiting.remove(turn)
                self._tell_the_line()
        gpu = self.free.popleft()
        self.holders[gpu] = connection
        try:
            await connection.send(build("queue_status", position=0, queue_depth=len(self.waiting)))
            yield gpu
        finally:
            del self.holders[gpu]
            self.free.append(gpu)
            self._tell_the_line()

    @property
    def _being_left(self) -> int:
        """Slots whose session has said goodbye: free in a moment, so that who comes back at once is not rejected."""
        return sum(holder.state is not State.OPEN for holder in self.holders.values())

    async def _wait_in_line(self, turn: asyncio.Event, connection: ServerConnection) -> None:
        closing = asyncio.create_task(connection.wait_closed(), name="demo: departure of a waiting client")
        try:
            while not (self.free and self.waiting[0] is turn):
                position = self.waiting.index(turn) + 1
                await connection.send(build("queue_status", position=position, queue_depth=len(self.waiting)))
                turn.clear()
                moved = asyncio.create_task(turn.wait(), name="demo: the line moves")
                await asyncio.wait({moved, closing}, timeout=QUEUE_STATUS_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                moved.cancel()
        finally:
            closing.cancel()

    def _tell_the_line(self) -> None:
        for turn in self.waiting:
            turn.set()


class Replica:
    """One running replica. `async with Replica(options) as replica:`; its address is `replica.url`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.slots = Slots(options.slots, options.queue)
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"demo-{options.name}")
        self._server: Server
        self._ready_at = 0.0

    async def __aenter__(self) -> Replica:
        self._ready_at = asyncio.get_running_loop().time() + self.options.warmup_seconds
        self._server = await serve(
            self._session,
            self.options.host,
            self.options.port,
            process_request=self._http,
            max_size=MAX_MESSAGE_BYTES,
            compression=None,
            ping_interval=20,
            close_timeout=CLOSE_TIMEOUT_SECONDS,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()  # sessions get 1001
        await self._server.wait_closed()
        self._threads.shutdown()

    @property
    def url(self) -> str:
        port = next(iter(self._server.sockets)).getsockname()[1]
        host = self.options.host
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def warming(self) -> bool:
        return asyncio.get_running_loop().time() < self._ready_at

    async def _session(self, connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):  # the client left: nothing to tell it
            try:
                if self.warming:
                    raise NoSlot
                async with self.slots.slot(connection) as gpu:
                    session = Session(
                        connection,
                        name=self.options.name,
                        gpu=f"{self.options.name}/gpu{gpu}",
                        fmt=self.options.format,
                        pace=self.options.pace,
                        threads=self._threads,
                    )
                    await session.run()
            except NoSlot:
                await connection.send(error("session_rejected", "no GPU is free", retryable=True))
                await connection.close(1013, "session_rejected")

    def _http(self, connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if path == self.options.path:
            return None
        answers = {"/health": self._health, "/readyz": self._readyz, "/status": self._status}
        if path not in answers:
            return _json(404, {"error": f"there is nothing at {path}"})
        return _json(200, answers[path]())

    def _health(self) -> dict[str, Any]:
        return {"status": "ok", "sessions": self.slots.sessions, "stream_mode": "av_fmp4"}

    def _readyz(self) -> dict[str, Any]:
        workers = 0 if self.warming else self.slots.count
        return {
            "status": "warming" if self.warming else "ready",
            "ready_gpu_workers": workers,
            "total_gpus": self.slots.count,
            "available_gpus": min(workers, len(self.slots.free)),
            "queue_size": len(self.slots.waiting),
            "sessions": self.slots.sessions,
        }

    def _status(self) -> dict[str, Any]:
        free = set(self.slots.free)
        return {
            "total_gpus": self.slots.count,
            "available_gpus": 0 if self.warming else len(free),
            "queue_size": len(self.slots.waiting),
            "gpu_status": {f"gpu{n}": "free" if n in free else "busy" for n in range(self.slots.count)},
        }


def _json(status: int, answer: dict[str, Any]) -> Response:
    body = json.dumps(answer).encode()
    reason = "OK" if status == 200 else "Not Found"
    headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"})
    return Response(status, reason, headers, body)
