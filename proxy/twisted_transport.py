"""The connection under a taken-over WebSocket: its socket as asyncio's, or a Twisted transport that looks like one.

Called by daphne.py. Twisted's own reading and writing cost as much again as all else that a frame costs, so a plain
connection (TCP, Unix, also on a socket given with --fd) leaves Twisted for good. TLS is Twisted's to do: there the link
goes through its transport. Must not know Daphne, nor frames.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.tcp import Connection
from zope.interface import implementer

# Handed to Twisted at once; each piece taken shows that the client still reads.
PIECE_BYTES = 64 * 1024


def detached_socket(transport: Any) -> socket.socket | None:
    """The transport's socket, which from now on is the caller's; None where it has none to give (TLS, a test's).

    Twisted keeps the empty shell: no reader, no writer, a file number of -1, until its connectionLost is called.
    """
    if not isinstance(transport, Connection) or transport.TLS:
        return None
    transport.doWrite()  # the 101 may still wait there
    if transport.dataBuffer:
        return None
    transport.stopReading()
    transport.stopWriting()
    handle = transport.getHandle()
    return socket.socket(handle.family, handle.type, handle.proto, handle.detach())


@implementer(IPushProducer)
class TransportBridge:
    """A Twisted transport with as much of asyncio.Transport as a link uses. `protocol` is an asyncio protocol."""

    def __init__(self, transport: Any, protocol: Any) -> None:
        self._transport, self._protocol = transport, protocol
        # Bounded by the protocol, which is told to pause above `high` bytes.
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._high = self._low = 0
        self._takes_more = True
        self._told_to_pause = False
        self._closing = False
        transport.registerProducer(self, True)

    # --- what a link calls ---

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "socket":  # under the TLS: for watch.py to ask after the peer
            return getattr(getattr(self._transport, "transport", None), "socket", default)
        return True if name == "sslcontext" else default

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        self._high, self._low = high, low

    def get_write_buffer_size(self) -> int:
        return self._waiting_bytes

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or self._transport is None:
            return
        view = memoryview(data)
        self._waiting.extend(bytes(view[at : at + PIECE_BYTES]) for at in range(0, len(view), PIECE_BYTES))
        self._waiting_bytes += len(view)
        self._push()
        if self._waiting_bytes > self._high and not self._told_to_pause:
            self._told_to_pause = True
            self._protocol.pause_writing()

    def pause_reading(self) -> None:
        self._call("pauseProducing")

    def resume_reading(self) -> None:
        self._call("resumeProducing")

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        return False  # not over TLS

    def close(self) -> None:
        self._closing = True
        self._push()

    def abort(self) -> None:
        self._closing = True
        self._waiting.clear()
        self._waiting_bytes = 0
        self._call("abortConnection")

    # --- what the Twisted protocol calls ---

    def data_received(self, data: bytes) -> None:
        self._protocol.data_received(data)

    def lost(self) -> None:
        self._transport = None
        self._waiting.clear()
        self._waiting_bytes = 0
        self._protocol.connection_lost(None)

    # --- the Twisted transport's flow control (IPushProducer) ---

    def pauseProducing(self) -> None:
        self._takes_more = False

    def resumeProducing(self) -> None:
        self._takes_more = True
        self._push()

    def stopProducing(self) -> None:
        self._takes_more = False

    def _push(self) -> None:
        while self._waiting and self._takes_more and self._transport is not None:
            piece = self._waiting.popleft()
            self._waiting_bytes -= len(piece)
            self._transport.write(piece)
        if self._told_to_pause and self._waiting_bytes <= self._low:
            self._told_to_pause = False
            self._protocol.resume_writing()
        if self._closing and not self._waiting and self._transport is not None:
            self._transport.unregisterProducer()  # else Twisted waits for us to produce
            self._transport.loseConnection()

    def _call(self, name: str) -> None:
        if self._transport is not None:
            call: Callable[[], None] = getattr(self._transport, name)
            call()
