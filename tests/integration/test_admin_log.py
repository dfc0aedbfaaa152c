"""What was acted in the admin is in its log: who, what, from what to what; and a replica's history shows it."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from proxy.models import Session
from replicas.admin_log import from_to, in_words
from replicas.models import HealthTransition, Replica, RouterSettings
from tests.integration.test_admin import LIST, act, form_at, form_of
from tests.integration.test_intent import sessions_on

pytestmark = pytest.mark.django_db

SETTINGS = "/admin/replicas/routersettings/"


@pytest.fixture
def two() -> list[Replica]:
    return [Replica.objects.create(url=f"http://{name}:1", name=name, primary=name == "a") for name in "ab"]


def log(of: Replica | None = None) -> list[str]:
    """What it says, the oldest first."""
    rows = LogEntry.objects.order_by("id")
    if of is not None:
        rows = rows.filter(object_id=str(of.pk), content_type__model="replica")
    return [entry.get_change_message() for entry in rows]


def test_an_edit_names_each_field_with_both_values(admin_client: Client, two: list[Replica]) -> None:
    """By who made it, and nothing of what was left alone."""
    form = form_of(admin_client, two[1]) | {"weight": "2.5", "max_sessions": "8", "state": "draining"}
    assert admin_client.post(f"{LIST}{two[1].pk}/change/", form).status_code == 302
    entry = LogEntry.objects.get()
    assert entry.get_change_message() == "State: active → draining; Weight: 1 → 2.5; Slots: none → 8."
    assert (entry.user.get_username(), entry.action_flag, entry.object_repr) == ("admin", CHANGE, "b")


def test_from_is_what_the_row_was_and_not_what_the_form_showed(admin_client: Client, two: list[Replica]) -> None:
    """Somebody else's edit came between; it is in the log by their own name."""
    form = form_of(admin_client, two[1])
    Replica.objects.filter(pk=two[1].pk).update(weight=7)
    admin_client.post(f"{LIST}{two[1].pk}/change/", form | {"weight": "9"})
    assert log(two[1]) == ["Weight: 7 → 9."]


def test_a_name_that_follows_its_url_is_in_the_log_too(admin_client: Client) -> None:
    """It was changed, if not by hand."""
    replica = Replica.objects.create(url="http://old:1")
    admin_client.post(f"{LIST}{replica.pk}/change/", form_of(admin_client, replica) | {"url": "http://new:1"})
    assert log() == ["URL: http://old:1 → http://new:1; Name: old:1 → new:1."]


def test_a_save_that_changes_nothing_says_so(admin_client: Client, two: list[Replica]) -> None:
    """Or it would look like an act."""
    admin_client.post(f"{LIST}{two[1].pk}/change/", form_of(admin_client, two[1]))
    assert log(two[1]) == ["Saved, nothing changed."]


def test_an_addition_says_what_was_added(admin_client: Client) -> None:
    """What is not as it is by default."""
    form = {"url": "http://c:1", "name": "", "weight": "3", "state": "active"}
    assert admin_client.post(f"{LIST}add/", form).status_code == 302
    entry = LogEntry.objects.get()
    assert (entry.action_flag, entry.get_change_message()) == (ADDITION, "Added. URL: http://c:1; Weight: 3.")


@pytest.mark.parametrize(
    ("action", "before", "said"),
    [
        ("drain", "active", "State: active → draining."),
        ("activate", "draining", "State: draining → active."),
        ("disable", "draining", "State: draining → disabled."),
    ],
)
def test_an_action_is_logged_for_each_that_it_changed(
    admin_client: Client, two: list[Replica], action: str, before: str, said: str
) -> None:
    """Once; a second time there is nothing to do, and nothing to log."""
    Replica.objects.update(state=before)
    act(admin_client, action, *two)
    act(admin_client, action, *two)
    assert log() == [said, said]


def test_the_mark_that_moves_is_logged_on_both(admin_client: Client, two: list[Replica]) -> None:
    """By the row's button and by the action; what is the primary already is not made it again."""
    admin_client.post(f"{LIST}{two[1].pk}/make-primary/")
    act(admin_client, "make_primary", two[1])
    assert (log(two[0]), log(two[1])) == (["Primary: a → b."], ["Primary: a → b."])
    Replica.objects.update(primary=False)
    act(admin_client, "make_primary", two[0])
    assert log(two[0])[1:] == ["Primary: none → a."]


