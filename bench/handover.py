"""`python -m bench.handover`: from a freed slot to the next session's first frame, over four router processes.

One replica with one slot, whose server sends a frame as soon as a session opens; a line of clients before it, each on
another process than the one before. The clock runs from the close that the client of the slot sends to the first frame
that the next in the line receives. PostgreSQL (fsync on) is started for it; once with Redis, once without. Prints a
table in Markdown; bench/placements.md ends with one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from tabulate import tabulate
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from bench.placements import ROOT, WORKER, machine, run
from bench.processes import environment
from tests.backing_servers import Missing, running_postgres, running_redis
from tests.ports import free_port

PROCESSES = 4
LINE = 8  # clients that wait at any time
HEADERS = ("nudges", "sessions", "p50 ms", "p90 ms", "p99 ms", "max ms")
FIRST_FRAME = b"\0" * 1024
PATIENCE_SECONDS = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.handover", description=__doc__)
    parser.add_argument("--sessions", type=int, default=500, help="one after the other")
    options = parser.parse_args()
    rows = []
    for nudges in ("redis", "none"):
        with tempfile.TemporaryDirectory(prefix="bench-") as name, contextlib.ExitStack() as servers:
            try:
                settings = {"DATABASE_URL": servers.enter_context(running_postgres(durable=True)).url}
                if nudges == "redis":
                    settings["REDIS_URL"] = servers.enter_context(running_redis(Path(name)))
            except Missing as missing:
                print(f"{nudges}: {missing}", file=sys.stderr)
                continue
            took = sorted(asyncio.run(_measure(Path(name), settings, options.sessions)))
        parts = [took[math.ceil(len(took) * part) - 1] * 1000 for part in (0.5, 0.9, 0.99, 1)]
        rows.append((nudges, len(took), *(f"{part:.1f}" for part in parts)))
        print(rows[-1], file=sys.stderr)
    print(f"{PROCESSES} processes, {LINE} clients waiting, one slot; {machine()}.\n")
    print(tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True))
    return 0


async def _measure(var: Path, settings: dict[str, str], sessions: int) -> list[float]:
    env = environment(
        ROUTER_VAR_DIR=str(var), DJANGO_SETTINGS_MODULE="routerproject.settings", LOG_LEVEL="ERROR", **settings
    )
    async with serve(_first_frame_at_once, "127.0.0.1", 0, compression=None) as replica:
        url = f"http://127.0.0.1:{replica.sockets[0].getsockname()[1]}"
        await asyncio.to_thread(run, ["manage.py", "migrate", "-v", "0"], env)
        await asyncio.to_thread(run, ["-m", WORKER, "single", url], env)
        with _routers(env) as urls:
            async with asyncio.timeout(PATIENCE_SECONDS):
                for url in urls:
                    await _until_it_answers(url)
            turns = iter(urls[number % PROCESSES] for number in range(sessions + LINE + 1))
            inside = await _client(next(turns))
            await inside.recv()
            line: deque[ClientConnection] = deque()
            took = []
            for _ in range(sessions):
                while len(line) < LINE:
                    line.append(await _client(next(turns, urls[0])))
                    assert _waits(await line[-1].recv())
                began = time.monotonic()
                closing = asyncio.create_task(inside.close())
                inside = line.popleft()
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while _waits(await inside.recv()):
                        pass
                took.append(time.monotonic() - began)
                await closing
            await asyncio.gather(*(client.close() for client in (inside, *line)))
    return took


async def _first_frame_at_once(session: ServerConnection) -> None:
    await session.send(FIRST_FRAME)
    await session.wait_closed()


async def _client(url: str) -> ClientConnection:
    return await connect(url, compression=None, proxy=None)


def _waits(message: str | bytes) -> bool:
    return isinstance(message, str) and json.loads(message)["type"] == "queue_status"


@contextlib.contextmanager
def _routers(env: dict[str, str]) -> Iterator[list[str]]:
    """Their URLs."""
    ports = [free_port() for _ in range(PROCESSES)]
    daphne = [str(Path(sys.executable).with_name("daphne")), "-b", "127.0.0.1", "-v", "0", "-p"]
    processes = [
        subprocess.Popen([*daphne, str(port), "routerproject.asgi:application"], cwd=ROOT, env=env) for port in ports
    ]
    try:
        yield [f"ws://127.0.0.1:{port}/v1/stream" for port in ports]
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def _until_it_answers(url: str) -> None:
    while True:
        try:
            await (await _client(url)).close()
            return
        except OSError:
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
