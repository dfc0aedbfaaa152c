"""What clients do wrong (faults.md, 3–6, 12, 14): bounded, found out, and ended by the book.

The routers here lose their patience after 1 s (ping), 2 s (its answer) and 3 s (stall) instead of 20, 20 and 30.
What only the raw path can do runs on daphne alone: elsewhere the server owns pings and buffers.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import time

from tests.acceptance.neighbours import descriptors, rss_kib, undisturbed, until
from tests.acceptance.servers import Router
from tests.raw import BINARY, TEXT, Last, Peer, close_frame, echo, frame, head, raw_client, raw_replica, soon

MIB = 1024 * 1024
CHUNK = frame(BINARY, b"video" * 13_000)
# What kernels hold for one session on the way (tcp_wmem and tcp_rmem, twice), and the router.
IN_BETWEEN = 64 * MIB


class Flood:
    """A replica that sends as fast as it can; `sent` octets, `last` what it heard at the end."""

    def __init__(self, chunk: bytes = CHUNK, limit: int = 1 << 60) -> None:
        self.chunk, self.limit, self.sent, self.digest = chunk, limit, 0, hashlib.sha256()
        self.last: asyncio.Future[Last] = asyncio.get_running_loop().create_future()

    async def __call__(self, peer: Peer) -> None:
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self._listen(peer))
            while not listening.done() and self.sent < self.limit:
                self.sent += len(self.chunk)
                self.digest.update(self.chunk)
                try:
                    await peer.send(self.chunk)
                except ConnectionError:
                    break

    async def _listen(self, peer: Peer) -> None:
        self.last.set_result(await peer.rest())


async def test_a_half_open_client_is_found_by_ping(quick_daphne: Router) -> None:
    """3: a client that is there no more answers no ping; its replica gets 1001 (50 s; here 3 s)."""
    async with undisturbed(quick_daphne), raw_replica(echo) as replica:
        await quick_daphne.place(replica.url)
        client = await raw_client(quick_daphne.port)
        await client.say("hello")
        assert await client.message() == "hello"
        client.answers_pings, started = False, time.monotonic()
        last = await client.rest()
        assert time.monotonic() - started < 8
        assert client.pings >= 1
        assert last.messages == []


async def test_a_client_that_answers_pings_or_sends_them_lives(quick_daphne: Router) -> None:
    """The other side of 3: silence that is answered is no departure, and pings of its own are signs of life."""
    async with undisturbed(quick_daphne), raw_replica(echo) as replica:
        await quick_daphne.place(replica.url)
        answering, pinging = await raw_client(quick_daphne.port), await raw_client(quick_daphne.port)
        pinging.answers_pings = False
        reading = [asyncio.create_task(peer.message()) for peer in (answering, pinging)]
        for _ in range(16):
            await pinging.ping(b"mine")
            await asyncio.sleep(0.5)
        assert answering.pings >= 2
        for peer, message in zip((answering, pinging), reading, strict=True):
            await peer.say("still here")
            assert await message == "still here"
            await peer.close()
            await peer.rest()


async def test_a_client_that_does_not_read_holds_its_replica_back_and_hears_1008(quick_daphne: Router) -> None:
    """4: the replica is paused; after the stall limit (30 s; here 3 s) the client's last frame is a close with 1008."""
    flood = Flood()
    async with undisturbed(quick_daphne, back=20), raw_replica(flood) as replica:
        await quick_daphne.place(replica.url)
        client = await raw_client(quick_daphne.port, receive_buffer=65_536)
        client.fall_silent()
        started = time.monotonic()
        heard = await soon(flood.last)
        assert (heard.close and heard.close[0]) == 1001
        assert 2.5 < time.monotonic() - started < 15
        assert flood.sent < IN_BETWEEN
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        last = await client.rest()
        assert (last.close and last.close[0]) == 1008
        assert set(last.messages) == {b"video" * 13_000}


async def test_a_client_that_never_reads_again_is_cut_off(quick_daphne: Router) -> None:
    """4: it is not waited for: within 10 s of the session's end nothing of it is left in the router."""
    flood = Flood()
    async with raw_replica(flood) as replica:
        await quick_daphne.place(replica.url)
        before = descriptors(quick_daphne)
        client = await raw_client(quick_daphne.port, receive_buffer=65_536)
        client.fall_silent()
        await soon(flood.last)
        await until(lambda: descriptors(quick_daphne) <= before, 10, "the client's socket is closed")
        client.abort()


