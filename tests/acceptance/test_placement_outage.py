"""PostgreSQL and Redis away under live sessions (issue 4, section 6, point 5; faults.md 50 and 51).

What no outage may do: cut or delay a stream, free or double a slot. Two processes, 50 streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pytest_django.plugin import DjangoDbBlocker

from tests.acceptance.cluster import Cluster, running_cluster
from tests.acceptance.moments import Moment
from tests.acceptance.servers import Router
from tests.acceptance.visitors import Visitor, leave_all, served, visitor
from tests.backing_servers import Postgres, Redis, redis_server, running_postgres
from tests.slotted_replica import ASSIGNED, SlottedReplica, chunk, slotted_replica, stream

STREAMS = 50
REFUSED_SECONDS = 3.0
HANDOVER_SECONDS = 1.0
# Chunks come every 50 ms.
NOTICED_SECONDS = 1.0


@dataclass
class Site:
    cluster: Cluster
    postgres: Postgres
    redis: Redis


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Site]:
    var: Path = tmp_path_factory.mktemp("outage")
    with running_postgres() as postgres, redis_server(var) as redis:
        settings = {"DATABASE_URL": postgres.url, "REDIS_URL": redis.url}
        with running_cluster(var, django_db_blocker, processes=2, **settings) as cluster:
            yield Site(cluster, postgres, redis)


@dataclass
class Audience:
    """Live streams, and the one client that waits behind them."""

    replica: SlottedReplica
    streams: list[Visitor]
    routers: list[Router]  # of each stream
    waiting: Visitor
    longest_gap: float = 0.0  # seconds without a chunk, of any stream
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def watch(self) -> None:
        """Note when chunks come, until `ended` is set."""
        seen: dict[int, tuple[int, Moment]] = {}
        over: set[int] = set()
        last = False
        while not last:
            last = self.ended.is_set()
            now_at = {router.port: router.moment() for router in self.routers[:2]}
            for index, (found, router) in enumerate(zip(self.streams, self.routers, strict=True)):
                if index in over:
                    continue
                now, count = now_at[router.port], len(found.messages)
                before, since = seen.setdefault(index, (count, now))
                if count != before or last or found.over:
                    self.longest_gap = max(self.longest_gap, since.until(now))
                    seen[index] = count, now
                if found.over:
                    over.add(index)
            await asyncio.sleep(0.05)

    def check(self) -> None:
        """Nobody noticed anything: every chunk came, once, in order and in time."""
        for found in self.streams:
            assert found.errors == []
            assert found.messages[0] == ASSIGNED
            assert found.messages[1:] == [chunk(number) for number in range(len(found.messages) - 1)]
        assert self.longest_gap < NOTICED_SECONDS


@contextlib.asynccontextmanager
async def audience(site: Site) -> AsyncIterator[Audience]:
    async with slotted_replica(STREAMS, stream) as replica:
        await site.cluster.configure()
        await site.cluster.place(replica)
        routers = [site.cluster.routers[number % 2] for number in range(STREAMS)]
        streams = [await served(router) for router in routers]
        waiting = await visitor(site.cluster.routers[0])
        await waiting.queued()
        found = Audience(replica, streams, routers, waiting)
        watching = asyncio.create_task(found.watch())
        try:
            yield found
            assert not watching.done()
        finally:
            found.ended.set()
            await watching
        found.check()
        found.waiting.check_line()
        await leave_all([*streams, found.waiting])
        await site.cluster.empty()


async def refused(site: Site, number: int) -> None:
    """A new session hears the truth within 3 s."""
    router = site.cluster.routers[number % 2]
    started = router.moment()
    found = await visitor(router)
    await found.end()
    assert started.ago <= REFUSED_SECONDS, found.story
    assert found.refusal == ("gpu_unavailable", 1013, "router_unavailable")


async def away(site: Site, seconds: float, people: Audience) -> None:
    """The database is away for so long: newcomers are refused, two sessions end, and nobody is served."""
    until = time.monotonic() + seconds
    ended, number = people.streams[:2], 0
    await asyncio.gather(refused(site, 0), refused(site, 1), *(found.leave() for found in ended))
    while time.monotonic() < until:
        number += 1
        await asyncio.gather(refused(site, number), refused(site, number + 1))
        await asyncio.sleep(min(1.0, max(0.0, until - time.monotonic())))  # a client a second, for so long
    assert people.waiting.served_at is None
    assert all(not found.over for found in people.streams[2:])


@pytest.mark.parametrize(
    ("leaves", "comes_back", "seconds"),
    [(Postgres.stop, Postgres.start, 30), (Postgres.freeze, Postgres.thaw, 8)],
    ids=["stopped", "frozen"],
)
async def test_no_stream_notices_that_postgresql_is_away(
    site: Site, leaves: Callable[[Postgres], None], comes_back: Callable[[Postgres], None], seconds: float
) -> None:
    """Streams go on, slots stay as they are, newcomers are refused within 3 s; then all is as if nothing had been."""
    async with audience(site) as people:
        before = [row.pk for row in await site.cluster.processes() if row.ended_at is None]
        rows = await site.cluster.live()
        assert len(rows) == STREAMS + 1
        await asyncio.to_thread(leaves, site.postgres)
        try:
            await away(site, seconds, people)
        finally:
            await asyncio.to_thread(comes_back, site.postgres)
        # Two have left: one slot is for who waited, and one for the next. A third one waits.
        await people.waiting.served(10)
        newcomer = await served(site.cluster.routers[1])
        last = await visitor(site.cluster.routers[0])
        await last.queued()
        assert people.replica.most == STREAMS

        live = await site.cluster.live()
        assert {row.pk for row in rows[2:]} <= {row.pk for row in live}
        assert [row.url for row in live] == [people.replica.url] * STREAMS + [None]
        left = [row for row in await site.cluster.since(rows[0].pk - 1) if row.pk in (rows[0].pk, rows[1].pk)]
        assert [(row.ended_by, row.close_code) for row in left] == [("client", 1000)] * 2
        assert [row.pk for row in await site.cluster.processes() if row.ended_at is None] == before
        await leave_all([last, newcomer])


@pytest.mark.parametrize(
    ("leaves", "comes_back", "seconds"),
    [(Redis.freeze, Redis.thaw, 10), (Redis.stop, Redis.start, 30)],
    ids=["frozen", "stopped"],
)
async def test_without_redis_all_works_a_moment_later(
    site: Site, leaves: Callable[[Redis], None], comes_back: Callable[[Redis], None], seconds: float
) -> None:
    """Streams go on, and a slot that comes free is the next one's within 1 s, whichever process holds that client."""
    async with audience(site) as people:
        await asyncio.to_thread(leaves, site.redis)
        until, number = time.monotonic() + seconds, 0
        try:
            holder = site.cluster.routers[0]  # of who waits
            while time.monotonic() < until or number < seconds:
                left, next_one, router = people.streams[number], people.waiting, holder
                both = [each.process.pid for each in site.cluster.routers]
                holder = site.cluster.routers[number % 2]
                people.waiting = await visitor(holder)
                await people.waiting.queued(2)
                started = Moment(*both)
                await left.leave()
                await next_one.served()
                assert started.ago <= HANDOVER_SECONDS
                next_one.check_line()
                people.streams.append(next_one)
                people.routers.append(router)
                number += 1
        finally:
            await asyncio.to_thread(comes_back, site.redis)
        assert people.replica.most == STREAMS
        for router in site.cluster.routers:
            await asyncio.to_thread(router.process.wait_for, "Redis answers again")
