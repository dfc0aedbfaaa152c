"""Who may do what in the admin: the groups, and that what somebody may not do is neither shown nor done."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from proxy.groups import GROUPS
from proxy.models import RouterProcess, Session
from replicas.models import HealthTransition, Replica, RouterSettings
from tests.integration.test_admin import LIST, act
from tests.integration.test_intent import sessions_on

pytestmark = pytest.mark.django_db

SESSIONS = "/admin/proxy/session/"
# What each group may do; the groups before it may not.
MAY = {
    "Viewers": {"probe_now"},
    "Operators": {"probe_now", "drain", "activate", "disconnect"},
    "Editors": {"probe_now", "drain", "activate", "disconnect", "disable", "make_primary", "delete_selected"},
}


@pytest.fixture
def house() -> dict[str, object]:
    """One of everything that has a page."""
    replica = Replica.objects.create(url="http://a:1", name="a")
    other = Replica.objects.create(url="http://b:1", name="b", state="disabled")
    process = RouterProcess.objects.create(name="host:1")
    live = sessions_on(replica, process=process)[0]
    moved = HealthTransition.objects.create(replica=replica, at=timezone.now(), old_status="unknown", new_status="x")
    RouterSettings.objects.create(pk=1)
    return {"a": replica, "b": other, "process": process, "live": live, "moved": moved}


def pages(house: dict[str, object]) -> list[str]:
    """Every page that somebody who may see all may see."""
    key = {name: row.pk for name, row in house.items()}  # type: ignore[attr-defined]
    return [
        "/admin/", "/admin/replicas/", "/admin/proxy/", LIST, f"{LIST}{key['a']}/change/", f"{LIST}{key['a']}/history/",
        f"{LIST}{key['b']}/change/", "/admin/replicas/routersettings/1/change/",
        "/admin/replicas/routersettings/1/history/", "/admin/replicas/healthtransition/",
        f"/admin/replicas/healthtransition/{key['moved']}/change/", SESSIONS, f"{SESSIONS}{key['live']}/change/",
        f"{SESSIONS}{key['live']}/history/", "/admin/proxy/routerprocess/",
        f"/admin/proxy/routerprocess/{key['process']}/change/", "/admin/admin/logentry/",
    ]  # fmt: skip


@pytest.fixture
def member(django_user_model: type[User]) -> Callable[[str], Client]:
    """A signed-in client of a member of one group."""
    call_command("makegroups", verbosity=0)

    def sign_in(group: str) -> Client:
        user = django_user_model.objects.create_user(group.lower(), is_staff=True)
        user.groups.add(Group.objects.get(name=group))
        client = Client()
        client.force_login(user)
        return client

    return sign_in


def offered(page: str) -> set[str]:
    """What the page lets one do: actions of its list, buttons of its own, and Django's save and delete."""
    chosen = re.findall(r'<option value="(\w+)"', page)
    pressed = re.findall(r'<button [^>]*name="action" value="(\w+)"', page)
    saved = re.findall(r'<(?:input|button) [^>]*name="(_\w+)"[^>]*>', page)
    saved = [name for name in saved if name not in ("_selected_action",)]
    marks = ["make_primary"] if 'class="mark-button"' in page else []
    return {*chosen, *pressed, *saved, *marks, *re.findall(r'class="(deletelink|addlink|changelink)"', page)}


def test_who_only_looks_sees_every_page_and_no_way_to_change(
    member: Callable[[str], Client], house: dict[str, object]
) -> None:
    """Nothing but the probe, which writes nothing."""
    viewer = member("Viewers")
    for address in pages(house):
        answer = viewer.get(address)
        assert answer.status_code == 200, address
        assert offered(answer.content.decode()) <= {"probe_now"}, address


@pytest.mark.parametrize("group", list(MAY))
def test_each_group_is_offered_what_it_may_do(
    member: Callable[[str], Client], house: dict[str, object], group: str
) -> None:
    """In the lists and on the pages of one."""
    client = member(group)
    shown = client.get(LIST).content.decode() + client.get(SESSIONS).content.decode()
    assert offered(shown) & set().union(*MAY.values()) == MAY[group]
    one = client.get(f"{LIST}{house['a'].pk}/change/").content.decode()  # type: ignore[attr-defined]
    assert offered(one) & {"drain", "disable", "make_primary"} == MAY[group] & {"drain", "disable", "make_primary"}
    assert ("_save" in offered(one)) == (group == "Editors")
    session = client.get(f"{SESSIONS}{house['live'].pk}/change/").content.decode()  # type: ignore[attr-defined]
    assert ("disconnect" in offered(session)) == ("disconnect" in MAY[group])


