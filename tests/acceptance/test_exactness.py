"""A million frames, both ways at once: nothing lost, doubled, changed, reordered or retyped (design, invariants).

Each side of each session sends random messages of random sizes and types, whole and in fragments, and stalls at random;
its last message holds the SHA-256 over the type and payload of all the others. The parser is that of tests/raw.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Iterator

from tests.acceptance.neighbours import undisturbed, until
from tests.acceptance.servers import Router
from tests.raw import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PATIENCE_SECONDS,
    PING,
    TEXT,
    Parser,
    Peer,
    frame,
    raw_client,
    raw_replica,
)

SESSIONS = 50
# By messages a frame costs the router tens of times as much.
FRAMES = {"daphne": 1_000_000, "uvicorn": 30_000}
MIB = 1024 * 1024

BATCH_FRAMES = 200
FIRST_BYTES = 200_000
# Payloads are pieces of these: random, and cheap to take. Text must be UTF-8.
OCTETS = os.urandom(4 * MIB)
LETTERS = os.urandom(2 * MIB).hex().encode()
LAST = b"the last message, and the digest of those before it: "


class Digest:
    """Of a series of messages, given frame by frame. How a message is cut into fragments makes no difference."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._opcode, self._parts = 0, list[bytes]()

    def add(self, opcode: int, fin: bool, payload: bytes) -> bytes:
        """Give the message that is whole with this frame, or b""."""
        if opcode != CONTINUATION:
            assert not self._parts
            self._opcode = opcode
        if not fin or opcode == CONTINUATION:
            self._parts.append(payload)
            if not fin:
                return b""
            payload = b"".join(self._parts)
            self._parts = []
        if not payload.startswith(LAST):
            self._hash.update(b"%d %d " % (self._opcode, len(payload)))
            self._hash.update(payload)
        return payload

    @property
    def last(self) -> bytes:
        return LAST + self._hash.digest()


def sizes(rng: random.Random, count: int) -> Iterator[int]:
    """Mostly up to 200 octets, some up to 4 KiB, a few of 64 KiB, one over a MiB."""
    large = rng.randrange(count)
    for number in range(count):
        luck = rng.random()
        if number == large:
            yield rng.randrange(MIB, 2 * MIB)
        elif luck < 0.0005:
            yield rng.choice((65_535, 65_536, 65_537))
        elif luck < 0.05:
            yield rng.randrange(4096)
        else:
            yield rng.choice((0, 1, 125, 126, 127)) if luck < 0.1 else int(200 * luck)


async def send(peer: Peer, digest: Digest, count: int, rng: random.Random) -> None:
    """Send that many frames and the last message, in batches that are cut anywhere, with stalls."""
    opcode, batch = 0, bytearray()
    for number, size in enumerate(sizes(rng, count), 1):
        kind = CONTINUATION if opcode else rng.choice((TEXT, BINARY))
        opcode = opcode or kind
        fin = number == count or rng.random() < 0.9
        start = rng.randrange(2 * MIB)
        payload = (LETTERS if opcode == TEXT else OCTETS)[start : start + size]
        digest.add(kind, fin, payload)
        batch += frame(kind, payload, fin=fin, mask=peer.new_mask)
        if fin:
            opcode = 0
        if number % BATCH_FRAMES == 0 or number == count:
            batch += frame(PING, b"no message", mask=peer.new_mask)
            cut = rng.randrange(len(batch))
            await peer.send(bytes(batch[:cut]))
            if rng.random() < 0.1:
                await asyncio.sleep(rng.random() * 0.2)
            await peer.send(bytes(batch[cut:]))
            batch.clear()
    await peer.say(digest.last)


async def receive(peer: Peer, digest: Digest, rng: random.Random) -> None:
    """Read, with stalls, until the last message, which must say what has come."""
    parser, last = Parser(), b""
    while not last:
        data = await asyncio.wait_for(peer.reader.read(MIB), PATIENCE_SECONDS)
        assert data, "the end before the last message"
        for opcode, fin, payload in parser.feed(data):
            assert opcode != CLOSE, payload
            if opcode < CLOSE and (message := digest.add(opcode, fin, payload)).startswith(LAST):
                last = message
        if rng.random() < 0.01:
            await asyncio.sleep(rng.random() * 0.2)
    assert last == digest.last


async def test_a_million_frames_arrive_as_they_were_sent(router: Router) -> None:
    """50 sessions, both directions at once, replicas that speak first with 200 KB in one piece with their 101."""
    count, first = FRAMES[router.server] // SESSIONS // 2, OCTETS[:FIRST_BYTES]
    right: list[Peer] = []
    go = asyncio.Event()  # once all are connected: this process is too busy then to answer a handshake in time

    async def both(peer: Peer, sent: Digest, seed: int) -> None:
        await go.wait()
        await asyncio.gather(
            send(peer, sent, count, random.Random(seed)), receive(peer, Digest(), random.Random(seed + 1))
        )
        right.append(peer)

    async def talk(peer: Peer) -> None:
        sent = Digest()
        sent.add(BINARY, True, first)
        await both(peer, sent, len(replica.peers))
        await peer.rest()

    async with (
        undisturbed(router, unaffected=PATIENCE_SECONDS),
        raw_replica(talk, first=frame(BINARY, first)) as replica,
    ):
        await router.place(replica.url)
        clients = [await raw_client(router.port) for _ in range(SESSIONS)]
        await replica.wait_peer(SESSIONS)
        go.set()
        await asyncio.gather(*(both(client, Digest(), 1000 + number) for number, client in enumerate(clients)))
        await until(lambda: len(right) == 2 * SESSIONS, PATIENCE_SECONDS, "every replica has all")
        for client in clients:
            await client.close()
            assert (await client.rest()).close == (1000, "")
