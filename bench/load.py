"""Client and replica in one process: opens sessions through a proxy and answers them behind it.

One thread and one epoll for both ends, so that neither waits for the other's turn on their core. Called by measure.py;
traffic.py moves the frames. Must not measure the proxy: it only says when a session could be used.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bench.frames import DEFLATE_ANSWER, DEFLATE_OFFER, close_frame, first_frame, frame_length

Address = tuple[str, int]

# Set on both ends of the load, so that 500 sessions do not run into the kernel's limit for all of TCP.
SEND_BUFFER_BYTES = 256 * 1024
OPEN_SECONDS = 30.0
CLOSE_SECONDS = 2.0
KEY = base64.b64encode(b"benchmark client").decode()
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class LoadFault(Exception):
    """A proxy did not carry what it was given."""


@dataclass
class Sessions:
    """Open sessions: as many sockets on either side, in no common order."""

    clients: list[socket.socket] = field(default_factory=list)
    replicas: list[socket.socket] = field(default_factory=list)
    seconds: float = 0.0  # from the first connect to the last first frame

    def close(self) -> None:
        for sock in self.clients + self.replicas:
            sock.close()


class Load:
    """The replica's listening socket, and the clients."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.address: Address = self.listener.getsockname()
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._sessions = Sessions()
        self._deflate = False
        self._watch(self.listener, self._accept)

    def close(self) -> None:
        """Stop listening; sockets that a broken case left are closed too."""
        self._poll.close()
        self.listener.close()
        self._sessions.close()

    def run_until(self, condition: Callable[[], bool], seconds: float = OPEN_SECONDS) -> None:
        """Serve until `condition`. Raises LoadFault when that takes longer than `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            for fd, _ in self._poll.poll(0.05):
                if handler := self._handlers.get(fd):
                    handler()
            if time.monotonic() > deadline:
                raise LoadFault(f"not within {seconds:g} s")

    @contextlib.contextmanager
    def sessions(self, proxy: Address, count: int, *, deflate: bool, in_flight: int = 1) -> Iterator[Sessions]:
        """`count` sessions through `proxy`, all usable; closed with a handshake at the end of the block."""
        self._sessions, self._deflate = Sessions(), deflate
        found = self._sessions
        try:
            self._open(found, proxy, count, in_flight)
            yield found
            self._say_goodbye(found)
        finally:
            for sock in found.clients + found.replicas:
                self._forget(sock)
            found.close()

    # --- the client ---

    def _open(self, found: Sessions, proxy: Address, count: int, in_flight: int) -> None:
        usable = 0

        def ready() -> None:
            nonlocal usable
            usable += 1

        began = time.perf_counter()
        for index in range(count):
            self.run_until(lambda index=index: index - usable < in_flight)  # type: ignore[misc]
            self._connect(found, proxy, ready)
        self.run_until(lambda: usable == count)
        found.seconds = time.perf_counter() - began
        if len(found.replicas) != count:
            raise LoadFault(f"{len(found.replicas)} connections to the replica for {count} sessions")

    def _connect(self, found: Sessions, proxy: Address, ready: Callable[[], None]) -> None:
        sock = socket.create_connection(proxy, timeout=5)
        _prepare(sock)
        found.clients.append(sock)
        offer = f"Sec-WebSocket-Extensions: {DEFLATE_OFFER}\r\n" if self._deflate else ""
        sock.send(
            f"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1:{proxy[1]}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n".encode()
        )
        received = b""

        def readable() -> None:
            nonlocal received
            received += self._read(sock)
            head, _, frames = received.partition(b"\r\n\r\n")
            length = frame_length(frames)
            if length is not None and len(frames) >= length:
                if not head.startswith(b"HTTP/1.1 101") or frames[0] & 0x0F != 1:
                    raise LoadFault(f"a session began with {head[:40]!r} {frames[:40]!r}")
                self._forget(sock)
                ready()

        self._watch(sock, readable)

    # --- the replica ---

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self.listener.accept()
                _prepare(sock)
                self._watch(sock, self._request_reader(sock))

    def _request_reader(self, sock: socket.socket) -> Callable[[], None]:
        request = b""

        def readable() -> None:
            nonlocal request
            try:
                request += self._read(sock)
            except LoadFault:  # a proxy that looked whether we are there
                self._forget(sock)
                sock.close()
                return
            if request.endswith(b"\r\n\r\n"):
                self._forget(sock)
                self._answer(sock, request)

        return readable

    def _answer(self, sock: socket.socket, request: bytes) -> None:
        headers = {
            name.strip().lower(): value.strip() for name, _, value in map(_partition, request.split(b"\r\n")[1:])
        }
        key = headers.get(b"sec-websocket-key")
        if key is None:  # a probe of the health check
            sock.send(b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\nConnection: close\r\n\r\n{"status": "ok"}')
            sock.close()
            return
        accept = base64.b64encode(hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest()).decode()
        agreed = self._deflate and b"permessage-deflate" in headers.get(b"sec-websocket-extensions", b"")
        extension = f"Sec-WebSocket-Extensions: {DEFLATE_ANSWER}\r\n" if agreed else ""
        sock.send(
            f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{extension}\r\n".encode()
            + first_frame()
        )
        self._sessions.replicas.append(sock)

    # --- both ---

    def _say_goodbye(self, found: Sessions) -> None:
        """Clients close with 1000, replicas answer; what has not ended after CLOSE_SECONDS is dropped."""
        left = len(found.clients) + len(found.replicas)

        def ended(sock: socket.socket) -> None:
            nonlocal left
            left -= 1
            self._forget(sock)
            sock.close()

        def reader(sock: socket.socket, answers: bool) -> Callable[[], None]:
            def readable() -> None:
                try:
                    data = self._read(sock)
                except LoadFault:
                    ended(sock)
                    return
                if answers and _ends_with_close(data):
                    with contextlib.suppress(OSError):
                        sock.send(close_frame(masked=False))
                        sock.shutdown(socket.SHUT_WR)

            return readable

        for sock in found.replicas:
            self._watch(sock, reader(sock, answers=True))
        for sock in found.clients:
            self._watch(sock, reader(sock, answers=False))
            with contextlib.suppress(OSError):
                sock.send(close_frame(masked=True))
        with contextlib.suppress(LoadFault):
            self.run_until(lambda: left == 0, CLOSE_SECONDS)

    def _read(self, sock: socket.socket) -> bytes:
        """What has come. Raises LoadFault when the peer is gone."""
        try:
            data = sock.recv(1024 * 1024)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise LoadFault(f"connection lost: {os.strerror(error.errno or 0)}") from error
        if not data:
            raise LoadFault("connection closed")
        return data

    def _watch(self, sock: socket.socket, handler: Callable[[], None]) -> None:
        self._handlers[sock.fileno()] = handler
        self._poll.register(sock.fileno(), select.EPOLLIN)

    def _forget(self, sock: socket.socket) -> None:
        if sock.fileno() in self._handlers:
            del self._handlers[sock.fileno()]
            self._poll.unregister(sock.fileno())


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)


def _partition(line: bytes) -> tuple[bytes, bytes, bytes]:
    return line.partition(b":")


def _ends_with_close(data: bytes) -> bool:
    """A masked close frame at the end, with a code, without one, or alone with whatever reason."""
    return data[-8:-6] == b"\x88\x82" or data[-6:-4] == b"\x88\x80" or (data[:1] == b"\x88" and len(data) <= 131)
