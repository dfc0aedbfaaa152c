"""The two rules of whoever writes a replica: a drain that begins is counted, and a deletion cuts no session."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from proxy import census, receivers, steering
from proxy.models import RouterProcess, Session
from replicas.models import HealthTransition, Replica, ReplicaHealth, ReplicaState
from replicas.prober import read_plan
from replicas.signals import live_sessions

pytestmark = pytest.mark.django_db

DRAINING, ACTIVE = ReplicaState.DRAINING, ReplicaState.ACTIVE


def sessions_on(replica: Replica | None, number: int = 1, **values: object) -> list[Session]:
    """Live ones, unless `values` say otherwise; without a replica they wait."""
    placed = {"replica": replica, "replica_name": replica.name, "url": replica.url} if replica else {}
    known = Session.objects.count()
    return [
        Session.objects.create(**{"uid": f"{known + i:032x}", "opened_at": timezone.now()} | placed | values)
        for i in range(number)
    ]


def end(*sessions: Session) -> None:
    Session.objects.filter(pk__in=[session.pk for session in sessions]).update(ended_at=timezone.now())


def by_save(replica: Replica, **values: object) -> None:
    for name, value in values.items():
        setattr(replica, name, value)
    replica.save(update_fields=list(values))


def by_whole_save(replica: Replica, **values: object) -> None:
    for name, value in values.items():
        setattr(replica, name, value)
    replica.save()


def by_update(replica: Replica, **values: object) -> None:
    Replica.objects.filter(pk=replica.pk).update(**values)


@pytest.mark.parametrize("write", [by_save, by_whole_save, by_update])
def test_a_drain_that_begins_is_counted_once(write: Callable[..., None]) -> None:
    """Whoever writes it; what is written while it lasts, or ends it, counts for nothing."""
    replica = Replica.objects.create(url="http://a")
    other = Replica.objects.create(url="http://b")
    seen = []
    for values in ({"weight": 2}, {"state": DRAINING}, {"state": DRAINING}, {"weight": 3}, {"state": ACTIVE},
                   {"state": DRAINING}):  # fmt: skip
        write(replica, **values)
        seen.append(Replica.objects.get(pk=replica.pk).drains)
    assert seen == [0, 1, 1, 1, 1, 2]
    assert replica.state == DRAINING or write is by_update
    other.refresh_from_db()
    assert other.drains == 0


@pytest.mark.parametrize("write", [by_save, by_whole_save, by_update])
def test_a_changed_deadline_counts_from_its_change(write: Callable[..., None]) -> None:
    """Set an hour into a drain it must not end all sessions at once; the same one again changes nothing."""
    replica = Replica.objects.create(url="http://a", state=DRAINING)
    seen = []
    for deadline in (None, 30.0, 30.0, 60.0, None, None):
        write(replica, drain_deadline_seconds=deadline)
        seen.append(Replica.objects.get(pk=replica.pk).drains)
    assert seen == [0, 1, 1, 2, 3, 3]


def test_a_drain_is_counted_by_the_row_and_not_by_what_was_read() -> None:
    """Of two who drain at once one begins it."""
    first = Replica.objects.create(url="http://a")
    second = Replica.objects.get(pk=first.pk)
    by_save(first, state=DRAINING)
    by_save(second, state=DRAINING)
    assert (first.drains, second.drains) == (1, 1)


def test_a_replica_without_sessions_goes_at_once() -> None:
    """With its history; sessions that have ended remember its name."""
    replica = Replica.objects.create(url="http://a", name="a")
    HealthTransition.objects.create(replica=replica, at=timezone.now(), old_status="unknown", new_status="healthy")
    ended = sessions_on(replica)
    end(*ended)
    replica.delete()
    assert not Replica.everything.exists()
    assert not HealthTransition.objects.exists()
    ended[0].refresh_from_db()
    assert (ended[0].replica, ended[0].replica_name) == (None, "a")


def test_a_replica_with_live_sessions_is_only_marked() -> None:
    """It is out of sight for all but its sessions, loses the primary's mark, and takes no new one."""
    replica = Replica.objects.create(url="http://a", primary=True)
    ReplicaHealth.objects.create(replica=replica, url=replica.url, status="healthy", checked_at=timezone.now())
    (session,) = sessions_on(replica)
    replica.delete()
    assert not Replica.objects.exists()
    kept = Replica.everything.with_health().get()
    assert kept.deleted_at is not None
    assert (kept.primary, kept.active, kept.available) == (False, False, False)
    session.refresh_from_db()
    assert (session.replica, session.ended_at) == (kept, None)


