"""The dashboard's server under real daphne processes (issue 5, section 1): two routers, a prober, real sessions.

The page itself is tested in a browser (test_dashboard_*.py); here is what it is told, when, and whether it is true. No
Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_django.plugin import DjangoDbBlocker
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from tests.acceptance.cluster import Cluster, running_cluster
from tests.acceptance.moments import Moment
from tests.acceptance.servers import Router
from tests.acceptance.visitors import leave_all, line_up, served
from tests.integration.http_servers import answering, http_server
from tests.processes import manage, managing
from tests.slotted_replica import ASSIGNED, slotted_replicas

TOLD_SECONDS = 2.0
PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("live"), django_db_blocker, processes=2) as found:
        make_operator(found.var)
        yield found


def make_operator(var: Path) -> None:
    settings = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    manage(var, "createsuperuser", "--noinput", "--username", "ada", "--email", "a@example.com", **settings)


class Operator:
    """Signed in at one router process; acts, and watches."""

    def __init__(self, router: Router) -> None:
        self.router, self.base = router, f"http://127.0.0.1:{router.port}"
        self.http = httpx.AsyncClient(base_url=self.base, timeout=20, trust_env=False)

    async def sign_in(self) -> None:
        await self.http.get("/admin/login/")
        form = {"username": "ada", "password": PASSWORD, "csrfmiddlewaretoken": self.http.cookies["csrftoken"]}
        answer = await self.http.post("/admin/login/?next=/livez", data=form)
        assert answer.status_code == 302, answer.text

    async def act(self, **body: Any) -> str:
        headers = {"X-CSRFToken": self.http.cookies["csrftoken"]}
        answer = await self.http.post("/dashboard/act", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["said"])

    async def get(self, path: str) -> dict[str, Any]:
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[Watcher]:
        cookie = f"sessionid={self.http.cookies['sessionid']}"
        address = f"ws://127.0.0.1:{self.router.port}/dashboard/live"
        headers = {"Cookie": cookie, "Origin": self.base}
        async with connect(address, additional_headers=headers, compression=None, max_size=None) as socket:
            yield Watcher(socket)


class Watcher:
    """A page: it keeps the state as it is told."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.state: dict[str, Any] = {}

    async def hear(self) -> None:
        message = json.loads(await self.socket.recv())
        if message["type"] == "snapshot":
            self.state = message
            return
        rows = {row["id"]: row for row in self.state["replicas"]}
        rows |= {row["id"]: row for row in message.pop("replicas", [])}
        for gone in message.pop("gone", []):
            del rows[gone]
        message.pop("plots", None)
        self.state |= message | {"replicas": list(rows.values())}

    async def until(self, condition: Callable[[dict[str, Any]], Any], seconds: float = 15) -> None:
        async with asyncio.timeout(seconds):
            while not (self.state and condition(self.state)):
                await self.hear()

    def replica(self, name: str) -> dict[str, Any]:
        return next(row for row in self.state["replicas"] if row["name"] == name)


@pytest.fixture
async def operators(cluster: Cluster) -> AsyncIterator[list[Operator]]:
    """One at each router process."""
    found = [Operator(router) for router in cluster.routers]
    for operator in found:
        await operator.sign_in()
    yield found
    for operator in found:
        await operator.http.aclose()


def has(name: str, **values: Any) -> Callable[[dict[str, Any]], bool]:
    """Does the state's replica `name` have these?"""
    return lambda state: any(row["name"] == name and values.items() <= row.items() for row in state["replicas"])


async def test_a_drain_is_told_to_all_watchers(cluster: Cluster, operators: list[Operator]) -> None:
    """Within 2 s, whichever process they watch at; what it said before is what it does."""
    async with contextlib.AsyncExitStack() as stack:
        drained, other = await stack.enter_async_context(slotted_replicas(2, slots=4))
        await cluster.configure()
        await cluster.place(drained, other)
        there = [await served(router) for router in cluster.routers]
        watchers = [await stack.enter_async_context(operator.watching()) for operator in operators * 2]
        for watcher in watchers:
            await watcher.until(has("replica-0", state="active", sessions=2))
        body = {"what": "drain", "replica": watchers[0].replica("replica-0")["id"], "deadline_seconds": None}
        assert await operators[0].act(**body, ask=True) == "replica-0: closes 0, keeps 2."
        said = await operators[0].act(**body)
        acted = Moment(*(router.process.pid for router in cluster.routers))
        assert said == "replica-0: draining, keeps 2 sessions."
        for watcher in watchers:
            await watcher.until(has("replica-0", state="draining", available=False, sessions=2))
        assert acted.ago <= TOLD_SECONDS
        await leave_all(there)
        for watcher in watchers:
            await watcher.until(has("replica-0", sessions=0))
    await cluster.empty()


