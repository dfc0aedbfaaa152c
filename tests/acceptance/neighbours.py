"""What must hold around every fault (faults.md): other sessions go on, each session ends once, nothing is left.

Used as `async with undisturbed(router):` around the fault.
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
from typing import Any

from tests.acceptance.servers import Router
from tests.fake_replica import fake_replica
from tests.raw import BINARY, frame, raw_client

# The slowest echo of a session beside the fault. A router that waits for one session's peer is slower by far.
UNAFFECTED_SECONDS = 2.0
BACK_SECONDS = 10.0


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
                payload, started = number.to_bytes(4, "big"), time.monotonic()
                await neighbour.send(frame(BINARY, payload, mask=neighbour.new_mask))
                assert await neighbour.message() == payload
                slowest, number = max(slowest, time.monotonic() - started), number + 1
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
        log = router.log[seen:]
        opened = set(re.findall(r"session (\w+) opened:", log))
        ended = Counter(re.findall(r"session (\w+) ended:", log))
        assert opened == set(ended), "each session that was opened has ended"
        assert set(ended.values()) <= {1}, "and once"
        for sign in ("Traceback", "Task was destroyed", "never retrieved"):
            assert sign not in log, log
        await neighbour.close()
        assert (await neighbour.rest()).close == (1000, "")
