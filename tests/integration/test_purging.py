"""Deleted replicas go when their last session has ended, and what sessions tell of them does not hold up placement."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from proxy import census
from proxy.models import Session
from replicas.models import Replica

pytestmark = pytest.mark.django_db


def a_deleted_replica(ended: int, live: int = 0) -> Replica:
    now = timezone.now()
    replica = Replica.objects.create(url="http://a", name="a")
    Session.objects.bulk_create(
        Session(uid=f"{i:032x}", replica=replica, replica_name="a", url="http://a", opened_at=now,
                ended_at=now if i < ended else None)
        for i in range(ended + live)
    )  # fmt: skip
    Replica.everything.filter(pk=replica.pk).update(deleted_at=now)
    return replica


def test_a_long_history_is_cleared_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """And outside of a turn, so that no placement waits for it; the history keeps the replica's name."""
    monkeypatch.setattr(census, "PURGE_ROWS", 10)
    a_deleted_replica(ended=25)
    left = []
    while Replica.everything.exists():
        census.purge_replicas()
        left.append(Session.objects.filter(replica__isnull=False).count())
    assert left == [15, 5, 0]
    assert set(Session.objects.values_list("replica_name", flat=True)) == {"a"}


def test_a_deleted_replica_with_a_live_session_stays_as_it_is() -> None:
    """Its history too: it is shown with its sessions until the last has ended."""
    a_deleted_replica(ended=3, live=1)
    census.purge_replicas()
    assert Replica.everything.count() == 1
    assert Session.objects.filter(replica__isnull=False).count() == 4


def test_where_nothing_is_deleted_a_tidying_only_reads() -> None:
    """It is done by each process, every ten seconds."""
    Replica.objects.create(url="http://a")
    with CaptureQueriesContext(connection) as asked:
        census.purge_replicas()
    assert len(asked) <= 2
    assert not [query for query in asked if not query["sql"].startswith("SELECT")]
