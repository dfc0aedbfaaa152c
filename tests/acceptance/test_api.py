"""The API at a real server, beside live sessions: what a program does reaches clients as an operator's acts do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from django.contrib.admin.models import LogEntry
from pytest_django.plugin import DjangoDbBlocker

from api.models import Scope
from replicas import tokens
from tests.acceptance.cluster import Cluster, running_cluster
from tests.acceptance.visitors import Visitor, leave_all, served, visitor
from tests.processes import managing
from tests.slotted_replica import SlottedReplica, slotted_replica

TOKEN = tokens.new_token(tokens.API)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Cluster]:
    """Two processes: the first is asked, and both do it."""
    with running_cluster(tmp_path_factory.mktemp("api"), django_db_blocker, processes=2) as found:
        found.let_in(TOKEN, Scope.EDIT)
        yield found


@pytest_asyncio.fixture
async def api(cluster: Cluster) -> AsyncIterator[httpx.AsyncClient]:
    base, headers = f"http://127.0.0.1:{cluster.routers[0].port}/api/v1", {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=base, headers=headers, trust_env=False, timeout=60) as found:
        yield found


async def done(api: httpx.AsyncClient, path: str, body: Any = None, **query: Any) -> str:
    """What an act says that it has done."""
    answer = await api.post(path, json=body, params=query)
    assert answer.status_code == 200, answer.text
    said: str = answer.json()["said"]
    return said


async def on(replica: SlottedReplica, cluster: Cluster) -> list[Visitor]:
    """A new client of each process, as soon as both are put there."""
    while True:
        there = [await served(router) for router in cluster.routers]
        if sum(stay.live for stay in replica.stays) >= len(there):
            return there
        await leave_all(there)


async def test_replicas_are_made_moved_drained_and_deleted(cluster: Cluster, api: httpx.AsyncClient) -> None:
    """Each act counts in both processes within a second; whose session it is goes on."""
    async with slotted_replica(slots=9) as a, slotted_replica(slots=9) as b:
        await cluster.place(a)
        made = await api.post("/replicas", json={"url": b.url, "name": "b", "max_sessions": 9})
        assert made.status_code == 201, made.text
        assert [each["name"] for each in (await api.get("/replicas")).json()["items"]] == ["replica-0", "b"]
        await cluster.observe_first(b, "healthy")

        first = await on(a, cluster)
        assert "b" in await done(api, "/replicas/b/make-primary")
        async with asyncio.timeout(10):
            second = await on(b, cluster)
        assert await done(api, "/replicas/b/drain", {}, dry_run=True) == "b: closes 0, keeps 2."
        assert (await api.get("/replicas/b")).json()["state"] == "active"
        await done(api, "/replicas/b/drain", {})
        shown = (await api.get("/replicas/b")).json()
        assert (shown["state"], shown["sessions"], shown["status"]) == ("draining", 2, "healthy")
        async with asyncio.timeout(10):
            third = await on(a, cluster)
        assert not any(found.over for found in (*first, *second, *third))

        assert (await api.delete("/replicas/b")).status_code == 204
        assert (await api.get("/replicas/b")).status_code == 404
        assert [stay.live for stay in b.stays][-2:] == [True, True]
        await leave_all([*first, *second, *third])
    acts = await cluster.ask(lambda db: list(LogEntry.objects.using(db).order_by("pk")))
    assert len(acts) >= 4
    assert all("By the API token “deploy”" in act.change_message for act in acts)


async def test_a_session_of_either_process_is_ended_with_the_callers_words(
    cluster: Cluster, api: httpx.AsyncClient
) -> None:
    """And the next of the line, which the API shows, gets its slot."""
    async with slotted_replica(slots=2) as replica:
        await cluster.place(replica)
        there = [await served(router) for router in cluster.routers]
        waiting = await visitor(cluster.routers[0])
        await waiting.queued()
        live = (await api.get("/sessions", params={"state": "live", "order": "oldest"})).json()["items"]
        assert [each["replica"] for each in live] == ["replica-0", "replica-0"]
        line = (await api.get("/queue")).json()
        assert (line["length"], line["waiting"][0]["position"]) == (1, 1)
        await done(api, f"/sessions/{live[1]['id']}/disconnect", {"reason": "maintenance at three"})
        assert await there[1].end(5) == (1012, "maintenance at three")
        await waiting.served()
        one = f"/sessions/{live[1]['id']}"

        async def over() -> Any:
            shown = (await api.get(one)).json()
            return shown if shown["state"] == "ended" else None

        async with asyncio.timeout(10):
            while (ended := await over()) is None:
                await asyncio.sleep(0.05)
        assert (ended["close_code"], ended["ended_by"]) == (1012, "router")
        assert "maintenance at three" in ended["story"]
        assert (await api.post(f"{one}/disconnect", json={})).status_code == 409
        await leave_all([there[0], waiting])


async def test_a_head_has_no_body(api: httpx.AsyncClient) -> None:
    """Or the next answer on the connection would begin with it. And the character 0 is in no name."""
    for _ in range(2):
        head, got = await api.head("/replicas"), await api.get("/replicas")
        assert (head.status_code, head.content) == (got.status_code, b"") == (200, b"")
        assert "items" in got.json()
    for path in ("/replicas/%00", "/sessions/%00"):
        assert (await api.get(path)).status_code == 404
    assert (await api.get("/sessions?client=%00")).json()["errors"][0]["field"] == "client"


async def test_changes_of_health_are_events(cluster: Cluster, api: httpx.AsyncClient) -> None:
    """Those that a real prober finds, polled by a cursor."""
    async with slotted_replica(slots=1) as replica:
        await cluster.configure(failure_threshold=1)
        await cluster.place(replica, status="unknown")
        with managing("prober", ["runhealthchecks"], cluster.var):
            found: list[dict[str, Any]] = []
            async with asyncio.timeout(20):
                while not found:
                    await asyncio.sleep(0.1)
                    found = (await api.get("/events", params={"order": "oldest"})).json()["items"]
        assert (found[0]["replica"], found[0]["old_status"]) == ("replica-0", "unknown")
        assert (await api.get(f"/events/{found[0]['id']}")).json() == found[0]
        assert (await api.get("/events/999999")).headers["Content-Type"] == "application/problem+json"
