"""A replica in a process of its own that streams until it is killed: `python -m tests.streaming_replica ADDRESS_FILE`.

For tests that stop or kill one (SIGSTOP, SIGKILL). Writes its URL into the file once it listens.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.raw import BINARY, Peer, frame, raw_replica

CHUNK = frame(BINARY, b"video" * 13_000)


async def stream(peer: Peer) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(peer.rest())
        while True:
            await peer.send(CHUNK)
            await asyncio.sleep(0.001)


async def main(address: Path) -> None:
    async with raw_replica(stream) as replica:
        draft = address.with_suffix(".draft")
        draft.write_text(replica.url)
        draft.rename(address)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
