"""The API on each database: what only one of them refuses, and connections that stay open between requests."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import DataError, connection
from django.test import Client

from api import database as api_database
from api.models import Scope
from replicas import tokens
from tests.databases import another_connection
from tests.integration.placing import add_replica
from tests.integration.programs import V1, Api, problem


@pytest.fixture(autouse=True)
def _threads(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of the test's own: a thread's connection stays with the database that it was made for. And no rows are left."""
    made = {name: ThreadPoolExecutor(1) for name in ("_threads", "_signing_in")}
    for name, thread in made.items():
        monkeypatch.setattr(api_database, name, thread)
    yield
    for thread in made.values():
        thread.submit(lambda: connection.close()).result()
        thread.shutdown()
    LogEntry.objects.all().delete()
    User.objects.all().delete()


NUL = "%00"
PATHS = [
    ("GET", "/replicas/{}"), ("PATCH", "/replicas/{}"), ("DELETE", "/replicas/{}"), ("POST", "/replicas/{}/drain"),
    ("POST", "/replicas/{}/make-primary"), ("GET", "/sessions/{}"), ("POST", "/sessions/{}/disconnect"),
]  # fmt: skip


@pytest.mark.parametrize("text", [NUL, f"a{NUL}", f"{'0' * 31}{NUL}"])
@pytest.mark.parametrize(("method", "path"), PATHS)
def test_what_no_text_can_hold_is_nowhere(method: str, path: str, text: str) -> None:
    """The character 0, which PostgreSQL takes for a fault of the data."""
    body = None if method in ("GET", "DELETE") else {}
    problem(Api()(method, path.format(text), body), 404)


@pytest.mark.parametrize(
    ("path", "field"),
    [("/sessions", "client"), ("/sessions", "replica"), ("/events", "replica"), ("/sessions", "cursor")],
)
def test_a_parameter_that_no_text_can_hold_is_named(path: str, field: str) -> None:
    told = problem(Api()("GET", f"{path}?{field}=a{NUL}"), 422)
    assert [each["field"] for each in told["errors"]] == [field]


def test_a_name_that_no_text_can_hold_is_named() -> None:
    told = problem(Api()("PUT", f"/replicas/a{NUL}", {"url": "http://a", "ttl_seconds": 30}), 422)
    assert [each["field"] for each in told["errors"]] == ["name"]


def test_what_a_column_cannot_take_is_not_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told to try again."""

    def fail(*_: Any) -> Any:
        raise DataError("value too long")

    monkeypatch.setattr("api.replicas.show", fail)
    add_replica("a")
    told = Api()("GET", "/replicas/a")
    problem(told, 422)
    assert "Retry-After" not in told
    assert b"too long" not in told.content


def ask(text: str = "") -> int:
    """With a token that there never was, if with no other."""
    text = text or tokens.new_token(tokens.API)
    status: int = Client().get(f"{V1}/queue", headers={"Authorization": f"Bearer {text}"}).status_code
    return status


def counted(name: str) -> list[Any]:
    """The connections that the API's threads of this name make from now on."""
    made: list[Any] = []

    def count() -> None:
        plain = connection.get_new_connection
        connection.get_new_connection = lambda parameters: (made.append(parameters), plain(parameters))[1]  # type: ignore[method-assign]

    getattr(api_database, name).submit(count).result()
    return made


def test_a_wrong_token_costs_a_look_up_and_no_new_connection() -> None:
    """So that who tries many holds out nobody."""
    made = counted("_signing_in")
    assert [ask() for _ in range(20)] == [401] * 20
    assert len(made) == 1


def test_work_that_comes_seldom_leaves_no_connection() -> None:
    api, made = Api(Scope.READ), counted("_threads")
    assert [api("GET", "/queue").status_code for _ in range(3)] == [200] * 3
    assert len(made) == 3
    assert api_database._threads.submit(lambda: connection.connection).result() is None


def break_off() -> None:
    """The connection of the thread that signs in, without its knowing."""
    pid = api_database._signing_in.submit(lambda: connection.connection.info.backend_pid).result()
    with another_connection() as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        assert cursor.fetchone() == (True,)


def test_a_connection_that_has_died_meanwhile_fails_nobody(database: str) -> None:
    """A database that was started again is no 503 for who comes next."""
    made = counted("_signing_in")
    assert ask() == 401
    if database == "postgresql":  # SQLite's is a file, which does not die
        break_off()
    assert [ask(), ask()] == [401, 401]
    assert len(made) == (2 if database == "postgresql" else 1)


def test_after_a_fault_of_the_database_the_connection_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    made = counted("_signing_in")
    assert ask() == 401
    with monkeypatch.context() as broken:
        broken.setattr("api.auth._caller", lambda text: connection.cursor().execute("SELECT nothing"))
        assert ask() == 503
    assert ask() == 401
    assert len(made) == 2
