"""What must hold around every fault (faults.md): other sessions go on, each session ends once, nothing is left.

Used as `async with undisturbed(router):` around the fault. `jam` and `has_read` see in the kernel how far octets came.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.acceptance.servers import Router
from tests.fake_replica import fake_replica
from tests.raw import BINARY, Peer, frame, raw_client

# The slowest echo of a session beside the fault. A router that waits for one session's peer is slower by far.
UNAFFECTED_SECONDS = 2.0
BACK_SECONDS = 10.0
ZERO_WINDOW_PROBE, LOOKS = 4, 5


def descriptors(router: Router) -> int:
    return len(os.listdir(f"/proc/{router.process.pid}/fd"))


def rss_kib(router: Router) -> int:
    """The router's resident memory in KiB."""
    status = Path(f"/proc/{router.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


async def until(condition: Callable[[], Any], seconds: float = 30, what: str = "the condition") -> None:
    """Until `condition` holds; an AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.02)


async def jam(source: Peer, target: Peer) -> None:
    """Wait until nothing more passes from `source` through the router to `target`, which does not read.

    On both ways the sender has more, all it sent is acknowledged, and the receiver's kernel has no room: then Linux
    runs its zero-window probe. And the router leaves what it has unread, at each of LOOKS looks: at a single one it
    might only be slow. A kernel may find room for a little more later; the router has no part in that.
    """
    seen: list[int] = []

    def jammed() -> bool:
        found = _connections()
        ways = [found.get(ports) for ports in (source.ports, target.ports[::-1])]
        router = found.get(source.ports[::-1])
        if router is None or not all(way and way.timer == ZERO_WINDOW_PROBE for way in ways):
            seen.clear()
            return False
        if seen and seen[-1] != router.unread:
            seen.clear()
        seen.append(router.unread)
        return router.unread > 0 and len(seen) >= LOOKS

    await until(jammed, what="no more is taken")


def has_read(peer: Peer) -> bool:
    """Has the router read all that left `peer`'s process? Two looks: one shows the two ends at two moments."""
    if _connections()[peer.ports].unacknowledged:
        return False
    return not _connections()[peer.ports[::-1]].unread


class Connection(NamedTuple):
    """One end of a connection, as its kernel has it (proc_net_tcp): octets, and which timer runs."""

    unacknowledged: int
    unread: int
    timer: int


def _connections() -> dict[tuple[int, int], Connection]:
    """All of this machine's over IPv4, by their ports: this end's, the far end's."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, here, there, _, queues, timer, *_ = line.split()
        unacknowledged, unread = (int(octets, 16) for octets in queues.split(":"))
        ports = int(here.rpartition(":")[2], 16), int(there.rpartition(":")[2], 16)
        found[ports] = Connection(unacknowledged, unread, int(timer.partition(":")[0], 16))
    return found


@contextlib.asynccontextmanager
async def undisturbed(
    router: Router, *, back: float = BACK_SECONDS, unaffected: float = UNAFFECTED_SECONDS
) -> AsyncIterator[None]:
    """The block may do to its sessions what it likes: one beside them echoes all the time; then all is as before.

    The block must end with its sessions ended; `back` seconds later at most their sockets are gone.
    `unaffected`: how long an echo beside it may take; longer where the block keeps this very process busy.
    """
    async with fake_replica() as elsewhere:
        await router.place(elsewhere.url)
        neighbour = await raw_client(router.port)
        await neighbour.say("hello")  # what a first session opens for good is open now
        assert await neighbour.message() == "hello"
        seen, before = len(router.log), descriptors(router)
        slowest, over = 0.0, asyncio.Event()

        async def echoes() -> None:
            nonlocal slowest
            number = 0
            while not over.is_set():
                payload, started = number.to_bytes(4, "big"), router.moment()
                await neighbour.send(frame(BINARY, payload, mask=neighbour.new_mask))
                assert await neighbour.message() == payload
                slowest, number = max(slowest, started.ago), number + 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), 0.05)

        beside = asyncio.create_task(echoes())
        try:
            yield
            assert not beside.done(), "the session beside the fault ended"
            await until(lambda: descriptors(router) <= before, back, f"back to {before} descriptors")
        finally:
            over.set()
            await beside
        assert slowest < unaffected, f"an echo beside the fault took {slowest:.1f} s"
        opened = set(re.findall(r"session (\w+) opened:", router.log[seen:]))

        def ended() -> Counter[str]:
            return Counter(re.findall(r"session (\w+) ended:", router.log[seen:]))

        await until(lambda: opened == set(ended()), back, "the end of each session that was opened")
        assert set(ended().values()) <= {1}, "and once"
        log = router.log[seen:]
        for sign in ("Traceback", "Task was destroyed", "never retrieved"):
            assert sign not in log, log
        await neighbour.close()
        assert (await neighbour.rest()).close == (1000, "")
