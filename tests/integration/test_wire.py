"""A peer by the octets of its connection (proxy/wire.py, proxy/watch.py), on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from django.test import override_settings
from websockets.frames import Opcode

from proxy import frames, intake, memory, sockets, wire
from proxy.errors import Close
from proxy.links import Departure
from proxy.scanner import Scanner
from proxy.watch import Watch
from proxy.wire import HIGH_BYTES, PONG_BYTES, WireLink
from tests.acceptance.certificates import AUTHORITY, server_tls
from tests.serving import stop_serving
from tests.wire_peers import Peer, wired

QUICK_PINGS = override_settings(ROUTER_PING_INTERVAL_SECONDS=0.2, ROUTER_PING_TIMEOUT_SECONDS=0.2)
QUICK_STALLS = override_settings(ROUTER_STALL_TIMEOUT_SECONDS=0.4)
LARGE = frames.build(frames.BINARY, b"x" * 8_000_000)
KEY = b"\x01\x02\x03\x04"
# A message in so many fragments of one octet that they take more than one turn.
CRUMBS = frames.build(frames.TEXT, b"a", fin=False) + frames.build(frames.CONTINUATION, b"a", fin=False) * 9_998
CRUMBS += frames.build(frames.CONTINUATION, b"a")


class Source:
    """The link that is paused while another takes no more."""

    def __init__(self) -> None:
        self.paused = False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


async def within(seconds: float, peer: Peer) -> Departure:
    """How the peer left, as its link says, in at most so many seconds."""
    async with asyncio.timeout(seconds):
        return await asyncio.shield(peer.link.gone)


async def test_what_came_with_the_handshake_comes_first() -> None:
    """And none of it before start()."""
    hello = frames.build(frames.TEXT, b"hello")
    async with wired(client=False, early=hello[:3], start=False) as peer:
        await peer.sends(hello[3:])
        peer.link.start(peer.sink)
        await peer.link_takes(hello)


async def test_pings_are_answered_where_the_link_is_asked_to() -> None:
    """And neither pings nor pongs are handed on."""
    async with wired(client=True) as peer:
        peer.protocol.send_ping(b"are you there")
        peer.protocol.send_pong(b"nobody asked")
        peer.protocol.send_text(b"hello")
        await peer.sends()
        pong = await peer.hears(Opcode.PONG)
        assert pong.data == b"are you there"
        async with asyncio.timeout(5):
            while not peer.taken:
                await asyncio.sleep(0.005)
        assert [payload for _, payload, _ in frames.split(b"".join(peer.taken))] == [
            frames.apply_mask(b"hello", peer.taken[0][2:6])
        ]


async def test_pings_and_pongs_pass_where_the_other_side_takes_frames() -> None:
    """As they came; but the pong to a ping of the router's own is for the router."""
    async with wired(client=False) as peer:
        peer.link.answers_pings = False
        peer.link.ping()
        asked = await peer.hears(Opcode.PING)
        foreign = frames.build(frames.PING, b"a") + frames.build(frames.PONG, b"b")
        await peer.sends(foreign + frames.build(frames.PONG, bytes(asked.data)) + frames.build(frames.TEXT, b"c"))
        await peer.link_takes(foreign + frames.build(frames.TEXT, b"c"))


async def test_what_a_peer_does_not_take_pauses_the_other_side() -> None:
    """Push-back: paused above HIGH_BYTES, resumed when it has been taken, all of it delivered."""
    async with wired(client=True) as peer:
        source: Any = Source()
        peer.link.source = source
        written = 0
        while not source.paused:
            peer.link.write([frames.build(frames.BINARY, b"x" * 65_536)])
            written += 1
        assert HIGH_BYTES < peer.link.unsent < HIGH_BYTES + 100_000
        found = await peer.receives(lambda frames: len(frames) == written)
        assert all(len(frame.data) == 65_536 for frame in found)
        assert not source.paused


async def test_a_pong_never_lands_inside_a_message() -> None:
    """A ping that comes while a message is half sent is answered behind it."""
    async with wired(client=True) as peer:
        peer.link.write([LARGE])
        assert peer.link.unsent
        peer.protocol.send_ping(b"now")
        await peer.sends()
        found = await peer.receives(lambda frames: len(frames) == 2)
        assert [frame.opcode for frame in found] == [Opcode.BINARY, Opcode.PONG]


