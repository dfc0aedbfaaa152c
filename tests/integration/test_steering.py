"""drainreplica and disconnect, and what they write (proxy/steering.py)."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from proxy import steering
from proxy.management.commands import disconnect, drainreplica
from proxy.models import Session
from replicas.models import Replica
from tests.integration.test_intent import end, sessions_on

pytestmark = pytest.mark.django_db

UID = "0123456789abcdef0123456789abcdef"


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out, stderr=out)
    return out.getvalue()


def steps(*what: Callable[[], Any]) -> Callable[[float], None]:
    """A `sleep` in which the world goes on, a step each time."""
    left: Iterator[Callable[[], Any]] = iter(what)
    return lambda seconds: next(left)()


@pytest.fixture
def a() -> Replica:
    return Replica.objects.create(url="http://a:1", name="a")


# --- drainreplica ---


@pytest.mark.parametrize("name", ["a", " a ", "http://a:1", "HTTP://A:1/"])
def test_a_replica_is_drained_by_its_name_or_url(a: Replica, name: str) -> None:
    """And it says how many are left; the others are as they were."""
    Replica.objects.create(url="http://b", name="b")
    sessions_on(a, 7)
    assert run("drainreplica", name) == "a: draining, keeps 7 sessions.\n"
    assert list(Replica.objects.values_list("state", "drains")) == [("draining", 1), ("active", 0)]
    assert Session.objects.filter(ended_at=None, disconnect_reason=None).count() == 7


def test_a_drain_that_is_repeated_changes_nothing(a: Replica) -> None:
    """Idempotent: deployment scripts try again. Another deadline counts from then."""
    run("drainreplica", "a", "--deadline", "60")
    sessions_on(a)
    same = "a: draining already, keeps 1 session; those left after 60 s are closed.\n"
    assert run("drainreplica", "a", "--deadline", "60") == same
    assert run("drainreplica", "a") == same
    a.refresh_from_db()
    assert (a.drains, a.drain_deadline_seconds) == (1, 60)
    assert run("drainreplica", "a", "--deadline", "0").startswith("a: draining, keeps 1 session; those left after 0 s")
    a.refresh_from_db()
    assert (a.drains, a.drain_deadline_seconds) == (2, 0)


def test_an_unknown_name_is_an_error_with_what_there_is(a: Replica) -> None:
    """And one that two replicas have must be told by its URL; a deleted replica is none of either."""
    gone = Replica.objects.create(url="http://c", name="a")
    sessions_on(gone)
    gone.delete()
    with pytest.raises(CommandError, match=r"no replica “b”, by name or by URL. There are: a \(http://a:1\)\."):
        run("drainreplica", "b")
    assert run("drainreplica", "a").startswith("a: draining")
    Replica.objects.create(url="http://d:1", name="a")
    with pytest.raises(CommandError, match=r"2 replicas are named “a”: http://a:1, http://d:1. Name one by its URL"):
        run("drainreplica", "a")
    assert run("drainreplica", "http://d:1").startswith("a: draining,")


def test_of_a_large_fleet_not_all_are_listed() -> None:
    """An error is read by people."""
    with pytest.raises(CommandError, match="There are: none"):
        run("drainreplica", "x")
    Replica.objects.bulk_create(Replica(url=f"http://r{number}", name=f"r{number}") for number in range(100))
    with pytest.raises(CommandError, match=r"r19 \(http://r19\), …$"):
        run("drainreplica", "x")


@pytest.mark.parametrize("deadline", ["-1", "86401", "nan"])
def test_a_deadline_keeps_the_rule(a: Replica, deadline: str) -> None:
    """The file's and the form's."""
    with pytest.raises(CommandError, match=f"--deadline {deadline}: must be"):
        run("drainreplica", "a", f"--deadline={deadline}")
    a.refresh_from_db()
    assert a.state == "active"


def test_wait_shows_each_change_until_none_is_left(a: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it exits 0: a script may take the server away."""
    first, second, third = sessions_on(a, 3)
    world = steps(lambda: end(first), lambda: None, lambda: end(second, third))
    monkeypatch.setattr(drainreplica, "sleep", world)
    assert run("drainreplica", "a", "--wait").splitlines() == [
        "a: draining, keeps 3 sessions.", "a: 2 sessions left.", "a: no sessions left.",
    ]  # fmt: skip


def test_wait_has_nothing_to_wait_for_where_no_session_is(a: Replica) -> None:
    """No pause either."""
    assert run("drainreplica", "a", "--wait") == "a: draining, keeps no sessions.\n"