@pytest.mark.parametrize("group", list(MAY))
def test_each_group_does_what_it_may_and_nothing_else(
    member: Callable[[str], Client], house: dict[str, object], group: str
) -> None:
    """Also by requests made by hand."""
    client, a, live = member(group), house["a"], house["live"]
    assert isinstance(a, Replica)
    assert isinstance(live, Session)

    act(client, "drain", a)
    assert (Replica.objects.get(name="a").state == "draining") == ("drain" in MAY[group])
    Replica.objects.filter(name="a").update(state="draining")
    act(client, "activate", a)
    assert (Replica.objects.get(name="a").state == "active") == ("activate" in MAY[group])
    act(client, "disable", a)
    assert (Replica.objects.get(name="a").state == "disabled") == ("disable" in MAY[group])
    act(client, "make_primary", a)
    client.post(f"{LIST}{a.pk}/make-primary/")
    assert Replica.objects.get(name="a").primary == ("make_primary" in MAY[group])

    chosen = {"action": "disconnect", "_selected_action": [live.pk], "post": "yes", "reason": "x"}
    client.post(SESSIONS, chosen)
    assert Session.objects.exclude(disconnect_reason=None).exists() == ("disconnect" in MAY[group])

    edits = group == "Editors"
    form = {"url": "http://a:1", "name": "aa", "weight": "1", "state": "active", "primary": "on"}
    form |= {"transitions-TOTAL_FORMS": "0", "transitions-INITIAL_FORMS": "0"}
    assert client.post(f"{LIST}{a.pk}/change/", form).status_code == (302 if edits else 403)
    assert client.post("/admin/replicas/routersettings/1/change/", {}).status_code == (200 if edits else 403)
    assert client.get(f"{LIST}add/").status_code == (200 if edits else 403)
    assert client.post(f"{LIST}{a.pk}/delete/", {"post": "yes"}).status_code == (302 if edits else 403)
    if group == "Viewers":
        assert not LogEntry.objects.exists()
    assert client.get("/admin/auth/user/").status_code == 403


def test_what_saving_would_do_is_said_to_who_may_save(
    member: Callable[[str], Client], house: dict[str, object]
) -> None:
    """Who only looks is told what is under way."""
    a = house["a"]
    assert isinstance(a, Replica)
    page = f"{LIST}{a.pk}/change/"
    assert "saving cuts none" in member("Editors").get(page).content.decode()
    viewer = member("Viewers")
    assert "about-sessions" not in viewer.get(page).content.decode()
    Replica.objects.filter(pk=a.pk).update(state="draining")
    shown = viewer.get(page).content.decode()
    assert "Draining: keeps 1 session." in shown
    assert "saving" not in shown


def test_a_drain_is_taken_back_but_not_what_was_disabled(
    member: Callable[[str], Client], house: dict[str, object]
) -> None:
    """Who disabled a replica may have a reason that an operator does not know."""
    operator, a, b = member("Operators"), house["a"], house["b"]
    assert isinstance(a, Replica)
    assert isinstance(b, Replica)
    act(operator, "drain", a)
    said = act(operator, "activate", a, b)
    assert "Now active: a." in said
    assert "Only who may change replicas takes it back: b." in said
    assert list(Replica.objects.values_list("state", flat=True)) == ["active", "disabled"]
    assert offered(operator.get(f"{LIST}{b.pk}/change/").content.decode()) == {"probe_now"}


def test_a_disabled_replica_is_not_drained_by_who_may_not_change_it(
    member: Callable[[str], Client], house: dict[str, object]
) -> None:
    """It would be probed again, which is half of activating it."""
    b = house["b"]
    assert isinstance(b, Replica)
    act(member("Operators"), "drain", b)
    assert Replica.objects.get(name="b").state == "disabled"


def test_an_act_on_a_replicas_page_leads_back_to_it(admin_client: Client, house: dict[str, object]) -> None:
    """And to nowhere else, whatever is posted."""
    a = house["a"]
    assert isinstance(a, Replica)
    form = {"action": "drain", "_selected_action": [a.pk], "index": "0"}
    assert admin_client.post(LIST, form | {"from_page": a.pk})["Location"] == f"{LIST}{a.pk}/change/"
    assert admin_client.post(LIST, form | {"from_page": "//elsewhere/"})["Location"] == LIST
    page = admin_client.get(f"{LIST}{a.pk}/change/").content.decode()
    assert offered(page) >= {"activate", "disable", "make_primary", "probe_now"}
    assert "drain" not in offered(page)


# --- the groups ---


def test_the_groups_are_made_once_and_mended(capsys: pytest.CaptureFixture[str]) -> None:
    """A second time nothing is to do; what was taken away comes back, what was added stays."""
    call_command("makegroups")
    assert set(Group.objects.values_list("name", flat=True)) == set(GROUPS)
    for name, (_, wanted) in GROUPS.items():
        has = Group.objects.get(name=name).permissions.select_related("content_type")
        assert {f"{each.content_type.app_label}.{each.codename}" for each in has} == wanted
    viewers = Group.objects.get(name="Viewers")
    viewers.permissions.add(Permission.objects.get(codename="view_user"))
    viewers.permissions.remove(Permission.objects.get(codename="view_session", content_type__app_label="proxy"))
    capsys.readouterr()
    call_command("makegroups")
    said = capsys.readouterr().out
    assert "Viewers (see all, change nothing): 1 of 7 permissions given" in said
    assert said.count("as it should be") == 2
    assert viewers.permissions.count() == 8


def test_without_the_permissions_it_says_what_to_run() -> None:
    """A database that was not migrated has none."""
    Permission.objects.filter(codename="drain_replica").delete()
    with pytest.raises(CommandError, match=r"no permission replicas\.drain_replica yet: run manage\.py migrate"):
        call_command("makegroups")
    assert not Group.objects.exists()
