"""What the database itself holds to, and what the models say of a replica."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError
from django.utils import timezone

from replicas.models import ProberLease, Replica, ReplicaHealth, RouterSettings

pytestmark = pytest.mark.django_db


def test_the_database_allows_one_primary() -> None:
    """Whoever writes past the forms: at most one."""
    Replica.objects.create(url="http://a", primary=True)
    Replica.objects.create(url="http://b")
    with pytest.raises(IntegrityError):
        Replica.objects.create(url="http://c", primary=True)


def test_the_database_allows_no_weight_of_0() -> None:
    """A weight of 0 would divide by it."""
    with pytest.raises(IntegrityError):
        Replica.objects.create(url="http://a", weight=0)


@pytest.mark.parametrize("model", [RouterSettings, ProberLease])
def test_a_singleton_has_one_row(model: type) -> None:
    """A second row could never be the one that counts."""
    with pytest.raises(IntegrityError):
        model.objects.create(id=2)


@pytest.mark.parametrize(
    ("state", "status", "available"),
    [
        ("active", "healthy", True),
        ("active", "unknown", False),
        ("active", "unhealthy", False),
        ("draining", "healthy", False),
        ("disabled", "healthy", False),
    ],
)
def test_available_means_active_and_healthy(state: str, status: str, available: bool) -> None:
    """The operator's intent and the prober's verdict, both."""
    replica = Replica.objects.create(url="http://a", state=state)
    ReplicaHealth.objects.create(replica=replica, url=replica.url, status=status)
    assert Replica.objects.with_health().get().available is available


def test_health_seen_at_another_url_counts_for_nothing() -> None:
    """After an edit of the URL the replica is another server: unknown until it was probed."""
    replica = Replica.objects.create(url="http://a")
    ReplicaHealth.objects.create(replica=replica, url="http://a", status="healthy", checked_at=timezone.now())
    assert Replica.objects.get().healthy
    Replica.objects.update(url="http://b", created_at=timezone.now() - timedelta(hours=2))
    assert Replica.objects.get().status == "unknown"
    assert Replica.objects.get().is_stale(timezone.now(), timedelta(hours=1))


def test_a_new_replica_is_not_stale() -> None:
    """It has yet to be probed; only a prober that leaves it out for long makes it so."""
    replica = Replica.objects.create(url="http://a")
    assert not replica.is_stale(timezone.now(), timedelta(seconds=15))
    assert replica.is_stale(timezone.now() + timedelta(seconds=16), timedelta(seconds=15))


def test_stale_is_older_than_three_rounds_and_15_seconds() -> None:
    """15 s, because a second prober may take as long to take over."""
    assert RouterSettings().stale_after == timedelta(seconds=21)
    assert RouterSettings(interval_seconds=0.5, timeout_seconds=0.5).stale_after == timedelta(seconds=15)
