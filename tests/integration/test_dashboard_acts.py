"""Acts on the spot (dashboard/actions.py, views.py): what is said before, what is done, what the log keeps, who may."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import OperationalError
from django.test import Client

from proxy.models import Session
from replicas.models import Replica, ReplicaHealth
from tests.integration.test_intent import end, sessions_on

# Requests are answered in threads of their own, with connections of their own.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def a() -> Replica:
    return replica("a")


def replica(name: str, **fields: Any) -> Replica:
    made = Replica.objects.create(name=name, url=f"http://{name}:1", **fields)
    ReplicaHealth.objects.create(replica=made, url=made.url, status="healthy")
    return made


def staff(*permissions: str) -> Client:
    """A browser of someone with these."""
    user = User.objects.create_user("ada", is_staff=True)
    for permission in permissions:
        room, _, codename = permission.partition(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=room, codename=codename))
    client = Client()
    client.force_login(user)
    return client


def post(client: Client, **body: Any) -> tuple[int, str]:
    answer = client.post("/dashboard/act", json.dumps(body), content_type="application/json")
    return answer.status_code, answer.json().get("said") or answer.json().get("error")


def logged() -> list[str]:
    """Oldest first, as “who: about: what”."""
    entries = LogEntry.objects.order_by("id")
    return [f"{entry.user}: {entry.object_repr}: {entry.get_change_message()}" for entry in entries]


# --- what each says before, does, and leaves in the log ---


def test_draining_says_what_it_keeps_and_does_it(admin_client: Client, a: Replica) -> None:
    """Nothing is done while it is only asked."""
    sessions_on(a, 7)
    drain = {"what": "drain", "replica": a.pk, "deadline_seconds": None}
    assert post(admin_client, **drain, ask=True) == (200, "a: closes 0, keeps 7.")
    a.refresh_from_db()
    assert (a.state, logged()) == ("active", [])
    assert post(admin_client, **drain) == (200, "a: draining, keeps 7 sessions.")
    a.refresh_from_db()
    assert (a.state, a.drains) == ("draining", 1)
    assert logged() == ["admin: a: State: active → draining."]
    assert post(admin_client, **drain) == (200, "a is draining already: nothing to do.")
    assert (len(logged()), Session.objects.filter(ended_at=None).count()) == (1, 7)


def test_draining_with_a_deadline_says_that_too(admin_client: Client, a: Replica) -> None:
    """Also one that is set, or changed, while it drains."""
    sessions_on(a, 7)
    drain = {"what": "drain", "replica": a.pk}
    ask = post(admin_client, **drain, deadline_seconds=60, ask=True)
    assert ask == (200, "a: closes 0, keeps 7; those left after 60 s are closed (1012).")
    assert post(admin_client, **drain, deadline_seconds=60)[0] == 200
    assert post(admin_client, **drain, deadline_seconds=5.5) == (
        200, "a: draining, keeps 7 sessions; those left after 5.5 s are closed.",
    )  # fmt: skip
    assert logged() == [
        "admin: a: State: active → draining; drain deadline: none → 60 s.",
        "admin: a: drain deadline: 60 s → 5.5 s.",
    ]
    a.refresh_from_db()
    assert (a.drains, a.drain_deadline_seconds) == (2, 5.5)


@pytest.mark.parametrize("deadline", [-1, 86401, "soon", True, float("nan"), [1]])
def test_a_deadline_keeps_the_rule(admin_client: Client, a: Replica, deadline: Any) -> None:
    """The form's and the file's."""
    status, said = post(admin_client, what="drain", replica=a.pk, deadline_seconds=deadline)
    assert status == 400
    assert said.startswith("deadline_seconds: “")
    a.refresh_from_db()
    assert a.state == "active"


def test_the_primary_mark_moves(admin_client: Client, a: Replica) -> None:
    """From where it is, which both histories say."""
    b = replica("b", primary=True)
    move = {"what": "make_primary", "replica": a.pk}
    asked = "a becomes the primary instead of b and is filled first; no session moves."
    assert post(admin_client, **move, ask=True) == (200, asked)
    assert post(admin_client, **move) == (200, "The primary is now a.")
    assert list(Replica.objects.order_by("name").values_list("primary", flat=True)) == [True, False]
    assert logged() == ["admin: b: Primary: b → a.", "admin: a: Primary: b → a."]
    assert post(admin_client, **move) == (200, "a is the primary already: nothing to do.")
    Replica.objects.update(primary=False)
    assert "instead" not in post(admin_client, what="make_primary", replica=b.pk, ask=True)[1]
    post(admin_client, what="make_primary", replica=b.pk)
    assert logged()[2:] == ["admin: b: Primary: none → b."]


@pytest.mark.parametrize(
    ("what", "before", "after", "asked", "said"),
    [
        ("activate", "disabled", "active", "a: closes 0, keeps 2; takes new sessions.", "a: active, takes new"),
        ("activate", "draining", "active", "a: closes 0, keeps 2; takes new sessions.", "a: active, takes new"),
        (
            "disable", "active", "disabled", "a: closes 0, keeps 2; takes no new sessions and is not probed.",
            "a: disabled, takes no new",
        ),
    ],
)  # fmt: skip
def test_states_are_set(
    admin_client: Client, a: Replica, what: str, before: str, after: str, asked: str, said: str
) -> None:
    """Said, done, and written down."""
    sessions_on(a, 2)
    Replica.objects.update(state=before)
    assert post(admin_client, what=what, replica=a.pk, ask=True) == (200, asked)
    assert post(admin_client, what=what, replica=a.pk)[1].startswith(said)
    a.refresh_from_db()
    assert a.state == after
    assert logged() == [f"admin: a: State: {before} → {after}."]
    assert post(admin_client, what=what, replica=a.pk) == (200, f"a is {after} already: nothing to do.")


def test_an_unhealthy_replica_is_activated_for_later(admin_client: Client, a: Replica) -> None:
    """It is not said to take sessions now."""
    Replica.objects.update(state="disabled")
    ReplicaHealth.objects.update(status="unhealthy")
    said = post(admin_client, what="activate", replica=a.pk, ask=True)[1]
    assert said == "a: closes 0, keeps 0; takes new sessions once it is healthy."


def test_a_probe_is_asked_for(admin_client: Client, a: Replica) -> None:
    """By a count that the prober reads; of a disabled replica it cannot be."""
    probe = {"what": "probe_now", "replica": a.pk}
    assert post(admin_client, **probe, ask=True)[0] == 200
    a.refresh_from_db()
    assert a.probe_asked == 0
    assert post(admin_client, **probe) == (200, "a: a probe is asked for.")
    a.refresh_from_db()
    assert (a.probe_asked, logged()) == (1, ["admin: a: Probe asked for."])
    Replica.objects.update(state="disabled")
    assert post(admin_client, **probe) == (409, "a is disabled, so it is not probed: activate it first.")


def test_sessions_are_disconnected_with_a_reason(admin_client: Client, a: Replica) -> None:
    """Those that are live, and nobody else; each has its line in the log."""
    one, two, three, four = sessions_on(a, 4)
    end(three)
    body = {"what": "disconnect", "sessions": [one.uid, two.uid, three.uid, "unknown"], "reason": " upgrade "}
    assert post(admin_client, **body, ask=True) == (
        200, "Ends 2 live sessions (1012, “upgrade”); nobody else is touched.",
    )  # fmt: skip
    assert not Session.objects.exclude(disconnect_reason=None).exists()
    assert post(admin_client, **body) == (200, "Told to end: 2 sessions (1012, “upgrade”).")
    asked = Session.objects.filter(disconnect_reason="upgrade")
    assert sorted(asked.values_list("uid", flat=True)) == sorted([one.uid, two.uid])
    assert sorted(logged()) == sorted(f"admin: {uid}: Disconnected: upgrade" for uid in (one.uid, two.uid))
    assert post(admin_client, what="disconnect", sessions=[four.uid])[1].endswith(
        "(1012, “disconnected by an operator”)."
    )


# --- what cannot be done ---


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ([], 400, "The body must be a JSON object"),
        ({}, 400, "what: “None” is none of make_primary, drain,"),
        ({"what": ["drain"]}, 400, "is none of make_primary"),
        ({"what": "drain"}, 400, "replica: “None” is no id"),
        ({"what": "drain", "replica": "1"}, 400, "replica: “1” is no id"),
        ({"what": "drain", "replica": True}, 400, "replica: “True” is no id"),
        ({"what": "drain", "replica": 10**30}, 400, "is no id"),
        ({"what": "drain", "replica": 999999}, 404, "There is no replica 999999 (any more)."),
        ({"what": "drain", "replica": 1, "ask": "yes"}, 400, "ask: “yes” is neither true nor false."),
        ({"what": "disconnect"}, 400, "sessions: must be a list"),
        ({"what": "disconnect", "sessions": [1]}, 400, "sessions: must be a list"),
        ({"what": "disconnect", "sessions": ["x"] * 501}, 400, "sessions: 501 are more than the 500"),
        ({"what": "disconnect", "sessions": ["x"]}, 404, "There is no such session"),
        ({"what": "disconnect", "sessions": ["x"], "reason": 5}, 400, "reason: “5” is no text."),
    ],
)
def test_what_cannot_be_done_is_said(admin_client: Client, body: Any, status: int, said: str) -> None:
    """Field, value and what is allowed; nothing is logged."""
    answer = admin_client.post("/dashboard/act", json.dumps(body), content_type="application/json")
    assert answer.status_code == status
    assert said in answer.json()["error"]
    assert logged() == []


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 60_000])
def test_a_body_that_is_no_json_is_refused(admin_client: Client, body: bytes) -> None:
    """In words."""
    answer = admin_client.post("/dashboard/act", body, content_type="application/json")
    assert (answer.status_code, answer.json()) == (400, {"error": "The body must be JSON."})


def test_a_deleted_replica_and_an_ended_session_are_past_it(admin_client: Client, a: Replica) -> None:
    """409, and why."""
    (session,) = sessions_on(a)
    a.delete()
    status, said = post(admin_client, what="make_primary", replica=a.pk)
    assert (status, said) == (409, "a is deleted; it keeps 1 session to its end. Add it again to use it.")
    end(session)
    assert post(admin_client, what="disconnect", sessions=[session.uid])[0] == 409


def test_a_deed_whose_line_in_the_log_fails_is_not_done(admin_client: Client, a: Replica) -> None:
    """Both or neither; and the answer names no fault of the database."""
    with mock.patch.object(LogEntry.objects, "log_actions", side_effect=OperationalError("at 10.0.0.1")):
        status, said = post(admin_client, what="disable", replica=a.pk)
    a.refresh_from_db()
    assert (status, said, a.state) == (503, "The database does not answer.", "active")


# --- who may ---

WHATS = {"make_primary", "drain", "activate", "disable", "probe_now", "disconnect"}


@pytest.mark.parametrize(
    ("permissions", "allowed", "may"),
    [
        ([], set(), {"drain": False, "edit": False, "disconnect": False}),
        (["replicas.view_replica", "proxy.view_session"], set(), {"drain": False, "edit": False, "disconnect": False}),
        (["replicas.drain_replica"], {"drain", "activate"}, {"drain": True, "edit": False, "disconnect": False}),
        (["replicas.change_replica"], WHATS - {"disconnect"}, {"drain": True, "edit": True, "disconnect": False}),
        (["proxy.disconnect_session"], {"disconnect"}, {"drain": False, "edit": False, "disconnect": True}),
        (["proxy.change_session"], {"disconnect"}, {"drain": False, "edit": False, "disconnect": True}),
    ],
)
def test_each_act_needs_its_permission(
    a: Replica, permissions: list[str], allowed: set[str], may: dict[str, bool]
) -> None:
    """Staff may look, and are told what they may; what they may not is refused, also when only asked."""
    (session,) = sessions_on(a)
    client = staff(*permissions)
    for what in WHATS:
        status, _ = post(client, what=what, replica=a.pk, sessions=[session.uid], ask=True)
        assert status == (200 if what in allowed else 403), what
    assert client.get("/dashboard/state.json").json()["may"] == may


def test_who_may_drain_takes_a_drain_back_and_nothing_else(a: Replica) -> None:
    """What somebody has disabled is theirs who may edit."""
    client = staff("replicas.drain_replica")
    Replica.objects.update(state="draining")
    assert post(client, what="activate", replica=a.pk)[0] == 200
    Replica.objects.update(state="disabled")
    for what in ("activate", "drain"):
        for ask in (True, False):
            status, said = post(client, what=what, replica=a.pk, ask=ask)
            assert status == 403
            assert said == "a is disabled: to take it back you need the permission replicas.change_replica."
    a.refresh_from_db()
    assert a.state == "disabled"


JSON = ["/dashboard/state.json", "/dashboard/sessions.json", "/dashboard/replicas/1/history.json"]


@pytest.mark.parametrize("path", [*JSON, "/dashboard/act"])
@pytest.mark.parametrize("who", ["nobody", "a client", "one who has left"])
def test_only_staff_is_answered(path: str, who: str) -> None:
    """JSON says 403."""
    client = Client()
    if who != "nobody":
        client.force_login(User.objects.create_user("eve", is_staff=who != "a client"))
        User.objects.update(is_active=who == "a client")
    answer = client.post(path, "{}", content_type="application/json") if path.endswith("act") else client.get(path)
    assert answer.status_code == 403
    assert answer.json().keys() == {"error"}


@pytest.mark.parametrize("path", ["/dashboard/", "/dashboard/replicas/1/"])
def test_pages_send_others_to_the_sign_in(client: Client, path: str) -> None:
    """And back."""
    answer = client.get(path)
    assert (answer.status_code, answer["Location"]) == (302, f"/admin/login/?next={path}")


def test_an_act_needs_its_token(a: Replica) -> None:
    """No other site's page can act with an operator's cookie."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("root"))
    answer = client.post("/dashboard/act", json.dumps({"what": "disable", "replica": a.pk}), "application/json")
    assert answer.status_code == 403
    a.refresh_from_db()
    assert a.state == "active"


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
@pytest.mark.parametrize("field", ["sessions", "reason", "what"])
def test_what_no_database_can_hold_is_refused_in_words(admin_client: Client, field: str, text: str) -> None:
    """JSON can say it: half a character, and the character 0."""
    body: dict[str, Any] = {"what": "disconnect", "sessions": ["0" * 32]}
    body[field] = [text] if field == "sessions" else text
    answer = admin_client.post("/dashboard/act", json.dumps(body), "application/json")
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(field)


