"""Who may read /status and /metrics, and who may sign in to the admin, at a real server (issue 6, section 3)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from django.contrib.auth.models import User
from pytest_django.plugin import DjangoDbBlocker

from tests.acceptance.cluster import Cluster, running_cluster
from tests.canaries import MACHINE_TOKEN, canary

PASSWORD = canary("password", 20)
MACHINE = {"Authorization": f"Bearer {MACHINE_TOKEN}"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Cluster]:
    shut = {"ROUTER_STATUS_ACCESS": "staff", "ROUTER_METRICS_ACCESS": "token"}
    with running_cluster(tmp_path_factory.mktemp("steering"), django_db_blocker, processes=2, **shut) as found:
        found.do(lambda db: User.objects.db_manager(db).create_superuser("ada", password=PASSWORD))
        found.do(lambda db: User.objects.db_manager(db).create_user("guest", password=PASSWORD))
        yield found


@pytest.fixture
def http(cluster: Cluster) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{cluster.routers[0].port}", trust_env=False, timeout=60) as found:
        yield found


def sign_in(http: httpx.Client, name: str, password: str) -> httpx.Response:
    http.get("/admin/login/")
    form = {"username": name, "password": password, "csrfmiddlewaretoken": http.cookies["csrftoken"]}
    return http.post("/admin/login/", data=form)


def test_each_page_asks_for_what_its_setting_says(http: httpx.Client) -> None:
    """Staff's sign-in opens /status alone, the token /metrics alone; nobody is told more than that."""
    for headers, status, metrics in (({}, 403, 401), (MACHINE, 403, 200), ({"Authorization": "Bearer x"}, 403, 401)):
        answers = [http.get(path, headers=headers) for path in ("/status", "/metrics")]
        assert [answer.status_code for answer in answers] == [status, metrics], headers
        assert "stream_router_" not in answers[0].text
    assert sign_in(http, "ada", PASSWORD).status_code == 302
    assert [http.get(path).status_code for path in ("/status", "/metrics")] == [200, 401]


def test_who_is_not_staff_sees_no_more_than_a_stranger(http: httpx.Client) -> None:
    assert sign_in(http, "guest", PASSWORD).status_code == 200  # the form again
    assert http.get("/status").status_code == 403


def test_wrong_passwords_shut_the_door_for_a_while(http: httpx.Client) -> None:
    """Also to the right one, which is not tried."""
    codes = [sign_in(http, "bob", f"wrong-{number}").status_code for number in range(6)]
    assert codes == [200] * 4 + [429] * 2
    shut = sign_in(http, "bob", PASSWORD)
    assert shut.status_code == 429
    assert int(shut.headers["Retry-After"]) > 0


def cpu_seconds(cluster: Cluster) -> float:
    """What all router processes have used."""
    stats = [Path(f"/proc/{router.process.pid}/stat").read_text() for router in cluster.routers]
    fields = [stat.rpartition(")")[2].split() for stat in stats]
    return sum(int(user) + int(system) for *_, user, system in (f[:13] for f in fields)) / os.sysconf("SC_CLK_TCK")


async def test_forty_wrong_passwords_at_once_are_five_tries(cluster: Cluster) -> None:
    """At two processes: no more than five are looked at, each by itself; some of the others hear to come again."""
    async with contextlib.AsyncExitStack() as stack:
        browsers = []
        for router in cluster.routers:
            browser = httpx.AsyncClient(base_url=f"http://127.0.0.1:{router.port}", trust_env=False, timeout=60)
            browsers.append(await stack.enter_async_context(browser))
            await browser.get("/admin/login/")

        async def try_once(name: str, number: int) -> httpx.Response:
            browser = browsers[number % 2]
            form = {
                "username": name,
                "password": f"wrong-{number}",
                "csrfmiddlewaretoken": browser.cookies["csrftoken"],
            }
            return await browser.post("/admin/login/", data=form)

        await try_once("dora", 0)  # the first costs more
        begun = cpu_seconds(cluster)
        await try_once("dora", 0)
        once = cpu_seconds(cluster) - begun
        begun = cpu_seconds(cluster)
        answers = await asyncio.gather(*(try_once("carl", number) for number in range(40)))
        spent = cpu_seconds(cluster) - begun
    codes = [answer.status_code for answer in answers]
    assert set(codes) <= {200, 429}
    assert codes.count(200) <= 4
    crowded = [answer for answer in answers if "was not looked at" in answer.text]
    assert {answer.headers["Retry-After"] for answer in crowded} == {"5"}
    assert spent < 20 * once, f"{spent:.2f} s for forty, {once:.2f} s for one"
