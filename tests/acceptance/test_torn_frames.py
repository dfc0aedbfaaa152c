"""A replica is killed in the middle of what it says (faults.md 28, 29): its client never gets half a frame."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.acceptance.neighbours import has_read, undisturbed, until
from tests.acceptance.servers import Router
from tests.processes import running
from tests.raw import BINARY, CONTINUATION, TEXT, Last, Peer, close_frame, frame, head, raw_client, raw_replica

MIB = 1024 * 1024
BEFORE = b"video" * 1000
LARGE = os.urandom(10 * MIB)

# What a replica sends at last, and whether its client gets to see the beginning of that message.
TORN = {
    "in the middle of a frame of 64 KiB": (head(BINARY, 65_536) + b"x" * 30_000, False),
    "in the middle of a header": (head(BINARY, 65_536)[:3], False),
    "before the first fragment of 10 MiB is whole": (head(BINARY, 10 * MIB) + b"x" * (MIB - 1), False),
    "in the middle of a message of 10 MiB": (head(BINARY, 10 * MIB) + LARGE[: 5 * MIB], True),
    "between two fragments": (frame(TEXT, b"one ", fin=False) + frame(CONTINUATION, b"two", fin=False), True),
    "inside a second fragment": (frame(TEXT, b"one ", fin=False) + head(CONTINUATION, 1000) + b"x", True),
}


def assert_lost(last: Last, *, inside_a_message: bool) -> None:
    """The close is 1011; the error frame stands before it unless it would stand inside a message."""
    assert last.close is not None
    assert last.close[0] == 1011
    assert last.after_close == b""
    errors = [json.loads(message) for message in last.messages if isinstance(message, str)]
    assert [error["code"] for error in errors] == ([] if inside_a_message else ["worker_failed"])
    assert "127.0.0.1" not in str(errors)
    assert last.unfinished is inside_a_message


@pytest.mark.parametrize("how", ["reset", "end"])
@pytest.mark.parametrize("where", TORN)
async def test_a_replica_that_dies_leaves_no_half_frame(router: Router, where: str, how: str) -> None:
    """What was whole arrives; then the error frame and 1011, or 1011 alone inside a message (faults.md, 28)."""
    torn, in_message = TORN[where]
    # By messages a client gets none before it is whole, so that an error frame can always follow.
    in_message = in_message and router.server == "daphne"
    async with undisturbed(router), raw_replica() as replica:
        await router.place(replica.url)
        client = await raw_client(router.port)
        peer = await replica.wait_peer()
        await peer.send(frame(BINARY, BEFORE))
        assert await client.message() == BEFORE
        reading = asyncio.create_task(client.rest())
        await peer.send(torn)
        while peer.writer.transport.get_write_buffer_size():
            await asyncio.sleep(0.01)
        if how == "reset":
            # It destroys what is on its way: how much arrives of that, nobody could tell.
            await until(lambda: has_read(peer), what="the router has read what was sent")
        died = router.moment()
        if how == "reset":
            peer.abort()
        else:
            peer.writer.write_eof()
        last = await reading
        assert died.ago < 1
    assert_lost(last, inside_a_message=in_message)


async def test_the_fragments_that_went_out_are_a_prefix(quick_daphne: Router) -> None:
    """Of a large message whose replica dies, a client under Daphne has an exact, whole number of MiB.

    Elsewhere a message comes whole or not at all.
    """
    async with raw_replica() as replica:
        await quick_daphne.place(replica.url)
        client = await raw_client(quick_daphne.port)
        peer = await replica.wait_peer()
        await peer.send(frame(BINARY, LARGE)[: 3 * MIB + 500_000])
        got = bytearray()
        for number in range(3):
            fragment = await client.frame()
            assert fragment is not None
            assert (fragment.opcode, fragment.fin) == (CONTINUATION if number else BINARY, False)
            got += fragment.payload
        peer.abort()
        last = await client.frame()
        assert last is not None
        assert last.payload == close_frame(1011, "replica_lost")[2:]
        client.writer.close()
    assert got == LARGE[: 3 * MIB]


async def streaming(router: Router, client: Peer, pid: int, number: int) -> tuple[Last, float]:
    """Signal the replica while it streams to `client`; what the client saw, and how long its end took."""
    for _ in range(100):
        assert await client.message() is not None
    reading = asyncio.create_task(client.rest())
    os.kill(pid, number)
    started = router.moment()
    return await reading, started.ago


@pytest.mark.parametrize(("name", "seconds"), [("SIGKILL", 1), ("SIGSTOP", 5)])
async def test_a_replica_process_that_is_killed_or_stopped(
    quick_router: Router, name: str, seconds: float, tmp_path: Path
) -> None:
    """SIGKILL shows at once (faults.md, 28); SIGSTOP by a ping that goes unanswered (29: 40 s, here 1 s and 2 s)."""
    at = tmp_path / "address"
    with running("replica", [sys.executable, "-m", "tests.streaming_replica", str(at)], tmp_path) as process:
        await asyncio.to_thread(process.wait_until, at.exists)
        async with undisturbed(quick_router):
            await quick_router.place(at.read_text())
            client = await raw_client(quick_router.port)
            last, took = await streaming(quick_router, client, process.pid, getattr(signal, name))
    assert took < seconds
    assert_lost(last, inside_a_message=last.unfinished)
