"""Take a client's connection over from Daphne after the 101. With rehearsal.py, all that knows Daphne's internals.

asgi.py calls `install`. The consumer offers a take-over with its accept message, which
passes through any middleware; other ASGI servers ignore the extra key and the session goes by messages instead.
Plain Daphne can send neither 1011, 1012 or 1013, nor a reason or an empty message; it bounds no queue and ends
connections by timers on the wall clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import daphne.server  # noqa: F401  (first: it installs the asyncio reactor that the next import binds to)
from autobahn.websocket import protocol
from autobahn.websocket.types import ConnectionDeny
from daphne.access import AccessLogGenerator
from daphne.http_protocol import WebRequest
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ReactorNotRunning
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.tcp import Port
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from proxy.ledger import Ledger
from proxy.links import TAKE_OVER, TakeOver
from proxy.sharing import Sharing, say_uneven
from proxy.twisted_transport import TransportBridge, detached_socket
from proxy.wire import WireLink

# Of any request: more than Django takes of a form (DATA_UPLOAD_MAX_MEMORY_SIZE), so that its own answer is seen.
MAX_BODY_BYTES = 4 * 1024 * 1024
# Each takes its time, however short it is: of a body in very many chunks these may be the shortest, on an average.
MANY_CHUNKS, LEAST_CHUNK_BYTES = 1000, 64
_TOO_LONG, _CHUNKS = "_router_body_too_long", "_router_body_chunks"
# For threads that still work when all else has ended: more than the bound on a wait (DATABASE_TIMEOUT_SECONDS).
LEAVE_SECONDS = 3.0

logger = logging.getLogger("proxy.daphne")

HINT = "Install the versions of daphne, autobahn and twisted that pyproject.toml names, or run another ASGI server."


_plain_write_entry = AccessLogGenerator.write_entry


def _write_entry(self: Any, host: str, date: Any, request: str, *details: Any, **more: Any) -> None:
    _plain_write_entry(self, host, date, request.partition("?")[0], *details, **more)


_plain_process = WebRequest.process


def _process(self: Any) -> Any:
    """Daphne takes a path's prefix from anyone who sends this header: /x/admin would be /admin, past a proxy's rule."""
    if _is_too_long(self):
        return None  # its connection is being ended
    self.requestHeaders.removeHeader(b"daphne-root-path")
    return _plain_process(self)


_plain_chunk = WebRequest.handleContentChunk


def _content_chunk(self: Any, data: bytes) -> None:
    """Twisted keeps a body however long it is, and Daphne reads all of it into memory before anyone is asked."""
    if _is_too_long(self):
        return
    # Nor is it a form to Twisted, which would read it for nobody, and some MiB for seconds, while all others wait.
    self._parsePOSTFormSubmission = False
    size, chunks = self.content.tell() + len(data), vars(self).get(_CHUNKS, 0) + 1
    vars(self)[_CHUNKS] = chunks
    if size <= MAX_BODY_BYTES and (chunks <= MANY_CHUNKS or size >= chunks * LEAST_CHUNK_BYTES):
        _plain_chunk(self, data)
        return
    vars(self)[_TOO_LONG] = True
    self.channel.transport.write(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    self.channel.loseConnection()


def _is_too_long(request: Any) -> bool:
    return _TOO_LONG in vars(request)


class StreamProtocol(WebSocketProtocol):
    """Daphne's WebSocket protocol up to the 101; from then on, where offered, only the way to its link."""

    _offer: TakeOver | None = None
    _taken = False
    _bridge: TransportBridge | None = None

    def handle_reply(self, message: dict[str, Any]) -> None:
        if self._taken:
            return  # nothing of Daphne's may be written between our frames
        self._offer = message.get(TAKE_OVER)
        super().handle_reply(message)

    def onConnect(self, request: Any) -> Any:
        # Daphne takes these for ASCII. Where they are not, it logs a traceback and answers 500 with the exception.
        texts = (*request.headers, request.path, request.headers.get("sec-websocket-protocol", ""))
        if not all(text.isascii() for text in texts):
            raise ConnectionDeny(ConnectionDeny.BAD_REQUEST, "path or subprotocol is not ASCII")
        return super().onConnect(request)

    def onOpen(self) -> None:
        super().onOpen()
        offer, self._offer = self._offer, None
        if offer is not None:
            self._taken = True
            offer.connect = self._connect_link
            # The HTTP channel that read the upgrade is still the transport's producer. It and its request hold each
            # other: without this, and what connectionLost does, 60 objects a session are left to the collector.
            channel = getattr(self.transport, "producer", None)
            if isinstance(channel, HTTPChannel):
                channel.requests.clear()
            self.transport.unregisterProducer()
            self.transport.pauseProducing()

    async def _connect_link(self) -> WireLink:
        early, self.data = self.data, b""  # type: ignore[has-type]  # came before the 101 was sent
        secure = bool(ISSLTransport.providedBy(self.transport))
        link = WireLink(client=True, secure=secure, early=early, when_lost=self._end_transport)
        sock = detached_socket(self.transport)
        if sock is None:
            self._bridge = TransportBridge(self.transport, link)
            link.connection_made(self._bridge)
        else:
            self.transport.loseConnection = self.transport.abortConnection = link.abort
            await asyncio.get_running_loop().connect_accepted_socket(lambda: link, sock)
        return link

    def _end_transport(self) -> None:
        """The link's own connection is lost: so is Daphne's, which then ends the application."""
        if self._bridge is None and self.transport is not None:
            del self.transport.loseConnection, self.transport.abortConnection
            self.transport.connectionLost(Failure(ConnectionDone()))

    def dataReceived(self, data: bytes) -> None:
        if self._bridge is not None:
            self._bridge.data_received(data)
        elif self._taken:
            self.data += data
        else:
            super().dataReceived(data)

    def consumeData(self) -> None:
        # What came before the 101 was sent autobahn has already when onOpen runs: it stays for the link.
        if not self._taken:
            super().consumeData()

    def connectionLost(self, reason: Any = None) -> None:
        try:
            if self._bridge is not None:
                self._bridge.lost()
        finally:
            super().connectionLost(reason)
            if self._taken:
                self.__dict__.clear()
                self.__dict__.update(_taken=True, transport=None, client_addr=None, path=None)

    def check_timeouts(self) -> None:
        # Autobahn's pings, and a close after --websocket_timeout by the wall clock, are not for a relayed session.
        if not self._taken:
            super().check_timeouts()

    def handle_exception(self, exception: BaseException) -> None:
        if self._taken and self.transport is not None:
            self.transport.abortConnection()  # a close frame of autobahn's might land in the middle of one of ours
        elif not self._taken:
            super().handle_exception(exception)


