"""Sign-ins to the admin are throttled, by name and address together (routerproject/signin.py)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from axes.handlers.proxy import AxesProxyHandler
from axes.models import AccessAttempt
from django.contrib.auth import authenticate
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.test import Client, RequestFactory
from django.utils import timezone

from replicas.signals import pruning
from routerproject import signin
from tests.databases import at_once

_numbers = itertools.count()

PASSWORD = "correct horse battery staple"
PAGE = "/admin/login/"


@pytest.fixture(autouse=True)
def _cheap_hashes() -> Iterator[None]:
    """Nothing here is about what looking at a password costs: half a second of a core, some hundred times over."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PBKDF2PasswordHasher, "iterations", 1)
        yield


@pytest.fixture
def ada(db: None) -> User:
    return User.objects.create_superuser("ada", password=PASSWORD)


@pytest.fixture
def nobody(database: str) -> Iterator[str]:
    """On both databases: a name that no account has."""
    yield f"nobody-{next(_numbers)}"
    AccessAttempt.objects.all().delete()


def sign_in(password: str = PASSWORD, name: str = "ada", **headers: str) -> Any:
    return Client(headers=headers).post(PAGE, {"username": name, "password": password})


@pytest.mark.usefixtures("ada")
def test_five_wrong_passwords_and_the_right_one_does_not_do_either() -> None:
    """It says for how long, and nothing of whether the last one was right."""
    for _ in range(4):
        assert sign_in("wrong").status_code == 200
    for password in ("wrong", PASSWORD, "wrong"):
        answer = sign_in(password)
        assert answer.status_code == 429
        assert answer["Retry-After"] == "900"
        assert "15 minutes" in answer.content.decode()
        assert "Content-Security-Policy" in answer


@pytest.mark.usefixtures("ada")
def test_others_and_elsewhere_are_not_locked_out(settings: Any) -> None:
    """A stranger who types an operator's name keeps only himself out."""
    settings.ROUTER_TRUSTED_PROXIES = 1
    User.objects.create_superuser("bob", password=PASSWORD)
    for _ in range(6):
        sign_in("wrong", **{"X-Forwarded-For": "198.51.100.9"})
    assert sign_in(**{"X-Forwarded-For": "198.51.100.9"}).status_code == 429
    assert sign_in(**{"X-Forwarded-For": "198.51.100.10"}).status_code == 302
    assert sign_in(name="bob", **{"X-Forwarded-For": "198.51.100.9"}).status_code == 302


@pytest.mark.usefixtures("ada")
def test_a_forged_address_wins_no_tries() -> None:
    for number in range(5):
        sign_in("wrong", **{"X-Forwarded-For": f"198.51.100.{number}"})
    assert sign_in(**{"X-Forwarded-For": "198.51.100.99"}).status_code == 429


@pytest.mark.usefixtures("ada")
def test_other_addresses_of_the_same_ipv6_network_win_no_tries(settings: Any) -> None:
    """Whoever has one has 2⁶⁴ of them; the network beside it is somebody else's."""
    settings.ROUTER_TRUSTED_PROXIES = 1
    for number in range(5):
        sign_in("wrong", **{"X-Forwarded-For": f"2001:db8:0:1::{number}"})
    assert sign_in(**{"X-Forwarded-For": "2001:db8:0:1:ffff::99"}).status_code == 429
    assert sign_in(**{"X-Forwarded-For": "2001:db8:0:2::99"}).status_code == 302


@pytest.mark.usefixtures("ada")
def test_an_address_that_tries_many_names_is_locked_out_too(settings: Any) -> None:
    """One password for each of fifty names; until somebody who keeps the router ends the wait."""
    quick = "django.contrib.auth.hashers.MD5PasswordHasher"
    settings.PASSWORD_HASHERS = [quick, *settings.PASSWORD_HASHERS]
    codes = [sign_in("wrong", name=f"name-{number}").status_code for number in range(50)]
    assert codes == [200] * 49 + [429]
    shut = sign_in()
    assert shut.status_code == 429
    assert "axes_reset_username NAME" in shut.content.decode()
    assert "axes_reset_ip ADDRESS" in shut.content.decode()
    call_command("axes_reset_ip", "127.0.0.1")
    assert sign_in().status_code == 302


