"""One host without PostgreSQL or Redis: four processes on one SQLite file, woken by a timer (issue 4, section 5).

What is shown for PostgreSQL and Redis at length, here at a smaller size: one fair line, no slot doubled, none lost.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_django.plugin import DjangoDbBlocker

from tests.acceptance import test_placement_lease
from tests.acceptance.cluster import Cluster, running_cluster
from tests.acceptance.test_placement_line import come_and_go
from tests.slotted_replica import slotted_replicas


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("sqlite"), django_db_blocker, processes=4) as found:
        yield found


async def test_sessions_are_served_in_order_of_arrival(cluster: Cluster) -> None:
    """40 clients at once on 5 replicas × 2 slots, some of whom go on coming: nothing overbooked, nobody overtaken."""
    async with slotted_replicas(5, slots=2) as replicas:
        await cluster.configure()
        await cluster.place(*replicas)
        first = await cluster.last_id()
        visits = await come_and_go(cluster, [5] * 16 + [0] * 24, seconds=(0.02, 0.3))
        assert [replica.most for replica in replicas] == [2] * 5
        rows = await cluster.since(first)
        assert len(rows) == len(visits) == 120
        placed = [row.placed_at for row in rows]
        assert placed == sorted(placed), "served in order of arrival"
        assert max(visit.told[0].depth for visit in visits if visit.told) > 20


async def test_a_process_that_is_killed_gives_its_slots_back(cluster: Cluster) -> None:
    await test_placement_lease.test_a_process_that_is_killed_gives_its_slots_back(cluster)
