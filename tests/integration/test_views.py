"""/status, /livez and /readyz (contract A5), through the whole middleware."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from django.db import OperationalError
from django.test import Client, override_settings
from django.utils import timezone

from proxy import process
from proxy.models import Session
from replicas.models import PlacementRecord, ProberLease, Replica, ReplicaHealth

pytestmark = pytest.mark.django_db(transaction=True)

CONTRACT_KEYS = {"url", "primary", "status", "last_ok_at", "last_latency_ms", "consecutive_failures"}


def replica(url: str = "http://a:1", status: str = "healthy", **values: object) -> Replica:
    made = Replica.objects.create(url=url, **values)
    ReplicaHealth.objects.create(
        replica=made,
        url=url,
        status=status,
        checked_at=timezone.now(),
        last_ok_at=datetime(2026, 1, 1, tzinfo=UTC),
        last_latency_ms=2.5,
        last_error="connection to 10.0.0.1 refused",
    )
    return made


def test_status_has_the_contracts_keys(client: Client) -> None:
    """`last_ok_at` in Unix seconds or null; keys may be added, never renamed."""
    replica(primary=True)
    Replica.objects.create(url="http://b:2")
    first, second = client.get("/status").json()["replicas"]
    assert first.keys() >= CONTRACT_KEYS
    assert (
        first
        | {
            "url": "http://a:1",
            "primary": True,
            "status": "healthy",
            "last_ok_at": 1767225600.0,
            "last_latency_ms": 2.5,
            "consecutive_failures": 0,
            "stale": False,
            "sessions": 0,
            "slots": None,
            "ejected": False,
            "full": False,
        }
        == first
    )
    assert (second["status"], second["last_ok_at"], second["last_latency_ms"]) == ("unknown", None, None)
    assert second["stale"] is False


def test_status_shows_what_sessions_found_and_how_many_there_are(client: Client) -> None:
    """Its slots, how many are taken, and whether placement passes it over for a while."""
    now = timezone.now()
    made = replica(max_sessions=2)
    PlacementRecord.objects.create(replica=made, ejected_until=now.timestamp() + 30, full_until=now.timestamp() + 5)
    for ended_at in (None, now):
        Session.objects.create(uid=str(ended_at), replica=made, url=made.url, opened_at=now, ended_at=ended_at)
    shown = client.get("/status").json()["replicas"][0]
    assert [shown[key] for key in ("sessions", "slots", "ejected", "full")] == [1, 2, True, True]


def test_status_shows_no_error_text(client: Client) -> None:
    """What went wrong inside is for operators."""
    replica()
    assert "10.0.0.1" not in client.get("/status").content.decode()


def test_readyz_is_200_with_an_available_replica(client: Client) -> None:
    """Even if all its slots are taken: that is for the line, not for the load balancer."""
    replica(max_sessions=1)
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ready",
        "database": "ok",
        "replicas": {"total": 1, "available": 1},
        "prober": "ok",
        "missing": [],
    }


@pytest.mark.parametrize(("status", "state"), [("unhealthy", "active"), ("unknown", "active"), ("healthy", "draining")])
def test_readyz_is_503_without_one_and_says_what_is_missing(client: Client, status: str, state: str) -> None:
    """No available replica."""
    replica(status=status, state=state)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["missing"] == ["available replica"]


def test_a_stale_prober_is_shown_and_no_reason_for_503(client: Client) -> None:
    """Stale is not dead: the last word stands (faults.md, 52)."""
    replica()
    ReplicaHealth.objects.update(checked_at=datetime(2026, 1, 1, tzinfo=UTC))
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["prober"]) == (200, "stale")
    assert client.get("/status").json()["replicas"][0]["stale"] is True


@pytest.mark.parametrize(("seconds", "prober"), [(0, "ok"), (14, "ok"), (16, "stale")])
def test_a_prober_is_known_by_its_beat(client: Client, seconds: int, prober: str) -> None:
    """Also where there is nothing to probe, or the interval is an hour; another takes over within 15 s."""
    assert client.get("/readyz").json()["prober"] == "never ran"
    ProberLease.objects.create(epoch=1, beaten_at=timezone.now() - timedelta(seconds=seconds))
    assert client.get("/readyz").json()["prober"] == prober


def test_without_a_database_readyz_and_status_say_so_and_livez_answers(client: Client) -> None:
    """No traceback, no text of the error."""
    with mock.patch("replicas.views.Replica.objects.with_health", side_effect=OperationalError("at 10.0.0.1")):
        ready, status, live = client.get("/readyz"), client.get("/status"), client.get("/livez")
    assert (ready.status_code, ready.json()["missing"]) == (503, ["database"])
    assert status.status_code == 503
    assert "10.0.0.1" not in ready.content.decode() + status.content.decode()
    assert (live.status_code, live.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/status", "/metrics", "/v1/stream"])
def test_machines_are_answered_whatever_host_they_name(client: Client, path: str) -> None:
    """Load balancers probe by address, and follow no redirect to https."""
    with override_settings(SECURE_SSL_REDIRECT=True):
        answer = client.get(path, headers={"host": "10.1.2.3:9000"})
    assert answer.status_code in (200, 503, 404, 426)
    assert "Location" not in answer.headers


def test_pages_are_for_known_hosts_only(client: Client) -> None:
    """ALLOWED_HOSTS holds for everything that people use."""
    assert client.get("/admin/", headers={"host": "evil.example"}).status_code == 400
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_https_only_redirects_pages() -> None:
    """With HTTPS_ONLY, http is answered with the way to https."""
    with override_settings(SECURE_SSL_REDIRECT=True):
        answer = Client().get("/", headers={"host": "localhost"})
    assert (answer.status_code, answer["Location"]) == (301, "https://localhost/")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/status"])
def test_only_reading_is_allowed_and_nothing_is_cached(client: Client, path: str) -> None:
    """A cached "ready" would be a lie."""
    assert client.post(path).status_code == 405
    assert "no-store" in client.get(path)["Cache-Control"]


def test_pages_carry_a_strict_policy(client: Client, admin_client: Client) -> None:
    """No inline script or style anywhere; the player adds what MediaSource needs."""
    admin, player = admin_client.get("/admin/")["Content-Security-Policy"], client.get("/")["Content-Security-Policy"]
    for policy in (admin, player):
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "style-src 'self';" in policy
    assert "media-src blob:" in player
    assert "media-src" not in admin


def test_readyz_is_503_while_this_process_drains(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load balancer sends new clients elsewhere; live sessions go on."""
    replica()
    monkeypatch.setattr(process, "draining", True)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["missing"] == ["draining: this process takes no new sessions"]
