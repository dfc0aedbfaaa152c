"""WebSocket peers octet by octet: clients and replicas that stop in mid-frame, break rules, count, and do not read.

Used where a library would be too well-behaved. Builds and parses frames by itself (RFC 6455 §5.2), so that it cannot
share a mistake with proxy/frames.py. Knows nothing of the router.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from websockets.frames import apply_mask

from tests.serving import stop_serving

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
PATIENCE_SECONDS = 60  # for anything at all to happen: a loaded machine is no failure
T = TypeVar("T")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class HalfFrame(Exception):
    """The connection ended inside a frame: what must never happen to a client."""


class Frame(NamedTuple):
    opcode: int
    fin: bool
    payload: bytes


@dataclass
class Last:
    """All that a peer was sent up to the end of its connection. `close` is (code, reason), None without one."""

    messages: list[str | bytes] = field(default_factory=list)
    unfinished: bool = False  # it ends inside a message
    close: tuple[int | None, str] | None = None
    after_close: bytes = b""


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bytes = b"", rsv: int = 0) -> bytes:
    return head(opcode, len(payload), fin=fin, mask=mask, rsv=rsv) + (apply_mask(payload, mask) if mask else payload)


def head(opcode: int, length: int, *, fin: bool = True, mask: bytes = b"", rsv: int = 0) -> bytes:
    """A frame's header alone: what a peer that dies in mid-frame has sent of it."""
    first, bit = fin << 7 | rsv << 4 | opcode, 0x80 if mask else 0
    if length < 126:
        return struct.pack("!BB", first, bit | length) + mask
    if length < 65_536:
        return struct.pack("!BBH", first, bit | 126, length) + mask
    return struct.pack("!BBQ", first, bit | 127, length) + mask


def close_frame(code: int | None = 1000, reason: str = "", *, mask: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode(), mask=mask)


class Parser:
    """Octets in, whole frames out, unmasked. `rest` is the beginning of a frame whose end has not come."""

    def __init__(self) -> None:
        self.rest = bytearray()
        self._needed = 2  # not worth a try with fewer octets

    def feed(self, data: bytes) -> list[Frame]:
        self.rest += data
        if len(self.rest) < self._needed:
            return []
        octets, at, found = bytes(self.rest), 0, []
        while (end := self._end(octets, at)) is not None:
            body, length, mask = end
            payload = octets[body : body + length]
            found.append(Frame(octets[at] & 15, octets[at] > 127, apply_mask(payload, mask) if mask else payload))
            at = body + length
        if at:
            del self.rest[:at]
            self._needed -= at
        return found

    def _end(self, octets: bytes, at: int) -> tuple[int, int, bytes] | None:
        size = len(octets)
        self._needed = at + 2
        if size < self._needed:
            return None
        length, masked, body = octets[at + 1] & 127, octets[at + 1] > 127, at + 2
        if length >= 126:
            extra = 2 if length == 126 else 8
            self._needed = body + extra
            if size < self._needed:
                return None
            length, body = int.from_bytes(octets[body : body + extra], "big"), body + extra
        mask = octets[body : body + 4] if masked else b""
        body += len(mask) if not masked else 4
        self._needed = body + length
        return None if size < self._needed else (body, length, mask)


async def soon(awaited: Awaitable[T]) -> T:
    """What is awaited, within PATIENCE_SECONDS: a test that fails must also end."""
    return await asyncio.wait_for(awaited, PATIENCE_SECONDS)


