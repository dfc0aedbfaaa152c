"""No secret, ticket or prompt in what the router writes, and no address of a replica in what clients are sent.

Everything that may leak is driven once, with secrets planted in it (tests/canaries.py): sessions, refusals, failures,
pages, the API, and all of it again with the database away. (Every other test's logs are searched too: processes.py.)
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from pytest_django.plugin import DjangoDbBlocker

from tests.acceptance.cluster import Cluster, running_cluster
from tests.acceptance.visitors import Visitor, visitor
from tests.backing_servers import Postgres, redis_server, running_postgres
from tests.canaries import canary, found_in, look_through
from tests.slotted_replica import slotted_replica

PASSWORD = canary("password", 20)
HEADERS = {
    "Cookie": f"sessionid={canary('cookie')}; user={canary('affinity-key')}",
    "X-Other": canary("header"),
}
PATH = f"/v1/stream?user={canary('query')}&ticket=ticket_{canary('t', 43)[:43]}"
INIT = json.dumps({"type": "session_init_v2", "curated_prompts": [canary("prompt")], "initial_image": canary("image")})


class Site:
    def __init__(self, cluster: Cluster, postgres: Postgres) -> None:
        self.cluster, self.postgres = cluster, postgres
        self.sent = b""  # to clients and browsers, all of it


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Site]:
    """One process writes text, the other JSON; both all that they have to say."""
    var = tmp_path_factory.mktemp("secrets")
    with running_postgres() as postgres, redis_server(var) as redis:
        settings = {
            "DATABASE_URL": postgres.url, "REDIS_URL": redis.url, "LOG_LEVEL": "DEBUG",
            "ROUTER_UPSTREAM_AUTHORIZATION": f"Bearer {canary('upstream')}",
        }  # fmt: skip
        with running_cluster(var, django_db_blocker, processes=1, **settings) as cluster:
            cluster.start(LOG_FORMAT="json", ROUTER_ALLOWED_ORIGINS="https://app.example.com")
            cluster.do(lambda db: User.objects.db_manager(db).create_superuser("ops", password=PASSWORD))
            yield Site(cluster, postgres)
            redis.stop()


async def come(site: Site, number: int, **options: Any) -> Visitor:
    found = await visitor(site.cluster.routers[number], **{"path": PATH, "headers": HEADERS} | options)
    await found.peer.say(INIT)
    return found


async def heard(site: Site, found: Visitor) -> None:
    await found.leave()
    messages = [message for message in found.messages if message != INIT]  # its own, which the replica echoes
    site.sent += repr((messages, found.told, found.errors, found.close)).encode()


async def sessions(site: Site) -> None:
    """Served, refused, failed; shown a token that is none, and one from another page."""
    for number in (0, 1):
        own = {"Authorization": f"Bearer stream_{canary('s', 43)[:43]}", **HEADERS}
        for options in ({}, {"headers": own}, {"headers": {"Origin": f"https://{canary('origin')}.example.com"}}):
            found = await come(site, number, **options)
            await found.until(lambda v: v.served_at or v.told or v.over, 10)
            await heard(site, found)


async def pages(site: Site) -> None:
    for router in site.cluster.routers:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{router.port}", trust_env=False) as http:
            wrong = {"username": "ops", "password": canary("wrong-password")}
            for method, path, options in (
                ("GET", f"/nowhere?q={canary('page-query')}", {}),
                ("GET", PATH, {}),
                ("GET", "/admin/", {"headers": {"Cookie": f"sessionid={canary('session')}"}}),
                ("POST", "/admin/login/", {"data": wrong}),
                ("GET", "/readyz", {}),
                ("GET", "/livez", {}),
                ("GET", "/dashboard/state", {}),
                ("POST", "/dashboard/act", {"json": {"what": canary("act")}}),
                ("GET", "/api/v1/replicas", {"headers": {"Authorization": f"Bearer api_{canary('a', 43)[:43]}"}}),
                ("POST", "/api/v1/tickets", {"json": {"origin": canary("ticket-origin")}}),
                ("GET", "/metrics", {"headers": {"Authorization": f"Bearer {canary('metrics')}"}}),
                ("GET", "/", {"headers": {"Host": f"{canary('host')}.example.com"}}),
            ):
                answer = await http.request(method, path, **options)
                site.sent += repr(answer.headers).encode() + answer.content
            await sign_in(http)


async def sign_in(http: httpx.AsyncClient) -> None:
    """With the right password, where the database is there."""
    page = await http.get("/admin/login/")
    if "csrftoken" in http.cookies:
        form = {"username": "ops", "password": PASSWORD, "csrfmiddlewaretoken": http.cookies["csrftoken"]}
        await http.post("/admin/login/", data=form, headers={"Referer": str(page.url)})
        await http.get("/admin/replicas/replica/add/")


async def test_nothing_that_is_secret_is_written_or_sent(site: Site) -> None:
    async with slotted_replica(slots=4) as good, slotted_replica(slots=4) as bad:
        bad.refuse()
        await site.cluster.configure(affinity="query:user")
        await site.cluster.place(bad, good)
        addresses = [replica.url.removeprefix("http://").encode() for replica in (good, bad)]
        await sessions(site)
        await pages(site)
        good.mode = "reject"
        await sessions(site)
        good.mode = "serve"
        lost = await come(site, 0)
        await lost.served()
        good.die()
        await lost.end(5)
        await heard(site, lost)
        await sessions(site)
        await asyncio.to_thread(site.postgres.stop)
        try:
            await sessions(site)
            await pages(site)
        finally:
            await asyncio.to_thread(site.postgres.start)
    assert len(site.sent) > 20_000
    assert found_in(site.sent) is None
    for address in addresses:
        assert address not in site.sent
        assert address.rpartition(b":")[2] not in site.sent
    for router in site.cluster.routers:
        look_through(router.process.log_path)
        assert "session" in router.log
    seen = b"".join(stay.head for stay in good.stays)
    assert canary("cookie").encode() not in seen  # an operator's cookie goes to no replica
    assert b"ticket_" not in seen
