"""The admin: what operators do there, and that health is not theirs to write."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from ipaddress import ip_network
from unittest import mock

import pytest
from asgiref.sync import sync_to_async
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import IntegrityError, connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from replicas.models import HealthTransition, Replica, ReplicaHealth, RouterSettings
from tests.integration.http_servers import answering, http_server

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/replicas/replica/"


@pytest.fixture
def three() -> list[Replica]:
    made = [Replica.objects.create(url=f"http://{name}:1", name=name, primary=name == "a") for name in "abc"]
    ReplicaHealth.objects.create(
        replica=made[0], url="http://a:1", status="healthy", checked_at=timezone.now(), status_since=timezone.now()
    )
    ReplicaHealth.objects.create(
        replica=made[1], url="http://b:1", status="unhealthy", checked_at=timezone.now(), last_error="HTTP 503"
    )
    return made


def act(client: Client, action: str, *replicas: Replica) -> str:
    answer = client.post(LIST, {"action": action, "_selected_action": [r.pk for r in replicas]}, follow=True)
    return answer.content.decode()


def primaries() -> list[str]:
    return list(Replica.objects.filter(primary=True).values_list("name", flat=True))


def test_the_list_shows_status_mark_error_and_age(admin_client: Client, three: list[Replica]) -> None:
    """What an operator wants to know of each replica stands in its row."""
    page = admin_client.get(LIST).content.decode()
    for text in ("★ primary", "status-healthy", "status-unhealthy", "status-unknown", "HTTP 503", "s ago", "never"):
        assert text in page
    assert page.count("☆ make primary") == 2
    assert "style=" not in page.replace('rel="stylesheet"', "")


def test_an_empty_list_says_how_to_begin(admin_client: Client) -> None:
    """A new operator needs no manual for the first replica."""
    assert "No replicas yet" in admin_client.get(LIST).content.decode()


def form_of(client: Client, replica: Replica) -> dict[str, str]:
    return form_at(client, f"{LIST}{replica.pk}/change/")


def form_at(client: Client, address: str) -> dict[str, str]:
    """What a browser would post of the form as it is shown now, hidden inputs included."""
    shown = client.get(address)
    form = shown.context["adminform"].form
    fields = [(field.html_name, field.value()) for field in form]
    hidden = re.findall(r'<input type="hidden" name="([-\w]+)" value="([^"]*)"', shown.content.decode())
    values = {name: str(value) for name, value in fields if value is not None and value is not False}
    return dict(hidden) | values


def test_one_click_moves_the_mark(admin_client: Client, three: list[Replica]) -> None:
    """The row's button: one POST, and the mark has moved; the history says who did it."""
    answer = admin_client.post(f"{LIST}{three[1].pk}/make-primary/", follow=True)
    assert "The primary is now b." in answer.content.decode()
    assert primaries() == ["b"]
    assert LogEntry.objects.filter(object_id=three[1].pk, change_message="Primary: a → b.").exists()


def test_the_mark_is_not_moved_by_a_link(admin_client: Client, three: list[Replica]) -> None:
    """A GET changes nothing, and who may not change replicas may not move it either."""
    assert admin_client.get(f"{LIST}{three[1].pk}/make-primary/").status_code == 405
    assert primaries() == ["a"]
    assert Client().post(f"{LIST}{three[1].pk}/make-primary/").status_code == 302  # to the login
    assert primaries() == ["a"]


@pytest.mark.parametrize("key", ["abc", "9" * 9, "9" * 30])
def test_the_mark_is_not_moved_to_what_is_not_there(admin_client: Client, three: list[Replica], key: str) -> None:
    """404, whatever stands in the address."""
    assert admin_client.post(f"{LIST}{key}/make-primary/").status_code == 404
    assert primaries() == ["a"]


def test_the_action_wants_exactly_one(admin_client: Client, three: list[Replica]) -> None:
    """Two primaries cannot be meant."""
    assert "Select the one replica" in act(admin_client, "make_primary", three[1], three[2])
    assert primaries() == ["a"]
    act(admin_client, "make_primary", three[2])
    assert primaries() == ["c"]


@pytest.mark.parametrize(("action", "state"), [("drain", "draining"), ("disable", "disabled"), ("activate", "active")])
def test_the_actions_set_the_operators_intent(
    admin_client: Client, three: list[Replica], action: str, state: str
) -> None:
    """And nothing else: health is as it was."""
    health = list(ReplicaHealth.objects.values())
    Replica.objects.filter(pk=three[0].pk).update(state="draining")
    act(admin_client, action, *three[:2])
    assert list(Replica.objects.values_list("state", flat=True)) == [state, state, "active"]
    assert list(ReplicaHealth.objects.values()) == health