def test_a_deletion_keeps_what_the_row_was(admin_client: Client, two: list[Replica]) -> None:
    """One by its own page, one by the action; with what became of its sessions."""
    sessions_on(two[0], 2)
    admin_client.post(f"{LIST}{two[0].pk}/delete/", {"post": "yes"})
    admin_client.post(LIST, {"action": "delete_selected", "_selected_action": [two[1].pk], "post": "yes"})
    assert log() == [
        "URL: http://a:1 → none; state: active → deleted; keeps 2 sessions to their end.",
        "URL: http://b:1 → none; state: active → deleted; has no session left.",
    ]
    assert set(LogEntry.objects.values_list("action_flag", flat=True)) == {DELETION}


def test_router_settings_are_logged_from_to(admin_client: Client) -> None:
    """In the words of their page."""
    address = admin_client.get(SETTINGS)["Location"]
    form = form_at(admin_client, address)
    admin_client.post(address, form | {"interval_seconds": "2.5", "policy": "random", "queue_when_down": "on"})
    assert log() == ["Interval (s): 5 → 2.5; Policy: least_sessions → random; Wait when all are down: no → yes."]
    assert RouterSettings.current().policy == "random"


def test_the_log_of_a_session_says_who_ended_it(admin_client: Client, two: list[Replica]) -> None:
    """On its own page of history."""
    session = sessions_on(two[0])[0]
    chosen = {"action": "disconnect", "_selected_action": [session.pk], "post": "yes", "reason": "maintenance"}
    admin_client.post("/admin/proxy/session/", chosen)
    page = admin_client.get(f"/admin/proxy/session/{session.pk}/history/").content.decode()
    assert "Disconnected: maintenance" in page
    assert "<td>admin</td>" in page
    assert Session.objects.get().disconnect_reason == "maintenance"


def test_the_history_of_a_replica_is_read_from_the_top(admin_client: Client, two: list[Replica]) -> None:
    """Acts with the newest first, and the changes of its health; a replica of no history says so."""
    _, b = two
    page = admin_client.get(f"{LIST}{b.pk}/history/").content.decode()
    assert "Nobody has acted on it here yet" in page
    assert "Its health has not changed" in page
    act(admin_client, "drain", b)
    act(admin_client, "activate", b)
    HealthTransition.objects.create(
        replica=b, at=timezone.now(), old_status="healthy", new_status="unhealthy", reason="HTTP 503"
    )
    page = admin_client.get(f"{LIST}{b.pk}/history/").content.decode()
    assert page.index("draining → active") < page.index("active → draining")
    assert "2 acts" in page
    assert "HTTP 503" in page
    assert f'href="/admin/proxy/session/?replica={b.pk}"' in page
    assert f'href="/dashboard/replicas/{b.pk}/"' in page


def test_all_acts_are_on_one_page_for_reading(admin_client: Client, two: list[Replica]) -> None:
    """With a way to what they were done to; a deleted one is named only."""
    act(admin_client, "drain", two[1])
    admin_client.post(f"{LIST}{two[0].pk}/delete/", {"post": "yes"})
    page = admin_client.get("/admin/admin/logentry/")
    shown = page.content.decode()
    assert page.status_code == 200
    assert "State: active → draining." in shown
    assert f'<a href="{LIST}{two[1].pk}/change/">b</a>' in shown
    assert f"{LIST}{two[0].pk}/change/" not in shown
    entry = LogEntry.objects.order_by("id").first()
    assert entry is not None
    one = f"/admin/admin/logentry/{entry.pk}/"
    assert admin_client.get(f"{one}change/").status_code == 200
    assert admin_client.post(f"{one}change/", {"change_message": "x"}).status_code == 403
    assert admin_client.post(f"{one}delete/", {"post": "yes"}).status_code == 403
    assert admin_client.get("/admin/admin/logentry/add/").status_code == 403


def test_who_has_acted_is_not_deleted(admin_client: Client, admin_user: User, two: list[Replica]) -> None:
    """Their acts would go with them; an account is switched off instead."""
    act(admin_client, "drain", two[1])
    page = admin_client.post(f"/admin/auth/user/{admin_user.pk}/delete/", {"post": "yes"})
    assert page.status_code == 403
    assert User.objects.filter(pk=admin_user.pk).exists()


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "none"), ("", "none"), (True, "yes"), (False, "no"), (1.0, "1"), (86_400.0, "86400"), (8, "8"), ("a", "a")],
)
def test_values_are_logged_as_people_say_them(value: object, words: str) -> None:
    """0 is a value, and no value is none."""
    assert in_words(value) == words


def test_what_did_not_change_is_not_said() -> None:
    """Nor is 1 → 1.0 a change."""
    assert from_to("Weight", 1, 1.0) == ""
    assert from_to("Slots", 0, None) == "Slots: 0 → none"
