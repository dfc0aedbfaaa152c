"""Is the installed Daphne what daphne.py expects? Plays whole connections through its protocol, in this process.

checks.py asks at each start and in `manage.py check`. Once on a real socket of the loopback interface, whose link is
asyncio's own, and once on a transport in memory, whose link goes through Twisted as on TLS: upgrade, take-over, a
message, close, end. Then a socket is handed over as with --fd, and a client counted. What differs is named, and the
router does not start.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from daphne.endpoints import build_endpoint_description_strings
from daphne.ws_protocol import WebSocketFactory
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Server
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from proxy.daphne import StreamProtocol, share_adopted_ports
from proxy.links import TAKE_OVER, Link, TakeOver

PATIENCE_SECONDS = 5.0

_UPGRADE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
# Masked with a key of zeros: text "hi", an empty binary message, a close with 1013; and the answer to that.
_HI, _EMPTY, _CLOSE, _ECHO = (
    b"\x81\x82\0\0\0\0hi",
    b"\x82\x80\0\0\0\0",
    b"\x88\x82\0\0\0\0\x03\xf5",
    b"\x88\x02\x03\xf5",
)


def seam_faults() -> list[str]:
    """What is not as daphne.py expects in the installed Daphne; empty when all is well.

    In a thread of its own, because a server may call this with its event loop running.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(lambda: asyncio.run(_rehearse())).result()


async def _rehearse() -> list[str]:
    with _SocketClient() as client:
        faults = await _Rehearsal(client).play()
    return faults or await _Rehearsal(_MemoryClient()).play() or _rehearse_sharing()


def _rehearse_sharing() -> list[str]:
    """Hand a socket over as with --fd; of two clients take one, leave one to another process; lose the first."""
    stub, ledger = _StubReactor(), _StubLedger()
    shared = share_adopted_ports(stub, lambda inode: ledger)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address), socket.create_connection(address):
            try:
                (description,) = build_endpoint_description_strings(file_descriptor=os.dup(listener.fileno()))
                serverFromString(stub, description).listen(Factory.forProtocol(Protocol))
                if not shared:
                    return ["daphne --fd no longer goes through the reactor's adoptStreamPort"]
                return _sharing_faults(stub, ledger)
            except Exception as error:
                return [f"a listening socket cannot be shared ({type(error).__name__}: {error})"]
            finally:
                for port in shared:
                    port.stop()
                for reader in [reader for reader in stub.readers if reader.connected]:
                    reader.connectionLost(Failure(ConnectionDone()))


def _sharing_faults(stub: _StubReactor, ledger: _StubLedger) -> list[str]:
    (port,) = stub.readers
    ledger.elsewhere = 1
    stub.wake(port)
    if ledger.connections != 1:
        return ["Port no longer asks its doRead, numberAccepts and transport when a client waits"]
    ledger.elsewhere = 0
    stub.wake(port)
    if port in stub.readers or ledger.connections != 1:
        return ["a Port whose stopReading was called still accepts"]
    (connection,) = stub.readers
    connection.connectionLost(Failure(ConnectionDone()))
    return [] if ledger.connections == 0 else ["a lost connection is not reported to the class in Port.transport"]


