"""The admin where sessions are live: what it says of them before and after an edit, and their own pages."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from proxy.admin_display import duration, size
from proxy.models import RouterProcess, Session
from replicas import wording
from replicas.models import PlacementRecord, Replica, ReplicaHealth
from tests.integration.test_admin import LIST, act, form_of
from tests.integration.test_intent import end, sessions_on

pytestmark = pytest.mark.django_db

SESSIONS, PROCESSES = "/admin/proxy/session/", "/admin/proxy/routerprocess/"


def replica(name: str, **values: object) -> Replica:
    made = Replica.objects.create(url=f"http://{name}:1", name=name, **values)
    ReplicaHealth.objects.create(replica=made, url=made.url, status="healthy", checked_at=timezone.now())
    return made


@pytest.fixture
def fleet() -> dict[str, Replica]:
    """a: 3 of 8; b: 2 of 2; c: 1, unlimited."""
    made = {"a": replica("a", max_sessions=8, primary=True), "b": replica("b"), "c": replica("c")}
    ReplicaHealth.objects.filter(replica=made["b"]).update(reported_slots=2)
    for name, number in {"a": 3, "b": 2, "c": 1}.items():
        sessions_on(made[name], number)
    return made


def text(client: Client, address: str, **query: object) -> str:
    """A page without its tags."""
    page = client.get(address, query).content.decode()
    return " ".join(page.replace("<", " <").split())


def row(client: Client, name: str) -> str:
    """A replica's row of the list."""
    page = client.get(LIST).content.decode()
    return next(part for part in page.split("<tr>")[1:] if f">{name}<span" in part)


# --- replicas: the list ---


def test_the_list_shows_sessions_of_slots(admin_client: Client, fleet: dict[str, Replica]) -> None:
    """“3 of 8”, by the operator's number or the replica's own; “1” where there is no end of them; full is marked."""
    assert ">3 of 8<" in row(admin_client, "a")
    assert ">2 of 2<" in row(admin_client, "b")
    assert "badge full" in row(admin_client, "b")
    assert ">1<" in row(admin_client, "c")
    assert "badge full" not in row(admin_client, "a") + row(admin_client, "c")


@pytest.mark.parametrize(
    ("record", "marks"),
    [
        ({"failures": 2}, []),
        ({"failures": 2, "ejected_until": 4.0}, ["ejected"]),
        ({"full_until": 4.0}, ["full"]),
        ({"ejected_until": -1.0, "full_until": -1.0}, []),
        ({"ejected_until": 3600.0, "full_until": 3600.0}, []),
    ],
)
def test_what_sessions_found_is_marked_while_it_counts(
    admin_client: Client, fleet: dict[str, Replica], record: dict[str, float], marks: list[str]
) -> None:
    """Not what is over, and not what a clock that jumped has left."""
    now = time.time()
    times = {name: now + value if name.endswith("_until") else value for name, value in record.items()}
    PlacementRecord.objects.create(replica=fleet["a"], **times)
    shown = row(admin_client, "a")
    assert [word for word in ("ejected", "full") if f"badge {word}" in shown] == marks
    assert ("connects failed in a row" in shown) == ("ejected" in marks)


def test_a_deleted_replica_is_last_and_for_reading(admin_client: Client, fleet: dict[str, Replica]) -> None:
    """However the list is sorted: with what is left on it, without a checkbox or a button, and no way to edit it."""
    a = fleet["a"]
    a.delete()
    for query in ({}, {"o": "1"}, {"o": "-1"}):
        shown = admin_client.get(LIST, query).context["cl"].result_list
        assert [replica.name for replica in shown][-1] == "a"
    assert 'deleted</span><span class="why">3 sessions left' in row(admin_client, "a")
    assert "_selected_action" not in row(admin_client, "a")
    assert "make primary" not in row(admin_client, "a")
    page = text(admin_client, f"{LIST}{a.pk}/change/")
    assert "keeps 3 sessions to their end, and is gone then" in page
    assert 'name="_save"' not in page
    assert admin_client.post(f"{LIST}{a.pk}/change/", {"name": "x"}).status_code == 403
    assert admin_client.post(f"{LIST}{a.pk}/delete/", {"post": "yes"}).status_code == 403
    for action in ("drain", "disable", "make_primary", "delete_selected"):
        act(admin_client, action, a)
    admin_client.post(f"{LIST}{a.pk}/make-primary/")
    kept = Replica.everything.get(pk=a.pk)
    assert (kept.state, kept.primary, kept.name) == ("active", False, "a")


