"""deploy/: several router processes on one socket, and the prober, under supervisord as its README says.

And how the processes share the socket: here without supervisord, each with a log of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pytest_django.plugin import DjangoDbBlocker
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from proxy.ledger import usual_folder
from tests.acceptance.moments import Moment
from tests.acceptance.servers import APPLICATION, PATIENT, running_router
from tests.fake_replica import fake_replica
from tests.ports import free_in_a_hundred, free_port
from tests.processes import BIN, ROOT, SQLITE, Running, manage, migrated, running, wait_until
from tests.scraping import scrape

CONFIGURATION = ROOT / "deploy" / "supervisor" / "supervisord.conf"
PRODUCTION = {
    "HTTPS_ONLY": "true", "ALLOWED_HOSTS": "router.example.com", "ROUTER_STATUS_ACCESS": "staff",
    "ROUTER_METRICS_ACCESS": "token",
}  # fmt: skip


def children(pid: int, program: str) -> set[int]:
    """The processes that `pid` has started and that run `program`."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            if entry.name.isdigit():
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
    migrated(tmp_path)
    async with fake_replica() as replica:
        file = tmp_path / "replicas.yaml"
        file.write_text(f"router:\n  replicas:\n    - url: {replica.url}\n  health_check: {{interval_seconds: 0.3}}\n")
        manage(tmp_path, "loadreplicas", str(file))
        settings = {
            "ROUTER_PROCESSES": 2, "ROUTER_BIND": f"127.0.0.1:{port}", "PATH": f"{BIN}:{os.environ['PATH']}",
            **PRODUCTION,
        }  # fmt: skip
        # As it stands, but for the metrics' ports: others on this machine may test the same at the same time.
        ports = free_in_a_hundred(0, 1, 90)
        shipped = CONFIGURATION.read_text()
        assert shipped.count('"127.0.0.1:97') == 2
        ours = tmp_path / "supervisord.conf"
        ours.write_text(shipped.replace('"127.0.0.1:97', f'"127.0.0.1:{ports[0] // 100}'))
        command = [str(BIN / "supervisord"), "-c", str(ours)]
        with running("supervisord", command, tmp_path, **settings) as supervisor:
            await asyncio.to_thread(supervisor.wait_until, lambda: "unknown → healthy" in supervisor.log)
            await asyncio.to_thread(supervisor.wait_until, lambda: supervisor.log.count("Listening on TCP") == 2)
            routers = children(supervisor.pid, "daphne")
            assert len(routers) == 2
            served = len(ports)
            await asyncio.to_thread(supervisor.wait_until, lambda: supervisor.log.count("metrics are served") == served)
            first, second, prober = [await scrape(port) for port in ports]
            assert ("sessions_total",) in first.keys() & second.keys()
            assert ("lease_held",) in prober
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


def test_supervisord_starts_no_router_with_settings_for_a_desk(tmp_path: Path) -> None:
    """As systemd does not: the check runs first, and its words are in the log."""
    migrated(tmp_path)
    settings = {
        "ROUTER_PROCESSES": 1, "ROUTER_BIND": f"127.0.0.1:{free_port()}", "PATH": f"{BIN}:{os.environ['PATH']}",
        **PRODUCTION, "ROUTER_STATUS_ACCESS": "public",
    }  # fmt: skip
    command = [str(BIN / "supervisord"), "-c", str(CONFIGURATION)]
    with running("supervisord", command, tmp_path, **settings) as supervisor:
        supervisor.wait_for("exited: 0 (exit status 1; not expected)", 60)
        assert "(router.E006) ROUTER_STATUS_ACCESS is public" in supervisor.log
        assert "Listening on TCP" not in supervisor.log
        assert supervisor.stop() == 0


@dataclass
class Fleet:
    """Router processes on one socket, and the clients that they serve."""

    port: int
    ledger: Path
    database: Path
    start: Callable[[str], Running]  # one more process; returns when it listens
    processes: list[Running] = field(default_factory=list)
    clients: list[ClientConnection] = field(default_factory=list)

    async def open(self) -> ClientConnection:
        """A session that works."""
        client = await connect(f"ws://127.0.0.1:{self.port}/v1/stream", proxy=None, open_timeout=30)
        self.clients.append(client)
        await client.send("hello")
        assert await client.recv() == "hello"
        return client

    async def leave(self, count: int) -> None:
        """The `count` oldest clients close, and the processes have noticed."""
        ended = self.ended
        for client in self.clients[:count]:
            await client.close()
        del self.clients[:count]
        await asyncio.to_thread(wait_until, lambda: self.ended == ended + count)

    async def open_until(self, enough: Callable[[], bool], few: int) -> None:
        """`few` sessions one by one, then more until it is `enough`, twice as many at most.

        A process that the machine lets wait for more than 2 ms misses its turn, and has it with the next client.
        """
        for number in range(2 * few):
            if number >= few and enough():
                return
            await self.open()
        assert enough(), self.opened

    @property
    def opened(self) -> list[int]:
        return [process.log.count(" opened: ") for process in self.processes]

    @property
    def ended(self) -> int:
        return sum(process.log.count(" ended: ") for process in self.processes)


