"""What is scraped is what has happened: 1,000 sessions over two processes on one socket, and a prober."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from django.db.models import Sum
from pytest_django.plugin import DjangoDbBlocker
from websockets.asyncio.client import connect

from proxy.models import Session
from replicas.models import PlacementRecord
from replicas.passive import EJECT_SECONDS
from tests.acceptance.cluster import Cluster, running_cluster
from tests.acceptance.servers import PATIENT
from tests.acceptance.visitors import leave_all, served, visitor
from tests.fake_replica import fake_replica
from tests.ports import free_port
from tests.processes import manage, managing, migrated, wait_until
from tests.raw import Peer, raw_client
from tests.scraping import scrape, scrape_all
from tests.slotted_replica import ASSIGNED, LEAVE, slotted_replica, slotted_replicas

SESSIONS, AT_ONCE, HELD = 1000, 20, 30


@dataclass
class Truth:
    """What clients and replicas did, by their own count."""

    ended: Counter[tuple[str, str]] = field(default_factory=Counter)  # by code and outcome
    moved: Counter[str] = field(default_factory=Counter)

    async def begin(self, port: int, size: int) -> Peer:
        """A session that has carried a text and a binary message each way."""
        client = await raw_client(port)
        await client.say("hello")
        assert [await client.message() for _ in range(2)] == [ASSIGNED, "hello"]
        await client.say(b"v" * size)
        assert await client.message() == b"v" * size
        self.moved += Counter(up=5 + size, down=len(ASSIGNED) + 5 + size, frames_up=2, frames_down=3)
        return client

    async def end(self, client: Peer, way: int) -> None:
        if way < 6:
            await client.close(1000)
            self.ended["1000", "client_closed"] += 1
        elif way < 8:
            await client.say(LEAVE)
            self.moved += Counter(up=len(LEAVE), frames_up=1)
            self.ended["1000", "replica_closed"] += 1
        elif way < 9:
            await client.close(4001, "enough")
            self.ended["other", "client_closed"] += 1
        else:
            client.abort()
            self.ended["none", "client_vanished"] += 1
            return
        await client.rest()


@dataclass
class Observed:
    cluster: Cluster
    port: int  # of the socket that the processes share
    ports: list[int]  # of their own metrics


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Observed]:
    var = tmp_path_factory.mktemp("observed")
    with (
        socket.create_server(("127.0.0.1", 0), backlog=1024) as shared,
        running_cluster(var, django_db_blocker, processes=0, **PATIENT) as cluster,
    ):
        ports = [free_port(), free_port()]
        for port in ports:
            cluster.start(fd=shared.fileno(), ROUTER_METRICS_LISTEN=f"127.0.0.1:{port}")
        yield Observed(cluster, shared.getsockname()[1], ports)


async def until_ended(observed: Observed, number: int) -> Counter[tuple[str, ...]]:
    """A scrape after so many sessions have ended."""
    async with asyncio.timeout(60):
        while True:
            found = await scrape_all(observed.ports)
            ended = sum(value for (name, *_), value in found.items() if name == "sessions_ended_total")
            if ended >= number:
                return found
            await asyncio.sleep(0.05)


async def test_a_thousand_sessions(observed: Observed) -> None:
    """Counters, histograms and what the database knows are what clients and replicas saw; also while they live."""
    cluster, truth = observed.cluster, Truth()
    async with slotted_replicas(2, slots=200) as replicas:
        await cluster.configure()
        await cluster.place(*replicas, primary=False)
        held = [await truth.begin(observed.port, 10_000) for _ in range(HELD)]

        live = await scrape_all(observed.ports)
        assert live["current_sessions",] == live["sessions_total",] == HELD
        assert live["bytes_total", "up"] == truth.moved["up"]
        assert live["bytes_total", "down"] == truth.moved["down"]
        assert (live["frames_total", "up"], live["frames_total", "down"]) == (2 * HELD, 3 * HELD)
        fleet = await scrape(observed.port, "/metrics?scope=fleet")
        assert fleet["database_up",] == 1
        for index, replica in enumerate(replicas):
            assert fleet["replica_sessions", f"replica-{index}"] == len(replica.live) > 0
            assert (fleet["replica_up", f"replica-{index}"], fleet["replica_slots", f"replica-{index}"]) == (1, 200)
        assert (fleet["live_sessions",], fleet["processes", "live"], fleet["active_replicas",]) == (HELD, 2, 2)

        async def run(numbers: Iterator[int]) -> None:
            for number in numbers:
                await truth.end(await truth.begin(observed.port, 100 * (number % 50)), number % 10)

        numbers = iter(range(SESSIONS - HELD))
        await asyncio.gather(*(run(numbers) for _ in range(AT_ONCE)))
        for client in held:
            await truth.end(client, 0)

        found = await until_ended(observed, SESSIONS)
        assert found["sessions_total",] == SESSIONS
        assert found["current_sessions",] == 0
        assert {key[1:]: value for key, value in found.items() if key[0] == "sessions_ended_total"} == truth.ended
        for direction in ("up", "down"):
            assert found["bytes_total", direction] == truth.moved[direction]
            assert found["frames_total", direction] == truth.moved[f"frames_{direction}"]
        for histogram in ("session_duration_seconds", "connect_time_seconds", "first_media_time_seconds"):
            assert found[f"{histogram}_count",] == found[f"{histogram}_bucket", "+Inf"] == SESSIONS, histogram
        for none in ("connection_errors_total", "retry_warnings_total", "ejections_total"):
            assert found[none,] == 0
        assert found["stalls_total", "client"] == found["stalls_total", "replica"] == 0
        assert found["event_loop_lag_seconds_count",] > 0
        assert sum(len(replica.stays) for replica in replicas) == SESSIONS
        shares = [(await scrape(port))["sessions_total",] for port in observed.ports]
        assert min(shares) > 0, shares

        await cluster.empty()
        sums = await cluster.ask(lambda db: Session.objects.using(db).aggregate(Sum("bytes_up"), Sum("frames_down")))
        assert (sums["bytes_up__sum"], sums["frames_down__sum"]) == (truth.moved["up"], truth.moved["frames_down"])
        assert (await scrape(observed.port, "/metrics?scope=fleet"))["live_sessions",] == 0


async def test_the_line_is_measured(observed: Observed) -> None:
    """Its length and its first one's age while they wait, and how long each has when it is over."""
    cluster = observed.cluster
    async with slotted_replica(slots=1) as replica:
        await cluster.configure()
        await cluster.place(replica)
        before = await scrape_all(observed.ports)
        first = await served(observed.port)
        waiting = [await visitor(observed.port) for _ in range(3)]
        for each in waiting:
            await each.queued()
        fleet = await scrape(observed.port, "/metrics?scope=fleet")
        assert (fleet["current_queue",], fleet["replica_sessions", "replica-0"], fleet["live_sessions",]) == (3, 1, 4)
        assert fleet["queue_oldest_seconds",] > 0
        await first.leave()
        async with asyncio.timeout(30):
            while not any(each.served_at for each in waiting):
                await asyncio.sleep(0.02)
        await leave_all(waiting)
        await cluster.empty()
        found = await scrape_all(observed.ports)
        assert found["queue_time_seconds_count",] - before["queue_time_seconds_count",] == 3
        assert found["queue_time_seconds_sum",] > before["queue_time_seconds_sum",]
        fleet = await scrape(observed.port, "/metrics?scope=fleet")
        assert (fleet["current_queue",], fleet["queue_oldest_seconds",]) == (0, 0)