def test_the_list_counts_sessions_in_one_query(admin_client: Client, fleet: dict[str, Replica]) -> None:
    """Whatever the fleet."""

    def queries() -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            admin_client.get(LIST)
        return [query["sql"] for query in captured if "proxy_session" in query["sql"]]

    assert len(queries()) == 1
    for number in range(10):
        sessions_on(replica(f"more{number}"), 2)
    assert len(queries()) == 1


# --- replicas: before an edit, and after it ---


def test_the_form_says_how_many_sessions_an_edit_is_about(admin_client: Client, fleet: dict[str, Replica]) -> None:
    """Before it is saved; and saving cuts none of them."""
    a = fleet["a"]
    shown = text(admin_client, f"{LIST}{a.pk}/change/")
    assert (
        "3 live sessions: saving cuts none of them. A new URL or number of slots counts for sessions that come" in shown
    )
    edited = form_of(admin_client, a) | {"url": "http://elsewhere:1", "max_sessions": "1", "state": "disabled"}
    admin_client.post(f"{LIST}{a.pk}/change/", edited)
    assert Replica.objects.get(pk=a.pk).url == "http://elsewhere:1"
    assert Session.objects.filter(replica=a, url="http://a:1", ended_at=None, disconnect_reason=None).count() == 3
    end(*Session.objects.all())
    assert "No session is live here." in text(admin_client, f"{LIST}{a.pk}/change/")
    assert "about-sessions" not in text(admin_client, f"{LIST}add/")


def test_a_drain_by_the_form_is_counted_and_told(admin_client: Client, fleet: dict[str, Replica]) -> None:
    """With its deadline; the form then says what is under way."""
    a = fleet["a"]
    form = form_of(admin_client, a) | {"state": "draining", "drain_deadline_seconds": "60"}
    said = admin_client.post(f"{LIST}{a.pk}/change/", form, follow=True).content.decode()
    assert "a: draining, keeps 3 sessions; those left after 60 s are closed." in said
    a.refresh_from_db()
    assert (a.state, a.drains, a.drain_deadline_seconds) == ("draining", 1, 60)
    assert "Draining: keeps 3 sessions; those left" in text(admin_client, f"{LIST}{a.pk}/change/")
    admin_client.post(f"{LIST}{a.pk}/change/", form_of(admin_client, a) | {"weight": "2"})
    a.refresh_from_db()
    assert (a.weight, a.drains) == (2, 1)


def test_the_drain_action_says_what_it_will_do_and_did(admin_client: Client, fleet: dict[str, Replica]) -> None:
    """In the list of actions, and then for each replica; a second time there is nothing to do."""
    Replica.objects.filter(name="c").update(drain_deadline_seconds=30)
    assert "Drain: take no new sessions, keep those there are" in text(admin_client, LIST)
    said = act(admin_client, "drain", fleet["b"], fleet["c"])
    assert "Replica b: draining, keeps 2 sessions. Replica c: draining, keeps 1 session; those left after 30 s" in said
    assert "Nothing to do: draining already." in act(admin_client, "drain", fleet["b"])
    assert list(Replica.objects.values_list("drains", flat=True)) == [0, 1, 2]  # c: the deadline, then the drain
    assert "a: disabled, keeps 3 sessions." in act(admin_client, "disable", fleet["a"])