class _Rehearsal:
    def __init__(self, client: _SocketClient | _MemoryClient) -> None:
        self.client = client
        self.offer = TakeOver()
        self.server = _StubServer()
        self.protocol: Any = None
        self.link: Link | None = None
        self.taken: asyncio.Queue[bytes] = asyncio.Queue()

    async def play(self) -> list[str]:
        """The first thing that goes otherwise than expected, as a list of one; or an empty list."""
        steps: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("WebSocketFactory.protocol no longer names the class of its connections", self.build),
            ("an upgrade is not answered with 101 by handle_reply(websocket.accept)", self.upgrade),
            ("onOpen or consumeData no longer hands over what came with the upgrade", self.take_over),
            ("octets after the 101 do not arrive at the link", self.read),
            ("a close is not answered on the connection", self.close),
            ("a lost connection is not reported through connectionLost", self.lose),
        ]
        for fault, step in steps:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    if not await step():
                        return [fault]
            except Exception as error:
                return [f"{fault} ({type(error).__name__}: {error})"]
        return []

    async def build(self) -> object:
        original, WebSocketFactory.protocol = WebSocketFactory.protocol, StreamProtocol
        try:
            factory = WebSocketFactory(self.server, server="")
            factory.setProtocolOptions(openHandshakeTimeout=0)
            self.protocol = factory.buildProtocol(self.client.transport.getPeer())
        finally:
            WebSocketFactory.protocol = original
        self.client.transport.registerProducer(_Producer(), True)  # as the HTTP channel is, when an upgrade comes
        self.client.transport.protocol = self.protocol
        self.protocol._raw_query_string = b""
        self.protocol.makeConnection(self.client.transport)
        return isinstance(self.protocol, StreamProtocol)

    async def upgrade(self) -> object:
        self.protocol.dataReceived(_UPGRADE + _HI)  # the upgrade and a first frame in one piece
        self.protocol.handle_reply({"type": "websocket.accept", "subprotocol": None, TAKE_OVER: self.offer})
        return self.offer.connect is not None

    async def take_over(self) -> object:
        assert self.offer.connect is not None
        self.link = await self.offer.connect()
        self.link.start(lambda units: self.taken.put_nowait(b"".join(units)))
        answer = await self.client.receive()
        return answer.startswith(b"HTTP/1.1 101 ") and await self.taken.get() == _HI

    async def read(self) -> object:
        await self.client.send(self.protocol, _EMPTY)
        return await self.taken.get() == _EMPTY

    async def close(self) -> object:
        await self.client.send(self.protocol, _CLOSE)
        return await self.client.receive() == _ECHO

    async def lose(self) -> object:
        assert self.link is not None
        self.client.lose(self.protocol)
        await self.link.close(self.link.gone.result().close)  # type: ignore[arg-type]
        return self.server.disconnected == 1


class _SocketClient:
    """A client on the loopback interface, and Twisted's transport of its connection."""

    def __enter__(self) -> _SocketClient:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.socket = socket.create_connection(listener.getsockname())
            self.socket.setblocking(False)
            self.accepted, address = listener.accept()
        stub: Any = _StubReactor()
        self.transport: Any = Server(self.accepted, stub, address, stub, 0, stub)
        return self

    def __exit__(self, *details: object) -> None:
        self.socket.close()
        self.accepted.close()  # where it was not taken over

    async def send(self, protocol: Any, octets: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, octets)

    async def receive(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.socket, 4096)

    def lose(self, protocol: Any) -> None:
        self.socket.close()


class _MemoryClient:
    """A client in memory, on a transport that has no socket to give."""

    def __init__(self) -> None:
        self.transport: Any = StringTransport()

    async def send(self, protocol: Any, octets: bytes) -> None:
        protocol.dataReceived(octets)

    async def receive(self) -> bytes:
        answer: bytes = self.transport.value()
        self.transport.clear()
        return answer

    def lose(self, protocol: Any) -> None:
        protocol.connectionLost(Failure(ConnectionDone()))


class _Producer:
    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


class _StubReactor:
    """Takes what a transport registers, and calls it only when told to."""

    _realPortNumber = 0
    _supportedAddressFamilies = AsyncioSelectorReactor._supportedAddressFamilies
    _readOrWrite: Any = AsyncioSelectorReactor._readOrWrite

    def __init__(self) -> None:
        self.readers: list[Any] = []

    def adoptStreamPort(self, *details: Any) -> Any:
        stub: Any = self
        return AsyncioSelectorReactor.adoptStreamPort(stub, *details)

    def callLater(self, delay: float, call: Callable[..., object], *details: Any) -> None:
        call(*details)

    def wake(self, reader: object) -> None:
        self._readOrWrite(reader, True)

    def addReader(self, reader: object) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: object) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def addWriter(self, writer: object) -> None: ...

    def removeWriter(self, writer: object) -> None: ...


class _StubLedger:
    """One other process, which lives and has `elsewhere` connections."""

    def __init__(self) -> None:
        self.connections = self.elsewhere = 0

    def count(self, change: int) -> None:
        self.connections += change

    def others(self) -> dict[int, int]:
        return {1: self.elsewhere}

    def lives(self, slot: int) -> bool:
        return True

    def close(self) -> None: ...


class _StubServer:
    """As much of daphne.server.Server as a connection touches."""

    root_path = ""
    proxy_forwarded_address_header = None
    disconnected = 0

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> asyncio.Queue[Any]:
        return asyncio.Queue()

    def protocol_connected(self, protocol: Any) -> None: ...

    def protocol_disconnected(self, protocol: Any) -> None:
        self.disconnected += 1

    def log_action(self, *details: Any) -> None: ...
