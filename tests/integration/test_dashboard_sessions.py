"""The table of sessions, and the history of a replica (dashboard/sessions.py, history.py), on both databases."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard import actions, sessions
from dashboard.history import hours_of, offered, read_history
from dashboard.refused import Refused
from dashboard.sessions import Wanted, read_sessions
from proxy import census, steering
from proxy.claims import Claim
from proxy.models import Session
from proxy.traffic import Count
from replicas.models import HealthTransition
from tests.integration.placing import Process, add_replica, ending, new_claims

pytestmark = pytest.mark.usefixtures("database")


def table(**query: Any) -> dict[str, Any]:
    return read_sessions(Wanted.of({name: str(value) for name, value in query.items()}))


def uids(**query: Any) -> list[str]:
    return [row["uid"] for row in table(**query)["rows"]]


def come(process: Process, *clients: str) -> list[Claim]:
    """One after the other, a minute apart, the last a moment ago."""
    claims = [claim for client in clients for claim in new_claims(1, client=client)]
    process.settle(claims)
    now = timezone.now()
    for ago, claim in enumerate(reversed(claims)):
        Session.objects.filter(uid=claim.uid).update(opened_at=now - timedelta(minutes=ago))
    return claims


def test_a_live_session_as_it_is() -> None:
    """With what it carries now, as its process said last."""
    replica = add_replica("a")
    process = Process()
    (claim,) = process.place(1)
    assert claim.id is not None
    census.beat(process.id, Count(sessions={claim.id: [10, 2000, 1, 200]}))
    (row,) = table()["rows"]
    assert row.keys() == {
        "uid", "replica", "replica_id", "process", "client", "state", "opened_at", "placed_at", "ended_at", "age",
        "waited", "bytes_up", "bytes_down", "up_per_second", "down_per_second", "close_code", "sentence",
        "disconnecting", "admin",
    }  # fmt: skip
    assert row | {
        "uid": claim.uid, "replica": "a", "replica_id": replica.pk, "client": "10.0.0.1:5000", "state": "live",
        "ended_at": None, "bytes_up": 10, "bytes_down": 2000, "up_per_second": 1, "down_per_second": 200,
        "close_code": None, "sentence": "", "disconnecting": False, "admin": f"/admin/proxy/session/{claim.id}/change/",
    } == row  # fmt: skip
    steering.disconnect([claim.uid])
    assert table()["rows"][0]["disconnecting"] is True


def test_an_ended_session_explains_itself() -> None:
    """With the bytes that it had at its end."""
    add_replica("a")
    process = Process()
    (claim,) = process.place(1)
    process.settle(endings=[ending(claim, code=1000, bytes_down=77)])
    census.beat(process.id, Count(sessions={claim.id or 0: [0, 70, 0, 5]}))  # counted before it ended
    (row,) = table(state="ended")["rows"]
    assert (row["state"], row["bytes_down"], row["down_per_second"], row["close_code"]) == ("ended", 77, 0, 1000)
    assert row["sentence"].startswith("client closed it after")
    assert uids() == []


def test_states_are_told_apart() -> None:
    """Live ones have a replica, waiting ones none."""
    add_replica("a", max_sessions=2)
    process = Process()
    ended, live, waiting = come(process, "c:1", "c:2", "c:3")
    Session.objects.filter(uid=ended.uid).update(ended_at=timezone.now())
    assert [uids(state=state) for state in ("live", "waiting", "ended")] == [[live.uid], [waiting.uid], [ended.uid]]
    assert uids(state="all") == [waiting.uid, live.uid, ended.uid]
    assert table(state="waiting")["rows"][0]["waited"] >= 0


@pytest.mark.parametrize("field", ["opened_at", "age", "waited", "client", "replica", "bytes_up", "down_per_second"])
def test_it_is_sorted_by_each_column(field: str) -> None:
    """Both ways, over all of its pages."""
    add_replica("a", max_sessions=5)
    process = Process()
    claims = come(process, "c:1", "c:2", "c:3")
    figures = {claim.id or 0: [number, 10 - number, 0, number] for number, claim in enumerate(claims)}
    census.beat(process.id, Count(sessions=figures))
    rising, falling = (
        [(row[field], row["uid"]) for row in table(sort=f"{sign}{field}", state="all")["rows"]] for sign in ("", "-")
    )
    assert len(rising) == 3
    assert [value for value, _ in rising] == sorted(value for value, _ in rising)
    assert [value for value, _ in falling] == sorted((value for value, _ in falling), reverse=True)
    if field != "replica":  # where all are the same
        assert [uid for _, uid in falling] == [uid for _, uid in rising[::-1]]


def test_it_is_searched() -> None:
    """By the beginning of an id, by the client or the replica."""
    a = add_replica("berlin-1")
    add_replica("tokyo-1")
    claims = come(Process(), "10.0.0.7:1", "10.0.0.8:1")
    where = {row["replica"]: row["uid"] for row in table()["rows"]}
    assert uids(q=claims[0].uid[:8]) == [claims[0].uid]
    assert uids(q="10.0.0.8") == [claims[1].uid]
    assert uids(q="TOKYO") == [where["tokyo-1"]]
    assert uids(replica=a.pk) == [where["berlin-1"]]
    assert uids(q="nobody") == []


def test_of_a_long_history_the_newest_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the one whose id is asked for; all live ones in any case, however old."""
    monkeypatch.setattr(sessions, "NEWEST", 3)
    add_replica("a", max_sessions=99)
    process = Process()
    claims = come(process, *(f"c:{number}" for number in range(10)))
    Session.objects.exclude(uid=claims[0].uid).update(ended_at=timezone.now())
    assert len(uids(state="ended")) == 3
    assert len(uids(state="all")) == 4
    assert uids(state="ended", q=claims[2].uid) == [claims[2].uid]
    assert uids(state="ended", q=claims[2].uid[:12].upper()) == [claims[2].uid]