def test_of_many_each_is_deleted_in_its_way() -> None:
    """By a queryset, as the admin's list and --prune do it: those without sessions at once."""
    a, b, c = (Replica.objects.create(url=f"http://{name}") for name in "abc")
    sessions_on(b)
    sessions_on(None)  # waiting: on no replica
    with CaptureQueriesContext(connection) as queries:
        Replica.objects.filter(pk__in=[a.pk, b.pk]).delete()
    assert len(queries) < 20  # not one or more for each replica
    assert list(Replica.everything.values_list("url", flat=True)) == ["http://b", "http://c"]
    assert list(Replica.objects.all()) == [c]


def test_a_deletion_that_is_repeated_keeps_its_time() -> None:
    """And a repeated one after the last session lets it go."""
    replica = Replica.objects.create(url="http://a")
    sessions = sessions_on(replica)
    replica.delete()
    deleted_at = Replica.everything.get().deleted_at
    replica.delete()
    assert Replica.everything.get().deleted_at == deleted_at
    end(*sessions)
    replica.delete()
    assert not Replica.everything.exists()


def test_the_same_url_again_is_a_new_replica() -> None:
    """With its own health and history, and its own slots: the old one's sessions are none of its."""
    old = Replica.objects.create(url="http://a", primary=True)
    sessions_on(old)
    old.delete()
    new = Replica(url="http://a", primary=True)
    new.full_clean()
    new.save()
    assert new.pk != old.pk
    assert live_sessions() == {old.pk: 1}


def test_a_deleted_replica_goes_after_its_last_session() -> None:
    """The proxy says who is live; those that nobody deleted stay."""
    a, b, c = (Replica.objects.create(url=f"http://{name}") for name in "abc")
    on_a, on_b = sessions_on(a), sessions_on(b, 2)
    Replica.objects.filter(pk__in=[a.pk, b.pk]).delete()
    assert Replica.everything.purge_deleted(steering.live_by_replica()) == 0
    end(*on_a, on_b[0])
    assert Replica.everything.purge_deleted(steering.live_by_replica()) == 1
    assert set(Replica.everything.all()) == {b, c}
    end(*on_b)
    assert Replica.everything.purge_deleted(set()) == 1
    with CaptureQueriesContext(connection) as queries:
        assert Replica.everything.purge_deleted(set()) == 0
    assert len(queries) == 1
    assert list(Replica.everything.all()) == [c]


def test_a_deleted_replica_is_not_probed() -> None:
    """The prober reads those that are kept."""
    sessions_on(Replica.objects.create(url="http://a"))
    kept = Replica.objects.create(url="http://b")
    Replica.objects.get(url="http://a").delete()
    assert read_plan(None)[1] == [kept]


def test_sessions_are_counted_in_one_query() -> None:
    """Live and placed ones, by replica; what waits or has ended is on none."""
    a, b = (Replica.objects.create(url=f"http://{name}") for name in "ab")
    process = RouterProcess.objects.create(name="here:1")
    sessions_on(a, 3, process=process)
    sessions_on(b, 1)
    sessions_on(None, 2)
    end(*sessions_on(a, 5))
    with CaptureQueriesContext(connection) as queries:
        assert live_sessions() == {a.pk: 3, b.pk: 1}
    assert len(queries) == 1


def test_a_replica_with_a_long_history_goes_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is out of use at once; its row follows when its history has let go of it."""
    monkeypatch.setattr(receivers, "LONG_ROWS", 2)
    now = timezone.now()
    for name, rows in (("short", 2), ("long", 3)):
        made = Replica.objects.create(url=f"http://{name}")
        for number in range(rows):
            Session.objects.create(uid=f"{name}-{number}", replica=made, url=made.url, opened_at=now, ended_at=now)
        made.delete()
    assert not Replica.objects.exists()
    assert [str(left) for left in Replica.everything.all()] == ["long"]
    census.purge_replicas()
    assert not Replica.everything.exists()
    assert Session.objects.count() == 5


def test_replicas_whose_histories_are_long_together_go_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """120 of 1,000 sessions each would outlast what a database may take for one statement."""
    monkeypatch.setattr(receivers, "LONG_ROWS", 5)
    now = timezone.now()
    for name in "abc":
        made = Replica.objects.create(url=f"http://{name}")
        for number in range(2):
            Session.objects.create(uid=f"{name}-{number}", replica=made, url=made.url, opened_at=now, ended_at=now)
    Replica.objects.create(url="http://new")
    Replica.objects.all().delete()
    assert [str(left) for left in Replica.everything.all()] == ["c"]
    census.purge_replicas()
    assert not Replica.everything.exists()