async def test_a_ping_flood_from_a_client_that_does_not_read_is_bounded() -> None:
    """Pings go unanswered rather than their pongs filling the memory (RFC 6455 §5.5.3; faults.md, 10)."""
    async with wired(client=True) as peer:
        peer.link.write([LARGE])
        before = peer.link.unsent
        for _ in range(200):
            await peer.sends(frames.build(frames.PING, b"x" * 125, KEY) * 100)
        assert peer.link.unsent <= before + PONG_BYTES + 127  # the one that reaches the bound


@QUICK_STALLS
async def test_a_peer_that_takes_nothing_is_refused_after_the_stall_limit() -> None:
    """1008 (faults.md, 4)."""
    async with wired(client=True) as peer:
        peer.link.write([LARGE])
        gone = await within(5, peer)
        assert gone.refused == Close(1008, "takes too little of what it is sent")


@QUICK_STALLS
async def test_a_peer_that_takes_a_little_at_a_time_is_not_stalled() -> None:
    """Slow is not stalled: every octet arrives (faults.md, 5)."""
    async with wired(client=True) as peer:
        peer.link.write([LARGE])
        loop, taken, started = asyncio.get_running_loop(), 0, time.monotonic()
        while time.monotonic() - started < 1.5 and taken < len(LARGE):
            taken += len(await loop.sock_recv(peer.socket, 40_000))
            await asyncio.sleep(0.05)
        assert not peer.link.gone.done()
        assert peer.link.unsent


@QUICK_STALLS
async def test_a_peer_that_sends_nothing_inside_a_frame_is_refused() -> None:
    """Less than 1 KiB in the stall limit: 1008 (faults.md, 6)."""
    async with wired(client=True) as peer:
        await peer.sends(frames.build(frames.BINARY, b"x" * 5000, KEY)[:100])
        gone = await within(5, peer)
        assert gone.refused == Close(1008, "sends too little inside a frame")


@QUICK_STALLS
async def test_a_peer_that_is_kept_from_sending_is_not_stalled() -> None:
    """What we do not read it cannot send."""
    async with wired(client=False) as peer:
        await peer.sends(frames.build(frames.BINARY, b"x" * 5000)[:100])
        while not peer.link.partial:
            await asyncio.sleep(0.005)
        peer.link.pause_reading()
        with pytest.raises(TimeoutError):
            await within(1.5, peer)


@QUICK_PINGS
@pytest.mark.parametrize("client", [True, False])
async def test_a_silent_peer_is_found_by_a_ping(client: bool) -> None:
    """Nothing in the ping interval, and no answer in the timeout (faults.md, 3 and 29)."""
    async with wired(client=client) as peer:
        gone = await within(5, peer)
        assert gone == Departure(None, "no answer to a ping")
        assert (await peer.hears(Opcode.PING)).opcode is Opcode.PING


@QUICK_PINGS
async def test_any_octet_is_a_sign_of_life() -> None:
    """Also half a frame, which leaves no room for a pong."""
    async with wired(client=False) as peer:
        octets = frames.build(frames.BINARY, b"x" * 100)
        for at in range(20):
            await peer.sends(octets[at : at + 1])
            await asyncio.sleep(0.1)
        assert not peer.link.gone.done()


@QUICK_PINGS
async def test_the_silence_of_a_peer_that_is_held_back_means_nothing() -> None:
    """While its octets are not read, neither would its pong be."""
    async with wired(client=False) as peer:
        peer.link.pause_reading()
        with pytest.raises(TimeoutError):
            await within(1.5, peer)


@pytest.mark.parametrize("unread", [100, 8_000_000])
async def test_a_client_that_leaves_behind_unread_octets_is_found(unread: int) -> None:
    """While its reading is paused the event loop says nothing of it: found within 2 s (faults.md, 15)."""
    async with wired(client=True) as peer:
        peer.link.pause_reading()
        sending = asyncio.ensure_future(peer.sends(b"x" * unread))
        await asyncio.wait({sending}, timeout=0.2)
        sending.cancel()
        peer.socket.close()
        assert (await within(2, peer)).close is None


