"""Who may read /status and /metrics, and who may sign in to the admin, at a real server (issue 6, section 3)."""

from __future__ import annotations

from collections.abc import Iterator

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
    with running_cluster(tmp_path_factory.mktemp("steering"), django_db_blocker, **shut) as found:
        found.do(lambda db: User.objects.db_manager(db).create_superuser("ada", password=PASSWORD))
        found.do(lambda db: User.objects.db_manager(db).create_user("guest", password=PASSWORD))
        yield found


@pytest.fixture
def http(cluster: Cluster) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{cluster.routers[0].port}", trust_env=False) as found:
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