def test_a_page_has_fifty_rows() -> None:
    """One past the last is the last; a table of none has one page."""
    nothing = table(page=7)
    assert (nothing["page"], nothing["pages"], nothing["total"], nothing["rows"]) == (1, 1, 0, [])
    add_replica("a", max_sessions=120)
    Process().place(120)
    first, last = table(), table(page=99)
    assert (first["page"], first["pages"], first["total"], len(first["rows"])) == (1, 3, 120, 50)
    assert (last["page"], len(last["rows"])) == (3, 20)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"state": "odd"}, "state: “odd” is none of live, waiting, ended, all."),
        ({"sort": "--age"}, "sort: “--age” is none of opened_at, age,"),
        ({"page": "0"}, "page: “0” is no whole number from 1."),
        ({"page": "9" * 5000}, "is no whole number from 1."),
        ({"replica": "x"}, "replica: “x” is no whole number from 1."),
    ],
)
def test_what_cannot_be_asked_is_said(query: dict[str, str], said: str) -> None:
    """Field, value, and what is allowed."""
    with pytest.raises(Refused) as refused:
        table(**query)
    assert said in refused.value.said
    assert refused.value.status == 400


# --- the history of a replica ---


def test_a_replicas_history_has_health_sessions_and_acts(django_user_model: type[User]) -> None:
    """Of the last day; nothing of another replica's, nothing older."""
    a, b = add_replica("a", max_sessions=5), add_replica("b", max_sessions=5, status="unhealthy")
    process, now = Process(), timezone.now()
    claims = process.place(3)
    process.settle(endings=[ending(claims[0], code=1000), ending(claims[1], code=1000)])
    Session.objects.filter(uid=claims[1].uid).update(ended_at=now - timedelta(hours=30))
    for replica, ago in ((a, 1), (a, 2), (b, 1), (a, 30)):
        HealthTransition.objects.create(
            replica=replica, at=now - timedelta(hours=ago), old_status="unknown", new_status="healthy", reason=f"{ago}"
        )
    user = django_user_model.objects.get_or_create(username="ada")[0]
    LogEntry.objects.all().delete()
    LogEntry.objects.log_actions(user.pk, [a, b], CHANGE, "State: active → draining.")
    found = read_history(a.pk, 24)
    assert found["to"] - found["from"] == pytest.approx(24 * 3600)
    assert (found["replica"]["name"], found["replica"]["sessions"]) == ("a", 1)
    assert [each["reason"] for each in found["transitions"]] == ["1", "2"]
    assert [each["uid"] for each in found["sessions"]] == [claims[2].uid, claims[0].uid]
    assert [each["ended_at"] is None for each in found["sessions"]] == [True, False]
    (act,) = found["acts"]
    assert (act["who"], act["text"]) == ("ada", "State: active → draining.")
    assert len(read_history(a.pk, 48)["sessions"]) == 3