async def test_a_replica_that_leaves_behind_unread_octets_is_read_to_its_end() -> None:
    """All that it sent before its close is its client's (faults.md, 32)."""
    async with wired(client=False) as peer:
        peer.link.pause_reading()
        data = frames.build(frames.BINARY, b"x" * 10_000)
        await peer.sends(data + frames.build_close(4001, "done"))
        peer.socket.close()
        with pytest.raises(TimeoutError):
            await within(1.2, peer)
        peer.link.resume_reading()
        assert (await within(5, peer)).close == Close(4001, "done")
        await peer.link_takes(data)


@pytest.mark.parametrize("hello", [frames.build(frames.TEXT, b"hello"), CRUMBS], ids=["a word", "crumbs"])
@pytest.mark.parametrize("waiting", [b"", LARGE], ids=["nothing written", "more written than is taken"])
async def test_what_a_peer_sent_before_it_left_is_read_although_writing_fails(waiting: bytes, hello: bytes) -> None:
    """A write that fails says only that the peer takes no more: its last words and its close can still be read."""
    async with wired(client=False) as peer:
        peer.link.write([waiting])
        peer.link.pause_reading()
        await peer.sends(hello + frames.build_close(4001, "done"))
        peer.socket.close()
        for _ in range(10):
            peer.link.write([frames.build(frames.PING, b"", KEY)])
            await asyncio.sleep(0.01)
        peer.link.resume_reading()
        assert (await within(5, peer)).close == Close(4001, "done")
        await peer.link_takes(hello)


def test_every_read_comes_from_the_heap() -> None:
    """Mapped, each of its pages would be a fault of its own."""
    greatest = max(intake.READ_BYTES, intake.GREAT_READ_BYTES, sockets.READ_BYTES)
    assert greatest + sys.getsizeof(b"") < memory.MAP_BYTES


async def test_others_have_their_turn_between_portions_of_crumbs() -> None:
    """Of very many frames with next to nothing in them no more is handled at once than of any others."""
    async with wired(client=False) as peer:
        loop, turns = asyncio.get_running_loop(), list[int]()

        def take_turn() -> None:
            turns.append(len(peer.taken))
            loop.call_soon(take_turn)

        take_turn()
        await peer.sends(CRUMBS * 2 + frames.build_close(4001, "done"))
        assert (await within(5, peer)).close == Close(4001, "done")
        await peer.link_takes(CRUMBS * 2)
        assert len(peer.taken) >= 2 * 2 * 10_000 // 1026, "a header and a payload each"
        assert all(after - before <= 1 for before, after in pairwise(turns))


async def test_crumbs_wait_while_the_other_side_takes_no_more() -> None:
    """And go on from where they were."""
    async with wired(client=False, start=False) as peer:

        def sink(units: Sequence[bytes | bytearray | memoryview]) -> None:
            peer.sink(units)
            peer.link.pause_reading()

        peer.link.start(sink)
        await peer.sends(CRUMBS + frames.build_close(4001, "done"))
        for portion in range(1, 5):
            async with asyncio.timeout(5):
                while len(peer.taken) < portion:
                    await asyncio.sleep(0.005)
            await asyncio.sleep(0.02)
            assert len(peer.taken) == portion
            peer.link.resume_reading()
            peer.link.pause_reading()
            peer.link.resume_reading()
        peer.link.redirect(peer.sink)
        assert (await within(5, peer)).close == Close(4001, "done")
        await peer.link_takes(CRUMBS)


async def test_crumbs_that_wait_are_not_lost_with_the_connection() -> None:
    """They were read: that a write fails meanwhile makes no difference."""
    async with wired(client=False, start=False) as peer:
        peer.link.write([LARGE])

        def sink(units: Sequence[bytes | bytearray | memoryview]) -> None:
            peer.sink(units)
            if len(peer.taken) == 1:
                peer.link.pause_reading()
                peer.socket.close()

        peer.link.start(sink)
        await peer.sends(CRUMBS + frames.build_close(4001, "done"))
        assert (await within(5, peer)).close == Close(4001, "done")
        await peer.link_takes(CRUMBS)


