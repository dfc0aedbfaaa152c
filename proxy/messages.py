"""A client by ASGI messages: what any ASGI server gives us.

Made by the consumer where the server has not taken its offer (links.TakeOver). Puts frames together to messages, and
messages into frames; the server pings, limits messages and echoes closes itself. Must not know the other side.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from websockets.frames import Frame, Opcode

from proxy import frames
from proxy.errors import Close
from proxy.frames import INVALID_DATA, Octets
from proxy.links import Departure, Link, Sink


class MessageLink:
    """See links.Link.

    An ASGI application can hold a client back only by not asking for its next message, and then it does not hear of its
    departure either. So what is paused here is the next message, while the replica's link is full.
    """

    by_frames = False
    # Messages for the client that its server has not taken yet; above, the replica is paused.
    HIGH_BYTES = 256 * 1024
    # What a message costs beside its payload, and after how many of them others have their turn.
    MESSAGE_BYTES, MANY_MESSAGES = 64, 100
    # For the server to take what is left when the session ends, and each further message.
    STALL_SECONDS = 10.0

    def __init__(self, send: Callable[[dict[str, Any]], Awaitable[None]], secure: bool) -> None:
        self.secure = secure
        self.answers_pings = True
        self.source: Link | None = None
        self.gone: asyncio.Future[Departure] = asyncio.get_running_loop().create_future()
        self.received_frames = self.received_bytes = 0
        self.unfinished = False
        self._send = send
        self._sink: Sink | None = None
        self._room = asyncio.Event()
        self._room.set()
        # Bounded: above HIGH_BYTES the source is paused; what it had read by then is one unit of wire.py more.
        self._outbox: deque[tuple[str | bytes, int]] = deque()
        self._outbox_bytes = 0
        self._drained = asyncio.Event()
        self._drained.set()
        self._partial: bytearray | None = None  # a message whose last fragment is still to come
        self._partial_is_text = False
        self._closed = False
        self._delivery: asyncio.Task[None] | None = None

    # --- called by the consumer ---

    async def message_received(self, message: str | bytes) -> None:
        """For each `websocket.receive`; waits while there is no room."""
        opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
        data = message.encode() if isinstance(message, str) else message
        self.received_frames += 1
        self.received_bytes += len(data)
        if self._sink is not None and not self.gone.done():
            self._sink([Frame(opcode, data).serialize(mask=True)])  # masked in C: it may be 43 MiB
        await self._room.wait()

    def departed(self, code: int, reason: str | None) -> None:
        """For `websocket.disconnect`.

        1005 stands for a close frame without a code as well as, on some servers, for a lost connection: only then
        no reason comes with it.
        """
        vanished = code == 1006 or (code == 1005 and reason is None)
        refused = Close(code, reason or "") if code in (1002, 1007, 1009) else None
        if vanished or refused:
            self._leave(Departure(None, refused=refused))
        else:
            self._leave(Departure(Close(None if code == 1005 else code, reason or "")))

    # --- the link ---

    def start(self, sink: Sink) -> None:
        self._sink = sink

    redirect = start

    def pause_reading(self) -> None:
        if not self.gone.done():
            self._room.clear()

    def resume_reading(self) -> None:
        self._room.set()

    def write(self, units: Sequence[Octets]) -> None:
        for first, payload, _frame in frames.split(b"".join(units)):
            opcode = first & 0x0F
            if opcode >= frames.CLOSE:
                continue  # ASGI has no pings
            if opcode != frames.CONTINUATION:
                self._partial, self._partial_is_text = bytearray(), opcode == frames.TEXT
            if self._partial is None:
                continue
            self._partial += payload
            if first & frames.FIN:
                whole, self._partial = bytes(self._partial), None
                self._queue(whole, self._partial_is_text)

    def send_text(self, text: str) -> None:
        self._queue(text.encode(), True)

    async def writable(self) -> None:
        await self._drained.wait()

    def say_close(self, close: Close) -> None:
        """Sending waits in ASGI: the server's own shutdown tells its clients."""

    async def close(self, close: Close) -> None:
        self._room.set()
        while not self._drained.is_set():
            left = self._outbox_bytes
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.STALL_SECONDS):
                    await self._drained.wait()
            if self._outbox_bytes == left and not self._drained.is_set():
                self.abort()
        if not self.gone.done() and not self._closed:
            self._closed = True
            # ASGI has no close without a code; 1000 is what a server makes of it.
            code = 1000 if close.code is None else close.code
            await self._give({"type": "websocket.close", "code": code, "reason": close.reason})
        await self._end_delivery()

    def refuse(self, close: Close, why: str) -> None:
        self._leave(Departure(None, why, refused=close))

    def abort(self, why: str = "vanished") -> None:
        """Only the server could: it does when the application ends. Nothing more is sent."""
        self._leave(Departure(None, why))
        if self._delivery is not None:
            self._delivery.cancel()

    # --- sending ---

    def _queue(self, data: bytes, is_text: bool) -> None:
        if self.gone.done() or self._closed:
            return
        try:
            message = data.decode() if is_text else data
        except UnicodeDecodeError:
            if self.source is not None:
                self.source.refuse(Close(INVALID_DATA, "text that is not UTF-8"), "text that is not UTF-8")
            return
        size = len(data) + self.MESSAGE_BYTES
        self._outbox.append((message, size))
        self._outbox_bytes += size
        self._drained.clear()
        if self._outbox_bytes > self.HIGH_BYTES and self.source is not None:
            self.source.pause_reading()
        if self._delivery is None or self._delivery.done():
            self._delivery = asyncio.create_task(self._deliver(), name="deliver messages to a client")

    async def _deliver(self) -> None:
        given = 0
        while self._outbox:
            given += 1
            if given % self.MANY_MESSAGES == 0:  # a server that takes each at once never waits
                await asyncio.sleep(0)
                continue
            message, size = self._outbox.popleft()
            await self._give({"type": "websocket.send", "text" if isinstance(message, str) else "bytes": message})
            self._outbox_bytes = max(0, self._outbox_bytes - size)
            if self._outbox_bytes <= self.HIGH_BYTES // 4 and self.source is not None:
                self.source.resume_reading()
        self._drained.set()

    async def _give(self, message: dict[str, Any]) -> None:
        try:
            await self._send(message)
        except Exception:  # each server has its own exception for a client that has left
            self._leave(Departure(None))

    async def _end_delivery(self) -> None:
        if self._delivery is not None:
            self._delivery.cancel()
            await asyncio.wait({self._delivery})
        self.source = self._sink = None

    def _leave(self, departure: Departure) -> None:
        self._room.set()
        self._outbox.clear()
        self._outbox_bytes = 0
        self._drained.set()
        if not self.gone.done():
            self.gone.set_result(departure)
