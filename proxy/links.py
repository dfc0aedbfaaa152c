"""What one side of a relay looks like.

relay.py joins two links and knows nothing else about either side. Frames are what passes between them: wire.py has a
peer by the octets of its connection (every replica, and clients under Daphne), messages.py has a client by ASGI
messages, on any other ASGI server. Must not decide how a session ends: a link only tells how its peer left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from proxy.errors import Close
from proxy.frames import Octets

# Takes whole frames, or fragments, in pieces that are sent one behind the other.
Sink = Callable[[Sequence[Octets]], None]


@dataclass(frozen=True)
class Departure:
    """How a peer left. `close` is its close frame; None: it vanished (lost, silent, garbage).

    `refused` is what the peer is told where the link ends it: 1002, 1007 or 1009 for what it sent, 1008 for a stall,
    1011 where it cannot be held.
    """

    close: Close | None
    why: str = "vanished"
    refused: Close | None = None


class Link(Protocol):
    """One side of a relay.

    `by_frames`: does the peer get what is written just as it is? Then pings and pongs can pass to it, and a message
    that was begun must be finished before another one. `answers_pings`: the link answers its peer's pings itself, and
    drops its pongs, instead of handing them on. `gone` is done when the peer has left; what it sent before has then
    been handed to the sink. `source` is paused while this peer takes no more: the push-back. `unfinished`: what the
    peer has sent ends inside a message. `secure`: did it come by TLS to this server?
    """

    by_frames: bool
    answers_pings: bool
    secure: bool
    gone: asyncio.Future[Departure]
    source: Link | None

    @property
    def received_frames(self) -> int: ...

    @property
    def received_bytes(self) -> int: ...

    @property
    def unfinished(self) -> bool: ...

    def start(self, sink: Sink) -> None:
        """Begin to read; `sink` gets what the peer sends, as whole frames and fragments."""

    def redirect(self, sink: Sink) -> None:
        """From now on `sink` gets what the peer sends."""

    def write(self, units: Sequence[Octets]) -> None:
        """Send frames. Never waits: what the peer does not take at once is kept, and `source` paused."""

    def send_text(self, text: str) -> None:
        """Send a text message of the router's own."""

    async def writable(self) -> None:
        """Wait until the peer takes more, or is gone."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def refuse(self, close: Close, why: str) -> None:
        """The peer is no longer listened to: `gone` is done, and says that it is to be told `close`."""

    def say_close(self, close: Close) -> None:
        """Say `close` unless one was said, as far as that goes without waiting."""

    async def close(self, close: Close) -> None:
        """Say `close` unless one was said, deliver what was written, and let go, within a bounded time."""

    def abort(self, why: str = "vanished") -> None:
        """Let go of the connection now; the peer is gone, for the reason given."""


# In a consumer's accept message: a TakeOver. A server that knows it takes it before `send` of that message returns; any
# other ignores the key. An extra key passes through middleware, which wraps `send`.
TAKE_OVER = "stream_router.take_over"


@dataclass
class TakeOver:
    """The consumer's offer to carry on by itself after the 101; a server that takes it sets `connect`."""

    connect: Callable[[], Awaitable[Link]] | None = None
