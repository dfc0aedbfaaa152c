"""A client by its bytes (proxy/wire.py): flow control, limits and departures, on a transport in memory.

What a real socket cannot be made to do on time: a client that takes half a frame, or floods with pings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from twisted.internet.testing import StringTransport
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.protocol import State
from websockets.uri import parse_uri

from proxy.errors import Close
from proxy.links import LinkClosed
from proxy.wire import HIGH_BYTES, PONG_BYTES, WireLink

LIMIT = 4 * 1024 * 1024


class Peer:
    """A client at the other end of the transport in memory."""

    def __init__(self) -> None:
        self.transport = StringTransport()
        self.transport.registerProducer(object(), True)  # the HTTP channel
        self.link = WireLink(self.transport, LIMIT)
        self.protocol = ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN, max_size=None)

    def sends(self) -> None:
        """Deliver what `self.protocol` has been asked to send."""
        self.link.data_received(b"".join(self.protocol.data_to_send()))

    def receives(self) -> list[Frame]:
        """The frames that have reached the client since the last call."""
        self.protocol.receive_data(self.transport.value())
        self.transport.clear()
        return [event for event in self.protocol.events_received() if isinstance(event, Frame)]


@pytest.fixture
async def peer() -> Iterator[Peer]:  # type: ignore[misc]
    peer = Peer()
    yield peer
    if not peer.link.lost:
        peer.link.connection_lost()


async def test_send_waits_until_the_client_has_taken_the_message(peer: Peer) -> None:
    """Push-back: a message is not "sent" while the client takes none of it."""
    peer.link.pauseProducing()
    sending = asyncio.create_task(peer.link.send(b"x" * 1_000_000))
    await asyncio.sleep(0)
    assert not sending.done()
    assert peer.transport.value() == b""
    peer.link.resumeProducing()
    await sending
    (frame,) = peer.receives()
    assert frame.data == b"x" * 1_000_000


async def test_a_pong_never_lands_inside_a_message(peer: Peer) -> None:
    """A ping that comes while a message is half sent is answered after it."""
    taken: list[bytes] = []

    def take_one(data: bytes) -> None:
        taken.append(data)
        peer.link.pauseProducing()

    peer.transport.write = take_one  # type: ignore[method-assign]
    sending = asyncio.create_task(peer.link.send(b"x" * 1_000_000))
    await asyncio.sleep(0)
    peer.protocol.send_ping(b"now")
    peer.sends()
    while not sending.done() or peer.link._outbox:
        peer.link.resumeProducing()
        await asyncio.sleep(0)
    peer.protocol.receive_data(b"".join(taken))
    frames = [event for event in peer.protocol.events_received() if isinstance(event, Frame)]
    assert [frame.opcode.name for frame in frames] == ["BINARY", "PONG"]
    assert len(taken) > 3


async def test_a_cancelled_send_still_sends_the_whole_frame(peer: Peer) -> None:
    """What has been begun is finished: half a frame would make everything after it garbage."""
    peer.link.pauseProducing()
    sending = asyncio.create_task(peer.link.send("first"))
    await asyncio.sleep(0)
    sending.cancel()
    await asyncio.wait({sending})
    peer.link.resumeProducing()
    await peer.link.send("second")
    assert [frame.data for frame in peer.receives()] == [b"first", b"second"]


async def test_a_ping_flood_from_a_client_that_does_not_read_is_bounded(peer: Peer) -> None:
    """Older pings go unanswered rather than their pongs filling the memory (RFC 6455 §5.5.3)."""
    peer.link.pauseProducing()
    for _ in range(5_000):
        peer.protocol.send_ping(b"x" * 125)
        peer.sends()
    assert peer.link._outbox_bytes <= PONG_BYTES + 127


async def test_reading_pauses_when_the_replica_takes_nothing(peer: Peer) -> None:
    """A client that floods is pushed back, and read again once its messages are taken."""
    message = b"x" * 65_536
    receiving = asyncio.create_task(peer.link.receive())
    for _ in range(HIGH_BYTES // len(message) + 2):
        peer.protocol.send_binary(message)
        peer.sends()
        await asyncio.sleep(0)
    assert await receiving == message
    assert peer.link.paused
    assert peer.transport.producerState == "paused"
    while peer.link.paused:
        assert await peer.link.receive() == message
    assert peer.transport.producerState == "producing"


async def test_many_tiny_messages_are_bounded_too(peer: Peer) -> None:
    """Bytes alone would let a million empty messages through."""
    for _ in range(100):
        peer.protocol.send_text(b"")
    peer.sends()
    assert peer.transport.producerState == "paused"


async def test_all_messages_are_given_before_the_departure(peer: Peer) -> None:
    """A client's last words are its replica's to hear, then its close."""
    peer.protocol.send_text(b"one")
    peer.protocol.send_text(b"two")
    peer.protocol.send_close(4001, "bye")
    peer.sends()
    assert [await peer.link.receive(), await peer.link.receive()] == ["one", "two"]
    with pytest.raises(LinkClosed) as closed:
        await peer.link.receive()
    assert closed.value.close == Close(4001, "bye")
    assert (await peer.link.wait_gone()).close == Close(4001, "bye")


async def test_text_that_is_not_utf8_is_refused_with_1007(peer: Peer) -> None:
    """RFC 6455 §8.1."""
    peer.link.data_received(b"\x81\x82\0\0\0\0\xff\xfe")
    gone = await peer.link.wait_gone()
    assert gone.refused is not None
    assert gone.refused.code == 1007
    (frame,) = peer.receives()
    assert frame.data[:2] == (1007).to_bytes(2, "big")


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (b"\x81\x05hello", 1002),  # not masked
        (b"\xc1\x80\0\0\0\0", 1002),  # RSV1
        (b"\x83\x80\0\0\0\0", 1002),  # reserved opcode
        (b"\x80\x80\0\0\0\0", 1002),  # continuation of nothing
        (b"\x09\x80\0\0\0\0", 1002),  # fragmented ping
        (b"\x88\x81\0\0\0\0x", 1002),  # close with half a code
        (b"\x88\x82\0\0\0\0\x03\xed", 1002),  # close 1005
        (b"\x82\xff" + (LIMIT + 1).to_bytes(8, "big") + b"\0\0\0\0", 1009),
    ],
)
async def test_what_rfc_6455_forbids_ends_the_link(peer: Peer, octets: bytes, code: int) -> None:
    """The client is told why, and the relay that it is gone; nothing is buffered of an oversize message."""
    peer.link.data_received(octets)
    gone = await peer.link.wait_gone()
    assert gone.close is None
    assert gone.refused is not None
    assert gone.refused.code == code


async def test_data_after_a_close_is_ignored(peer: Peer) -> None:
    """RFC 6455 §1.4: what comes after a close frame is discarded."""
    peer.protocol.send_close(1000, "")
    peer.sends()
    peer.link.data_received(b"\x81\x85\0\0\0\0hello")
    with pytest.raises(LinkClosed):
        await peer.link.receive()
    assert peer.link.received_frames == 0


async def test_after_our_close_a_client_that_sends_on_is_read_to_its_answer(peer: Peer) -> None:
    """What it sends is dropped, not kept, and never holds back its own close."""
    closing = asyncio.create_task(peer.link.close(Close(1012, "bye")))
    await asyncio.sleep(0)
    for _ in range(100):
        peer.protocol.send_binary(b"x" * 65_536)
        peer.sends()
    assert peer.transport.producerState == "producing"
    peer.protocol.receive_data(peer.transport.value())  # it sees our close, and answers
    peer.sends()
    assert peer.transport.disconnecting
    peer.link.connection_lost()
    await closing


async def test_fragments_are_joined_and_limited_together(peer: Peer) -> None:
    """The limit is for the message, however it is cut."""
    peer.protocol.send_binary(b"x" * (LIMIT - 1), fin=False)
    peer.protocol.send_continuation(b"xx", fin=True)
    peer.sends()
    gone = await peer.link.wait_gone()
    assert gone.refused is not None
    assert gone.refused.code == 1009


async def test_a_lost_connection_ends_a_send_that_waits(peer: Peer) -> None:
    """Nobody waits for a client that is no more."""
    peer.link.pauseProducing()
    sending = asyncio.create_task(peer.link.send(b"x" * 1_000_000))
    await asyncio.sleep(0)
    peer.link.connection_lost()
    with pytest.raises(LinkClosed):
        await sending


async def test_after_the_end_nothing_of_the_connection_is_kept(peer: Peer) -> None:
    """A session's buffers and its transport go with it."""
    peer.protocol.send_text(b"unread")
    peer.sends()
    peer.link.pauseProducing()
    asyncio.create_task(peer.link.send(b"x" * 100_000)).add_done_callback(lambda task: task.exception())
    await asyncio.sleep(0)
    peer.link.connection_lost()
    await peer.link.close(Close(1000))
    assert not peer.link._outbox
    assert peer.link._transport is None