@pytest.fixture
async def fleet(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> AsyncIterator[Fleet]:
    """Two router processes on one socket, and a replica that echoes."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as shared, contextlib.ExitStack() as running_ones:
        fd = shared.fileno()
        command = ["daphne", "--fd", str(fd)]
        ledger = usual_folder() / f"stream-router-{os.getuid()}-{os.fstat(fd).st_ino}"

        def start(name: str) -> Running:
            line = [str(BIN / "daphne"), *command[1:], APPLICATION]
            process = running_ones.enter_context(running(name, line, tmp_path, [fd], **PATIENT))
            process.wait_for("Listening on TCP")
            found.processes.append(process)
            return process

        found = Fleet(shared.getsockname()[1], ledger, tmp_path / SQLITE, start)
        router = running_ones.enter_context(
            running_router("daphne", tmp_path, django_db_blocker, command=command, pass_fds=[fd], **PATIENT)
        )
        router.process.wait_for("Listening on TCP")
        found.processes.append(router.process)
        await asyncio.to_thread(start, "second")
        async with fake_replica() as replica:
            await router.place(replica.url)
            yield found
            for client in found.clients:
                await client.close()
        for process in found.processes:
            if process.process.poll() is None:
                assert await asyncio.to_thread(process.stop) == 0
        assert not ledger.exists()


async def test_clients_that_come_one_by_one_are_shared_evenly(fleet: Fleet) -> None:
    """The process with the fewest connections takes the next: 40 sessions are 20 and 20."""
    await fleet.open_until(lambda: max(fleet.opened) - min(fleet.opened) <= 2, 40)


async def test_a_burst_is_shared_evenly(fleet: Fleet) -> None:
    """A hundred at once: nobody takes a heap of them from the others."""
    shares = []
    for _ in range(5):  # a machine that lets one process wait gives the other more
        before = fleet.opened
        await asyncio.gather(*(fleet.open() for _ in range(100)))
        shares.append(min(now - then for now, then in zip(fleet.opened, before, strict=True)))
        if shares[-1] >= 40:
            return
        await fleet.leave(100)
    raise AssertionError(f"the smaller shares: {shares}")


async def test_who_has_lost_clients_takes_the_next_ones(fleet: Fleet) -> None:
    """What counts is what is open, not what was: and it is counted down also for connections that left Twisted."""
    await asyncio.gather(*(fleet.open() for _ in range(20)))
    await fleet.leave(20)
    before = fleet.opened

    def gained() -> list[int]:
        return [now - then for now, then in zip(fleet.opened, before, strict=True)]

    await fleet.open_until(lambda: max(gained()) - min(gained()) <= 2, 20)


def frozen(process: Running, database: Path) -> bool:
    """Stopped; but not while it writes: nobody takes SQLite's lock, nor the turn before it, from one that stands."""
    process.process.send_signal(signal.SIGSTOP)
    with contextlib.closing(sqlite3.connect(database, timeout=1)) as other, Path(f"{database}-turn").open("ab") as turn:
        try:
            other.execute("BEGIN IMMEDIATE")
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (sqlite3.OperationalError, BlockingIOError):
            process.process.send_signal(signal.SIGCONT)
            return False
    return True


async def test_a_frozen_process_keeps_no_client_waiting(fleet: Fleet) -> None:
    """It has the fewest connections and does not come: the others take its turn. It goes on, and catches up."""
    await asyncio.gather(*(fleet.open() for _ in range(10)))
    before = fleet.opened
    await asyncio.to_thread(wait_until, lambda: frozen(fleet.processes[1], fleet.database), 60)
    try:
        waits = []
        for _ in range(40):
            started = Moment(fleet.processes[0].pid)
            await fleet.open()
            waits.append(started.ago)
        assert sorted(waits)[20] < 0.1, waits
        assert max(waits) < 2, waits  # a loaded machine is no failure
        assert fleet.opened == [before[0] + 40, before[1]]
    finally:
        os.kill(fleet.processes[1].pid, signal.SIGCONT)
    await fleet.open_until(lambda: abs(fleet.opened[0] - fleet.opened[1]) <= 2, 60)


async def test_a_process_that_is_killed_leaves_its_turns_to_the_others(fleet: Fleet) -> None:
    """Nobody waits for it, its slot is free for the next one, and that one takes its part."""
    await asyncio.gather(*(fleet.open() for _ in range(10)))
    killed = fleet.processes.pop(1)
    assert await asyncio.to_thread(killed.stop, signal.SIGKILL) == -signal.SIGKILL
    mine = fleet.opened[0]
    for _ in range(20):
        await fleet.open()
    assert fleet.opened == [mine + 20]
    third = await asyncio.to_thread(fleet.start, "third")
    assert fleet.ledger.stat().st_size == 2 * 4, "the third process has the slot of the second"
    await fleet.open_until(lambda: third.log.count(" opened: ") >= 10, 10)


async def test_without_a_ledger_clients_are_served_all_the_same(
    tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> None:
    """Something else is in its place: the log says so once, and the process accepts as they come."""
    with socket.create_server(("127.0.0.1", 0)) as shared:
        fd, port = shared.fileno(), shared.getsockname()[1]
        place = usual_folder() / f"stream-router-{os.getuid()}-{os.fstat(fd).st_ino}"
        place.mkdir()
        command = ["daphne", "--fd", str(fd)]
        try:
            with running_router(
                "daphne", tmp_path, django_db_blocker, command=command, pass_fds=[fd], **PATIENT
            ) as router:
                router.process.wait_for("Listening on TCP")
                async with fake_replica() as replica:
                    await router.place(replica.url)
                    for _ in range(3):
                        async with connect(f"ws://127.0.0.1:{port}/v1/stream", proxy=None) as client:
                            await client.send("hello")
                            assert await client.recv() == "hello"
                assert router.log.count("not spread evenly") == 1
                assert await asyncio.to_thread(router.process.stop) == 0
        finally:
            place.rmdir()