async def test_a_replica_that_dies_is_told_with_the_probers_verdict(
    cluster: Cluster, operators: list[Operator]
) -> None:
    """Within 2 s of it, with the error in words; its history says the same."""
    await cluster.configure(interval_seconds=0.5, timeout_seconds=1.0, failure_threshold=2)
    async with operators[0].watching() as watcher, contextlib.AsyncExitStack() as life:
        server = await life.enter_async_context(http_server(answering()))
        await cluster.place(server.url, status="unknown")
        with managing("prober", ["runhealthchecks"], cluster.var):
            await watcher.until(has("replica-0", status="healthy", available=True, last_error=""))
            await watcher.until(lambda state: state["prober"]["state"] == "ok" and state["prober"]["epoch"])
            await life.aclose()
            await watcher.until(has("replica-0", status="unhealthy", available=False))
            told, row = time.time(), watcher.replica("replica-0")
            assert told - row["status_since"] <= TOLD_SECONDS
            assert row["last_error"] == "connection refused"
            assert row["latencies"][-1][1] is None
        history = await operators[1].get(f"/dashboard/replicas/{row['id']}/history.json")
        assert [change["new"] for change in history["transitions"]] == ["unhealthy", "healthy"]


async def test_counts_are_true(cluster: Cluster, operators: list[Operator]) -> None:
    """With two processes: sessions, the line, bytes each way, and how each session ended."""
    before = await cluster.last_id()
    async with slotted_replicas(2, slots=2) as (one, two), operators[0].watching() as watcher:
        await cluster.configure()
        await cluster.place(one, two)
        there = [await served(cluster.routers[number % 2]) for number in range(4)]
        line = await line_up(cluster.routers)
        await watcher.until(lambda state: state["totals"]["waiting"] == 2 and state["totals"]["sessions"] == 4)
        assert watcher.state["totals"]["slots"] == 4
        assert watcher.state["line"]["length"] == 2
        assert [(each["sessions"], each["waiting"]) for each in watcher.state["processes"]] == [(2, 1), (2, 1)]
        for number, found in enumerate(there):
            await found.peer.say("x" * 1000 * (number + 1))
            await found.until(lambda found: any(len(message) >= 1000 for message in found.messages), what="its echo")
        ours = {
            f"127.0.0.1:{found.peer.ports[0]}": (1000 * (number + 1), len(ASSIGNED))
            for number, found in enumerate(there)
        }  # up; and what came down beside the echo: the replica's first message
        table = await until_table(
            operators[1],
            "live",
            lambda rows: (
                {row["client"]: (row["bytes_up"], row["bytes_down"] - row["bytes_up"]) for row in rows} == ours
            ),
        )
        waiting = (await operators[1].get("/dashboard/sessions.json?state=waiting"))["rows"]
        assert {row["client"] for row in waiting} == {f"127.0.0.1:{found.peer.ports[0]}" for found in line}
        victim = table[0]
        reason = "moved to another host"
        said = await operators[1].act(what="disconnect", sessions=[victim["uid"]], reason=reason)
        assert said == f"Told to end: 1 session (1012, “{reason}”)."
        (ended,) = await until_table(operators[0], "ended", lambda rows: rows, f"&q={victim['uid']}")
        assert ended["sentence"].startswith("an operator ended it ")
        assert ended["sentence"].endswith(f"in: “{reason}”; client told 1012")
        assert (ended["bytes_up"], ended["close_code"]) == (victim["bytes_up"], 1012)
        one.die()
        # Its two sessions, or the one that is left there and the one from the line that has the other's slot.
        lost = await until_table(
            operators[0], "ended", lambda rows: sum("vanished" in row["sentence"] for row in rows) == 2
        )
        assert {row["close_code"] for row in lost if "vanished" in row["sentence"]} == {1011}
        for row in lost:
            if "vanished" in row["sentence"]:
                assert row["sentence"].startswith(f"replica {row['replica']} vanished ")
                assert row["sentence"].endswith(" in; client told worker_failed")
        await leave_all([*there, *line])
        await watcher.until(lambda state: state["totals"]["sessions"] == state["totals"]["waiting"] == 0)
        rows, since = await cluster.since(before), watcher.state["at"] - 60
        young = [row for row in rows if row.opened_at.timestamp() >= since]
        assert watcher.state["totals"]["opened_per_minute"] >= len(young) > 0
    await cluster.empty()


async def test_who_has_not_signed_in_hears_4403(router: Router) -> None:
    """On any server: after the accept, as a browser needs it; and a page of another site is refused before."""
    address = f"ws://127.0.0.1:{router.port}/dashboard/live"
    async with connect(address, origin=Origin(f"http://127.0.0.1:{router.port}")) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4403
    with pytest.raises(InvalidStatus) as refused:
        await connect(address, origin=Origin("http://evil.example"))
    assert refused.value.response.status_code == 403


async def test_a_watched_process_ends_in_order(own_router: Router) -> None:
    """SIGTERM: the watcher is told, nothing holds up the end, nothing is logged as a fault."""
    var = own_router.database.parent
    await asyncio.to_thread(make_operator, var)
    operator = Operator(own_router)
    await operator.sign_in()
    async with operator.watching() as watcher:
        await watcher.until(lambda state: state["processes"])
        assert await asyncio.to_thread(own_router.process.stop) == 0
        with pytest.raises(ConnectionClosed) as closed:
            await watcher.until(lambda state: False)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
    await operator.http.aclose()
    assert "Traceback" not in own_router.log


async def until_table(
    operator: Operator, state: str, condition: Callable[[list[dict[str, Any]]], Any], more: str = ""
) -> list[dict[str, Any]]:
    """The rows, once `condition` holds of them."""
    async with asyncio.timeout(15):
        while True:
            found = await operator.get(f"/dashboard/sessions.json?state={state}{more}")
            if condition(found["rows"]):
                return list(found["rows"])
            await asyncio.sleep(0.1)