async def test_a_slow_reader_gets_every_byte(quick_daphne: Router) -> None:
    """5: 10 KB/s at a stall limit of 30 s is 100 KB/s at 3 s: no end for 12 s, little memory, then all of it."""
    flood = Flood(limit=40 * MIB)
    async with undisturbed(quick_daphne), raw_replica(flood) as replica:
        await quick_daphne.place(replica.url)
        client = await raw_client(quick_daphne.port, receive_buffer=32_768)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        before, digest, started = rss_kib(quick_daphne), hashlib.sha256(), time.monotonic()
        sock, loop = client.writer.get_extra_info("socket"), asyncio.get_running_loop()
        with socket.socket(fileno=os.dup(sock.fileno())) as same:
            same.setblocking(False)
            while (passed := time.monotonic() - started) < 12:
                digest.update(await loop.sock_recv(same, 5_000))
                await asyncio.sleep(0.05)
                if passed > 6:
                    assert flood.sent < flood.limit  # or the kernel has it all, and nothing is held back
        assert rss_kib(quick_daphne) - before < 8 * 1024
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        got = 0
        while flood.sent < flood.limit or digest.digest() != flood.digest.digest():
            data = await asyncio.wait_for(client.reader.read(256 * 1024), 20)
            got += len(data)
            digest.update(data)
        await client.close()
        await soon(flood.last)
        client.writer.close()


async def test_a_client_that_dribbles_inside_a_frame_is_refused(quick_daphne: Router) -> None:
    """6: less than 1 KiB in the stall limit, in the middle of a frame: 1008, and its replica gets 1001."""
    heard: asyncio.Future[Last] = asyncio.get_running_loop().create_future()

    async def listen(peer: Peer) -> None:
        heard.set_result(await peer.rest())

    async with undisturbed(quick_daphne), raw_replica(listen) as replica:
        await quick_daphne.place(replica.url)
        client = await raw_client(quick_daphne.port)
        await client.say("whole")
        reading, started = asyncio.create_task(client.rest()), time.monotonic()
        await client.send(head(BINARY, 65_536, mask=client.new_mask))
        with contextlib.suppress(ConnectionError):
            while not reading.done():
                await client.send(b"x" * 10)
                await asyncio.sleep(0.1)
        last = await reading
        assert (last.messages, last.close and last.close[0]) == ([], 1008)
        assert 2.5 < time.monotonic() - started < 15
        found = await soon(heard)
        assert (found.messages, found.close) == (["whole"], (1001, ""))


async def test_a_slow_frame_that_keeps_coming_is_let_through(quick_daphne: Router) -> None:
    """The other side of 6: 2 KiB in each second is enough, however long the frame takes."""
    payload = os.urandom(16_384)
    async with undisturbed(quick_daphne), raw_replica(echo) as replica:
        await quick_daphne.place(replica.url)
        client = await raw_client(quick_daphne.port)
        octets = frame(BINARY, payload, mask=client.new_mask)
        for at in range(0, len(octets), 200):
            await client.send(octets[at : at + 200])
            await asyncio.sleep(0.1)
        assert await client.message() == payload
        await client.close()
        await client.rest()


async def test_what_comes_after_a_close_is_ignored(router: Router) -> None:
    """12: neither side gets data that follows a close, and one close is all that either gets."""
    heard: asyncio.Future[Last] = asyncio.get_running_loop().create_future()

    async def listen(peer: Peer) -> None:
        heard.set_result(await peer.rest())

    async with undisturbed(router), raw_replica(listen, first=frame(TEXT, b"welcome")) as replica:
        await router.place(replica.url)
        client = await raw_client(router.port)
        assert await client.message() == "welcome"  # who leaves before his replica is there has nothing sent to it
        late = frame(BINARY, b"late", mask=client.new_mask)
        await client.say("in time")
        await client.send(close_frame(4001, "bye", mask=client.new_mask) + late * 3)
        last = await client.rest()
        assert (last.messages, last.close and last.close[0]) == ([], 4001)
        found = await soon(heard)
        assert (found.messages, found.close and found.close[0]) == (["in time"], 4001)
        assert found.after_close == b""


async def test_a_replicas_data_after_its_close_is_ignored(router: Router) -> None:
    """12, the other way round."""

    async def talk(peer: Peer) -> None:
        await peer.send(frame(BINARY, b"in time") + close_frame(4001, "bye") + frame(BINARY, b"late") * 3)
        await peer.rest()

    async with undisturbed(router), raw_replica(talk) as replica:
        await router.place(replica.url)
        last = await (await raw_client(router.port)).rest()
        assert (last.messages, last.close, last.after_close) == ([b"in time"], (4001, "bye"), b"")


async def test_a_storm_of_connects_leaves_nothing(patient_router: Router) -> None:
    """14: 600 clients that come and go in every way, 60 at once; nothing leaks, and the next one is served."""

    async def come_and_go(number: int) -> None:
        async with gate:
            if number % 6 == 0:
                with socket.create_connection(("127.0.0.1", patient_router.port)):
                    return
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                client = await raw_client(patient_router.port)
                if number % 6 == 1:
                    client.abort()
                    return
                await client.say("hello")
                if number % 6 == 2:
                    client.abort()
                    return
                assert await client.message() == "hello"
                if number % 6 == 3:
                    client.abort()
                    return
                await client.close()
                await client.rest()

    gate = asyncio.Semaphore(60)
    async with undisturbed(patient_router), raw_replica(echo) as replica:
        await patient_router.place(replica.url)
        before = 0
        for _ in range(2):
            async with asyncio.TaskGroup() as everyone:
                for number in range(300):
                    everyone.create_task(come_and_go(number))
            before = before or rss_kib(patient_router)
        assert rss_kib(patient_router) - before < 8 * 1024
