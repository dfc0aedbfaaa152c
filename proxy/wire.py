"""A peer by the octets of its connection: every replica, and the client under Daphne.

An asyncio protocol around scanner.Scanner. What the peer sends goes to the sink as slices of what was read, what it is
sent goes to the socket without a copy; control frames are the only ones that are looked into. Made by upstream.py
behind the opening handshake and by daphne.py behind the 101. Must not know the other side, nor how a session ends.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from django.conf import settings

from proxy import frames, sockets
from proxy.errors import POLICY_VIOLATION, Close
from proxy.frames import CloseFrame, Control, Fault, Octets, Unit
from proxy.intake import Intake
from proxy.links import Departure, Link, Sink
from proxy.scanner import Scanner
from proxy.watch import Watch

# What is written and the kernel does not take at once is kept up to HIGH_BYTES, then the other side is paused, and
# resumed at LOW_BYTES. One read of the other side may come on top.
HIGH_BYTES, LOW_BYTES = 256 * 1024, 64 * 1024
# Pongs for a client that pings and does not read: past this its pings go unanswered (RFC 6455 §5.5.3).
PONG_BYTES = 64 * 1024
# At the end: for the peer's answer to a close; for it to take PROGRESS_BYTES of what was written; for its hang-up.
CLOSE_SECONDS, STALL_SECONDS, HANG_UP_SECONDS = 5.0, 8.0, 1.0


class WireLink(asyncio.Protocol):
    """One peer, from the end of its opening handshake on. See links.Link.

    `client`: is the peer one? A client's frames are masked, those of ours to a replica are (§5.1).
    """

    by_frames = True

    __slots__ = (
        "_client", "_deaf", "_early", "_fd", "_left_unfinished", "_loop", "_lost", "_pong_bytes", "_room",
        "_said_close", "_scanner", "_sink", "_token", "_transport", "_watch", "_when_lost", "answers_pings", "gone",
        "heard_at", "intake", "over", "received", "secure", "source", "written",
    )  # fmt: skip

    def __init__(
        self, *, client: bool, secure: bool = False, early: bytes = b"", when_lost: Callable[[], None] | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._scanner = Scanner(masked=client, max_message_bytes=settings.ROUTER_MAX_MESSAGE_BYTES)
        self._client = client
        self._when_lost = when_lost
        self.secure = secure
        self.answers_pings = True
        self.source: Link | None = None
        self.gone: asyncio.Future[Departure] = self._loop.create_future()

        self._transport: Any = None
        self._fd = -1  # where frames are written past the transport; -1: only through it (TLS)
        self._watch: Watch | None = None
        self.heard_at = 0.0
        self.received = self.written = 0  # octets
        # The payload of our pings. Not to be guessed: a pong that has it is for us, any other for the other side.
        self._token = secrets.token_bytes(8)

        self._sink: Sink | None = None
        self._early = early  # what came of the peer's frames in one piece with its handshake
        self.intake = Intake()
        self._left_unfinished: bool | None = None
        self._room: asyncio.Future[None] | None = None  # while the peer takes no more
        self._pong_bytes = 0  # of pongs that may not have been taken
        self._said_close = False
        self._deaf = False  # the peer takes no more, ever
        self.over: asyncio.Future[None] = self._loop.create_future()  # the peer has closed, or its connection is lost
        self._lost: asyncio.Future[None] = self._loop.create_future()

    @property
    def received_frames(self) -> int:
        return self._scanner.frames

    @property
    def received_bytes(self) -> int:
        return self._scanner.payload_bytes

    @property
    def unfinished(self) -> bool:
        return self._scanner.unfinished if self._left_unfinished is None else self._left_unfinished

    @property
    def partial(self) -> bool:
        return self._scanner.partial

    # --- the transport's side (asyncio.Protocol) ---

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(HIGH_BYTES, LOW_BYTES)
        self.intake.begin(transport, self._scan)  # resumed by start()
        self.heard_at = self._loop.time()
        sock = transport.get_extra_info("socket")
        fd = sock.fileno() if sock is not None else -1
        self._fd = fd if transport.get_extra_info("sslcontext") is None else -1
        # A replica's end behind octets that we do not read is no departure: its client may be slow to take them.
        self._watch = Watch(self, fd, finds_departures=self._client)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self.intake.has_read(len(data))
        self._scan(data)

    def _scan(self, data: bytes = b"") -> None:
        """Hand on a portion. After a fault of who takes it the stream would have a hole: it ends there."""
        self.heard_at = self._loop.time()
        scanner = self._scanner
        events = scanner.events
        try:
            units = scanner.feed(data)
            if scanner.events != events:
                self._sort(units)
            elif units and self._sink is not None:
                self._sink(units)  # type: ignore[arg-type]  # no event is among them
        except BaseException:
            self._leave(Departure(None, "fault of the router"))
            raise
        if scanner.more:
            self.intake.ask_for_turn()

    def eof_received(self) -> None:
        self._fd = -1  # the transport closes itself
        self._hand_on_the_rest(lambda: self._leave(Departure(None)))

    def connection_lost(self, exc: Exception | None) -> None:
        # Of a buffered write that failed while reading was paused: what came before is still in the kernel.
        left = sockets.left(self._fd) if isinstance(exc, OSError) and not self.gone.done() else b""
        self._fd = -1
        if self._watch is not None:
            self._watch.end()
        self._hand_on_the_rest(self._lose, left)

    def _hand_on_the_rest(self, then: Callable[[], None], data: bytes = b"") -> None:
        """What was read before the connection ended, in portions too."""
        try:
            if not self.gone.done():
                self._scan(data)
        finally:
            if self._scanner.more and not self.gone.done():
                self._loop.call_soon(self._hand_on_the_rest, then)
            else:
                then()

    def _lose(self) -> None:
        self._leave(Departure(None))
        # Not left to the link's own end: it may stand in a cycle of Daphne's until the collector comes by.
        self._transport, self.source, self._early = None, None, b""
        self._scanner.end()
        self.intake.end()
        self.resume_writing()
        for future in (self.over, self._lost):
            if not future.done():
                future.set_result(None)
        if self._when_lost is not None:
            when_lost, self._when_lost = self._when_lost, None
            when_lost()

    def pause_writing(self) -> None:
        self._room = self._loop.create_future()
        if self.source is not None:
            self.source.pause_reading()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set_result(None)
        if self.source is not None:
            self.source.resume_reading()

    # --- reading ---

    def start(self, sink: Sink) -> None:
        self.redirect(sink)
        self.resume_reading()
        early, self._early = self._early, b""
        if early:
            self.data_received(early)

    def redirect(self, sink: Sink) -> None:
        if not self.gone.done():
            self._sink = sink

    def pause_reading(self) -> None:
        if not self.intake.paused and self._transport is not None and not self._said_close:
            self.intake.pause()
            if self._watch is not None:
                self._watch.reading_paused()

    def resume_reading(self) -> None:
        if self.intake.paused and self._transport is not None:
            self.intake.resume()
            self.heard_at = self._loop.time()  # it was kept from sending until now

    def _sort(self, units: list[Unit]) -> None:
        """Take what is for us out of `units`; the rest goes on, in order."""
        run: list[Octets] = []
        for unit in units:
            if isinstance(unit, Control):
                if self.answers_pings:
                    if unit.opcode == frames.PING:
                        self._answer(unit.payload)
                elif unit.payload != self._token:
                    run.append(unit.octets)
            elif isinstance(unit, CloseFrame | Fault):
                if run and self._sink is not None:
                    self._sink(run)
                run = []
                self._ended(unit)
            else:
                run.append(unit)
        if run and self._sink is not None:
            self._sink(run)

    def _ended(self, last: CloseFrame | Fault) -> None:
        if isinstance(last, Fault):
            self._leave(Departure(None, last.reason, refused=Close(last.code, last.reason)))
            return
        close = Close(last.code, last.reason)
        self._leave(Departure(close, "closed"))
        self.say_close(close)  # its echo (§5.5.1), unless it was ours that it answers
        if not self.over.done():
            self.over.set_result(None)

    def _leave(self, departure: Departure) -> None:
        self._sink = None
        if not self.gone.done():
            self._left_unfinished = self._scanner.unfinished  # what still comes is handed to nobody
            self.gone.set_result(departure)

    # --- writing ---

    def write(self, units: Sequence[Octets]) -> None:
        if not self._said_close:
            self._send(units)

    def send_text(self, text: str) -> None:
        self.write([frames.build(frames.TEXT, text.encode(), self._new_mask())])

    async def writable(self) -> None:
        if self._room is not None:
            await asyncio.wait({self._room})

    @property
    def unsent(self) -> int:
        """Octets written that the kernel has not taken."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def ping(self) -> None:
        self.write([frames.build(frames.PING, self._token, self._new_mask())])

    def _answer(self, payload: bytes) -> None:
        if not self.unsent:
            self._pong_bytes = 0
        if self._pong_bytes < PONG_BYTES:
            pong = frames.build(frames.PONG, payload, self._new_mask())
            self._pong_bytes += len(pong)
            self.write([pong])

    def _send(self, units: Sequence[Octets]) -> None:
        """Straight to the socket while nothing waits before it; what it does not take waits in the transport."""
        if self._deaf:
            return
        sent = 0
        if self._fd >= 0 and not self._transport.get_write_buffer_size():
            try:
                sent = sockets.write(self._fd, units)
            except OSError:
                # What the peer sent before it left is still there to be read, and tells how it left.
                self._fd, self._deaf = -1, True
                return
        size = len(units[0]) if len(units) == 1 else sum(map(len, units))
        self.written += size
        if sent < size and self._transport is not None and not self._transport.is_closing():
            for piece in sockets.behind(sent, units):
                self._transport.write(piece)

    def _new_mask(self) -> bytes:
        return b"" if self._client else secrets.token_bytes(4)

    # --- the end ---

    def refuse(self, close: Close | None, why: str) -> None:
        self._leave(Departure(None, why, refused=close))

    def say_close(self, close: Close) -> None:
        if not self._said_close:
            self._send([frames.build_close(close.code, close.reason, self._new_mask())])
            self._said_close = True
            self._sink = None
            self.resume_reading()  # what it still sends is dropped, up to its answer

    async def close(self, close: Close) -> None:
        if self._watch is None:
            return  # no connection was made
        departure = self.gone.result() if self.gone.done() else None
        refused = departure.refused if departure is not None else None
        self.say_close(close)
        if departure is not None and departure.close is None:
            if refused is None:
                self.abort()  # it is not there to hear anything
            else:
                self._end_writing()  # a large message may be on its way here: it sees our close, and an end
        # One that was waited for a whole stall limit is not waited for again.
        patience = 0.0 if refused is not None and refused.code == POLICY_VIOLATION else STALL_SECONDS
        if not await self._watch.wait(self.over, CLOSE_SECONDS, patience):
            if self._watch.outstanding():
                self.abort()  # it takes nothing, not even our end
            self._end_writing()
        elif self._client:
            self._close_transport()  # of the two it is the server who ends the connection first (§7.1.1)
        if not await self._watch.wait(self._lost, HANG_UP_SECONDS, patience):
            self.abort()
            await asyncio.wait({self._lost})

    def abort(self, why: str = "vanished") -> None:
        self._leave(Departure(None, why))
        if self._transport is None:
            return
        sock = self._transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sockets.reset_at_close(sock)  # so that the kernel keeps nothing for a peer that takes nothing
        self._fd = -1
        self._transport.abort()

    def _end_writing(self) -> None:
        if self._transport is not None and not self._transport.is_closing() and self._transport.can_write_eof():
            self._fd = -1
            self._transport.write_eof()
        else:
            self._close_transport()

    def _close_transport(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._fd = -1
            self._transport.close()  # once: asyncio's TLS cannot be asked anything behind a second one