def test_an_act_of_any_length_is_too_long(admin_client: Client) -> None:
    """No page of ours asks so much; to parse it would take others' time."""
    body = json.dumps({"what": "disconnect", "sessions": ["0" * 32] * 2000})
    answer = admin_client.post("/dashboard/act", body, "application/json")
    assert (answer.status_code, answer.json()["error"]) == (413, "The body is longer than 65536 bytes.")


def test_only_posts_act_and_nothing_is_cached(admin_client: Client) -> None:
    """A state of the past would be a lie."""
    assert admin_client.get("/dashboard/act").status_code == 405
    for path in JSON[:2]:
        answer = admin_client.get(path)
        assert answer.status_code == 200
        assert "no-store" in answer["Cache-Control"]
        assert admin_client.post(path).status_code == 405


def test_what_cannot_be_asked_of_the_tables_is_said(admin_client: Client, a: Replica) -> None:
    """400 and 404 with words; a page of what there is works."""
    assert admin_client.get("/dashboard/sessions.json?state=odd").status_code == 400
    assert admin_client.get(f"/dashboard/replicas/{a.pk}/history.json?hours=x").json()["error"].startswith("hours: “x”")
    assert admin_client.get("/dashboard/replicas/999999/history.json").status_code == 404
    assert admin_client.get(f"/dashboard/replicas/{a.pk}/history.json").json()["replica"]["name"] == "a"


@pytest.mark.parametrize("read", ["live.read_state", "views.sessions.read_sessions", "views.history.read_history"])
def test_the_database_away_is_said_without_its_words(admin_client: Client, read: str) -> None:
    """503."""
    path = JSON[["live.read_state", "views.sessions.read_sessions", "views.history.read_history"].index(read)]
    with mock.patch(f"dashboard.{read}", side_effect=OperationalError("at 10.0.0.1")):
        answer = admin_client.get(path)
    assert (answer.status_code, answer.json()) == (503, {"error": "The database does not answer."})