async def test_failed_attempts_are_counted(observed: Observed) -> None:
    """As the log has them: a primary that refuses is tried, passed over, and in the end ejected."""
    cluster = observed.cluster

    def failures() -> int:
        return sum(router.log.count(" attempt failed: ") for router in cluster.routers)

    async with slotted_replicas(2, slots=50) as replicas:
        await cluster.configure()
        await cluster.place(*replicas)
        replicas[0].refuse()
        before, failed_before = await scrape_all(observed.ports), failures()
        began = time.time()
        for _ in range(6):
            await (await served(observed.port)).leave()
        await cluster.empty()
        found = await scrape_all(observed.ports)
        failed = failures() - failed_before
        assert failed >= 3
        assert found["connection_errors_total",] - before["connection_errors_total",] == failed
        assert found["retry_warnings_total",] - before["retry_warnings_total",] == failed
        row = PlacementRecord.objects.filter(replica__name="replica-0")
        record = await cluster.ask(lambda db: row.using(db).get())
        ejections = record.ejections
        assert 1 <= ejections <= 1 + (time.time() - began) // EJECT_SECONDS  # again where its time was over meanwhile
        assert record.ejected_until >= began + EJECT_SECONDS
        assert found["ejections_total",] - before["ejections_total",] == ejections
        await cluster.ask(lambda db: row.using(db).update(ejected_until=time.time() + 59))  # while it is looked at
        fleet = await scrape(observed.port, "/metrics?scope=fleet")
        assert (fleet["replica_ejected", "replica-0"], fleet["replica_available", "replica-0"]) == (1, 0)