def test_ctrl_c_ends_the_waiting_and_not_the_drain(a: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 130, as a shell says it."""
    sessions_on(a)

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(drainreplica, "sleep", steps(interrupt))
    out = io.StringIO()
    with pytest.raises(SystemExit) as left:
        call_command("drainreplica", "a", "--wait", stdout=out)
    assert left.value.code == 130
    assert out.getvalue().endswith("a: still draining; only the waiting has ended.\n")
    a.refresh_from_db()
    assert a.state == "draining"


def test_wait_ends_where_the_drain_does(a: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone activated the replica: it would be waited for forever."""
    sessions_on(a)
    monkeypatch.setattr(drainreplica, "sleep", steps(lambda: Replica.objects.update(state="active")))
    with pytest.raises(CommandError, match="a was activated meanwhile"):
        run("drainreplica", "a", "--wait")


def test_wait_outlasts_a_deletion_and_a_database_that_is_away(a: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both leave the sessions where they are."""
    sessions = sessions_on(a)
    real, faults = drainreplica.live_sessions, [True, True]

    def live() -> dict[int, int]:
        if faults and not a.deleted_at:
            faults.pop()
            raise OperationalError("at 10.0.0.1")
        return real()

    monkeypatch.setattr(drainreplica.connection, "close", lambda: None)  # it is the test's
    world = steps(
        lambda: monkeypatch.setattr(drainreplica, "live_sessions", live),
        lambda: None,
        lambda: a.delete(),
        lambda: end(*sessions),
    )
    monkeypatch.setattr(drainreplica, "sleep", world)
    out = run("drainreplica", "a", "--wait")
    assert out.count("The database does not answer; the drain goes on, and the waiting.") == 1
    assert out.endswith("a: no sessions left.\n")


# --- disconnect ---


def ended_by_its_process(uid: str) -> Callable[[], Any]:
    return lambda: Session.objects.filter(uid=uid).update(
        ended_at=timezone.now(), ended_by="router", why="disconnected", close_code=1012
    )


@pytest.mark.parametrize("session", [UID, UID[:6]])
def test_a_session_is_disconnected_by_its_id_or_its_beginning(
    a: Replica, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wish is written; its process does it, and then it says how."""
    sessions_on(a, uid=UID)
    other = sessions_on(a, uid="f" * 32)[0]
    monkeypatch.setattr(disconnect, "sleep", steps(lambda: None, ended_by_its_process(UID)))
    assert run("disconnect", session) == f"Session {UID} has ended, by the router (disconnected), 1012.\n"
    assert Session.objects.get(uid=UID).disconnect_reason == "disconnected by an operator"
    other.refresh_from_db()
    assert other.disconnect_reason is None


def test_one_who_waits_in_the_line_can_be_disconnected(a: Replica) -> None:
    """It has no replica yet."""
    sessions_on(None, uid=UID)
    assert "is told to end" in run("disconnect", UID, "--no-wait")
    assert Session.objects.get().disconnect_reason is not None


def test_no_wait_only_asks(a: Replica) -> None:
    """The reason is cut to what a close frame holds, on a character's boundary."""
    sessions_on(a, uid=UID)
    out = run("disconnect", UID, "--no-wait", "--reason", "ä" * 100)
    assert out == f"Session {UID} is told to end (1012, “{'ä' * 61}”).\n"
    assert Session.objects.get().disconnect_reason == "ä" * 61


def test_a_session_that_does_not_end_in_time_is_told_so(a: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wish stands; the command does not hang."""
    sessions_on(a, uid=UID)
    clock = iter([0.0, 1.0, 2.0, 3.0])
    monkeypatch.setattr(disconnect, "monotonic", lambda: next(clock))
    monkeypatch.setattr(disconnect, "sleep", lambda seconds: None)
    assert "has not done so within 3 s; the wish stands" in run("disconnect", UID)


def test_what_cannot_be_disconnected_is_an_error(a: Replica) -> None:
    """Unknown, ended, ambiguous, too short: each in words, and nothing is written."""
    sessions_on(a, uid="aaaaaaa1" + "0" * 24)
    sessions_on(None, uid="aaaaaaa2" + "0" * 24)
    end(*sessions_on(a, uid=UID, ended_by="client", why="closed", close_code=1000))
    for wanted, said in {
        UID: rf"Session {UID} has ended already, \d s ago, by the client \(closed\), 1000\.",
        "ffffff": "There is no session “ffffff”",
        "______": "There is no session “______”",
        "aaaaaaa": r"Several live sessions begin with “aaaaaaa”: aaaaaaa20+, aaaaaaa10+\. Give more",
        "aaaaa": "“aaaaa” is too short: give at least 6 characters",
    }.items():
        with pytest.raises(CommandError, match=said) as refused:
            run("disconnect", wanted)
        assert refused.value.returncode == 1
    assert not Session.objects.exclude(disconnect_reason=None).exists()


def test_one_that_ends_by_itself_meanwhile_is_an_error(a: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end was not ours."""
    sessions_on(a, uid=UID)
    monkeypatch.setattr(steering, "disconnect", lambda uids, reason: 0)
    with pytest.raises(CommandError, match="has ended at this moment"):
        run("disconnect", UID)


# --- steering ---


def test_disconnecting_many_asks_the_live_ones_in_batches(a: Replica) -> None:
    """And counts them; those that have ended are left alone."""
    sessions = sessions_on(a, 5)
    end(sessions[0])
    uids = [session.uid for session in sessions] + [f"unknown{number}" for number in range(steering.BATCH)]
    with CaptureQueriesContext(connection) as queries:
        assert steering.disconnect(uids, "maintenance") == 4
    assert len(queries) == 2
    assert Session.objects.filter(disconnect_reason="maintenance").count() == 4
    assert steering.disconnect([], "x") == 0


@pytest.mark.parametrize("arguments", [["drainreplica", "a"], ["disconnect", UID]])
def test_a_database_that_cannot_be_used_is_an_error(arguments: list[str]) -> None:
    """In one sentence with the way out, not in a traceback."""

    def away(*_: object) -> None:
        raise OperationalError("database is locked")

    with connection.execute_wrapper(away), pytest.raises(CommandError, match="The database does not answer: database"):
        call_command(*arguments)
