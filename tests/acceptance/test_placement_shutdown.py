"""SIGTERM drains a router process (issue 4, section 4; faults.md 54), and a rolling restart that nobody notices."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from pytest_django.plugin import DjangoDbBlocker

from proxy.models import RouterProcess
from tests.acceptance.cluster import Cluster, running_cluster
from tests.acceptance.servers import Router
from tests.acceptance.visitors import Visitor, leave_all, served, visitor
from tests.slotted_replica import slotted_replica

DRAIN_SECONDS, SPREAD_SECONDS = 5.0, 5.0
# From the signal to the listening socket's end, and for a process to exit once nothing is left to do.
AT_ONCE_SECONDS = 1.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Cluster]:
    """Nobody in it yet: each test starts the processes that it ends."""
    var = tmp_path_factory.mktemp("shutdown")
    with running_cluster(var, django_db_blocker, processes=0, ROUTER_DRAIN_SECONDS=DRAIN_SECONDS) as found:
        yield found


async def exit_code(router: Router, seconds: float) -> int:
    return await asyncio.to_thread(router.process.process.wait, seconds)


async def refuses(router: Router) -> bool:
    """Is its listening socket closed?"""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", router.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def until_refused(router: Router) -> None:
    async with asyncio.timeout(AT_ONCE_SECONDS):
        while not await refuses(router):
            await asyncio.sleep(0.01)


async def test_sigterm_lets_live_sessions_go_on_to_the_deadline(cluster: Cluster) -> None:
    """No newcomers, the line is sent away, live sessions work for 5 s, and are then ended over 5 s; exit 0."""
    router = await asyncio.to_thread(cluster.start)
    async with slotted_replica(slots=20) as replica:
        await cluster.configure()
        await cluster.place(replica)
        there = [await served(router) for _ in range(20)]
        line = [await visitor(router) for _ in range(3)]
        for waiting in line:
            await waiting.queued()
        began = time.monotonic()
        router.process.process.send_signal(signal.SIGTERM)
        await until_refused(router)
        for waiting in line:
            await waiting.end(AT_ONCE_SECONDS)
            assert waiting.refusal[:2] == ("gpu_unavailable", 1012)
        mine = (await cluster.row_of(router)).pk
        draining = RouterProcess.objects.filter(pk=mine, draining=True)
        await cluster.until(lambda db: draining.using(db).exists(), 3, "its row says so")
        await there[0].leave()  # a slot comes free, and nobody of this process gets it
        answers = Counter[int]()
        while time.monotonic() - began < DRAIN_SECONDS - 0.5:
            for index, found in enumerate(there[1:]):
                before = len(found.messages)
                with contextlib.suppress(ConnectionError):
                    await found.peer.say("still here")
                await found.until(lambda found, before=before: len(found.messages) > before or found.over, 2)
                answers[index] += len(found.messages) > before
                assert found.ended_at is None or found.ended_at - began >= DRAIN_SECONDS, found.story
            await asyncio.sleep(0.2)
        assert all(answers[index] for index in range(19)), "a live session works until then"
        for found in there[1:]:
            assert await found.end(10) == (1012, "router_shutdown")
        ended = sorted((found.ended_at or 0) - began for found in there[1:])
        assert ended[0] >= DRAIN_SECONDS
        assert ended[-1] <= DRAIN_SECONDS + SPREAD_SECONDS + AT_ONCE_SECONDS
        assert ended[-1] - ended[0] >= 0.7 * SPREAD_SECONDS
        assert await exit_code(router, 3) == 0
        assert len(replica.stays) == 20
        assert {stay.close for stay in replica.stays[1:]} == {(1001, "")}
        await cluster.empty(0.5)
        row = await cluster.row_of(router)
        assert (row.ended_at is not None, row.why) == (True, "stopped")


async def test_a_draining_process_says_that_it_is_not_ready(cluster: Cluster) -> None:
    """To a load balancer that has a connection from before: a new one goes to the other process on the socket."""
    leaving, staying = await asyncio.gather(*(asyncio.to_thread(cluster.start) for _ in range(2)))
    async with slotted_replica(slots=2) as replica:
        await cluster.configure()
        await cluster.place(replica)
        there = await served(leaving)
        async with httpx.AsyncClient(
            trust_env=False, timeout=60, limits=httpx.Limits(keepalive_expiry=None)
        ) as balancer:
            url = f"http://127.0.0.1:{leaving.port}/readyz"
            assert "draining" not in (await balancer.get(url)).text
            leaving.process.process.send_signal(signal.SIGTERM)
            await until_refused(leaving)
            answer = await balancer.get(url)  # a new connection would be refused
            assert answer.status_code == 503
            assert "draining" in answer.text
            other = await balancer.get(f"http://127.0.0.1:{staying.port}/readyz")
            assert "draining" not in other.text
        await there.leave()
        assert await exit_code(leaving, 3) == 0
    await asyncio.to_thread(staying.process.stop)


async def test_a_drained_process_ends_as_soon_as_its_last_session_has(cluster: Cluster) -> None:
    """It does not wait for the deadline."""
    router = await asyncio.to_thread(cluster.start)
    async with slotted_replica(slots=2) as replica:
        await cluster.configure()
        await cluster.place(replica)
        there = [await served(router), await served(router)]
        router.process.process.send_signal(signal.SIGTERM)
        await until_refused(router)
        started = time.monotonic()
        await leave_all(there)
        assert await exit_code(router, 3) == 0
        assert time.monotonic() - started < 3


async def test_a_second_sigterm_ends_at_once(cluster: Cluster) -> None:
    """Live sessions are told 1012, and their slots given back."""
    router = await asyncio.to_thread(cluster.start)
    async with slotted_replica(slots=4) as replica:
        await cluster.configure()
        await cluster.place(replica)
        there = [await served(router) for _ in range(4)]
        router.process.process.send_signal(signal.SIGTERM)
        await until_refused(router)
        assert all(not found.over for found in there)
        router.process.process.send_signal(signal.SIGTERM)
        for found in there:
            assert await found.end(AT_ONCE_SECONDS) == (1012, "router_shutdown")
        assert await exit_code(router, 3) == 0
        await cluster.empty(0.5)
        assert (await cluster.row_of(router)).why == "stopped"


async def test_the_line_of_another_process_gets_the_slots_of_one_that_drains(cluster: Cluster) -> None:
    """Its sessions leave one by one, and who waits elsewhere is served."""
    leaving, staying = await asyncio.gather(*(asyncio.to_thread(cluster.start) for _ in range(2)))
    async with slotted_replica(slots=2) as replica:
        await cluster.configure()
        await cluster.place(replica)
        there = [await served(leaving), await served(leaving)]
        line = [await visitor(staying), await visitor(staying)]
        for waiting in line:
            await waiting.queued()
        leaving.process.process.send_signal(signal.SIGTERM)
        await until_refused(leaving)
        await there[0].leave()
        await line[0].served(1)
        await there[1].leave()
        await line[1].served(1)
        assert await exit_code(leaving, 3) == 0
        assert replica.most == 2
        await leave_all(line)
        await cluster.empty()


@contextlib.asynccontextmanager
async def knocking(port: int) -> AsyncIterator[list[float]]:
    """All the time somebody new comes, is served and leaves; gives how long each was kept waiting."""
    waits, over = list[float](), asyncio.Event()

    async def knock() -> None:
        while not over.is_set():
            started = time.monotonic()
            found = await served(port)
            waits.append(time.monotonic() - started)
            assert found.errors == []
            await found.leave()

    tasks = [asyncio.create_task(knock()) for _ in range(2)]
    try:
        yield waits
        assert not any(task.done() for task in tasks), [task.exception() for task in tasks if task.done()]
    finally:
        over.set()
        await asyncio.gather(*tasks)


async def test_a_rolling_restart_is_noticed_by_nobody(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> None:
    """Two processes on one socket with 200 live sessions are replaced one after the other: none cut, none refused."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=1024) as shared,
        running_cluster(tmp_path, django_db_blocker, processes=0, ROUTER_DRAIN_SECONDS=60) as cluster,
    ):
        port, fd = shared.getsockname()[1], shared.fileno()
        old = await asyncio.gather(*(asyncio.to_thread(cluster.start, fd=fd) for _ in range(2)))
        async with slotted_replica(slots=300) as replica:
            await cluster.configure()
            await cluster.place(replica)
            there = [await served(port) for _ in range(200)]
            clients = {f"127.0.0.1:{found.peer.ports[0]}": found for found in there}
            holders = {row.client: row.process_id for row in await cluster.live()}
            async with knocking(port) as waits:
                for router in old:
                    mine = (await cluster.row_of(router)).pk
                    theirs = [clients[client] for client, process in holders.items() if process == mine]
                    assert len(theirs) >= 50, "both processes have their part"
                    await asyncio.to_thread(cluster.start, fd=fd)
                    router.process.process.send_signal(signal.SIGTERM)
                    await cluster.until(
                        lambda db, mine=mine: RouterProcess.objects.using(db).filter(pk=mine, draining=True).exists(), 5
                    )
                    await all_go_on(there)
                    knocked = len(waits)
                    await leave_all(theirs)
                    assert await exit_code(router, 10) == 0
                    there = [found for found in there if found not in theirs]
                    async with asyncio.timeout(10):
                        while len(waits) < knocked + 20:
                            await asyncio.sleep(0.05)
            assert there == []
            assert {stay.close for stay in replica.stays if stay.close} == {(1000, "")}
            await cluster.empty()


async def all_go_on(there: list[Visitor]) -> None:
    for found in there:
        await found.peer.say("still here")
    for found in there:
        await found.until(lambda found: found.messages[-1] == "still here", 5)