async def test_a_prober_serves_its_own(tmp_path: Path) -> None:
    """Probes by result, changes of status, the lease; nothing of sessions."""
    port, dead = free_port(), free_port()
    migrated(tmp_path)
    async with fake_replica() as replica:
        file = tmp_path / "replicas.yaml"
        file.write_text(
            f"router:\n  replicas: [{{url: '{replica.url}'}}, {{url: 'http://127.0.0.1:{dead}'}}]\n"
            "  health_check: {interval_seconds: 0.2}\n"
        )
        manage(tmp_path, "loadreplicas", str(file))
        listen = {"ROUTER_METRICS_LISTEN": f"127.0.0.1:{port}"}
        with managing("prober", ["runhealthchecks"], tmp_path, **listen) as prober:
            await asyncio.to_thread(prober.wait_for, "unknown → healthy")
            await asyncio.to_thread(prober.wait_for, "unknown → unhealthy")
            found = await scrape(port)
            assert found["checks_total", "passed"] >= 1
            assert found["checks_total", "failed"] >= 3
            assert found["check_duration_seconds_count",] == (
                found["checks_total", "passed"] + found["checks_total", "failed"]
            )
            assert (found["check_status_changes_total", "healthy"], found["lease_held",]) == (1, 1)
            assert (found["check_status_changes_total", "unhealthy"], found["lease_epoch",]) == (1, 1)
            assert ("sessions_total",) not in found
            assert await asyncio.to_thread(prober.stop) == 0


@pytest.fixture
async def told(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> AsyncIterator[Cluster]:
    """A process behind a proxy of ours, with its log in JSON."""
    settings = {"LOG_FORMAT": "json", "LOG_LEVEL": "DEBUG", "BEHIND_PROXY": "true"}
    with running_cluster(tmp_path, django_db_blocker, processes=1, **settings) as cluster:
        yield cluster


async def test_a_request_is_found_from_end_to_end(told: Cluster) -> None:
    """X-Request-ID and traceparent reach the replica; each line of the log about the session carries its id."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    given = {"X-Request-ID": "req-7f3a", "Traceparent": trace, "Tracestate": "vendor=1"}
    dead = f"http://127.0.0.1:{free_port()}"
    async with fake_replica() as replica:
        await told.place(dead, replica.url)
        (router,) = told.routers
        async with connect(router.stream_url, additional_headers=given, proxy=None) as client:
            await client.send("hello")
            assert await client.recv() == "hello"
        await told.empty()
        headers = replica.seen[0].request.headers
        assert {name: headers[name] for name in given} == given

        (session,) = await told.since(0)
        await asyncio.to_thread(wait_until, lambda: "ended" in router.log)
        lines = [json.loads(line) for line in router.log.splitlines() if line.startswith("{")]
        mine = [line for line in lines if session.uid in json.dumps(line)]
        assert [line["event"] for line in mine] == ["opened", "attempt failed", "ended"]
        assert all(line["session"] == session.uid for line in mine)
        assert mine[0]["request_id"] == "req-7f3a"

        async with connect(router.stream_url, proxy=None) as client:
            await client.send("hello")
            assert await client.recv() == "hello"
        await told.empty()
        second = (await told.since(session.pk))[0]
        assert replica.seen[1].request.headers["X-Request-ID"] == second.uid