def test_a_bad_url_is_an_error_at_its_field(admin_client: Client) -> None:
    """With what is allowed, and the form still filled in."""
    form = {"url": "http://a/path", "name": "", "weight": "1", "state": "active"}
    answer = admin_client.post(f"{LIST}add/", form)
    assert answer.status_code == 200
    assert "must not have a path" in str(answer.context["adminform"].form.errors["url"])
    answer = admin_client.post(f"{LIST}add/", form | {"url": "http://169.254.1.1:8000"})
    assert "must not have a link-local address" in str(answer.context["adminform"].form.errors["url"])
    assert not Replica.objects.exists()


def test_a_replica_is_added_as_it_is_normalised(admin_client: Client) -> None:
    """The trailing slash goes, the name comes from the URL."""
    form = {"url": "HTTP://Streamer-A:8000/", "name": "", "weight": "1", "state": "active"}
    assert admin_client.post(f"{LIST}add/", form).status_code == 302
    assert list(Replica.objects.values_list("url", "name")) == [("http://streamer-a:8000", "streamer-a:8000")]


def test_health_cannot_be_written_through_the_form(admin_client: Client, three: list[Replica]) -> None:
    """Fields of the prober in the POST are ignored; the transitions are there for reading."""
    HealthTransition.objects.create(
        replica=three[1], at=timezone.now(), old_status="healthy", new_status="unhealthy", reason="HTTP 503"
    )
    page = f"{LIST}{three[1].pk}/change/"
    assert "What the prober sees" in admin_client.get(page).content.decode()
    form = {
        "url": "http://b:1", "name": "bb", "weight": "1", "state": "active", "status": "healthy", "last_error": "",
        "transitions-TOTAL_FORMS": "0", "transitions-INITIAL_FORMS": "0",
    }  # fmt: skip
    assert admin_client.post(page, form).status_code == 302
    assert Replica.objects.get(pk=three[1].pk).name == "bb"
    assert ReplicaHealth.objects.get(pk=three[1].pk).status == "unhealthy"


def test_a_form_changes_what_was_changed_since_it_was_shown(admin_client: Client, three: list[Replica]) -> None:
    """A replica drained and made the primary while its form stood open stays so: the form was about its weight."""
    _, b, _ = three
    shown = form_of(admin_client, b)
    act(admin_client, "drain", b)
    admin_client.post(f"{LIST}{b.pk}/make-primary/")
    assert admin_client.post(f"{LIST}{b.pk}/change/", shown | {"weight": "5"}).status_code == 302
    b.refresh_from_db()
    assert (b.weight, b.state, b.primary, primaries()) == (5, "draining", True, ["b"])


def test_the_form_of_a_replica_that_lost_the_mark_is_still_good(admin_client: Client, three: list[Replica]) -> None:
    """Its tick is what was shown, not what the operator asks for."""
    a, b, _ = three
    shown = form_of(admin_client, a)
    admin_client.post(f"{LIST}{b.pk}/make-primary/")
    assert admin_client.post(f"{LIST}{a.pk}/change/", shown | {"name": "old"}).status_code == 302
    assert (Replica.objects.get(pk=a.pk).name, primaries()) == ("old", ["b"])


def test_a_form_writes_nothing_else(admin_client: Client, three: list[Replica]) -> None:
    """Not even what changes between its check and its write."""
    shown, real_clean = form_of(admin_client, three[1]), Replica.clean

    def drained_meanwhile(replica: Replica) -> None:
        real_clean(replica)
        Replica.objects.filter(pk=replica.pk).update(state="draining")

    with mock.patch.object(Replica, "clean", drained_meanwhile):
        assert admin_client.post(f"{LIST}{three[1].pk}/change/", shown | {"weight": "5"}).status_code == 302
    found = Replica.objects.get(pk=three[1].pk)
    assert (found.weight, found.state) == (5, "draining")


