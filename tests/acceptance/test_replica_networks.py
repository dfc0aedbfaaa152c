"""Replicas are reached where the operator's networks are, and nowhere else (issue 6, section 4).

A real router, a real prober, and a server on loopback, which is in none of those networks: nothing ever connects to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django.plugin import DjangoDbBlocker

from replicas.models import Replica, ReplicaHealth
from tests.acceptance.cluster import Cluster, running_cluster
from tests.acceptance.visitors import visitor
from tests.processes import manage, managing
from tests.slotted_replica import slotted_replica

NETWORKS = {"ROUTER_REPLICA_NETWORKS": "10.0.0.0/8"}
# Written in every way that the C library reads, too.
NEVER = {
    "169.254.169.254": "metadata", "0xA9FEA9FE": "metadata", "[::ffff:169.254.169.254]": "metadata",
    "169.254.1.1": "link-local", "[fe80::1]": "link-local",
    "0.0.0.0": "unspecified", "0": "unspecified", "[::]": "unspecified",
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("networks"), django_db_blocker, **NETWORKS) as found:
        yield found


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_no_session_and_no_probe_leaves_the_operators_networks(cluster: Cluster, host: str) -> None:
    """Also where a name leads out of them, and whatever the table says of the replica's health."""
    async with slotted_replica(slots=2) as outside:
        url = outside.url.replace("127.0.0.1", host)
        await cluster.place(url)
        found = await visitor(cluster.routers[0])
        await found.end(10)
        assert found.refusal == ("worker_failed", 1011, "replica_unreachable")
        assert "127.0.0.1" not in str(found.errors)
        with managing("prober", ["runhealthchecks"], cluster.var, **NETWORKS):
            refused = ReplicaHealth.objects.filter(url=url, last_error__contains="not allowed")
            await cluster.until(lambda db: refused.using(db).exists(), 20, "a probe that was refused")
        assert outside.attempts == 0


def test_an_address_that_no_replica_may_have_is_refused_where_it_is_typed(cluster: Cluster, tmp_path: Path) -> None:
    """Each is named, and nothing of the file is taken."""
    fleet = tmp_path / "fleet.yaml"
    lines = "".join(f'    - url: "http://{host}:8000"\n' for host in ("10.1.2.3", *NEVER))
    fleet.write_text(f"router:\n  replicas:\n{lines}")
    refused = manage(cluster.var, "loadreplicas", str(fleet), check=False)
    assert refused.returncode == 1
    for number, (host, word) in enumerate(NEVER.items(), 1):
        told = f"router.replicas[{number}].url: 'http://{host}:8000' must not have "
        assert any(line.startswith(f"- {told}") and f" {word} address" in line for line in refused.stderr.splitlines())
    assert not cluster.do(lambda db: Replica.objects.using(db).filter(url__contains="10.1.2.3").exists())
