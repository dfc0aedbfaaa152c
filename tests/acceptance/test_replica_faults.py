"""What replicas do wrong once they stream (faults.md, 30, 31), and a router that is stopped for a while (58).

Real servers on both sides; the routers lose their patience after 1 s (ping), 2 s (its answer) and 3 s (stall).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

import pytest

from tests.acceptance.neighbours import rss_kib, undisturbed
from tests.acceptance.servers import Router
from tests.acceptance.test_torn_frames import assert_lost
from tests.raw import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    Peer,
    echo,
    frame,
    head,
    hold_on,
    raw_client,
    raw_replica,
)

VIDEO = b"video" * 1000

GARBAGE = {
    "RSV1": frame(BINARY, b"x", rsv=4),
    "RSV2": frame(BINARY, b"x", rsv=2),
    "RSV3": frame(TEXT, b"x", rsv=1),
    "a reserved data opcode": frame(3, b"x"),
    "a reserved control opcode": frame(11, b"x"),
    "a masked frame": frame(BINARY, b"x", mask=b"mask"),
    "a masked close": frame(CLOSE, b"\x03\xe8", mask=b"mask"),
    "a long control frame": frame(PING, b"x" * 126),
    "a control frame in fragments": frame(PING, b"x", fin=False),
    "a continuation of nothing": frame(CONTINUATION, b"x"),
    "a length of 64 bits": head(BINARY, 1 << 63),
    "a close with 1005": frame(CLOSE, b"\x03\xed"),
    "a close with one octet": frame(CLOSE, b"\x03"),
    "a close whose reason is no UTF-8": frame(CLOSE, b"\x03\xe8\xff"),
    "no WebSocket at all": b"HTTP/1.1 500 Internal Server Error\r\n\r\n",
}


@pytest.mark.parametrize("what", GARBAGE)
async def test_garbage_is_a_lost_replica(router: Router, what: str) -> None:
    """31: what was whole before it arrives, nothing of it does; then the error frame and 1011, and the replica goes."""
    async with undisturbed(router), raw_replica(hold_on) as replica:
        await router.place(replica.url)
        client = await raw_client(router.port)
        peer = await replica.wait_peer()
        await peer.send(frame(BINARY, VIDEO) + GARBAGE[what] + frame(BINARY, b"after"))
        assert await client.message() == VIDEO
        assert_lost(await client.rest(), inside_a_message=False)
        await peer.rest()  # it is not kept waiting either


async def test_a_message_inside_another_is_a_lost_replica(router: Router) -> None:
    """31: behind the beginning of a message 1011 comes alone on the raw path, as any frame would stand inside it."""
    async with undisturbed(router), raw_replica(hold_on) as replica:
        await router.place(replica.url)
        client = await raw_client(router.port)
        peer = await replica.wait_peer()
        await peer.send(frame(TEXT, b"one ", fin=False) + frame(TEXT, b"another"))
        assert_lost(await client.rest(), inside_a_message=router.server == "daphne")


@pytest.mark.parametrize("what", ["RSV1", "a masked frame", "no WebSocket at all"])
async def test_garbage_before_the_session_has_begun_leads_on(router: Router, what: str) -> None:
    """31 and 26: a replica that speaks no WebSocket has not begun the session."""
    async with undisturbed(router), raw_replica(first=GARBAGE[what]) as broken, raw_replica(echo) as other:
        await router.place(broken.url, other.url)
        client = await raw_client(router.port)
        await client.say("init")
        assert await client.message() == "init"
        await client.close()
        await client.rest()


async def test_a_replica_that_does_not_read_is_lost_after_the_stall_limit(quick_daphne: Router) -> None:
    """30: the client is paused, the router does not fill up; after 30 s (here 3 s) worker_failed and 1011."""
    async with undisturbed(quick_daphne), raw_replica(hold_on) as replica:
        await quick_daphne.place(replica.url)
        client = await raw_client(quick_daphne.port)
        peer = await replica.wait_peer()
        await peer.say("begin")
        assert await client.message() == "begin"
        peer.fall_silent()
        before, sent, started = rss_kib(quick_daphne), 0, time.monotonic()
        reading = asyncio.create_task(client.rest())
        with contextlib.suppress(ConnectionError):
            while not reading.done():
                await asyncio.wait(
                    {asyncio.create_task(client.say(VIDEO * 10)), reading}, return_when="FIRST_COMPLETED"
                )
                sent += 1
        assert rss_kib(quick_daphne) - before < 8 * 1024
        assert_lost(await reading, inside_a_message=False)
        assert 2.5 < time.monotonic() - started < 20


async def test_a_replica_held_back_by_its_client_is_not_taken_for_dead(quick_daphne: Router) -> None:
    """29, the other side: while a client takes little, its replica is paused, and its silence is none."""
    message = os.urandom(64 * 1024)

    async def flood(peer: Peer) -> None:
        for _ in range(300):
            await peer.say(message)
        await peer.rest()

    async with undisturbed(quick_daphne), raw_replica(flood) as replica:
        await quick_daphne.place(replica.url)
        client = await raw_client(quick_daphne.port, receive_buffer=65_536)
        for number in range(300):
            assert await client.message() == message
            if number < 8:
                await asyncio.sleep(1)
        await client.close()
        assert (await client.rest()).messages == []


async def test_a_router_that_was_stopped_kills_nobody(quick_router: Router) -> None:
    """58: after a stall longer than every time limit the sessions go on, those that streamed and those that waited."""
    async with raw_replica(echo) as replica:
        await quick_router.place(replica.url)
        idle, busy = await raw_client(quick_router.port), await raw_client(quick_router.port)
        for client in (idle, busy):
            await client.say("hello")
            assert await client.message() == "hello"
        quietly = asyncio.create_task(idle.message())
        os.kill(quick_router.process.pid, signal.SIGSTOP)
        try:
            for number in range(100):
                await busy.say(f"message {number}")
            await asyncio.sleep(8)
        finally:
            os.kill(quick_router.process.pid, signal.SIGCONT)
        for number in range(100):
            assert await busy.message() == f"message {number}"
        later = asyncio.create_task(busy.message())
        await asyncio.sleep(3)
        for client, waiting in ((idle, quietly), (busy, later)):
            await client.say("still here")
            assert await waiting == "still here"
            await client.close()
            assert (await client.rest()).close == (1000, "")
