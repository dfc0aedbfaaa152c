"""Sign-ins to the admin are throttled, by name and address together (routerproject/signin.py)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from replicas.signals import pruning

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery staple"
PAGE = "/admin/login/"


@pytest.fixture(autouse=True)
def ada() -> User:
    return User.objects.create_superuser("ada", password=PASSWORD)


def sign_in(password: str = PASSWORD, name: str = "ada", **headers: str) -> Any:
    return Client(headers=headers).post(PAGE, {"username": name, "password": password})


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


def test_others_and_elsewhere_are_not_locked_out(settings: Any) -> None:
    """A stranger who types an operator's name keeps only himself out."""
    settings.ROUTER_TRUSTED_PROXIES = 1
    User.objects.create_superuser("bob", password=PASSWORD)
    for _ in range(6):
        sign_in("wrong", **{"X-Forwarded-For": "198.51.100.9"})
    assert sign_in(**{"X-Forwarded-For": "198.51.100.9"}).status_code == 429
    assert sign_in(**{"X-Forwarded-For": "198.51.100.10"}).status_code == 302
    assert sign_in(name="bob", **{"X-Forwarded-For": "198.51.100.9"}).status_code == 302


def test_a_forged_address_wins_no_tries() -> None:
    for number in range(5):
        sign_in("wrong", **{"X-Forwarded-For": f"198.51.100.{number}"})
    assert sign_in(**{"X-Forwarded-For": "198.51.100.99"}).status_code == 429


def test_other_addresses_of_the_same_ipv6_network_win_no_tries(settings: Any) -> None:
    """Whoever has one has 2⁶⁴ of them; the network beside it is somebody else's."""
    settings.ROUTER_TRUSTED_PROXIES = 1
    for number in range(5):
        sign_in("wrong", **{"X-Forwarded-For": f"2001:db8:0:1::{number}"})
    assert sign_in(**{"X-Forwarded-For": "2001:db8:0:1:ffff::99"}).status_code == 429
    assert sign_in(**{"X-Forwarded-For": "2001:db8:0:2::99"}).status_code == 302


def test_an_address_that_tries_many_names_is_locked_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One password for each of many names; others elsewhere sign in meanwhile."""
    monkeypatch.setattr("routerproject.signin.MOST_OF_AN_ADDRESS", 8)
    for number in range(8):
        assert sign_in("wrong", name=f"name-{number}").status_code == 200
    assert sign_in().status_code == 429


def test_after_the_wait_it_is_forgotten() -> None:
    for _ in range(5):
        sign_in("wrong")
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))
    assert sign_in().status_code == 302


def test_a_wrong_password_is_kept_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(6):
        sign_in("planted-password")
    assert "planted-password" not in str(list(AccessAttempt.objects.values()))
    assert "planted-password" not in caplog.text


def test_old_attempts_are_pruned() -> None:
    sign_in("wrong")
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(days=30))
    pruning.send(sender=None, before=timezone.now() - timedelta(days=14))
    assert not AccessAttempt.objects.exists()


def test_cookies_are_for_this_host_and_no_script(client: Client, settings: Any) -> None:
    sent = client.post(PAGE, {"username": "ada", "password": PASSWORD}).cookies["sessionid"]
    assert sent["httponly"]
    assert sent["samesite"] == "Lax"
    assert int(sent["max-age"]) == 12 * 3600