@contextlib.asynccontextmanager
async def secured(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[tuple[WireLink, list[bytes]]]:
    """A link to a replica over TLS, which `serve` plays; and what it hands on."""
    asking, taken = ssl.create_default_context(), list[bytes]()
    AUTHORITY.configure_trust(asking)
    writers: list[asyncio.StreamWriter] = []  # one that is dropped before its connection has ended closes it, and warns

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await serve(reader, writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server_tls())
    link, port = WireLink(client=False, secure=True), server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: link, "127.0.0.1", port, ssl=asking, server_hostname="localhost")
    link.start(lambda units: taken.append(b"".join(units)))
    try:
        yield link, taken
    finally:
        link.abort()
        await asyncio.wait({link._lost})
        await stop_serving(server)
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


async def test_all_of_a_replicas_crumbs_come_before_its_end_over_tls() -> None:
    """There its close_notify comes in one piece with them, and no pause comes between."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CRUMBS + frames.build_close(4001, "done"))
        writer.close()

    async with secured(serve) as (link, taken):
        async with asyncio.timeout(10):
            departure = await asyncio.shield(link.gone)
        assert departure.close == Close(4001, "done")
        assert b"".join(taken) == CRUMBS
        assert not link.unfinished


async def test_a_replica_over_tls_that_never_answers_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither our close nor TLS's own; asyncio's TLS cannot be asked anything once it was closed twice."""
    for name in ("CLOSE_SECONDS", "STALL_SECONDS", "HANG_UP_SECONDS"):
        monkeypatch.setattr(wire, name, 0.2)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\xc1\x00")  # reserved bits
        await writer.drain()
        writer.transport.pause_reading()  # type: ignore[attr-defined]

    async with secured(serve) as (link, _), asyncio.timeout(10):
        departure = await asyncio.shield(link.gone)
        assert departure.refused is not None
        await link.close(departure.refused)
        assert link._lost.done()


@pytest.mark.parametrize("portion", [1, 2, 5])
async def test_after_a_fault_of_who_takes_them_no_crumb_is_handed_on(portion: int) -> None:
    """The stream would have a hole: the connection ends there, whether in a read or in a turn."""
    async with wired(client=False, start=False) as peer:
        faults: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context["exception"]))

        def sink(units: Sequence[bytes | bytearray | memoryview]) -> None:
            peer.sink(units)
            if len(peer.taken) == portion:
                raise RuntimeError("a fault of the test's")

        peer.link.start(sink)
        await peer.sends(CRUMBS)
        assert (await within(5, peer)).why == "fault of the router"
        async with asyncio.timeout(5):
            await asyncio.wait({peer.link._lost})
        assert len(peer.taken) == portion
        assert peer.link.unfinished
        assert [str(fault) for fault in faults] == ["a fault of the test's"]


async def test_whether_a_message_is_unfinished_is_settled_when_its_peer_is_gone() -> None:
    """What still comes is handed to nobody: its end finishes nothing on the other side."""
    async with wired(client=False, start=False) as peer:

        def sink(units: Sequence[bytes | bytearray | memoryview]) -> None:
            peer.sink(units)
            peer.link.refuse(Close(1008), "the test's")

        peer.link.start(sink)
        await peer.sends(CRUMBS)
        assert (await within(5, peer)).why == "the test's"
        async with asyncio.timeout(5):
            while peer.link.received_frames < 1:  # the message's end has come
                await asyncio.sleep(0.005)
        assert len(peer.taken) == 1
        assert peer.link.unfinished


@override_settings(ROUTER_STALL_TIMEOUT_SECONDS=0.3, ROUTER_PING_INTERVAL_SECONDS=0.2, ROUTER_PING_TIMEOUT_SECONDS=0.2)
async def test_who_waits_for_a_turn_is_not_judged() -> None:
    """It is we who keep it: nothing that it sends is read meanwhile."""
    async with wired(client=False) as peer:
        loop, slow = asyncio.get_running_loop(), True

        def burden() -> None:
            if slow:
                time.sleep(0.05)  # others have their turns
                loop.call_soon(burden)

        burden()
        await peer.sends(CRUMBS * 4)
        await peer.link_takes(CRUMBS * 4)
        slow = False
        assert not peer.link.gone.done()


