"""deploy/: several router processes on one socket, and the prober, under supervisord as its README says."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.fake_replica import fake_replica
from tests.ports import free_port
from tests.processes import BIN, manage, running, wait_until

CONFIGURATION = "deploy/supervisor/supervisord.conf"


def children(pid: int, program: str) -> set[int]:
    """The processes that `pid` has started and that run `program`."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (entry / "stat").exists():
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and program in (entry / "cmdline").read_text():
                found.add(int(entry.name))
    return found


def running_now() -> set[int]:
    return {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}


def sessions_of(processes: set[int]) -> Counter[int]:
    """How many sockets each has open: two a session, and those that it has anyway."""
    return Counter({pid: len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in processes})


async def test_two_processes_share_a_socket_and_one_of_them_may_die(tmp_path: Path) -> None:
    """Both take clients; one that is killed takes its own sessions with it, and comes back; SIGTERM ends all."""
    port = free_port()
    manage(tmp_path, "migrate", "--verbosity", "0")
    async with fake_replica() as replica:
        file = tmp_path / "replicas.yaml"
        file.write_text(f"router:\n  replicas:\n    - url: {replica.url}\n  health_check: {{interval_seconds: 0.3}}\n")
        manage(tmp_path, "loadreplicas", str(file))
        settings = {
            "ROUTER_PROCESSES": 2, "ROUTER_BIND": f"127.0.0.1:{port}", "PATH": f"{BIN}:{os.environ['PATH']}",
        }  # fmt: skip
        command = [str(BIN / "supervisord"), "-c", CONFIGURATION]
        with running("supervisord", command, tmp_path, **settings) as supervisor:
            await asyncio.to_thread(supervisor.wait_until, lambda: "unknown → healthy" in supervisor.log)
            await asyncio.to_thread(supervisor.wait_until, lambda: supervisor.log.count("Listening on TCP") == 2)
            routers = children(supervisor.pid, "daphne")
            assert len(routers) == 2
            before = sessions_of(routers)

            clients: list[ClientConnection] = []
            while min((sessions_of(routers) - before).get(pid, 0) for pid in routers) < 2:
                clients.append(await connect(f"ws://127.0.0.1:{port}/v1/stream", proxy=None))
                await clients[-1].send("hello")
                assert await clients[-1].recv() == "hello"
                assert len(clients) < 200, "one process takes all"

            os.kill(routers.pop(), signal.SIGKILL)
            lived = 0
            for client in clients:
                try:
                    await client.send("still there?")
                    assert await client.recv() == "still there?"
                    lived += 1
                except ConnectionClosed:
                    assert client.close_code == 1006
            assert 0 < lived < len(clients)
            async with connect(f"ws://127.0.0.1:{port}/v1/stream", proxy=None) as newcomer:
                await newcomer.send("hello")
                assert await newcomer.recv() == "hello"
            await asyncio.to_thread(wait_until, lambda: len(children(supervisor.pid, "daphne")) == 2, 20)
            everything = children(supervisor.pid, "")
            assert await asyncio.to_thread(supervisor.stop, signal.SIGTERM, 30) == 0
            assert not everything & running_now()