@pytest.mark.parametrize(("name", "followed"), [("", "new:1"), ("mine", "mine")])
def test_a_name_made_from_the_url_follows_it(admin_client: Client, name: str, followed: str) -> None:
    """Or the list would call a server by another one's address; a name that someone gave stays."""
    replica = Replica.objects.create(url="http://old:1", name=name)
    shown = form_of(admin_client, replica)
    assert admin_client.post(f"{LIST}{replica.pk}/change/", shown | {"url": "http://new:1"}).status_code == 302
    replica.refresh_from_db()
    assert (replica.url, replica.name) == ("http://new:1", followed)


def test_who_is_beaten_to_the_mark_gets_a_form_error(admin_client: Client, three: list[Replica]) -> None:
    """Two operators tick it at once: the second is told, at the field, as if they had come later."""
    Replica.objects.update(primary=False)
    real_clean, beaten = Replica.clean, []

    def clean(replica: Replica) -> None:
        if beaten:  # by now the other's transaction is through
            Replica.objects.filter(pk=three[2].pk).update(primary=True)
        real_clean(replica)

    def save(replica: Replica, *args: object, **kwargs: object) -> None:
        beaten.append(replica)
        raise IntegrityError("UNIQUE constraint failed: replicas_replica.primary")

    form = {"url": "http://d", "name": "", "weight": "1", "state": "active", "primary": "on"}
    with mock.patch.object(Replica, "clean", clean), mock.patch.object(Replica, "save", save):
        answer = admin_client.post(f"{LIST}add/", form)
    assert "“c” is the primary" in str(answer.context["adminform"].form.errors["primary"])


def test_a_replica_with_a_history_can_be_deleted(admin_client: Client, three: list[Replica]) -> None:
    """Its transitions go with it, though nobody may delete one of them by hand."""
    for replica in three:
        HealthTransition.objects.create(replica=replica, at=timezone.now(), old_status="unknown", new_status="healthy")
    assert admin_client.post(f"{LIST}{three[1].pk}/delete/", {"post": "yes"}).status_code == 302
    act_on = {"action": "delete_selected", "_selected_action": [three[2].pk], "post": "yes"}
    assert admin_client.post(LIST, act_on).status_code == 302
    assert list(Replica.objects.values_list("name", flat=True)) == ["a"]
    history = HealthTransition.objects.get()
    assert admin_client.post(f"/admin/replicas/healthtransition/{history.pk}/delete/").status_code == 403


def test_who_may_only_look_gets_no_buttons(client: Client, three: list[Replica], django_user_model: type) -> None:
    """And is refused where they make the request by hand."""
    viewer = django_user_model.objects.create_user("viewer", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename__in=["view_replica", "view_healthtransition"]))
    client.force_login(viewer)
    page = client.get(LIST).content.decode()
    assert "make primary" not in page
    assert "probe_now" in page
    assert client.post(f"{LIST}{three[1].pk}/make-primary/").status_code == 403
    act(client, "drain", three[1])
    assert Replica.objects.get(pk=three[1].pk).state == "active"


def test_the_list_takes_the_same_queries_for_any_fleet(admin_client: Client, three: list[Replica]) -> None:
    """Health and settings come with the rows, not a query each."""

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert admin_client.get(LIST).status_code == 200
        return len(captured)

    before = queries()
    for number in range(20):
        made = Replica.objects.create(url=f"http://more:{number + 1}")
        ReplicaHealth.objects.create(replica=made, url=made.url, status="healthy", checked_at=timezone.now())
    assert queries() == before


@pytest.mark.parametrize(
    ("status", "names"), [("healthy", ["a"]), ("unhealthy", ["b"]), ("unknown", ["c", "d"]), ("", ["a", "b", "c", "d"])]
)
def test_the_list_is_filtered_by_what_is_shown(
    admin_client: Client, three: list[Replica], status: str, names: list[str]
) -> None:
    """A replica that was never probed is unknown, and so is one whose URL was edited since."""
    moved = Replica.objects.create(url="http://d:2", name="d")
    ReplicaHealth.objects.create(replica=moved, url="http://d:1", status="healthy", checked_at=timezone.now())
    shown = admin_client.get(LIST, {"status": status} if status else {}).context["cl"].queryset
    assert [replica.name for replica in shown] == names


@pytest.mark.parametrize(("origin", "names"), [("1", ["b"]), ("0", ["a"]), ("itself", ["c"]), ("x", ["a", "b", "c"])])
def test_the_list_is_filtered_by_who_brought_it_in(
    admin_client: Client, three: list[Replica], origin: str, names: list[str]
) -> None:
    """What a file brought in a file may take away: loadreplicas --prune."""
    Replica.objects.filter(name="b").update(from_file=True)
    Replica.objects.filter(name="c").update(registered_ttl_seconds=30, lapsed=True)
    shown = admin_client.get(LIST, {"from_file": origin}).context["cl"].queryset
    assert [replica.name for replica in shown] == names
    assert ("has not renewed" in admin_client.get(LIST, {"from_file": origin}).content.decode()) == ("c" in names)


