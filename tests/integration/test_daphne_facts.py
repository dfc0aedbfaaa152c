"""The facts about Daphne, autobahn, Channels and websockets that proxy/ leans on, each on the real thing.

When an upgrade changes one of them, the test that names it fails here before a session does.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import os
import socket
from typing import Any

import daphne.server
import pytest
from channels.consumer import AsyncConsumer
from daphne.access import AccessLogGenerator
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.tcp import Port, Server
from twisted.internet.testing import StringTransport
from websockets.asyncio.client import ClientConnection, connect
from websockets.protocol import State

from proxy import daphne as seam
from proxy import rehearsal
from proxy.twisted_transport import detached_socket
from proxy.watch import _in_the_kernel
from tests.fake_replica import fake_replica


class Connection:
    """A plain Daphne connection after its 101, on a transport in memory."""

    def __init__(self) -> None:
        self.transport = StringTransport()
        self.transport.registerProducer(object(), True)
        factory = WebSocketFactory(rehearsal._StubServer(), server="")
        factory.setProtocolOptions(openHandshakeTimeout=0)
        factory.protocol = WebSocketProtocol
        self.protocol = factory.buildProtocol(self.transport.getPeer())
        self.protocol._raw_query_string = b""
        self.protocol.makeConnection(self.transport)
        self.protocol.dataReceived(rehearsal._UPGRADE)
        self.protocol.handle_reply({"type": "websocket.accept"})
        self.transport.clear()


@pytest.fixture
async def plain() -> Connection:
    return Connection()


async def test_the_seams_are_as_expected() -> None:
    """The rehearsal that `manage.py check` runs finds no fault in the installed versions."""
    assert await asyncio.to_thread(rehearsal.seam_faults) == []


@pytest.mark.parametrize("seam_name", ["onOpen", "consumeData", "connectionLost", "handle_reply"])
async def test_a_seam_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch, seam_name: str) -> None:
    """A Daphne that no longer calls one of our methods is refused with the reason, not run by half."""
    monkeypatch.delattr(seam.StreamProtocol, seam_name)
    faults = await asyncio.to_thread(rehearsal.seam_faults)
    assert len(faults) == 1


@pytest.mark.parametrize(
    ("owner", "name", "instead", "fault"),
    [
        (AdoptedStreamServerEndpoint, "listen", lambda endpoint, factory: os.close(endpoint.fileno), "adoptStreamPort"),
        (Port, "doRead", lambda port: None, "numberAccepts"),
        (Port, "stopReading", lambda port: None, "stopReading"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_seam_of_sharing_that_is_gone_is_named(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, instead: Any, fault: str
) -> None:
    """With --fd: adoptStreamPort gives the Port, doRead takes a client, stopReading leaves it to others."""
    monkeypatch.setattr(owner, name, instead)
    faults = rehearsal._rehearse_sharing()
    assert len(faults) == 1
    assert fault in faults[0]


async def test_install_makes_daphne_use_our_protocol() -> None:
    """WebSocketFactory.protocol names the class of every connection."""
    original = WebSocketFactory.protocol
    try:
        seam.install(at_start=lambda: None, at_drain=asyncio.Event().wait, at_end=asyncio.Event().wait)
        assert WebSocketFactory.protocol is seam.StreamProtocol
    finally:
        WebSocketFactory.protocol = original


@pytest.mark.parametrize("code", [1011, 1012, 1013])
async def test_plain_daphne_cannot_send_our_codes(plain: Connection, code: int) -> None:
    """The reason for the take-over: only 1000 and 3000–4999 can be sent."""
    with pytest.raises(Exception, match="code"):
        plain.protocol.handle_reply({"type": "websocket.close", "code": code})


async def test_plain_daphne_drops_reasons_and_empty_messages(plain: Connection) -> None:
    """The reason for the take-over: both are lost without a word."""
    plain.protocol.handle_reply({"type": "websocket.send", "text": ""})
    plain.protocol.handle_reply({"type": "websocket.send", "bytes": b""})
    assert plain.transport.value() == b""
    plain.protocol.handle_reply({"type": "websocket.close", "code": 4001, "reason": "why"})
    assert b"why" not in plain.transport.value()


async def test_the_http_channel_is_still_the_transports_producer(plain: Connection) -> None:
    """A second producer cannot be registered before the first one is unregistered."""
    with pytest.raises(RuntimeError):
        plain.transport.registerProducer(object(), True)


async def test_daphnes_timers_do_not_touch_a_taken_over_connection(plain: Connection) -> None:
    """check_timeouts pings and, by the wall clock, closes: both would land between our frames."""
    plain.protocol.server.websocket_timeout = 0
    plain.protocol.server.ping_interval = 0
    plain.protocol.socket_opened = 0
    plain.protocol.check_timeouts()
    assert plain.transport.value() != b""
    ours = seam.StreamProtocol()
    ours._taken = True
    ours.check_timeouts()  # would fail on the missing server, were it not off


def test_a_reply_reaches_the_protocol_with_its_extra_keys() -> None:
    """Server.handle_reply hands the whole message on: that is how the take-over is offered."""
    source = inspect.getsource(daphne.server.Server.handle_reply)
    assert "protocol.handle_reply(message)" in source


async def test_daphnes_own_shutdown_fails_on_a_recent_upgrade() -> None:
    """The reason for our own trigger: an upgrade's HTTP half is listed for a second, without an application."""
    server = daphne.server.Server(None, endpoints=["tcp:0"])
    server.connections = {object(): {"connected": 0.0, "disconnected": 0.0}}
    with pytest.raises(KeyError):
        server.kill_all_applications()