@pytest.mark.usefixtures("ada")
def test_what_a_client_calls_itself_wins_no_tries() -> None:
    for number in range(5):
        sign_in("wrong", **{"User-Agent": f"browser/{number}"})
    assert sign_in(**{"User-Agent": "browser/6"}).status_code == 429
    assert AccessAttempt.objects.count() == 1


@pytest.mark.usefixtures("ada")
def test_the_right_password_forgets_the_wrong_ones() -> None:
    for _ in range(2):
        assert [sign_in("wrong").status_code for _ in range(4)] == [200] * 4
        assert sign_in().status_code == 302
    assert not AccessAttempt.objects.exists()


def test_five_are_counted_of_many_at_once(nobody: str) -> None:
    """In whatever processes they are: each is counted before its password is looked at."""

    def try_once() -> bool:
        request = RequestFactory().post(PAGE)
        AxesProxyHandler.update_request(request)
        return AxesProxyHandler.get_implementation().count(request, {"username": nobody})

    assert sum(at_once([try_once] * 12)) == 5


def test_one_password_is_looked_at_at_a_time(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a crowd some wait and the others are asked to come again, which counts as no try."""
    monkeypatch.setattr(signin, "WAIT_SECONDS", 0.5)
    with signin._looking:
        answers = at_once([lambda: sign_in("wrong", name=nobody)] * 12)
        assert not AccessAttempt.objects.filter(username=nobody).exists()
    for answer in answers:
        assert (answer.status_code, answer["Retry-After"]) == (429, "5")
        assert "Your password was not looked at" in answer.content.decode()
    monkeypatch.undo()
    assert sign_in("wrong", name=nobody).status_code == 200
    assert all(signin._places.acquire(blocking=False) for _ in range(1 + signin.MOST_WAITING)), "all have left"
    try:
        assert "not looked at" in sign_in("wrong", name=nobody).content.decode()
    finally:
        signin._places.release(1 + signin.MOST_WAITING)


def test_a_name_of_any_length_is_a_wrong_one(nobody: str) -> None:
    """Counted like another: on PostgreSQL the column would not take it."""
    name = nobody + "x" * 2000
    assert [sign_in("wrong", name=name).status_code for _ in range(5)] == [200] * 4 + [429]
    assert [len(attempt.username or "") for attempt in AccessAttempt.objects.all()] == [255]


def test_programs_that_name_nobody_are_nobody() -> None:
    assert authenticate(RequestFactory().post(PAGE), username=None, password="x") is None


@pytest.mark.usefixtures("ada")
def test_after_the_wait_it_is_forgotten() -> None:
    for _ in range(5):
        sign_in("wrong")
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))
    assert sign_in().status_code == 302


@pytest.mark.usefixtures("ada")
def test_a_wrong_password_is_kept_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(6):
        sign_in("planted-password")
    assert "planted-password" not in str(list(AccessAttempt.objects.values()))
    assert "planted-password" not in caplog.text


@pytest.mark.usefixtures("ada")
def test_old_attempts_are_pruned() -> None:
    sign_in("wrong")
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(days=30))
    pruning.send(sender=None, before=timezone.now() - timedelta(days=14))
    assert not AccessAttempt.objects.exists()


def test_sign_ins_that_are_over_are_pruned(client: Client, ada: User) -> None:
    """Some hundreds at a time, and none that is good."""
    over = timezone.now() - timedelta(seconds=1)
    Session.objects.bulk_create(Session(session_key=f"old-{n}", expire_date=over) for n in range(600))
    client.force_login(ada)
    left = []
    while sum(n or 0 for _, n in pruning.send(sender=None, before=timezone.now() - timedelta(days=14))):
        left.append(Session.objects.count())
    assert left == [101, 1]
    assert Session.objects.get().session_key == client.session.session_key


@pytest.mark.usefixtures("ada")
def test_cookies_are_for_this_host_and_no_script(client: Client, settings: Any) -> None:
    sent = client.post(PAGE, {"username": "ada", "password": PASSWORD}).cookies["sessionid"]
    assert sent["httponly"]
    assert sent["samesite"] == "Lax"
    assert int(sent["max-age"]) == 12 * 3600
