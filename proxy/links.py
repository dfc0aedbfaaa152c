"""What one side of a relay looks like, and what it looks like by ASGI messages on any ASGI server.

relay.py joins two links and knows nothing else about either side. The replica's link is in upstream.py, the client's
by raw bytes under Daphne in wire.py. Must not decide how a session ends: a link only tells how its peer left.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from proxy.errors import Close

Message = str | bytes


class LinkClosed(Exception):
    """The peer of `link` is gone. `close` is its close frame; None: it vanished (lost, silent, garbage).

    `refused` is the close that the link itself answered broken input with: 1002, 1007 or 1009.
    """

    def __init__(self, link: Link, close: Close | None, why: str = "vanished", refused: Close | None = None) -> None:
        super().__init__(why)
        self.link, self.close, self.why, self.refused = link, close, why, refused


class Link(Protocol):
    """One side of a relay.

    `heard_at` is the loop's time at which the peer last gave a sign of life; None where the server under the link
    watches that itself. `paused` says that we keep the peer from sending, so that silence means nothing.
    """

    received_frames: int
    received_bytes: int

    @property
    def heard_at(self) -> float | None: ...

    @property
    def paused(self) -> bool: ...

    async def receive(self) -> Message:
        """The next message; all that came before the peer left are given first. Raises LinkClosed."""

    async def send(self, message: Message) -> None:
        """Hand over `message`, waiting until the peer has taken nearly all of it. Raises LinkClosed."""

    def ping(self) -> None:
        """Ask for a sign of life."""

    async def close(self, close: Close) -> None:
        """Say `close` unless the peer has left, and let go of the connection within a bounded time."""

    def abort(self) -> None:
        """Let go of the connection now."""


class ClientLink(Link, Protocol):
    """The client's side. `secure`: did it come by TLS to this server?"""

    secure: bool

    async def wait_gone(self) -> LinkClosed:
        """Wait until the client leaves, whether or not its messages have been received."""

    def say_close(self, close: Close) -> None:
        """Say `close`, as far as that goes without waiting."""


# In a consumer's accept message: a TakeOver. A server that knows it hands the connection over before `send` of that
# message returns; any other ignores the key. An extra key passes through middleware, which wraps `send`.
TAKE_OVER = "stream_router.take_over"


@dataclass
class TakeOver:
    """The consumer's offer to carry on by itself after the 101; `link` is set by the server that takes it."""

    max_message_bytes: int
    link: ClientLink | None = None


class Inbox:
    """Messages that have come and are not taken yet. One reader.

    Bounded by push-back: above `high` bytes or `HIGH_COUNT` messages `pause()` is called, at half of it `resume()`.
    What is still in the pipe when `pause()` takes effect is kept, so the bound is `high` + one read + one message.
    """

    HIGH_COUNT = 64

    def __init__(self, high: int, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self.high = high
        self.paused = False
        self._pause, self._resume = pause, resume
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._end: LinkClosed | None = None
        self._arrived = asyncio.Event()

    def put(self, message: Message) -> None:
        self._messages.append(message)
        self._bytes += len(message)
        self._arrived.set()
        if not self.paused and (self._bytes > self.high or len(self._messages) > self.HIGH_COUNT):
            self.paused = True
            self._pause()

    def end(self, closed: LinkClosed) -> None:
        """No message comes after these; the first call counts."""
        self._end = self._end or closed
        self._arrived.set()

    async def get(self) -> Message:
        while not self._messages:
            if self._end:
                raise self._end
            self._arrived.clear()
            await self._arrived.wait()
        message = self._messages.popleft()
        self._bytes -= len(message)
        if self.paused and self._bytes <= self.high // 2 and len(self._messages) <= self.HIGH_COUNT // 2:
            self.paused = False
            self._resume()
        return message

    def clear(self) -> None:
        self._messages.clear()
        self._bytes = 0


class MessageLink:
    """A client by ASGI messages: what any ASGI server gives us.

    The server pings, limits messages and echoes closes itself. An ASGI application can hold a client back only by
    not asking for its next message, and then it does not hear of its departure either. So push-back begins late:
    at a whole message while the session is being placed, at `HIGH_BYTES` once it is, where it means that the
    replica has stopped reading.
    """

    HIGH_BYTES = 1024 * 1024

    def __init__(self, send: Callable[[dict[str, Any]], Awaitable[None]], secure: bool, max_message_bytes: int) -> None:
        self.heard_at: float | None = None
        self.secure = secure
        self.received_frames = self.received_bytes = 0
        self._send = send
        self._room = asyncio.Event()
        self._room.set()
        self._inbox = Inbox(max_message_bytes, self._room.clear, self._room.set)
        self._gone: asyncio.Future[LinkClosed] = asyncio.get_running_loop().create_future()
        self._closed = False

    @property
    def paused(self) -> bool:
        return self._inbox.paused

    async def message_received(self, message: Message) -> None:
        """Called by the consumer for each `websocket.receive`; waits while there is no room."""
        self.received_frames += 1
        self.received_bytes += len(message)
        self._inbox.put(message)
        await self._room.wait()

    def departed(self, code: int, reason: str | None) -> None:
        """Called by the consumer for `websocket.disconnect`.

        1005 stands for a close frame without a code as well as, on some servers, for a lost connection: only then
        no reason comes with it.
        """
        vanished = code == 1006 or (code == 1005 and reason is None)
        refused = Close(code, reason or "") if code in (1002, 1007, 1009) else None
        if vanished or refused:
            self._leave(LinkClosed(self, None, refused=refused))
        else:
            self._leave(LinkClosed(self, Close(None if code == 1005 else code, reason or "")))

    async def receive(self) -> Message:
        self._inbox.high = self.HIGH_BYTES
        return await self._inbox.get()

    async def send(self, message: Message) -> None:
        if self._gone.done():
            raise self._gone.result()
        kind = "text" if isinstance(message, str) else "bytes"
        await self._deliver({"type": "websocket.send", kind: message})

    async def wait_gone(self) -> LinkClosed:
        return await asyncio.shield(self._gone)

    def ping(self) -> None:
        """The server pings: see `heard_at`."""

    def abort(self) -> None:
        """Only the server could: it does when the application ends."""

    def say_close(self, close: Close) -> None:
        """Sending waits in ASGI: the server's own shutdown tells its clients."""

    async def close(self, close: Close) -> None:
        self._room.set()
        if self._gone.done() or self._closed:
            return
        self._closed = True
        # ASGI has no close without a code; 1000 is what a server makes of it.
        code = 1000 if close.code is None else close.code
        await self._deliver({"type": "websocket.close", "code": code, "reason": close.reason})

    async def _deliver(self, message: dict[str, Any]) -> None:
        try:
            await self._send(message)
        except Exception as error:  # each server has its own exception for a client that has left
            self._leave(LinkClosed(self, None))
            raise self._gone.result() from error

    def _leave(self, closed: LinkClosed) -> None:
        self._room.set()
        self._inbox.end(closed)
        if not self._gone.done():
            self._gone.set_result(closed)