def test_daphne_waits_for_cancelled_applications_at_its_end() -> None:
    """kill_all_applications gathers them: the time in which sessions say goodbye."""
    source = inspect.getsource(daphne.server.Server.kill_all_applications)
    assert "cancel()" in source
    assert "gather" in source


async def test_an_undefined_channel_layer_leaves_a_consumer_without_one() -> None:
    """With a layer, a failure of Redis would end the session."""

    class Consumer(AsyncConsumer):
        channel_layer_alias = "none"

    consumer = Consumer()

    async def receive() -> dict[str, Any]:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await consumer({}, receive, receive)
    assert consumer.channel_layer is None


def test_channels_cleans_database_connections_for_every_message() -> None:
    """The reason for our own dispatch: a hop to a shared thread for each frame."""
    assert "aclose_old_connections()" in inspect.getsource(AsyncConsumer.dispatch)


def test_websockets_defaults_are_the_ones_that_we_undo() -> None:
    """Compression, the environment's proxies, 1 MiB messages, 16 frames read ahead, keepalive pings."""
    defaults = {name: p.default for name, p in inspect.signature(connect.__init__).parameters.items()}
    assert defaults["compression"] == "deflate"
    assert defaults["proxy"] is True
    assert defaults["max_size"] == 2**20
    assert defaults["max_queue"] == 16
    assert defaults["ping_interval"] == 20


def test_websockets_names_that_upstream_uses() -> None:
    """process_redirect, create_connection and data_received are what upstream.py holds on to."""
    assert "exc" in inspect.signature(connect.process_redirect).parameters
    assert "create_connection" in inspect.signature(connect.__init__).parameters
    assert "data_received" in vars(ClientConnection.__mro__[1])


async def test_a_websockets_client_is_open_with_the_last_octet_of_the_head() -> None:
    """upstream.py stops reading for it there: what comes behind is frames."""
    async with fake_replica() as replica:
        connection = await connect(replica.url.replace("http", "ws"), proxy=None, ping_interval=None)
        assert connection.protocol.state is State.OPEN
        assert connection.keepalive_task is None  # nothing of it goes on when its transport is given away
        await connection.close()


async def test_a_transport_takes_another_protocol() -> None:
    """How a link comes in behind the websockets client's handshake."""

    class Second(asyncio.Protocol):
        def __init__(self) -> None:
            self.got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def data_received(self, data: bytes) -> None:
            self.got.set_result(data)

    near, far = socket.socketpair()
    loop, second = asyncio.get_running_loop(), Second()
    transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, near)
    transport.set_protocol(second)
    far.send(b"hello")
    async with asyncio.timeout(5):
        assert await second.got == b"hello"
    transport.close()
    far.close()


def test_twisteds_write_waits_for_the_next_round_of_the_loop() -> None:
    """So the 101 may still be in its transport when we take the socket: it is written out first."""
    near, far = socket.socketpair()
    stub: Any = rehearsal._StubReactor()
    transport = Server(near, stub, ("127.0.0.1", 1), stub, 0, stub)
    transport.write(b"HTTP/1.1 101")
    far.setblocking(False)
    with pytest.raises(BlockingIOError):
        far.recv(100)
    sock = detached_socket(transport)
    assert sock is not None
    assert far.recv(100) == b"HTTP/1.1 101"
    assert transport.fileno() == -1
    sock.send(b"frame")
    assert far.recv(100) == b"frame"
    sock.close()
    far.close()


def test_what_the_kernel_holds_for_a_peer_can_be_asked_for() -> None:
    """SIOCOUTQ: how watch.py tells a slow peer from one that takes nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.setblocking(False)
    sent = near.send(b"x" * 50_000_000)
    held = _in_the_kernel(near.fileno())
    assert 0 < held < sent  # the rest is in the peer's kernel
    far.close()
    near.close()


def test_daphnes_access_log_names_the_query_of_a_request() -> None:
    """The reason for our own write_entry: a query may hold a token."""
    stream = io.StringIO()
    log = AccessLogGenerator(stream)
    details = {"client": "127.0.0.1:1", "path": "/v1/stream?token=secret", "method": "GET", "status": 426, "size": 65}
    plain = AccessLogGenerator.write_entry
    try:
        AccessLogGenerator.write_entry = seam._plain_write_entry
        log("http", "complete", details)
        assert "secret" in stream.getvalue()
        stream.truncate(0)
        AccessLogGenerator.write_entry = seam._write_entry
        log("http", "complete", details)
        assert "secret" not in stream.getvalue()
        assert "/v1/stream" in stream.getvalue()
    finally:
        AccessLogGenerator.write_entry = plain
