"""A client by the bytes of its connection: what the relay sees of it under Daphne.

Made by daphne.py when it takes a connection over; feeds the bytes to websockets' sans-I/O protocol, which gives codes,
reasons, empty messages, limits and pongs that Daphne cannot. Speaks to a Twisted transport by its public interface
(ITCPTransport, IConsumer) and must not know Daphne.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from typing import Any

from twisted.internet.interfaces import IHalfCloseableDescriptor, IPushProducer, ISSLTransport
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from zope.interface import implementer

from proxy.errors import Close
from proxy.links import Inbox, LinkClosed, Message

# What is read ahead of the replica. Until the session is placed it may be one whole message, so that a client that
# leaves after a large init is seen leaving.
HIGH_BYTES = 256 * 1024
# Frames go to the transport in pieces of this size: each one taken shows that the client still reads.
PIECE_BYTES = 256 * 1024
# Pongs for a client that pings and does not read: past this the older pings go unanswered (RFC 6455 §5.5.3).
PONG_BYTES = 64 * 1024
# For the client's answer to a close, then for the rest of what it has not read.
CLOSE_SECONDS = 5.0
STALL_SECONDS = 10.0
# While reading is paused the event loop reports no departure: it is asked for, this often.
DEPARTURE_CHECK_SECONDS = 1.0


@implementer(IPushProducer)
class WireLink:
    """One client, from the 101 on. `secure`: did it come by TLS to this server?"""

    def __init__(self, transport: Any, max_message_bytes: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._protocol = ServerProtocol(max_size=max_message_bytes, state=State.OPEN)
        self.secure = bool(ISSLTransport.providedBy(transport))
        self.heard_at: float | None = self._loop.time()
        self.received_frames = self.received_bytes = 0

        self._inbox = Inbox(max_message_bytes, self._pause_reading, self._resume_reading)
        self._partial: bytearray | None = None  # a message whose last fragment is still to come
        self._partial_is_text = False
        self._departure_check: asyncio.TimerHandle | None = None

        # Bounded: send() waits until it is empty, so it holds one message, and pongs up to PONG_BYTES.
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._waiting_pong_bytes = 0
        self._writable = True
        self._drained = asyncio.Event()
        self._drained.set()
        self._wants_eof = False

        self._closing = False
        self._gone: asyncio.Future[LinkClosed] = self._loop.create_future()
        self._lost = asyncio.Event()

        # The HTTP channel that read the upgrade is still the transport's producer.
        transport.unregisterProducer()
        transport.registerProducer(self, True)

    # --- the link, as relay.py sees it ---

    @property
    def paused(self) -> bool:
        return self._inbox.paused

    @property
    def lost(self) -> bool:
        """Has the transport reported the end of the connection?"""
        return self._lost.is_set()

    async def receive(self) -> Message:
        self._inbox.high = HIGH_BYTES
        return await self._inbox.get()

    async def send(self, message: Message) -> None:
        if self._gone.done():
            raise self._gone.result()
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)
        self._flush()
        await self._drained.wait()
        if self._gone.done():
            raise self._gone.result()

    async def wait_gone(self) -> LinkClosed:
        return await asyncio.shield(self._gone)

    def ping(self) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_ping(b"")
            self._flush()

    async def close(self, close: Close) -> None:
        self.say_close(close)
        while not self._drained.is_set() and not self._lost.is_set():
            left = self._outbox_bytes
            await _within(STALL_SECONDS, self._drained)
            if self._outbox_bytes == left and not self._drained.is_set():
                self.abort()
        if not await _within(CLOSE_SECONDS, self._lost):
            self._lose_connection()  # what is in the kernel's buffer still reaches a slow client
        if not await _within(CLOSE_SECONDS, self._lost):
            self.abort()

    def say_close(self, close: Close) -> None:
        """Send `close` unless a close was sent before, without waiting for anything."""
        self._closing = True
        self._inbox.clear()
        if self._transport is None:
            return
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(close.code, close.reason)
            self._flush()
        # Unread data would make the kernel answer our FIN with a RST, which can overtake the close frame.
        self._resume_reading()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abortConnection()

    # --- called by daphne.py ---

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        self._protocol.receive_data(data)
        for frame in self._protocol.events_received():
            assert isinstance(frame, Frame)
            self._frame_received(frame)
        self._flush(only_pongs=self._protocol.state is State.OPEN)
        if self._protocol.close_rcvd is not None:
            received = self._protocol.close_rcvd
            self._leave(LinkClosed(self, Close(None if received.code == 1005 else received.code, received.reason)))
        elif self._protocol.parser_exc is not None and self._protocol.close_sent is not None:
            sent = self._protocol.close_sent
            self._leave(LinkClosed(self, None, refused=Close(sent.code, sent.reason)))

    def connection_lost(self) -> None:
        self._protocol.receive_eof()
        self._cancel_departure_check()
        self._leave(LinkClosed(self, None))
        self._outbox.clear()
        self._outbox_bytes = 0
        self._drained.set()
        self._transport = None  # breaks the cycle: transport → protocol → link → transport
        self._lost.set()

    # --- the transport's flow control (IPushProducer) ---

    def pauseProducing(self) -> None:
        self._writable = False

    def resumeProducing(self) -> None:
        self._writable = True
        self.heard_at = self._loop.time()  # it has taken bytes: it lives
        self._push()

    def stopProducing(self) -> None:
        self._writable = False

    # --- reading ---

    def _frame_received(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            is_text = frame.opcode is Opcode.TEXT
            if frame.fin:
                self._message_received(frame.data, is_text)
            else:
                self._partial, self._partial_is_text = bytearray(frame.data), is_text
        elif frame.opcode is Opcode.CONT and self._partial is not None:
            self._partial += frame.data
            if frame.fin:
                whole, self._partial = self._partial, None
                self._message_received(whole, self._partial_is_text)

    def _message_received(self, data: Any, is_text: bool) -> None:
        if self._gone.done() or self._closing:
            return  # nobody will take it, and its answer to our close is behind it
        message: Message
        try:
            message = bytes(data).decode() if is_text else bytes(data)
        except UnicodeDecodeError:
            self._protocol.fail(1007, "text that is not UTF-8")
            self._leave(LinkClosed(self, None, refused=Close(1007, "text that is not UTF-8")))
            return
        self.received_frames += 1
        self.received_bytes += len(data)
        self._inbox.put(message)

    def _pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pauseProducing()
            self._departure_check = self._loop.call_later(DEPARTURE_CHECK_SECONDS, self._check_departure)

    def _resume_reading(self) -> None:
        self._cancel_departure_check()
        self.heard_at = self._loop.time()  # it was kept from sending until now
        if self._transport is not None:
            self._transport.resumeProducing()

    def _check_departure(self) -> None:
        watch = select.poll()
        watch.register(self._transport.fileno(), select.POLLRDHUP)
        if watch.poll(0):
            self.abort()  # it closed its connection behind data that we have not read
            return
        # Where even its FIN is stuck behind data that the kernel has no room for, a frame of ours makes it say RST.
        if not self._outbox:
            self.ping()
        self._departure_check = self._loop.call_later(DEPARTURE_CHECK_SECONDS, self._check_departure)

    def _cancel_departure_check(self) -> None:
        if self._departure_check is not None:
            self._departure_check.cancel()
            self._departure_check = None

    # --- writing ---

    def _flush(self, only_pongs: bool = False) -> None:
        for data in self._protocol.data_to_send():
            if not data:
                self._wants_eof = True
                continue
            if only_pongs:
                self._waiting_pong_bytes += len(data)
            if not only_pongs or self._waiting_pong_bytes <= PONG_BYTES:
                self._outbox_bytes += len(data)
                self._outbox.extend(data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES))
        self._push()

    def _push(self) -> None:
        while self._outbox and self._writable and self._transport is not None:
            piece = self._outbox.popleft()
            self._outbox_bytes -= len(piece)
            self._transport.write(piece)
        if self._outbox:
            self._drained.clear()
            return
        self._waiting_pong_bytes = 0
        self._drained.set()
        if self._wants_eof:
            self._wants_eof = False
            self._end_writing()

    def _end_writing(self) -> None:
        half_close = IHalfCloseableDescriptor.providedBy(self._transport) and not self.secure
        if self._protocol.close_rcvd is None and half_close:
            # It has more to send than we will take: it sees our close and an end; close() reads on, bounded.
            self._transport.loseWriteConnection()
        else:
            self._lose_connection()

    def _lose_connection(self) -> None:
        if self._transport is not None:
            self._transport.unregisterProducer()  # else Twisted waits for us to produce
            self._transport.loseConnection()

    def _leave(self, closed: LinkClosed) -> None:
        self._inbox.end(closed)
        if not self._gone.done():
            self._gone.set_result(closed)


async def _within(seconds: float, event: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
    return event.is_set()
