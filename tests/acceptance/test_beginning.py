"""Before a session has begun (design, decision 3): another replica may take it, with all that its client has sent.

Real servers on both sides; every test that says `router` runs on daphne and on uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator

import pytest

from tests.acceptance.neighbours import undisturbed
from tests.acceptance.servers import Router
from tests.acceptance.test_failover import hang
from tests.fake_replica import raw_server
from tests.raw import (
    BINARY,
    CONTINUATION,
    TEXT,
    Last,
    Peer,
    RawReplica,
    Talk,
    close_frame,
    frame,
    raw_client,
    raw_replica,
)

QUEUED = '{"type": "queue_status", "position": 1, "queue_depth": 1}'
REJECTED = '{"type": "error", "code": "session_rejected", "message": "no slot", "retryable": true}'
STARTED = '{"type": "ltx2_stream_start"}'
MIB = 1024 * 1024
INIT_BYTES = 43 * MIB


def leaving(code: int | None, *said: str, after: int = 0) -> Talk:
    """Say `said`, read `after` messages, then close with `code`, or, for None, die."""

    async def talk(peer: Peer) -> None:
        await peer.send(b"".join(frame(TEXT, words.encode()) for words in said))
        for _ in range(after):
            await peer.message()
        if code is None:
            peer.abort()
        else:
            await peer.send(close_frame(code, "told"))
            await peer.rest()

    return talk


async def digesting(peer: Peer) -> None:
    """Answer each message with its type and digest."""
    while (message := await peer.message()) is not None:
        await peer.say(digest(message))
    peer.writer.write(close_frame(1000))


def digest(message: str | bytes) -> str:
    octets = message.encode() if isinstance(message, str) else message
    return json.dumps([type(message).__name__, len(octets), hashlib.sha256(octets).hexdigest()])


@contextlib.asynccontextmanager
async def two_replicas(first: Talk, second: Talk = digesting) -> AsyncIterator[tuple[RawReplica, RawReplica]]:
    async with raw_replica(first) as one, raw_replica(second) as two:
        yield one, two


def codes(last: Last) -> list[str]:
    """Of a session's messages, the error codes."""
    found = [json.loads(message) for message in last.messages if isinstance(message, str)]
    return [message["code"] for message in found if isinstance(message, dict) and message.get("type") == "error"]


@pytest.mark.parametrize("code", [None, 1001, 1011, 1012, 1013])
async def test_a_replica_lost_before_the_session_has_begun_is_replaced(router: Router, code: int | None) -> None:
    """What the client sent, also in fragments, arrives on the next replica; the client sees one session (26)."""
    init = os.urandom(300_000).hex()
    async with undisturbed(router), two_replicas(leaving(code, QUEUED, after=3)) as (one, two):
        await router.place(one.url, two.url)
        client = await raw_client(router.port)
        await client.say(init)
        parts = ((BINARY, b"one ", False), (CONTINUATION, b"two ", False), (CONTINUATION, b"three", True))
        for opcode, part, fin in parts:
            await client.send(frame(opcode, part, fin=fin, mask=client.new_mask))
        await client.say("")
        expected = [QUEUED, digest(init), digest(b"one two three"), digest("")]
        assert [await client.message() for _ in expected] == expected
        await client.say("still here")
        assert await client.message() == digest("still here")
        await client.close(4001)
        assert (await client.rest()).messages == []
    assert (len(one.peers), len(two.peers)) == (1, 1)


async def test_a_place_in_a_replicas_own_line_is_passed_on_as_it_is(router: Router) -> None:
    """Also a higher one than the place in the router's line was: it is the truth."""
    words = [QUEUED.replace(": 1", f": {place}") for place in (3, 2)]
    async with undisturbed(router), raw_replica(leaving(1000, *words, STARTED)) as replica:
        await router.place(replica.url, status="unhealthy", queue_when_down=True)
        client = await raw_client(router.port)
        assert await client.message() == QUEUED
        await router.place(replica.url)
        assert [await client.message() for _ in range(3)] == [*words, STARTED]
        assert (await client.rest()).close == (1000, "told")