async def test_a_client_that_waits_for_a_turn_has_not_departed() -> None:
    """Its end may be behind what waits: that is read first, as ever, although it was held back a moment ago."""
    async with wired(client=True) as peer:
        loop, slow = asyncio.get_running_loop(), True

        def burden() -> None:
            if slow:
                time.sleep(0.02)
                loop.call_soon(burden)

        peer.link.pause_reading()  # from now on it is looked for
        peer.link.resume_reading()
        crumbs = frames.build(frames.TEXT, b"a", KEY, fin=False)
        crumbs += frames.build(frames.CONTINUATION, b"a", KEY, fin=False) * 20_000
        await peer.sends(crumbs + frames.build_close(4001, "done", KEY))
        peer.socket.close()
        burden()
        assert (await within(10, peer)).close == Close(4001, "done")
        slow = False
        await peer.link_takes(crumbs)


async def test_all_that_was_written_arrives_before_the_close() -> None:
    """However long the peer takes for it."""
    async with wired(client=True) as peer:
        peer.link.write([LARGE])
        closing = asyncio.create_task(peer.link.close(Close(4001, "why")))
        found = await peer.receives(lambda frames: frames and frames[-1].opcode is Opcode.CLOSE)
        assert [len(frame.data) for frame in found] == [8_000_000, 5]
        await peer.sends()  # its answer
        async with asyncio.timeout(5):
            await closing
        assert peer.link._lost.done()


async def test_a_peer_that_never_answers_a_close_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a bounded time, whether it has taken what was written or takes nothing."""
    for name in ("CLOSE_SECONDS", "STALL_SECONDS", "HANG_UP_SECONDS"):
        monkeypatch.setattr(wire, name, 0.2)
    for written in (b"", LARGE):
        async with wired(client=True) as peer:
            peer.link.write([written])
            async with asyncio.timeout(5):
                await peer.link.close(Close(1012, "bye"))
            assert peer.link._lost.done()


async def test_after_our_close_a_client_that_sends_on_is_read_to_its_answer() -> None:
    """What it sends is dropped, not kept, and never holds back its own close."""
    async with wired(client=True) as peer:
        closing = asyncio.create_task(peer.link.close(Close(1012, "bye")))
        await peer.sends(frames.build(frames.BINARY, b"x" * 65_536, KEY) * 100)
        assert (await peer.hears(Opcode.CLOSE)).opcode is Opcode.CLOSE
        await peer.sends()
        async with asyncio.timeout(5):
            await closing
        assert peer.taken == []


async def test_data_after_a_close_is_ignored() -> None:
    """RFC 6455 §1.4 (faults.md, 12); the close is echoed."""
    async with wired(client=True) as peer:
        hello = frames.build(frames.TEXT, b"hello", KEY)
        await peer.sends(hello + frames.build_close(4000, "bye", KEY) + hello)
        assert (await within(5, peer)).close == Close(4000, "bye")
        assert (await peer.hears(Opcode.CLOSE)).data == b"\x0f\xa0bye"
        await peer.link_takes(hello)


@pytest.mark.parametrize(("octets", "code"), [(b"\x81\x02hi", 1002), (b"\xc1\x80\0\0\0\0", 1002)])
async def test_a_peer_that_breaks_the_protocol_is_told_why(octets: bytes, code: int) -> None:
    """What came before is handed on; then the close says it, and the connection ends."""
    async with wired(client=True) as peer:
        hello = frames.build(frames.TEXT, b"hello", KEY)
        await peer.sends(hello + octets)
        gone = await within(5, peer)
        assert gone.refused is not None
        closing = asyncio.create_task(peer.link.close(gone.refused))
        assert int.from_bytes((await peer.hears(Opcode.CLOSE)).data[:2], "big") == code
        peer.socket.close()
        async with asyncio.timeout(5):
            await closing
        await peer.link_takes(hello)


def live_objects() -> int:
    return sum(isinstance(found, WireLink | Watch | Scanner) for found in gc.get_objects())


async def test_after_the_end_nothing_of_a_link_is_kept() -> None:
    """No reference cycle: what a session held is free when it ends, not when the collector comes by."""
    gc.collect()
    before = live_objects()
    gc.disable()
    try:
        async with wired(client=True) as peer:
            await peer.sends(frames.build(frames.BINARY, b"x" * 100_000, KEY)[:50_000])
            while not peer.link.partial:
                await asyncio.sleep(0.005)
            peer.link.source = peer.link  # the worst case of a link that holds another
            peer.link.write([LARGE])
        del peer
        await asyncio.sleep(0)
        assert live_objects() == before
    finally:
        gc.enable()