class Peer:
    """One end of a WebSocket, behind its handshake. `client`: are we one? Then our frames carry masks.

    Pings are answered by whoever reads (`frame`, `rest`), unless `answers_pings` is turned off; `pings` counts them.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, client: bool) -> None:
        self.reader, self.writer, self.client = reader, writer, client
        self.answers_pings = True
        self.pings = 0
        self.pongs: list[bytes] = []
        self._parser = Parser()
        self._frames: list[Frame] = []

    @property
    def new_mask(self) -> bytes:
        return os.urandom(4) if self.client else b""

    @property
    def ports(self) -> tuple[int, int]:
        """This end's and the far end's."""
        return self.writer.get_extra_info("sockname")[1], self.writer.get_extra_info("peername")[1]

    async def send(self, octets: bytes) -> None:
        self.writer.write(octets)
        await soon(self.writer.drain())

    async def say(self, message: str | bytes) -> None:
        opcode, payload = (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)
        await self.send(frame(opcode, payload, mask=self.new_mask))

    async def ping(self, payload: bytes = b"") -> None:
        await self.send(frame(PING, payload, mask=self.new_mask))

    async def close(self, code: int | None = 1000, reason: str = "") -> None:
        await self.send(close_frame(code, reason, mask=self.new_mask))

    def abort(self) -> None:
        """A reset, as from a process that was killed with unread data."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def fall_silent(self) -> None:
        """Read no more: not even into a buffer of this process."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def frame(self) -> Frame | None:
        """The next frame that is no ping or pong; None at the end of the connection. Raises HalfFrame."""
        while True:
            while self._frames:
                found = self._frames.pop(0)
                if found.opcode == PING:
                    self.pings += 1
                    if self.answers_pings:
                        self.writer.write(frame(PONG, found.payload, mask=self.new_mask))
                elif found.opcode == PONG:
                    self.pongs.append(found.payload)
                else:
                    return found
            data = await soon(self.reader.read(256 * 1024))
            if not data:
                if self._parser.rest:
                    raise HalfFrame(f"{len(self._parser.rest)} octets of a frame, then the end")
                return None
            self._frames = self._parser.feed(data)

    async def message(self) -> str | bytes | None:
        """The next message, put together from its fragments; None at a close or the end."""
        opcode, payload = 0, bytearray()
        while (found := await self.frame()) is not None and found.opcode != CLOSE:
            opcode = opcode or found.opcode
            payload += found.payload
            if found.fin:
                return payload.decode() if opcode == TEXT else bytes(payload)
        return None

    async def rest(self) -> Last:
        """Read to the end of the connection, and close it; a close is answered. Raises HalfFrame."""
        last, opcode, payload = Last(), 0, bytearray()
        with contextlib.suppress(ConnectionError):  # a reset is an end too
            while (found := await self.frame()) is not None:
                if last.close is not None:
                    last.after_close += found.payload or b"?"
                elif found.opcode == CLOSE:
                    code = int.from_bytes(found.payload[:2], "big") if found.payload else None
                    last.close, last.unfinished = (code, found.payload[2:].decode()), opcode != 0
                    with contextlib.suppress(ConnectionError):
                        await self.send(frame(CLOSE, found.payload[:2], mask=self.new_mask))
                        if not self.client:
                            break
                else:
                    assert (found.opcode == CONTINUATION) is (opcode != 0), "a message inside another one"
                    opcode = opcode or found.opcode
                    payload += found.payload
                    if found.fin:
                        last.messages.append(payload.decode() if opcode == TEXT else bytes(payload))
                        opcode, payload = 0, bytearray()
        self.writer.close()
        last.unfinished = last.unfinished or opcode != 0
        return last


async def raw_client(
    port: int = 0,
    *,
    unix: str = "",
    tls: ssl.SSLContext | None = None,
    early: bytes = b"",
    receive_buffer: int = 0,
    path: str = "/v1/stream",
    headers: Mapping[str, str] | None = None,
) -> Peer:
    """Upgrade at a router, on 127.0.0.1 or a Unix socket. `early` goes in one piece with the request."""
    sock = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
    sock.setblocking(False)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)  # before connect: it bounds the window
    try:
        await asyncio.get_running_loop().sock_connect(sock, unix or ("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    named = {"server_hostname": "localhost"} if tls else {}
    reader, writer = await asyncio.open_connection(sock=sock, ssl=tls, **named, limit=64 * 1024)
    key = base64.b64encode(os.urandom(16))
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n".encode()
        + "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items()).encode()
        + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
        + key
        + b"\r\n\r\n"
        + early
    )
    answer = await soon(reader.readuntil(b"\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    peer = Peer(reader, writer, client=True)
    _clients.append(peer)
    return peer


async def hang_up() -> None:
    """Close what raw_client() has opened and a test, failed or not, has left open."""
    while _clients:
        peer = _clients.pop()
        if not peer.writer.is_closing():
            peer.abort()
    await asyncio.sleep(0)


_clients: list[Peer] = []

Talk = Callable[[Peer], Awaitable[None]]


@dataclass
class RawReplica:
    """A replica of raw_replica(). `peers` are its sessions."""

    url: str = ""
    peers: list[Peer] = field(default_factory=list)
    _arrival: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def wait_peer(self, count: int = 1) -> Peer:
        async with asyncio.timeout(PATIENCE_SECONDS), self._arrival:
            await self._arrival.wait_for(lambda: len(self.peers) >= count)
        return self.peers[count - 1]

    async def arrived(self, peer: Peer) -> None:
        async with self._arrival:
            self.peers.append(peer)
            self._arrival.notify_all()


async def hold_on(peer: Peer) -> None:
    """The test itself drives the peer, which it gets from wait_peer()."""
    await asyncio.Event().wait()


async def echo(peer: Peer) -> None:
    """Every frame goes back as it came; a close too."""
    while (found := await peer.frame()) is not None:
        await peer.send(frame(found.opcode, found.payload, fin=found.fin))
        if found.opcode == CLOSE:
            return


@contextlib.asynccontextmanager
async def raw_replica(talk: Talk = hold_on, *, first: bytes = b"", **options: Any) -> AsyncIterator[RawReplica]:
    """A server that upgrades anything and then lets `talk` drive; `first` goes in one piece with its 101."""
    replica, tasks = RawReplica(), set[asyncio.Task[None]]()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            key = request.lower().partition(b"sec-websocket-key: ")[2]
            key = request[len(request) - len(key) :].partition(b"\r\n")[0]
            accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + first
            )
            peer = Peer(reader, writer, client=False)
            await replica.arrived(peer)
            await talk(peer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=64 * 1024, backlog=4096, **options)
    replica.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield replica
    finally:
        await stop_serving(server)
        for task in tasks.copy():
            task.cancel()
        await asyncio.gather(*tasks)
