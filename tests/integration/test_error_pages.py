"""Pages that say what went wrong: in our own look, with the policy of every page, and without a secret."""

from __future__ import annotations

from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.db import DataError, InterfaceError, OperationalError, ProgrammingError
from django.http import HttpResponse
from django.test import Client

from routerproject.middleware import POLICY

pytestmark = pytest.mark.django_db


def is_ours(answer: HttpResponse, status: int, *words: str) -> None:
    page = answer.content.decode()
    assert answer.status_code == status
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert answer.headers["Content-Type"].startswith("text/html")
    for word in (f'<p class="code">{status}</p>', "error.css", 'href="/admin/"', 'href="/dashboard/"', *words):
        assert word in page
    assert "<script" not in page
    assert "<style" not in page
    assert " style=" not in page


def test_no_such_page(client: Client, admin_client: Client) -> None:
    """For strangers, and for operators within the admin."""
    is_ours(client.get("/no/such/page"), 404, "There is no such page")
    is_ours(admin_client.get("/admin/no/such/page/"), 404, "There is no such page")
    is_ours(admin_client.get("/dashboard/replicas/999999999/"), 404)


def test_the_address_is_not_repeated(client: Client) -> None:
    """What a stranger has written into it is nothing to show."""
    assert "planted" not in client.get("/planted<b>").content.decode()


def test_not_permitted(client: Client, django_user_model: type[User]) -> None:
    """It says whom to ask."""
    client.force_login(django_user_model.objects.create_user("new", is_staff=True))
    is_ours(client.get("/admin/replicas/replica/"), 403, "Viewers, Operators or Editors")


def test_a_form_without_its_token() -> None:
    """It says what to do about it."""
    client = Client(enforce_csrf_checks=True)
    is_ours(client.post("/admin/login/", {"username": "x"}), 403, "CSRF_TRUSTED_ORIGINS", "reload the page")


def test_an_unknown_host(client: Client) -> None:
    """It names the setting, and not the host that was asked for."""
    answer = client.get("/admin/", headers={"host": "planted.example"})
    is_ours(answer, 400, "ALLOWED_HOSTS")
    assert "planted" not in answer.content.decode()


@pytest.mark.parametrize("fault", [RuntimeError, DataError, ProgrammingError])
def test_a_fault_of_ours(admin_user: User, fault: type[Exception]) -> None:
    """Nothing of it is shown; the page needs neither database nor request. A database that refuses a value is there."""
    client = Client(raise_request_exception=False)
    client.force_login(admin_user)
    with mock.patch("replicas.admin.RouterSettings.current", side_effect=fault("planted secret")):
        answer = client.get("/admin/replicas/replica/")
    is_ours(answer, 500, "Sessions go on")
    assert "planted" not in answer.content.decode()


@pytest.mark.parametrize("fault", [OperationalError, InterfaceError])
def test_while_the_database_is_away(admin_user: User, fault: type[Exception]) -> None:
    """Nothing is broken: it says so, and when to come again."""
    client = Client(raise_request_exception=False)
    client.force_login(admin_user)
    with mock.patch("replicas.admin.RouterSettings.current", side_effect=fault("planted secret")):
        answer = client.get("/admin/replicas/replica/")
    is_ours(answer, 503, "database does not answer", "Live sessions go on")
    assert answer["Retry-After"] == "3"
    assert "planted" not in answer.content.decode()


@pytest.mark.parametrize("path", ["/dashboard/", "/dashboard/replicas/1/", "/admin/", "/admin/proxy/session/"])
def test_no_page_for_staff_fails_while_the_database_is_away(admin_user: User, path: str) -> None:
    """Not even who is signed in can be found then."""
    client = Client(raise_request_exception=False)
    client.force_login(admin_user)
    with mock.patch("django.db.backends.utils.CursorWrapper.execute", side_effect=OperationalError("planted secret")):
        answer = client.get(path)
    is_ours(answer, 503, "database does not answer")
    assert "planted" not in answer.content.decode()


@pytest.mark.parametrize("path", ["/dashboard/state.json", "/dashboard/sessions.json"])
def test_the_dashboards_json_says_that_the_database_is_away(admin_user: User, path: str) -> None:
    client = Client(raise_request_exception=False)
    client.force_login(admin_user)
    with mock.patch("django.db.backends.utils.CursorWrapper.execute", side_effect=OperationalError("planted secret")):
        answer = client.get(path)
    assert (answer.status_code, answer.json()) == (503, {"error": "The database does not answer."})


def test_a_script_of_the_dashboards_hears_json(admin_user: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    answer = client.post("/dashboard/act", "{}", content_type="application/json")
    assert answer.status_code == 403
    assert "reload it" in answer.json()["error"]
