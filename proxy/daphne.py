"""Take a client's connection over from Daphne after the 101. The one module that knows Daphne's internals.

asgi.py calls `install`; checks.py asks `seam_faults`. The consumer offers a take-over with its accept message, which
passes through any middleware; other ASGI servers ignore the extra key and the session goes by messages instead.
Plain Daphne can send neither 1011, 1012 or 1013, nor a reason or an empty message; it bounds no queue and ends
connections by timers on the wall clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import daphne.server  # noqa: F401  (first: it installs the asyncio reactor that the next import binds to)
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from proxy.links import TAKE_OVER, TakeOver
from proxy.wire import WireLink

HINT = "Install the versions of daphne, autobahn and twisted that pyproject.toml names, or run another ASGI server."


class StreamProtocol(WebSocketProtocol):
    """Daphne's WebSocket protocol up to the 101; from then on, where offered, only a wire to its link."""

    _offer: TakeOver | None = None
    _link: WireLink | None = None

    def handle_reply(self, message: dict[str, Any]) -> None:
        if self._link is not None:
            return  # nothing of Daphne's may be written between our frames
        self._offer = message.get(TAKE_OVER)
        super().handle_reply(message)

    def onOpen(self) -> None:
        super().onOpen()
        if self._offer is not None:
            self._link = WireLink(self.transport, self._offer.max_message_bytes)
            self._offer.link, self._offer = self._link, None

    def dataReceived(self, data: bytes) -> None:
        if self._link is not None:
            self._link.data_received(data)  # not by way of autobahn's buffer: that copies
        else:
            super().dataReceived(data)

    def consumeData(self) -> None:
        if self._link is None:
            super().consumeData()
        else:
            # What came in one segment with the upgrade: autobahn has it already when onOpen runs.
            early, self.data = self.data, b""  # type: ignore[has-type]
            if early:
                self._link.data_received(early)

    def connectionLost(self, reason: Any = None) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.connection_lost()
        super().connectionLost(reason)

    def check_timeouts(self) -> None:
        # Autobahn's pings, and a close after --websocket_timeout by the wall clock, are not for a relayed session.
        if self._link is None:
            super().check_timeouts()

    def handle_exception(self, exception: BaseException) -> None:
        if self._link is not None:
            self._link.abort()  # a close frame of autobahn's might land in the middle of one of ours
        else:
            super().handle_exception(exception)


def install(at_shutdown: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Have Daphne make its WebSocket connections from StreamProtocol, and wait for `at_shutdown` before it stops.

    Daphne's own ending of applications fails (KeyError) while it still lists an upgrade of the last second.
    """
    WebSocketFactory.protocol = StreamProtocol

    def finish() -> Deferred[None]:
        return Deferred.fromFuture(asyncio.ensure_future(at_shutdown()))

    reactor.addSystemEventTrigger("before", "shutdown", finish)  # type: ignore[arg-type]


def seam_faults() -> list[str]:
    """What is not as this module expects in the installed Daphne; empty when all is well.

    Plays a whole connection through StreamProtocol, on a transport in memory: upgrade, take-over, a message each way,
    close. In a thread of its own, because a server may call this with its event loop running.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(lambda: asyncio.run(_rehearse())).result()


async def _rehearse() -> list[str]:
    from twisted.internet.error import ConnectionDone
    from twisted.internet.testing import StringTransport
    from twisted.python.failure import Failure

    transport, offer = StringTransport(), TakeOver(1024)
    played: dict[str, Any] = {}

    def build() -> object:
        original, WebSocketFactory.protocol = WebSocketFactory.protocol, StreamProtocol
        try:
            factory = WebSocketFactory(_StubServer(), server="")
            factory.setProtocolOptions(openHandshakeTimeout=0)
            protocol = played["protocol"] = factory.buildProtocol(transport.getPeer())
        finally:
            WebSocketFactory.protocol = original
        transport.registerProducer(object(), True)  # as the HTTP channel is, when an upgrade comes
        protocol._raw_query_string = b""
        protocol.makeConnection(transport)
        return isinstance(protocol, StreamProtocol)

    def upgrade() -> object:
        # The upgrade and a first frame in one segment: text "hi", masked with a key of zeros.
        played["protocol"].dataReceived(_UPGRADE + b"\x81\x82\0\0\0\0hi")
        played["protocol"].handle_reply({"type": "websocket.accept", "subprotocol": None, TAKE_OVER: offer})
        return transport.value().startswith(b"HTTP/1.1 101 ")

    def taken_over() -> object:
        return offer.link is not None and offer.link.received_frames == 1

    def reading() -> object:
        played["protocol"].dataReceived(b"\x82\x80\0\0\0\0")
        return offer.link is not None and offer.link.received_frames == 2

    def closing() -> object:
        transport.clear()
        played["protocol"].dataReceived(b"\x88\x82\0\0\0\0\x03\xf5")
        return transport.value() == b"\x88\x02\x03\xf5"

    def losing() -> object:
        played["protocol"].connectionLost(Failure(ConnectionDone()))
        return isinstance(offer.link, WireLink) and offer.link.lost

    steps: list[tuple[str, Callable[[], object]]] = [
        ("WebSocketFactory.protocol no longer names the class of its connections", build),
        ("an upgrade is not answered with 101 by handle_reply(websocket.accept)", upgrade),
        ("onOpen or consumeData no longer hands over what came with the upgrade", taken_over),
        ("bytes after the 101 do not arrive through dataReceived", reading),
        ("a close is not answered on the connection's transport", closing),
        ("a lost connection is not reported through connectionLost", losing),
    ]
    for fault, step in steps:
        try:
            if not step():
                return [fault]
        except Exception as error:
            return [f"{fault} ({type(error).__name__}: {error})"]
    return []


class _StubServer:
    """As much of daphne.server.Server as a connection touches."""

    root_path = ""
    proxy_forwarded_address_header = None

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> asyncio.Queue[Any]:
        return asyncio.Queue()

    def protocol_connected(self, protocol: Any) -> None: ...

    def protocol_disconnected(self, protocol: Any) -> None: ...

    def log_action(self, *details: Any) -> None: ...


_UPGRADE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