def test_a_deletion_says_what_becomes_of_sessions(admin_client: Client, fleet: dict[str, Replica]) -> None:
    """Before it is done, and after."""
    a, address = fleet["a"], f"{LIST}{fleet['a'].pk}/delete/"
    assert ("3 live sessions go on to their end. Until then it is listed as deleted and takes no new ones.") in text(
        admin_client, address
    )
    said = admin_client.post(address, {"post": "yes"}, follow=True).content.decode()
    assert "a: deleted, keeps 3 sessions to their end." in said
    assert Replica.everything.get(pk=a.pk).deleted_at is not None
    assert Session.objects.filter(replica=a, ended_at=None, disconnect_reason=None).count() == 3


def test_many_deletions_say_it_for_each(admin_client: Client, fleet: dict[str, Replica]) -> None:
    """The action's page names those with sessions; the others go at once."""
    idle = replica("idle")
    selected = {"_selected_action": [fleet["b"].pk, fleet["c"].pk, idle.pk], "action": "delete_selected"}
    page = " ".join(admin_client.post(LIST, selected).content.decode().split())
    assert "3 live sessions (b: 2, c: 1) go on to their end. Until then these are listed as deleted" in page
    said = admin_client.post(LIST, selected | {"post": "yes"}, follow=True).content.decode()
    assert "b: deleted, keeps 2 sessions to their end." in said
    assert "c: deleted, keeps 1 session to its end." in said
    assert set(Replica.everything.values_list("name", flat=True)) == {"a", "b", "c"}
    assert set(Replica.objects.values_list("name", flat=True)) == {"a"}


def test_words_fit_their_numbers() -> None:
    """One session is no sessions."""
    assert wording.sessions(0) == "no sessions"
    assert wording.sessions(1, "live") == "1 live session"
    assert wording.to_be_deleted({"a": 0}) == "No session is live here: it goes at once."
    assert wording.to_be_deleted({"a": 0, "b": 0}) == "No session is live here: they go at once."
    assert wording.to_be_deleted({"a": 1}).startswith("1 live session goes on to its end. Until then it is listed")
    assert wording.to_be_deleted({"a": 1, "b": 0}).startswith("1 live session (a: 1) goes on to its end. Until then it")
    assert wording.deleted(0) == "has no session left"


# --- sessions ---


@pytest.fixture
def some(fleet: dict[str, Replica]) -> dict[str, Session]:
    """One that waits, one that is live, one of each end."""
    Session.objects.all().delete()
    now = timezone.now()
    ended = {"ended_at": now, "opened_at": now - timedelta(seconds=75), "placed_at": now - timedelta(seconds=74.5)}
    done = {"ended_by": "client", "why": "closed", "close_code": 1000, "bytes_up": 1536, "bytes_down": 350 * 2**20}
    return {
        "waiting": sessions_on(None, uid="aaaaaaaa" + "0" * 24, client="10.0.0.1")[0],
        "live": sessions_on(fleet["a"], uid="bbbbbbbb" + "0" * 24, client="10.0.0.2", attempts=2)[0],
        "done": sessions_on(fleet["b"], uid="cccccccc" + "0" * 24, **ended | done)[0],
        "lost": sessions_on(fleet["b"], uid="dddddddd" + "0" * 24, **ended, ended_by="replica", close_code=1011)[0],
        "gone": sessions_on(fleet["a"], uid="eeeeeeee" + "0" * 24, **ended, ended_by="client", why="vanished")[0],
        "odd": sessions_on(
            fleet["a"], uid="ffffffff" + "0" * 24, **ended, ended_by="replica", why="closed", close_code=4001
        )[0],
    }


def names(client: Client, some: dict[str, Session], **query: object) -> set[str]:
    shown = {session.pk for session in client.get(SESSIONS, query).context["cl"].result_list}
    return {name for name, session in some.items() if session.pk in shown}


