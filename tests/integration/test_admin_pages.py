"""Pages of the admin that explain themselves: help at each field, ways from one to the other, days to go down to."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from proxy import admin_help as session_help
from proxy.admin import RouterProcessAdmin, SessionAdmin
from proxy.models import ProcessTraffic, RouterProcess, Session
from replicas import admin_help
from replicas.admin import ReplicaAdmin
from replicas.admin_settings import RouterSettingsAdmin
from replicas.models import Replica, RouterSettings
from tests.integration.test_admin import LIST
from tests.integration.test_intent import sessions_on

pytestmark = pytest.mark.django_db

SESSIONS, PROCESSES = "/admin/proxy/session/", "/admin/proxy/routerprocess/"


@pytest.fixture
def replica() -> Replica:
    return Replica.objects.create(url="http://a:1", name="a", max_sessions=8)


def page(client: Client, address: str, **query: object) -> str:
    answer = client.get(address, query)
    assert answer.status_code == 200
    return answer.content.decode()


# --- help ---


def fields_of(admin: type) -> set[str]:
    return {name for _, options in admin.fieldsets for name in options["fields"]}  # type: ignore[attr-defined]


def test_every_field_that_is_edited_is_explained() -> None:
    """Replicas and router settings: all of them; nothing is explained that is not there."""
    written = {"name", "url", "primary", "state", "drain_deadline_seconds", "weight", "max_sessions"}
    assert written <= admin_help.REPLICA.keys() <= fields_of(ReplicaAdmin)
    assert admin_help.SETTINGS.keys() == fields_of(RouterSettingsAdmin)
    assert session_help.SESSION.keys() <= fields_of(SessionAdmin)
    assert session_help.PROCESS.keys() <= fields_of(RouterProcessAdmin)


@pytest.mark.parametrize("field", ["drain_deadline_seconds", "interval_seconds", "timeout_seconds",
                                   "slow_start_seconds", "affinity_ttl_seconds", "queue_timeout_seconds"])  # fmt: skip
def test_a_time_is_explained_with_its_unit(field: str) -> None:
    """A number alone may be anything."""
    assert (admin_help.REPLICA | admin_help.SETTINGS)[field].startswith("Seconds")


def test_help_stands_on_the_pages(admin_client: Client, replica: Replica) -> None:
    """At what is edited and at what is only shown."""
    RouterSettings.objects.create(pk=1)
    session = sessions_on(replica)[0]
    process = RouterProcess.objects.create(name="host:1")
    for address, words in {
        f"{LIST}add/": ("like http://streamer-a:8000", "total_gpus", "like 600"),
        f"{LIST}{replica.pk}/change/": ("Stale: the prober is silent", "Seconds, 0 to 86400", "--prune"),
        "/admin/replicas/routersettings/1/change/": ("Example:", "1013 queue_full", "/v1/stream?user=7"),
        f"{SESSIONS}{session.pk}/change/": ("X-Request-ID", "On replica a"),
        f"{PROCESSES}{process.pk}/change/": ("Silent: no beat for 7.5 s",),
    }.items():
        shown = page(admin_client, address)
        for word in words:
            assert word in shown, (address, word)


# --- ways ---


def test_one_leads_to_the_other(admin_client: Client, replica: Replica) -> None:
    """Replica ↔ its sessions ↔ their process, and the dashboard from everywhere."""
    process = RouterProcess.objects.create(name="host:1")
    session = sessions_on(replica, process=process, client="10.0.0.1")[0]
    on_replica = f"{SESSIONS}?replica={replica.pk}"
    ways = {
        LIST: [f"{on_replica}&amp;state=live", "/dashboard/"],
        f"{LIST}{replica.pk}/change/": [on_replica, f"/dashboard/replicas/{replica.pk}/", "/dashboard/"],
        SESSIONS: [f"{LIST}{replica.pk}/change/", "/dashboard/"],
        f"{SESSIONS}{session.pk}/change/": [
            f"{LIST}{replica.pk}/change/", f"{PROCESSES}{process.pk}/change/", f"{SESSIONS}?q=10.0.0.1",
        ],
        PROCESSES: [f"{SESSIONS}?process={process.pk}&amp;state=live"],
        f"{PROCESSES}{process.pk}/change/": [f"{SESSIONS}?process={process.pk}"],
    }  # fmt: skip
    for address, links in ways.items():
        shown = page(admin_client, address)
        for link in links:
            assert f'href="{link}"' in shown, (address, link)
    listed = admin_client.get(SESSIONS, {"replica": replica.pk, "state": "live"}).context["cl"].result_list
    assert list(listed) == [session]


def test_sessions_of_one_process_are_listed(admin_client: Client, replica: Replica) -> None:
    """Also of one that has ended; what is no id filters nothing."""
    ended = RouterProcess.objects.create(name="host:1", ended_at=timezone.now())
    theirs = sessions_on(replica, process=ended)
    sessions_on(replica, process=RouterProcess.objects.create(name="host:2"))
    shown = admin_client.get(SESSIONS, {"process": ended.pk})
    assert list(shown.context["cl"].result_list) == theirs
    assert "host:1" in shown.content.decode()
    assert "host:1" not in admin_client.get(SESSIONS).content.decode()
    assert len(admin_client.get(SESSIONS, {"process": "x"}).context["cl"].result_list) == 2


def test_no_way_leads_where_one_may_not_go(client: Client, django_user_model: type, replica: Replica) -> None:
    """Who may see replicas alone has no link to sessions."""
    from tests.integration.test_admin_sessions import operator

    sessions_on(replica)
    looking = operator(client, django_user_model, "view_replica")
    assert SESSIONS not in page(looking, LIST) + page(looking, f"{LIST}{replica.pk}/change/")


# --- what is said of a session ---


def test_an_ended_session_explains_itself(admin_client: Client, replica: Replica) -> None:
    """In a sentence, in the list and on its page."""
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    session = sessions_on(
        replica, opened_at=at, placed_at=at, ended_at=at.replace(second=17), ended_by="replica", why="vanished",
        close_code=1011,
    )[0]  # fmt: skip
    sentence = "Replica a vanished 12 s in; client told worker_failed"
    assert sentence in page(admin_client, SESSIONS)
    assert sentence in page(admin_client, f"{SESSIONS}{session.pk}/change/")


def test_a_live_session_shows_what_its_process_says(admin_client: Client, replica: Replica) -> None:
    """Its row has no bytes before its end; the process that holds it counts them for all of its own."""
    process = RouterProcess.objects.create(name="host:1")
    live, silent = sessions_on(replica, 2, process=process)
    ProcessTraffic.objects.create(process=process, sessions={str(live.pk): [2048, 3 * 2**20, 10, 2**20]})
    assert "2.0 KiB / 3.0 MiB" in page(admin_client, SESSIONS)
    shown = page(admin_client, f"{SESSIONS}{live.pk}/change/")
    assert "2.0 KiB, 10 B/s" in shown
    assert "3.0 MiB, 1.0 MiB/s" in shown
    assert "B/s" not in page(admin_client, f"{SESSIONS}{silent.pk}/change/")


# --- days ---


def opened(*moments: datetime) -> list[Session]:
    return [sessions_on(None, opened_at=moment)[0] for moment in moments]


def choices(client: Client, **query: object) -> tuple[str | None, list[str]]:
    found = client.get(SESSIONS, query).context["cl"].drill_down()
    return (found.get("back") or {}).get("title"), [choice["title"] for choice in found.get("choices", [])]


def test_one_goes_down_from_years_to_a_day(admin_client: Client) -> None:
    """Only where there is something between the oldest and the newest; and up again."""
    old, late, last = opened(
        datetime(2025, 11, 30, 23, 59, tzinfo=UTC),
        datetime(2025, 12, 1, tzinfo=UTC),
        datetime(2026, 1, 2, 12, tzinfo=UTC),
    )
    assert choices(admin_client) == (None, ["2025", "2026"])
    assert choices(admin_client, opened_at__year=2025) == ("All dates", ["November 2025", "December 2025"])
    in_month = {"opened_at__year": 2026, "opened_at__month": 1}
    assert choices(admin_client, **in_month) == ("2026", ["January 1", "January 2"])
    assert choices(admin_client, **in_month, opened_at__day=2) == ("January 2026", ["January 2"])
    for query, expected in (
        ({"opened_at__year": 2025}, [late, old]),
        ({"opened_at__year": 2025, "opened_at__month": 11}, [old]),
        ({"opened_at__year": 2025, "opened_at__month": 12, "opened_at__day": 1}, [late]),
        (in_month, [last]),
    ):
        assert list(admin_client.get(SESSIONS, query).context["cl"].result_list) == expected


def test_within_a_month_the_days_are_offered_at_once(admin_client: Client) -> None:
    """As a history of two weeks mostly is. The way up leads to all months, and other filters stay."""
    opened(datetime(2026, 3, 9, tzinfo=UTC), datetime(2026, 3, 11, tzinfo=UTC))
    assert choices(admin_client, state="waiting") == ("2026", ["March 9", "March 10", "March 11"])
    shown = page(admin_client, SESSIONS, state="waiting")
    assert 'href="?opened_at__day=10&amp;opened_at__month=3&amp;opened_at__year=2026&amp;state=waiting"' in shown


@pytest.mark.parametrize(
    "query",
    [
        {"opened_at__year": "x"},
        {"opened_at__year": 2026, "opened_at__month": 13},
        {"opened_at__month": "3"},
        {"opened_at__year": "99999"},
        {"opened_at__day": "x"},
    ],
)
def test_a_day_that_cannot_be_is_no_fault(admin_client: Client, query: dict[str, object]) -> None:
    """Someone has edited the address."""
    opened(datetime(2026, 3, 9, tzinfo=UTC))
    assert admin_client.get(SESSIONS, query, follow=True).status_code == 200


def test_show_all_is_offered_only_where_not_all_is_shown(admin_client: Client) -> None:
    """With a filter, a search or a day."""
    opened(datetime(2026, 3, 9, tzinfo=UTC))
    assert "Show all" not in page(admin_client, SESSIONS)
    for query in ({"state": "live"}, {"q": "0"}, {"opened_at__year": 2026}):
        assert "Show all" in page(admin_client, SESSIONS, **query)


def test_no_sessions_no_days(admin_client: Client) -> None:
    """There is nothing to choose."""
    assert choices(admin_client) == (None, [])
    assert "toplinks" not in page(admin_client, SESSIONS)


def test_days_are_found_without_a_look_at_every_row(admin_client: Client) -> None:
    """The oldest and the newest, each the end of an index."""
    opened(datetime(2025, 3, 9, tzinfo=UTC), datetime(2026, 3, 9, tzinfo=UTC))
    with CaptureQueriesContext(connection) as captured:
        admin_client.get(SESSIONS)
    about = [query["sql"] for query in captured if "datetime_trunc" in query["sql"] or "MIN(" in query["sql"]]
    assert about == []
    ends = [query["sql"] for query in captured if 'SELECT "proxy_session"."opened_at"' in query["sql"]]
    assert len(ends) == 2
    with connection.cursor() as cursor:
        for query in ends:
            cursor.execute(f"EXPLAIN QUERY PLAN {query}")
            assert "session_opened" in str(cursor.fetchall())
