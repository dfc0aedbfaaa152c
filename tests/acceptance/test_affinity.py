"""A key brings a client back to the replica of its last session, whichever process it comes to (issue 4, section 2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django.plugin import DjangoDbBlocker

from tests.acceptance.cluster import Cluster, running_cluster
from tests.acceptance.visitors import Visitor, visitor
from tests.slotted_replica import SlottedReplica, slotted_replicas

KINDS = {
    "query:user": lambda key: {"path": f"/v1/stream?a=b&user={key}"},
    "header:X-User": lambda key: {"headers": {"X-User": key}},
    "cookie:user": lambda key: {"headers": {"Cookie": f"a=b; user={key}"}},
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("affinity"), django_db_blocker, processes=2) as found:
        yield found


async def known(cluster: Cluster, kind: str) -> None:
    """Until both processes have read where keys are found."""
    for router in cluster.routers:
        key = None
        while key is None:
            first = await cluster.last_id()
            found = await visitor(router, **KINDS[kind]("nobody"))
            await found.served()
            await found.leave()
            await cluster.empty()
            key = (await cluster.since(first))[0].affinity_key


@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_leads_back_to_its_replica(cluster: Cluster, kind: str) -> None:
    """While that is available; else to another, which is then remembered."""
    async with slotted_replicas(3, slots=2) as replicas:
        await cluster.configure(affinity=kind, policy="round_robin", affinity_ttl_seconds=600)
        await cluster.place(*replicas, primary=False)
        await known(cluster, kind)

        async def come(key: str, process: int = 0) -> tuple[Visitor, SlottedReplica]:
            before = [len(replica.stays) for replica in replicas]
            found = await visitor(cluster.routers[process], **KINDS[kind](key))
            await found.served()
            return found, next(r for r, stays in zip(replicas, before, strict=True) if len(r.stays) > stays)

        async def where(key: str, process: int = 0) -> SlottedReplica:
            found, replica = await come(key, process)
            await found.leave()
            return replica

        homes = {key: await where(key) for key in ("ann", "bob", "cid")}
        assert len(set(map(id, homes.values()))) == 3  # by turns, as long as nothing is known of a key
        for key in ("cid", "cid", "ann", "bob"):
            assert await where(key, process=1) is homes[key]

        home = homes["ann"]
        full = [await come("ann"), await come("ann")]
        assert {id(replica) for _, replica in full} == {id(home)}
        elsewhere = await where("ann")
        assert elsewhere is not home
        for found, _ in full:
            await found.leave()
        assert await where("ann") is elsewhere  # there it was last

        await cluster.edit(elsewhere, state="draining")
        assert await where("ann") is not elsewhere
        await cluster.empty()


async def test_a_key_is_forgotten_after_its_time(cluster: Cluster) -> None:
    async with slotted_replicas(2, slots=2) as replicas:
        await cluster.configure(affinity="query:user", policy="round_robin", affinity_ttl_seconds=0.001)
        await cluster.place(*replicas, primary=False)
        await known(cluster, "query:user")
        before = [len(replica.stays) for replica in replicas]
        options: dict[str, Any] = KINDS["query:user"]("dan")
        for _ in range(4):
            found = await visitor(cluster.routers[0], **options)
            await found.served()
            await found.leave()
            await cluster.empty()
        assert [len(replica.stays) - stays for replica, stays in zip(replicas, before, strict=True)] == [2, 2]
