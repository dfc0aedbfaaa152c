"""What clients send more of than anyone can take (faults.md, 10 and 16): bounded, pushed back; nobody is held up."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Callable

import pytest

from tests.acceptance.neighbours import jam, rss_kib, undisturbed
from tests.acceptance.servers import Router
from tests.acceptance.test_client_faults import MIB
from tests.raw import BINARY, CONTINUATION, PING, Peer, echo, frame, raw_client, raw_replica, soon


@pytest.mark.parametrize("begun", [True, False])
async def test_a_flood_of_pings_is_bounded(quick_daphne: Router, begun: bool) -> None:
    """10: pings from a client that reads nothing cost no memory, whoever answers them; in the end it is cut off."""
    async with undisturbed(quick_daphne, back=25), raw_replica(echo) as replica:
        await quick_daphne.place(replica.url)
        client = await raw_client(quick_daphne.port, receive_buffer=32_768)
        if begun:
            await client.say("begin")
            assert await client.message() == "begin"
        client.fall_silent()
        before, sent = rss_kib(quick_daphne), 0
        pings = frame(PING, b"p" * 125, mask=b"mask") * 1000
        with contextlib.suppress(ConnectionError, TimeoutError):
            while sent < 40 * MIB:
                await asyncio.wait_for(client.send(pings), 1)
                sent += len(pings)
        assert rss_kib(quick_daphne) - before < 8 * 1024
        client.abort()


def pings(mask: bytes) -> bytes:
    return frame(PING, mask=mask) * 1000


def crumbs(mask: bytes) -> bytes:
    """A message of fragments of one octet."""
    begun, last = frame(BINARY, b"a", fin=False, mask=mask), frame(CONTINUATION, b"a", mask=mask)
    return begun + frame(CONTINUATION, b"a", fin=False, mask=mask) * 998 + last


@pytest.mark.parametrize("flood", [pings, crumbs])
async def test_frames_of_next_to_nothing_hold_up_nobody(quick_daphne: Router, flood: Callable[[bytes], bytes]) -> None:
    """10: as many as can be sent, each of them work: all arrive, and those beside them have their turn in between."""
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def collect(peer: Peer) -> None:
        received.set_result(await peer.reader.read())

    async with undisturbed(quick_daphne), raw_replica(collect, first=frame(BINARY, b"begin")) as replica:
        await quick_daphne.place(replica.url)
        client = await raw_client(quick_daphne.port)
        assert await client.message() == b"begin"
        octets = flood(client.new_mask)
        count = 6 * MIB // len(octets)
        for _ in range(count):
            await client.send(octets)
        await client.close(4001)
        assert (await soon(received)).startswith(octets * count)
        await client.rest()


async def test_a_client_that_floods_is_pushed_back(router: Router) -> None:
    """16: it can send no faster than its replica reads; nothing is lost, and the router does not fill up."""
    reads, size, count = asyncio.Event(), 256 * 1024, 400
    digest: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def read_later(peer: Peer) -> None:
        await peer.say("begin")
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await reads.wait()
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
        found = hashlib.sha256()
        for _ in range(count):
            message = await peer.message()
            assert isinstance(message, bytes)
            found.update(message)
        digest.set_result(found.digest())
        await peer.rest()

    async with undisturbed(router), raw_replica(read_later) as replica:
        await router.place(replica.url)
        client = await raw_client(router.port)
        assert await client.message() == "begin"
        before, sent, expected = rss_kib(router), 0, hashlib.sha256()
        payload = os.urandom(size)

        async def flood() -> None:
            nonlocal sent
            for _ in range(count):
                await client.say(payload)
                sent += 1
                expected.update(payload)

        flooding, peer = asyncio.create_task(flood()), await replica.wait_peer()
        await jam(client, peer)
        assert sent < count
        assert rss_kib(router) - before < 8 * 1024
        reads.set()
        await soon(flooding)
        assert await soon(digest) == expected.digest()
        await client.close()
        await client.rest()