@pytest.mark.parametrize("code", [None, 1012])
async def test_a_large_init_is_replayed_byte_for_byte(router: Router, code: int | None) -> None:
    """43 MiB of init, pings before, amid and behind it; the first replica dies when it has read all (17, 26)."""
    init = os.urandom(INIT_BYTES // 2).hex()
    async with undisturbed(router), two_replicas(leaving(code, QUEUED, after=2)) as (one, two):
        await router.place(one.url, two.url)
        client = await raw_client(router.port)
        await client.ping(b"before")
        middle = INIT_BYTES // 2
        await client.send(frame(TEXT, init[:middle].encode(), fin=False, mask=client.new_mask))
        await client.ping(b"amid")
        await client.send(frame(CONTINUATION, init[middle:].encode(), mask=client.new_mask))
        await client.ping(b"behind")
        await client.say(b"and more")
        assert [await client.message() for _ in range(3)] == [QUEUED, digest(init), digest(b"and more")]
        assert client.pongs == [b"before", b"amid", b"behind"]
        await client.close()
        await client.rest()
    assert [len(one.peers), len(two.peers)] == [1, 1]


async def test_a_replica_that_dies_during_the_init_is_replaced(router: Router) -> None:
    """The replay takes up what was sent and what is still coming (26)."""
    init = os.urandom(INIT_BYTES // 2).hex()

    async def die_early(peer: Peer) -> None:
        await peer.say(QUEUED)
        await peer.reader.readexactly(1_000_000)
        peer.abort()

    async with undisturbed(router), two_replicas(die_early) as (one, two):
        await router.place(one.url, two.url)
        client = await raw_client(router.port)
        await client.say(init)
        assert [await client.message() for _ in range(2)] == [QUEUED, digest(init)]
        await client.close()
        await client.rest()


@pytest.mark.parametrize("code", [1000, 1003, 1008, 4001])
async def test_any_other_close_is_the_replicas_answer(router: Router, code: int) -> None:
    """It is passed on, and no other replica is asked (decision 3)."""
    async with undisturbed(router), two_replicas(leaving(code, QUEUED)) as (one, two):
        await router.place(one.url, two.url)
        client = await raw_client(router.port)
        last = await client.rest()
        assert (last.messages, last.close) == ([QUEUED], (code, "told"))
    assert len(two.peers) == 0


async def test_a_rejection_is_not_seen_where_another_replica_takes_the_session(router: Router) -> None:
    """`session_rejected` and 1013 lead on to the next; the client sees neither (decision 3)."""
    async with undisturbed(router), two_replicas(leaving(1013, REJECTED)) as (one, two):
        await router.place(one.url, two.url)
        client = await raw_client(router.port)
        await client.say("init")
        assert await client.message() == digest("init")
        await client.close()
        assert (await client.rest()).messages == []
    assert (len(one.peers), len(two.peers)) == (1, 1)


async def test_when_all_reject_and_nobody_may_wait_the_client_hears_it_once(router: Router) -> None:
    """The replica's own frame, once, and 1013: the client knows that code (contract B)."""
    rejecting = leaving(1013, REJECTED)
    async with undisturbed(router), two_replicas(rejecting, rejecting) as (one, two):
        await router.place(one.url, two.url, queue_max_length=0)
        client = await raw_client(router.port)
        last = await client.rest()
        assert (last.messages, last.close and last.close[0]) == ([REJECTED], 1013)
    assert (len(one.peers), len(two.peers)) == (1, 1)


async def test_a_withheld_rejection_that_was_no_last_word_is_passed_on(router: Router) -> None:
    """A replica that goes on after it is heard in order: nothing is lost, nothing overtakes."""

    async def change_its_mind(peer: Peer) -> None:
        await peer.say(REJECTED)
        await peer.say(STARTED)
        await peer.rest()

    async with undisturbed(router), raw_replica(change_its_mind) as replica:
        await router.place(replica.url)
        client = await raw_client(router.port)
        assert [await client.message() for _ in range(2)] == [REJECTED, STARTED]
        await client.close()
        await client.rest()


@pytest.mark.parametrize("begin", [STARTED, b"video", "", "no JSON", QUEUED + " " * 5000])
async def test_once_begun_a_death_is_the_sessions_end(router: Router, begin: str | bytes) -> None:
    """Any other message begins the session: from then on a lost replica is worker_failed and 1011 (decision 3)."""

    async def begin_and_die(peer: Peer) -> None:
        await peer.say(QUEUED)
        await peer.say(begin)
        await peer.message()
        peer.abort()

    async with undisturbed(router), two_replicas(begin_and_die) as (one, two):
        await router.place(one.url, two.url)
        client = await raw_client(router.port)
        assert [await client.message() for _ in range(2)] == [QUEUED, begin]
        await client.say("go on")
        last = await client.rest()
        assert (codes(last), last.close and last.close[0]) == (["worker_failed"], 1011)
    assert len(two.peers) == 0


@pytest.mark.parametrize("router_settings", [{"ROUTER_HOLD_BYTES": "100000"}])
async def test_more_than_may_be_held_is_not_replayed(own_router: Router) -> None:
    """Past ROUTER_HOLD_BYTES the replica that has it is the only one: worker_failed and 1011, half is never sent."""
    count, message = 300, b"x" * 65_536
    async with undisturbed(own_router), two_replicas(leaving(None, QUEUED, after=count)) as (one, two):
        await own_router.place(one.url, two.url)
        client = await raw_client(own_router.port)
        for _ in range(count):
            await client.say(message)
        async with asyncio.timeout(30):
            last = await client.rest()
        assert (codes(last), last.close and last.close[0]) == (["worker_failed"], 1011)
    assert len(two.peers) == 0


@pytest.mark.parametrize("router_settings", [{"ROUTER_HOLD_BYTES": str(8 * MIB)}])
async def test_a_slow_replay_lets_in_no_more_than_may_be_held(own_router: Router) -> None:
    """While held bytes are given to a replica that takes them slowly, the client stays paused at ROUTER_HOLD_BYTES."""
    count, message, taken = 60, b"x" * MIB, 0

    async def take_slowly(peer: Peer) -> None:
        nonlocal taken
        await peer.say(QUEUED)
        for _ in range(count):
            await peer.message()
            taken += 1
            await asyncio.sleep(0.02)
        peer.abort()

    async with undisturbed(own_router), raw_server(hang) as hung, two_replicas(take_slowly) as (one, two):
        await own_router.place(hung.url, one.url, two.url)
        client = await raw_client(own_router.port)  # waits 2 s for a handshake; its frames are held meanwhile
        for _ in range(count):
            await client.say(message)
        async with asyncio.timeout(60):
            last = await client.rest()
        assert (codes(last), last.close and last.close[0]) == (["worker_failed"], 1011)
    assert (taken, len(two.peers)) == (count, 0)