def test_the_history_is_for_reading(admin_client: Client, three: list[Replica]) -> None:
    """All of it, with the time to the second; there is nothing to add or change."""
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    HealthTransition.objects.create(replica=three[1], at=at, old_status="healthy", new_status="unhealthy", reason="cut")
    page = "/admin/replicas/healthtransition/"
    shown = admin_client.get(page).content.decode()
    assert "2026-01-02 03:04:05" in shown
    assert "cut" in shown
    assert admin_client.get(f"{page}{HealthTransition.objects.get().pk}/change/").status_code == 200
    assert admin_client.get(f"{page}add/").status_code == 403


def test_the_router_settings_are_one_form(admin_client: Client) -> None:
    """The list leads to it; a wrong value is an error at its field."""
    page = "/admin/replicas/routersettings/"
    form_page = admin_client.get(page)
    assert form_page.status_code == 302
    shown = admin_client.get(form_page["Location"]).content.decode()
    for text in ("Health check", "Balancing", "The line", "Counts from the next placement on", "within a second"):
        assert text in shown
    values = form_at(admin_client, form_page["Location"]) | {
        "health_path": "/readyz", "interval_seconds": "0.5", "timeout_seconds": "0", "policy": "random",
        "affinity": "query:", "queue_when_down": "on",
    }  # fmt: skip
    answer = admin_client.post(form_page["Location"], values)
    assert "must be greater than 0 seconds" in str(answer.context["adminform"].form.errors["timeout_seconds"])
    assert "must be none, query:NAME" in str(answer.context["adminform"].form.errors["affinity"])
    admin_client.post(form_page["Location"], values | {"timeout_seconds": "1", "affinity": "query:user"})
    now = RouterSettings.current()
    assert (now.health_path, now.interval_seconds, now.policy) == ("/readyz", 0.5, "random")
    assert (now.affinity, now.queue_when_down, now.queue_max_length) == ("query:user", True, 100)
    assert admin_client.get(f"{page}add/").status_code == 403


def test_two_who_edit_the_router_settings_keep_each_others_changes(admin_client: Client) -> None:
    """As with replicas: the second form is about its timeout, not about the interval that it was shown."""
    address = admin_client.get("/admin/replicas/routersettings/")["Location"]
    first, second = form_at(admin_client, address), form_at(admin_client, address)
    admin_client.post(address, first | {"interval_seconds": "9"})
    admin_client.post(address, second | {"timeout_seconds": "1"})
    assert (RouterSettings.current().interval_seconds, RouterSettings.current().timeout_seconds) == (9, 1)


async def test_probe_now_shows_what_it_finds_and_writes_nothing(
    async_client: object, admin_user: object, three: list[Replica]
) -> None:
    """Health is the prober's: a probe of the admin's would be counted twice."""
    async with http_server(answering(b'{"status": "ready"}')) as server:

        def probe() -> str:
            client = Client()
            client.force_login(admin_user)  # type: ignore[arg-type]
            Replica.objects.filter(pk=three[0].pk).update(url=server.url)
            return act(client, "probe_now", three[0], three[1])

        page = await sync_to_async(probe)()
    assert "Probed a: it answered in" in page
    assert "says “ready”" in page
    assert "Probed b: it failed" in page
    health = await ReplicaHealth.objects.aget(pk=three[0].pk)
    assert health.last_ok_at is None


@override_settings(ROUTER_REPLICA_NETWORKS=(ip_network("10.0.0.0/8"),))
async def test_probe_now_keeps_to_the_networks_of_replicas(
    async_client: object, admin_user: object, three: list[Replica]
) -> None:
    """As every probe does; the operator sees the address."""
    async with http_server() as server:

        def probe() -> str:
            client = Client()
            client.force_login(admin_user)  # type: ignore[arg-type]
            Replica.objects.filter(pk=three[0].pk).update(url=server.url)
            return act(client, "probe_now", three[0])

        page = await sync_to_async(probe)()
        assert "it failed (address not allowed: outside ROUTER_REPLICA_NETWORKS (127.0.0.1))" in page
        assert not server.requests