def test_a_replica_that_is_not_there_has_no_history() -> None:
    """404."""
    with pytest.raises(Refused) as refused:
        read_history(10**6, 24)
    assert refused.value.status == 404


@pytest.mark.parametrize("text", ["0", "-1", "x", "nan", "inf", "337"])
def test_only_what_is_kept_can_be_asked_for(text: str) -> None:
    """ROUTER_HISTORY_DAYS is 14."""
    with pytest.raises(Refused, match="no number above 0 and up to 336"):
        hours_of(text)


def test_a_day_is_shown_unless_more_is_asked_for() -> None:
    """Up to all there is."""
    assert (hours_of(None), hours_of("336")) == (24, 336)


@pytest.mark.parametrize(
    ("days", "hours"), [(1, [1, 6, 24]), (2, [1, 6, 24]), (3, [1, 6, 24, 72]), (14, [1, 6, 24, 72, 168])]
)
def test_the_page_offers_only_what_is_kept(settings: Any, admin_client: Client, days: int, hours: list[int]) -> None:
    """Each of what it offers is answered, and one of them is chosen."""
    settings.ROUTER_HISTORY_DAYS = days
    replica = add_replica("a")
    page = admin_client.get(f"/dashboard/replicas/{replica.pk}/").content.decode()
    inputs = re.findall(r'name="hours" value="(\d+)"( checked)?', page)
    assert [int(value) for value, _ in inputs] == hours == [value for value, _ in offered()]
    assert [value for value, checked in inputs if checked] == ["24"]
    for value in hours:
        assert hours_of(str(value)) == value


# --- acts, as the database has them (what they say and who may: test_dashboard_acts.py) ---


def test_acts_hold_on_each_database(django_user_model: type[User]) -> None:
    """Their locks are statements that each understands; deed and log are there together."""
    a, b = add_replica("a", primary=True), add_replica("b")
    (claim,) = Process().place(1)
    user = django_user_model.objects.get_or_create(username="root", is_superuser=True, is_staff=True)[0]
    LogEntry.objects.all().delete()
    for body in (
        {"what": "make_primary", "replica": b.pk},
        {"what": "drain", "replica": a.pk, "deadline_seconds": 60},
        {"what": "activate", "replica": a.pk},
        {"what": "probe_now", "replica": a.pk},
        {"what": "disable", "replica": a.pk},
        {"what": "disconnect", "sessions": [claim.uid]},
    ):
        actions.act(user, body | {"ask": True})
        actions.act(user, body)
    a.refresh_from_db()
    b.refresh_from_db()
    assert (a.state, a.drains, a.probe_asked, a.primary, b.primary) == ("disabled", 1, 1, False, True)
    assert Session.objects.get().disconnect_reason == steering.DEFAULT_REASON
    assert LogEntry.objects.count() == 7