def install(
    *,
    at_start: Callable[[], None],
    at_drain: Callable[[], Coroutine[Any, Any, None]],
    at_end: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """Have Daphne make its WebSocket connections from StreamProtocol, and begin and end as the router wants it.

    `at_start` is called when the event loop runs. At SIGTERM the listening sockets are closed and `at_drain` awaited; a
    second one does not wait for it. Then, and at any other end, `at_end` is awaited before Daphne stops: its own ending
    of applications fails (KeyError) while it still lists an upgrade of the last second, and it goes on to accept
    connections meanwhile. No thread that hangs holds up the end. Its access log is kept from naming a query, which may
    hold a token, and bodies are bounded.
    """
    WebSocketFactory.protocol = StreamProtocol
    AccessLogGenerator.write_entry = _write_entry
    WebRequest.process = _process
    WebRequest.handleContentChunk = _content_chunk
    # Autobahn prints its options prettily for its debug log, whether that is on or not: a tenth of an opening's cost.
    vars(protocol).update(dict.fromkeys(("pformat", "hlval", "hltype"), lambda value: value))
    shared = share_adopted_ports(reactor, Ledger)

    def finish() -> Deferred[None]:
        _stop_listening(shared)
        return Deferred.fromFuture(asyncio.ensure_future(_end(at_end)))

    def begin() -> None:
        # Twisted has set its own handlers by now: ours take the place of its SIGTERM's.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _Terminator(at_drain, shared).signalled)
        at_start()

    reactor.addSystemEventTrigger("before", "shutdown", finish)  # type: ignore[arg-type]
    reactor.callWhenRunning(reactor.callLater, 0, begin)  # the loop itself runs only then


async def _end(at_end: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Python waits for threads of concurrent.futures, Django's own among them, however long a frozen database holds
    them. Whoever waits for our end does not: LEAVE_SECONDS after all is told and written down the process ends.
    """
    try:
        await at_end()
    finally:
        timer = threading.Timer(LEAVE_SECONDS, _leave)
        timer.daemon = True  # one that ends before is not held up by this
        timer.start()


def _leave() -> None:
    logger.warning("ending without the threads that hang: the database does not answer them")
    os._exit(0)


class _Terminator:
    """What SIGTERM does: the first one drains and then stops the reactor, the second stops it at once."""

    def __init__(self, drain: Callable[[], Coroutine[Any, Any, None]], shared: list[Sharing]) -> None:
        self._drain, self._shared = drain, shared
        self._draining: asyncio.Task[None] | None = None

    def signalled(self) -> None:
        if self._draining is None:
            _stop_listening(self._shared)
            self._draining = asyncio.create_task(self._drain(), name="drain")
            self._draining.add_done_callback(lambda _: self._stop())
        else:
            self._stop()

    def _stop(self) -> None:
        with contextlib.suppress(ReactorNotRunning):  # it stops already
            reactor.stop()  # type: ignore[misc]


def _stop_listening(shared: list[Sharing]) -> None:
    """New clients go to another process on the same socket, or are refused."""
    for port in shared:
        port.stop()  # also one that is just leaving a client to others, and so is no reader
    for reader in reactor.getReaders():  # type: ignore[misc]
        if isinstance(reader, Port):
            reader.stopListening()


def share_adopted_ports(reactor: Any, open_ledger: Callable[[int], Any]) -> list[Sharing]:
    """Have each Port on a socket that is handed over (--fd) share it with the other processes that have it.

    `open_ledger` gets the socket's inode. Gives the list to which the Ports come. A socket that Daphne opens itself
    (-b, -p, -u, TLS) no other process has.
    """
    found: list[Sharing] = []
    plain_adopt = reactor.adoptStreamPort

    def adopt(*details: Any) -> Any:
        port = plain_adopt(*details)
        try:
            found.append(Sharing(port, open_ledger(os.fstat(port.fileno()).st_ino)))
        except OSError as error:
            say_uneven(error)
        return port

    reactor.adoptStreamPort = adopt
    return found
