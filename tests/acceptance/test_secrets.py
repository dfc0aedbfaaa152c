"""No secret, ticket or prompt in what the router writes, and no address of a replica in what clients are sent.

Everything that may leak is driven once, with secrets planted in it (tests/canaries.py): sessions, refusals, failures,
pages, the API, and all of it again with Redis and the database away. (The logs of every other test are searched too:
processes.py.)
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from pytest_django.plugin import DjangoDbBlocker

from api.models import ApiToken, Scope
from proxy.models import StreamToken
from replicas import tokens
from tests.acceptance.cluster import Cluster, running_cluster
from tests.acceptance.servers import running_router
from tests.acceptance.visitors import Visitor, visitor
from tests.backing_servers import Postgres, Redis, redis_server, running_postgres
from tests.canaries import canary, found_in, look_through
from tests.fake_replica import raw_server
from tests.ports import free_port
from tests.processes import managing
from tests.slotted_replica import slotted_replica

PASSWORD = canary("password", 20)
HEADERS = {
    "Cookie": f"sessionid={canary('cookie')}; user={canary('affinity-key')}",
    "X-Other": canary("header"),
}
PATH = f"/v1/stream?user={canary('query')}&ticket=ticket_{canary('t', 43)[:43]}"
INIT = json.dumps({"type": "session_init_v2", "curated_prompts": [canary("prompt")], "initial_image": canary("image")})


class Site:
    def __init__(self, cluster: Cluster, postgres: Postgres, redis: Redis) -> None:
        self.cluster, self.postgres, self.redis = cluster, postgres, redis
        self.sent = b""  # to clients, and to browsers of nobody who is staff
        self.shown = b""  # to staff
        # Tokens that are good.
        self.api, self.stream = tokens.new_token(tokens.API), tokens.new_token(tokens.STREAM)
        self.tickets: list[str] = []
        cluster.do(self._make)

    def _make(self, db: str) -> None:
        user = User.objects.db_manager(db).create_superuser("ops", password=PASSWORD)
        ApiToken.objects.using(db).create(user=user, scope=Scope.EDIT, **kept(self.api))
        StreamToken.objects.using(db).create(**kept(self.stream))


def kept(token: str) -> dict[str, str]:
    return {"name": "good", "digest": tokens.digest(token), "beginning": tokens.beginning(token)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Site]:
    """One process writes text, the other JSON; both all that they have to say.

    The second forwards what the first does not, and stands behind a proxy, as it believes.
    """
    var = tmp_path_factory.mktemp("secrets")
    with running_postgres() as postgres, redis_server(var) as redis:
        settings = {
            "DATABASE_URL": postgres.url, "REDIS_URL": redis.url, "LOG_LEVEL": "DEBUG",
            "ROUTER_UPSTREAM_AUTHORIZATION": f"Bearer {canary('upstream')}",
        }  # fmt: skip
        with running_cluster(var, django_db_blocker, processes=1, **settings) as cluster:
            other = {
                "LOG_FORMAT": "json", "ROUTER_ALLOWED_ORIGINS": "https://app.example.com", "BEHIND_PROXY": "true",
                "ROUTER_FORWARD_HEADERS": "Cookie,Authorization", "ROUTER_UPSTREAM_AUTHORIZATION": "",
            }  # fmt: skip
            cluster.start(**other)
            yield Site(cluster, postgres, redis)


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
        good = {"Authorization": f"Bearer {site.stream}", **HEADERS}
        elsewhere = {"Origin": f"https://{canary('origin')}.example.com"}
        for options in ({}, {"headers": own}, {"headers": good}, {"headers": elsewhere}, *with_tickets(site)):
            found = await come(site, number, **options)
            await found.until(lambda v: v.served_at or v.told or v.over, 10)
            await heard(site, found)


def with_tickets(site: Site) -> list[dict[str, Any]]:
    origin = {"Origin": "https://app.example.com"}
    return [{"path": f"/v1/stream?ticket={ticket}", "headers": origin} for ticket in site.tickets]


async def pages(site: Site) -> None:
    for router in site.cluster.routers:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{router.port}", trust_env=False, timeout=60) as http:
            wrong = {"username": "ops", "password": canary("wrong-password")}
            elsewhere = f"https://{canary('page')}.example.com"
            followed = {"Referer": f"{elsewhere}/?ticket={canary('referer')}", "X-Forwarded-Proto": "https"}
            for method, path, options in (
                ("GET", f"/nowhere?q={canary('page-query')}", {}),
                ("GET", PATH, {}),
                ("GET", "/admin/", {"headers": {"Cookie": f"sessionid={canary('session')}"}}),
                ("POST", "/admin/login/", {"data": wrong}),  # without the token of a form
                ("POST", "/admin/login/", {"data": wrong, "headers": {"Origin": elsewhere}}),
                ("POST", "/admin/login/", {"data": wrong, "headers": followed}),
                ("POST", "/api/v1/replicas", {"json": {"url": "ftp://a"}, "headers": by(site.api)}),
                ("POST", "/api/v1/replicas/replica-1/probe", {"headers": by(site.api)}),
                ("GET", f"/api/v1/sessions?client={canary('client')}", {"headers": by(site.api)}),
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
            ticket = await http.post(
                "/api/v1/tickets", json={"origin": "https://app.example.com"}, headers=by(site.stream)
            )
            site.tickets += [ticket.json()["ticket"]] if ticket.status_code == 201 else []
            await staff(site, http)


def by(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def staff(site: Site, http: httpx.AsyncClient) -> None:
    """A wrong password and the right one, and what staff see, where the database is there."""
    await http.get("/admin/login/")
    for password in (canary("wrong-password"), PASSWORD):
        form = {"username": "ops", "password": password, "csrfmiddlewaretoken": http.cookies.get("csrftoken", "")}
        answer = await http.post("/admin/login/", data=form)
        site.sent += answer.content
    for path in ("/admin/admin/logentry/", "/admin/proxy/session/", "/dashboard/state.json", "/status", "/metrics"):
        site.shown += (await http.get(path)).content


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
        site.redis.stop()
        await sessions(site)
        site.redis.start()
        await asyncio.to_thread(site.postgres.stop)
        try:
            await sessions(site)
            await pages(site)
        finally:
            await asyncio.to_thread(site.postgres.start)
    assert len(site.sent) > 20_000
    assert site.tickets
    assert "API token “good”".encode() in site.shown  # in the log of acts
    assert found_in(site.sent) is None
    assert found_in(site.shown) is None
    for secret in (site.api, site.stream, *site.tickets):
        for written in (site.sent, site.shown, *(router.log.encode() for router in site.cluster.routers)):
            assert secret.encode() not in written
    for address in addresses:
        assert address not in site.sent
        assert address.rpartition(b":")[2] not in site.sent
    for router in site.cluster.routers:
        look_through(router.process.log_path)
        assert "session" in router.log
    seen = b"".join(stay.head for stay in good.stays)
    assert site.stream.encode() not in seen
    assert canary("affinity-key").encode() in seen  # cookies do go there from the second process,
    assert canary("cookie").encode() not in seen  # and an operator's does not
    assert b"ticket_" not in seen
    for reason in ("Origin", "Referer"):
        assert f"Forbidden ({reason} checking failed): /admin/login/" in site.cluster.routers[1].log


async def test_nor_by_a_prober(site: Site) -> None:
    """With the replicas' own secret, and also while the database is away: its log is searched at its end."""
    heads = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

    async with raw_server(answer) as good:
        await site.cluster.place(good.url, f"http://127.0.0.1:{free_port()}")
        with managing("prober", ["runhealthchecks"], site.cluster.var, **site.cluster.settings) as prober:
            await asyncio.to_thread(prober.wait_for, "healthy → unhealthy", 40)
            await asyncio.to_thread(site.postgres.stop)
            try:
                await asyncio.to_thread(prober.wait_for, "the database does not answer")
            finally:
                await asyncio.to_thread(site.postgres.start)
    assert canary("upstream").encode() in heads[0]


@pytest.mark.parametrize("options", [[], ["--log-level", "trace", "--access-log"]], ids=["as README says", "loud"])
async def test_nor_under_uvicorn(options: list[str], tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> None:
    """Which writes a log of its own: it is searched at its end, too."""
    with running_router("uvicorn", tmp_path, django_db_blocker, options=options, LOG_LEVEL="DEBUG") as router:
        async with slotted_replica(slots=4) as replica:
            await router.place(replica.url)
            found = await visitor(router, path=PATH, headers=HEADERS)
            await found.peer.say(INIT)
            await found.served()
            await found.leave()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{router.port}", trust_env=False, timeout=60) as http:
            await http.get(f"/nowhere?q={canary('page-query')}", headers=HEADERS)
        await asyncio.to_thread(router.process.wait_for, '"WebSocket /v1/stream" [accepted]')
        if "--access-log" in options:
            await asyncio.to_thread(router.process.wait_for, '"GET /nowhere HTTP/1.1" 404')
