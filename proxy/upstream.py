"""Open a replica's WebSocket with the websockets client; its errors become ours here.

Called by the consumer, which tries one replica after the other. No error of this module carries an address, a URL or
a library's text to a client: those are in `__cause__`, for the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any
from weakref import WeakSet

from django.conf import settings
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.protocol import State

from proxy.errors import TOO_BIG, Close
from proxy.forwarding import Handshake
from proxy.links import LinkClosed, Message

# A replica that has stopped reading is given this long to take a close, then its connection is aborted.
CLOSE_SECONDS = 2.0
# A server ends TCP after the closing handshake (RFC 6455 §7.1.1); for one that does not, this is waited.
HANG_UP_SECONDS = 1.0
# Messages read ahead of the client: one being sent, one behind it. More would be memory, up to 48 MiB each.
READ_AHEAD_MESSAGES = 1


# asyncio resolves host names in its default executor, which has a few threads: as many look-ups that hang would stop
# those of every other replica.
RESOLVER_THREADS = 64
_loops_with_resolver: WeakSet[asyncio.AbstractEventLoop] = WeakSet()


class ReplicaUnreachable(Exception):
    """This replica did not give us a session; another may. The text is short and for the log."""


class ReplicaRefused(Exception):
    """The replica said 401 or 403: so would the next one, the credentials are the router's or the client's."""


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception:
        return exc  # a redirect is a failure (contract A7.11): it could lead anywhere


class _Connection(ClientConnection):
    """Notes when bytes came (any byte is a sign of life, not just a pong), and lets go of what has ended.

    The library reports the end of a connection only when TCP has ended, for which it waits without a bound.
    """

    heard_at = 0.0
    _hanging_up: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        self.heard_at = self.loop.time()
        super().data_received(data)
        broken = self.protocol.parser_exc is not None
        if (broken or self.protocol.close_rcvd is not None) and self._hanging_up is None:
            self._hanging_up = self.loop.call_later(HANG_UP_SECONDS, self.transport.abort)
            if broken:
                self.transport.close()  # after the close frame that says so is out; nothing more is read

    def connection_lost(self, exc: Exception | None) -> None:
        if self._hanging_up is not None:
            self._hanging_up.cancel()
        super().connection_lost(exc)


class ReplicaLink:
    """A replica's side of a relay, by messages."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.received_frames = self.received_bytes = 0
        self._resumed_at = 0.0

    @property
    def heard_at(self) -> float | None:
        return max(self._connection.heard_at, self._resumed_at)

    @property
    def paused(self) -> bool:
        return self._connection.recv_messages.paused

    async def receive(self) -> Message:
        was_paused = self.paused
        try:
            message = await self._connection.recv()
        except ConnectionClosed as error:
            raise self._departure() from error
        if was_paused:
            # It was kept from sending until now: its silence begins to count here.
            self._resumed_at = self._connection.loop.time()
        self.received_frames += 1
        self.received_bytes += len(message)
        return message

    async def send(self, message: Message) -> None:
        try:
            await self._connection.send(message)
        except (ConnectionClosed, AttributeError) as error:
            if not self._lost:
                raise
            raise self._departure() from error

    def ping(self) -> None:
        # Past ping(), which would wait while the replica does not read: liveness must not.
        if self._connection.protocol.state is State.OPEN:
            self._connection.protocol.send_ping(b"")
            self._connection.send_data()

    async def close(self, close: Close) -> None:
        # Its answer comes behind what it has sent: a reader that is held back would never see it.
        discarding = asyncio.create_task(self._discard(), name="discard a replica's last messages")
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                # None makes a close frame without a code.
                await self._connection.close(close.code, close.reason)  # type: ignore[arg-type]
        except (TimeoutError, AttributeError):
            pass  # it stopped reading: close() would wait for it past its own timeout
        finally:
            discarding.cancel()
            self.abort()

    async def _discard(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._connection.recv()

    def abort(self) -> None:
        if not self._lost:
            self._connection.transport.abort()

    @property
    def _lost(self) -> bool:
        # asyncio's abort() raises AttributeError on a transport that closed itself after its last flush. The library
        # calls it in that state too: after this, an AttributeError of its calls means no more than "closed".
        return self._connection.connection_lost_waiter.done()

    def _departure(self) -> LinkClosed:
        protocol = self._connection.protocol
        received, sent = protocol.close_rcvd, protocol.close_sent
        if received is not None:
            return LinkClosed(self, Close(None if received.code == 1005 else received.code, received.reason))
        if sent is not None and sent.code == TOO_BIG:
            return LinkClosed(self, None, "message over the limit", refused=Close(TOO_BIG))
        if sent is not None:
            return LinkClosed(self, None, "broke the WebSocket protocol", refused=Close(sent.code))
        return LinkClosed(self, None, "connection lost")


async def open_replica(url: str, handshake: Handshake, timeout: float) -> ReplicaLink:
    """Connect to the replica at `url` (http or https) within `timeout` seconds, name look-up included.

    Raises ReplicaUnreachable, or ReplicaRefused on 401/403. Cancelling it leaves nothing open.
    """
    _give_resolver(asyncio.get_running_loop())
    target = "ws" + url.removeprefix("http") + settings.ROUTER_UPSTREAM_PATH
    if handshake.query:
        target += "?" + handshake.query
    secure: dict[str, Any] = {"ssl": _tls()} if target.startswith("wss:") else {}
    try:
        connection = await _Connect(
            target,
            subprotocols=[handshake.subprotocol] if handshake.subprotocol else None,  # type: ignore[list-item]
            additional_headers=handshake.headers,
            user_agent_header=None,
            compression=None,  # video does not compress (design, decision 6)
            proxy=None,  # the environment's proxies are not meant for replicas (contract A7.11)
            open_timeout=timeout,
            ping_interval=None,  # relay.py watches: the library's keepalive kills a replica that we hold back
            close_timeout=CLOSE_SECONDS,
            max_size=settings.ROUTER_MAX_MESSAGE_BYTES,
            max_queue=READ_AHEAD_MESSAGES,
            create_connection=_Connection,
            **secure,
        )
    except (OSError, InvalidHandshake, InvalidURI) as error:
        raise _translated(error, timeout) from error
    assert isinstance(connection, _Connection)
    if connection.subprotocol != handshake.subprotocol:
        connection.transport.abort()
        raise ReplicaUnreachable("it does not speak the subprotocol that the client was given")
    return ReplicaLink(connection)


def _give_resolver(loop: asyncio.AbstractEventLoop) -> None:
    if loop not in _loops_with_resolver:
        _loops_with_resolver.add(loop)
        loop.set_default_executor(ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolver"))


def _translated(error: Exception, timeout: float) -> Exception:
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status in (401, 403):
            return ReplicaRefused(f"it answered HTTP {status}")
        return ReplicaUnreachable(f"it answered HTTP {status}")
    if isinstance(error, TimeoutError):
        return ReplicaUnreachable(f"no WebSocket within {timeout:g} s")
    if isinstance(error, ssl.SSLError):
        return ReplicaUnreachable(f"TLS failed ({error.reason or type(error).__name__})")
    if isinstance(error, OSError):
        # asyncio puts the address into strerror; the number alone says what went wrong.
        known = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        return ReplicaUnreachable(f"no connection ({known or type(error).__name__})")
    return ReplicaUnreachable(f"its handshake is wrong ({type(error).__name__})")


@cache
def _tls() -> ssl.SSLContext:
    """Replicas' certificates are always checked, against the system's CAs and ROUTER_UPSTREAM_CA_FILE."""
    context = ssl.create_default_context()
    if settings.ROUTER_UPSTREAM_CA_FILE:
        context.load_verify_locations(settings.ROUTER_UPSTREAM_CA_FILE)
    return context