def test_the_list_of_sessions_shows_who_where_and_how_long(admin_client: Client, some: dict[str, Session]) -> None:
    """Newest first, in words."""
    page = admin_client.get(SESSIONS).content.decode()
    for shown in ("bbbbbbbb<", "10.0.0.2", "session-waiting", "session-live", "session-ended", "1.5 KiB / 350 MiB",
                  "0.50 s", "1 min 15 s", "vanished", "4001"):  # fmt: skip
        assert shown in page
    assert page.index("ffffffff<") < page.index("aaaaaaaa<")
    assert f'href="{LIST}{some["live"].replica_id}/change/"' in page
    assert "style=" not in page.replace('rel="stylesheet"', "")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"state": "waiting"}, {"waiting"}),
        ({"state": "live"}, {"live"}),
        ({"state": "ended"}, {"done", "lost", "gone", "odd"}),
        ({"ended_by": "client"}, {"done", "gone"}),
        ({"close_code": "1011"}, {"lost"}),
        ({"close_code": "none"}, {"gone"}),
        ({"close_code": "other"}, {"odd"}),
        ({"state": "ended", "ended_by": "replica"}, {"lost", "odd"}),
        ({"q": "bbbbbb"}, {"live"}),
        ({"q": "10.0.0.1"}, {"waiting"}),
        ({"state": "x", "replica": "y" * 30}, {"waiting", "live", "done", "lost", "gone", "odd"}),
    ],
)
def test_sessions_are_filtered_and_found(
    admin_client: Client, some: dict[str, Session], query: dict[str, str], expected: set[str]
) -> None:
    """By state, end and code, by id and client; what is no choice filters nothing."""
    assert names(admin_client, some, **query) == expected


def test_sessions_are_filtered_by_replica_also_of_a_deleted_one(admin_client: Client, some: dict[str, Session]) -> None:
    """Whose sessions are just those one looks for."""
    a = some["live"].replica
    assert a is not None
    a.delete()
    assert "a (deleted)" in admin_client.get(SESSIONS).content.decode()
    assert names(admin_client, some, replica=a.pk) == {"live", "gone", "odd"}
    assert names(admin_client, some, q="b") >= {"done", "lost"}


def test_a_session_is_for_reading(admin_client: Client, some: dict[str, Session]) -> None:
    """Its page has all that is known; nothing of it can be added, changed or deleted."""
    page = f"{SESSIONS}{some['done'].pk}/change/"
    shown = text(admin_client, page)
    for known in (some["done"].uid, "http://b:1", "0 frames, 350 MiB", "1 min 15 s", "closed"):
        assert known in shown
    assert 'name="_save"' not in shown
    assert admin_client.post(page, {"client": "x"}).status_code == 403
    assert admin_client.get(f"{SESSIONS}add/").status_code == 403
    assert admin_client.post(f"{SESSIONS}{some['done'].pk}/delete/", {"post": "yes"}).status_code == 403


def test_pages_of_sessions_take_the_same_queries_for_any_number(admin_client: Client, some: dict[str, Session]) -> None:
    """No query a row."""

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            admin_client.get(SESSIONS)
        return len(captured)

    before = queries()
    sessions_on(some["live"].replica, 20)
    assert queries() == before


def choose(client: Client, *sessions: Session, **more: str) -> str:
    chosen = {"action": "disconnect", "_selected_action": [session.pk for session in sessions]} | more
    return " ".join(client.post(SESSIONS, chosen, follow=True).content.decode().split())


def test_disconnecting_asks_first_and_then_does_it(admin_client: Client, some: dict[str, Session]) -> None:
    """How many are live, and with which reason; the log says who did it. Those that have ended are left alone."""
    chosen = (some["waiting"], some["live"], some["done"])
    page = choose(admin_client, *chosen)
    assert "Disconnect 2 live sessions" in page
    assert 'value="disconnected by an operator"' in page
    assert not Session.objects.exclude(disconnect_reason=None).exists()
    said = choose(admin_client, *chosen, post="yes", reason="maintenance")
    assert "Told to end: 2 sessions (1012, “maintenance”)." in said
    assert set(Session.objects.filter(disconnect_reason="maintenance")) == {some["waiting"], some["live"]}
    assert "badge disconnecting" in said
    logged = LogEntry.objects.filter(change_message="Disconnected: maintenance").values_list("object_id", flat=True)
    assert set(logged) == {str(some["waiting"].pk), str(some["live"].pk)}


