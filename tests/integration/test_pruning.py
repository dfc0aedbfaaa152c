"""What is older than ROUTER_HISTORY_DAYS goes, in batches, by the prober (replicas/database.py, proxy/receivers.py)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.conf import settings
from django.utils import timezone

from proxy import receivers
from proxy.models import RouterProcess, Sample, Session
from replicas import database
from replicas.database import Database, prune
from replicas.models import HealthTransition
from tests.integration.clients import db
from tests.integration.placing import add_replica

pytestmark = pytest.mark.usefixtures("database")


def _history() -> None:
    """Of each kind 7 that are too old, 2 that are not, and of what can live 1 that lives."""
    now = timezone.now()
    limit = now - timedelta(days=settings.ROUTER_HISTORY_DAYS)
    times = [limit - timedelta(hours=hours) for hours in range(1, 8)] + [limit + timedelta(hours=1), now]
    replica = add_replica()
    for number, at in enumerate([*times, None]):
        opened = times[0] - timedelta(days=30)
        process = RouterProcess.objects.create(name=f"host:{number}", started_at=opened, ended_at=at)
        Session.objects.create(uid=f"{number:032x}", process=process, replica=replica, opened_at=opened, ended_at=at)
    for at in times:
        Sample.objects.create(at=at, sessions=1, waiting=0, opened=0, failed=0, bytes_up=0, bytes_down=0)
        HealthTransition.objects.create(replica=replica, at=at, old_status="unknown", new_status="healthy")


def _left() -> list[int]:
    return [model.objects.count() for model in (Session, RouterProcess, Sample, HealthTransition)]


@pytest.mark.parametrize("batch", [3, 500])
async def test_what_is_too_old_goes_and_what_lives_stays(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """However old it is: a session that was opened long ago is no history yet."""
    monkeypatch.setattr(receivers, "PRUNE_ROWS", batch)
    monkeypatch.setattr(database, "PRUNE_ROWS", batch)
    await db(_history)
    pruner = Database("pruner", "tests")
    try:
        await prune(pruner)
    finally:
        await pruner.close()
    assert await db(_left) == [3, 3, 2, 2]
    assert await db(lambda: set(Session.objects.filter(ended_at=None).values_list("uid", flat=True))) == {f"{9:032x}"}


async def test_a_batch_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that SQLite's lock is held shortly; how many went is said, so that it is asked again."""
    monkeypatch.setattr(receivers, "PRUNE_ROWS", 3)
    await db(_history)
    before = timezone.now() - timedelta(days=settings.ROUTER_HISTORY_DAYS)
    gone = [await db(receivers.prune_history, before=before) for _ in range(10)]
    assert gone == [3, 3, 1, 3, 3, 1, 3, 3, 1, 0]
