"""The facts about Daphne, autobahn, Channels and websockets that proxy/ leans on, each on the real thing.

When an upgrade changes one of them, the test that names it fails here before a session does.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import daphne.server
import pytest
from channels.consumer import AsyncConsumer
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol
from twisted.internet.testing import StringTransport
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State
from websockets.server import ServerProtocol

from proxy import daphne as seam
from tests.fake_replica import fake_replica


class Connection:
    """A plain Daphne connection after its 101, on a transport in memory."""

    def __init__(self) -> None:
        self.transport = StringTransport()
        self.transport.registerProducer(object(), True)
        factory = WebSocketFactory(seam._StubServer(), server="")
        factory.setProtocolOptions(openHandshakeTimeout=0)
        factory.protocol = WebSocketProtocol
        self.protocol = factory.buildProtocol(self.transport.getPeer())
        self.protocol._raw_query_string = b""
        self.protocol.makeConnection(self.transport)
        self.protocol.dataReceived(seam._UPGRADE)
        self.protocol.handle_reply({"type": "websocket.accept"})
        self.transport.clear()


@pytest.fixture
async def plain() -> Connection:
    return Connection()


async def test_the_seams_are_as_expected() -> None:
    """The rehearsal that `manage.py check` runs finds no fault in the installed versions."""
    assert await asyncio.to_thread(seam.seam_faults) == []


@pytest.mark.parametrize("seam_name", ["onOpen", "consumeData", "connectionLost", "handle_reply"])
async def test_a_seam_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch, seam_name: str) -> None:
    """A Daphne that no longer calls one of our methods is refused with the reason, not run by half."""
    monkeypatch.delattr(seam.StreamProtocol, seam_name)
    faults = await asyncio.to_thread(seam.seam_faults)
    assert len(faults) == 1


async def test_install_makes_daphne_use_our_protocol() -> None:
    """WebSocketFactory.protocol names the class of every connection."""
    original = WebSocketFactory.protocol
    try:
        seam.install(at_shutdown=asyncio.Event().wait)
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
    ours._link = object()
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


async def test_websockets_gives_all_messages_before_it_reports_the_close() -> None:
    """What a replica sent before its close is received first."""

    async def talk(connection: Any) -> None:
        await connection.send("one")
        await connection.send("two")
        await connection.close(4001, "why")

    async with fake_replica(talk) as replica:
        connection = await connect(replica.url.replace("http", "ws"), proxy=None)
        await connection.wait_closed()
        assert [await connection.recv(), await connection.recv()] == ["one", "two"]
        with pytest.raises(ConnectionClosed):
            await connection.recv()
        assert connection.protocol.close_rcvd is not None
        assert connection.connection_lost_waiter.done()


def test_websockets_names_that_upstream_uses() -> None:
    """process_redirect, create_connection and the reader's `paused` are what upstream.py holds on to."""
    assert "exc" in inspect.signature(connect.process_redirect).parameters
    assert "create_connection" in inspect.signature(connect.__init__).parameters
    assert "data_received" in vars(ClientConnection.__mro__[1])


def test_a_server_protocol_can_begin_open() -> None:
    """wire.py starts it behind the 101 and gets an echoed close, then an end, from it."""
    protocol = ServerProtocol(state=State.OPEN, max_size=10)
    protocol.receive_data(b"\x88\x82\0\0\0\0\x03\xe8")
    assert protocol.data_to_send() == [b"\x88\x02\x03\xe8", b""]