def test_all_that_match_can_be_disconnected(admin_client: Client, some: dict[str, Session]) -> None:
    """Past what one page shows; the page that asks carries the wish on."""
    page = choose(admin_client, some["live"], select_across="1")
    assert 'name="select_across" value="1"' in page
    assert "Disconnect 2 live sessions" in page
    said = choose(admin_client, some["live"], select_across="1", post="yes", reason=" ")
    assert "Told to end: 2 sessions (1012, “disconnected by an operator”)." in said


def test_what_has_ended_is_not_disconnected(admin_client: Client, some: dict[str, Session]) -> None:
    """There is nothing to ask about."""
    assert "Nothing to do: no live session" in choose(admin_client, some["done"])


def operator(client: Client, django_user_model: type, *permissions: str) -> Client:
    user = django_user_model.objects.create_user("operator", is_staff=True)  # type: ignore[attr-defined]
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    return client


def test_who_may_only_look_disconnects_nothing(
    client: Client, some: dict[str, Session], django_user_model: type
) -> None:
    """They see the lists and each session, and are refused the action."""
    looking = operator(client, django_user_model, "view_session", "view_routerprocess")
    assert "disconnect" not in looking.get(SESSIONS).content.decode().lower()
    assert looking.get(f"{SESSIONS}{some['live'].pk}/change/").status_code == 200
    assert looking.get(PROCESSES).status_code == 200
    choose(looking, some["live"], post="yes", reason="x")
    assert not Session.objects.exclude(disconnect_reason=None).exists()


def test_who_may_change_sessions_may_disconnect(
    client: Client, some: dict[str, Session], django_user_model: type
) -> None:
    """It is the one change there is."""
    acting = operator(client, django_user_model, "change_session")
    assert "Told to end: 1 session" in choose(acting, some["live"], post="yes", reason="x")


# --- router processes ---


def test_router_processes_are_listed_with_their_live_sessions(admin_client: Client, fleet: dict[str, Replica]) -> None:
    """Those that live first; one without a beat is marked."""
    now = timezone.now()
    dead = RouterProcess.objects.create(name="host:1", ended_at=now, why="no beat for 10 s")
    live = RouterProcess.objects.create(name="host:2", version="0.1.0", beaten_at=now)
    silent = RouterProcess.objects.create(name="host:3", draining=True, beaten_at=now - timedelta(seconds=11))
    sessions_on(fleet["a"], 4, process=live)
    end(*sessions_on(fleet["a"], 2, process=live))
    shown = admin_client.get(PROCESSES)
    assert [(process.name, process.live) for process in shown.context["cl"].result_list] == [
        ("host:3", None), ("host:2", 4), ("host:1", None),
    ]  # fmt: skip
    page = shown.content.decode()
    assert page.count("badge silent") == 1
    for word in ("process-live", "process-draining", "process-ended", "no beat for 10 s", "0.1.0"):
        assert word in page
    for state, process in {"live": live, "draining": silent, "ended": dead}.items():
        assert list(admin_client.get(PROCESSES, {"state": state}).context["cl"].result_list) == [process]
    assert admin_client.get(f"{PROCESSES}{live.pk}/change/").status_code == 200
    assert admin_client.get(f"{PROCESSES}add/").status_code == 403
    assert admin_client.post(f"{PROCESSES}{live.pk}/delete/", {"post": "yes"}).status_code == 403


# --- words ---


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.00 s"), (-1, "0.00 s"), (0.25, "0.25 s"), (9.99, "9.99 s"), (59.4, "59 s"), (59.6, "1 min 0 s"),
     (185, "3 min 5 s"), (7500, "2 h 5 min"), (90_000, "25 h 0 min")],
)  # fmt: skip
def test_a_duration_is_shown_as_people_say_it(seconds: float, shown: str) -> None:
    """Never negative: clocks of two hosts differ."""
    assert duration(timedelta(seconds=seconds)) == shown


@pytest.mark.parametrize(
    ("octets", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (350 * 2**20, "350 MiB"),
        (5 * 2**40, "5.0 TiB"),
    ],
)
def test_a_size_is_shown_as_people_say_it(octets: int, shown: str) -> None:
    """In units of 1024."""
    assert size(octets) == shown
