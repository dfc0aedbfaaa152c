"""/metrics: what it gives, to whom, and with the database away; on both databases where they are read."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import urllib.error
import urllib.request
from datetime import timedelta
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import Client, override_settings
from django.utils import timezone

from dashboard import metrics
from proxy import instruments
from proxy.instruments import Moved
from proxy.models import RouterProcess
from replicas import instruments as vitals
from replicas.models import PlacementRecord, ProberLease, Replica, ReplicaHealth
from tests.integration.placing import Process, add_replica, configure
from tests.ports import free_port
from tests.scraping import Samples, parse, samples

TOKEN = "a-token-of-the-tests"


def read_fleet() -> Samples:
    return samples(metrics.read_fleet())


@pytest.mark.usefixtures("database")
def test_a_fleet_as_the_database_knows_it() -> None:
    """Each replica by its name; what is unlimited or unknown is missing, not 0."""
    configure(queue_max_length=7)
    now = timezone.now()
    first = add_replica("a", max_sessions=2, primary=True, weight=2.0)
    add_replica("b", state=Replica.State.DRAINING, max_sessions=None)
    PlacementRecord.objects.update_or_create(replica=first, defaults={"ejected_until": now.timestamp() + 30})
    ReplicaHealth.objects.filter(replica=first).update(last_latency_ms=2.5, consecutive_failures=1)
    ProberLease.objects.create(pk=1, epoch=3, beat=1, beaten_at=now - timedelta(seconds=20))
    found = read_fleet()
    assert found["replica_up", "a"] == found["replica_up", "b"] == 1
    assert (found["replica_available", "a"], found["replica_ejected", "a"], found["replica_primary", "a"]) == (0, 1, 1)
    assert (found["replica_draining", "a"], found["replica_draining", "b"]) == (0, 1)
    assert (found["replica_slots", "a"], found["replica_weight", "a"]) == (2, 2)
    assert ("replica_slots", "b") not in found
    assert (found["replica_check_duration_seconds", "a"], found["replica_check_failures", "a"]) == (0.0025, 1)
    assert (found["active_replicas",], found["queue_limit",], found["prober_epoch",]) == (1, 7, 3)
    assert 20 <= found["prober_beat_age_seconds",] < 60


@pytest.mark.usefixtures("database")
def test_sessions_and_the_line_are_counted() -> None:
    """Of all processes: those that are placed, those that wait, and for how long the first has."""
    add_replica("a", max_sessions=2)
    process = Process()
    process.place(3)
    found = read_fleet()
    assert (found["replica_sessions", "a"], found["current_queue",], found["live_sessions",]) == (2, 1, 3)
    assert 0 <= found["queue_oldest_seconds",] < 60
    assert (found["processes", "live"], found["processes", "silent"]) == (1, 0)
    RouterProcess.objects.update(beaten_at=timezone.now() - timedelta(minutes=1))
    found = read_fleet()
    assert (found["processes", "live"], found["processes", "silent"]) == (0, 1)


@pytest.mark.usefixtures("database")
def test_replicas_of_one_name_have_labels_of_their_own() -> None:
    """Two samples with the same labels would cost the whole scrape."""
    made = [Replica.objects.create(name="twin", url=f"http://{host}:1") for host in "ab"]
    found = read_fleet()
    assert {key[1] for key in found if key[0] == "replica_up"} == {f"twin #{replica.pk}" for replica in made}


@pytest.mark.django_db(transaction=True)
def test_the_scopes(client: Client) -> None:
    """Both parts, or one; another one is a mistake."""
    both = parse(client.get("/metrics").content.decode())
    assert both["database_up",] == 1
    assert ("current_sessions",) in both
    process = parse(client.get("/metrics?scope=process").content.decode())
    fleet = parse(client.get("/metrics?scope=fleet").content.decode())
    assert process.keys() | fleet.keys() == both.keys()
    assert not process.keys() & fleet.keys()
    assert client.get("/metrics?scope=all").status_code == 400
    assert client.post("/metrics").status_code == 405
    openmetrics = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.content.decode().endswith("# EOF\n")


@pytest.mark.django_db(transaction=True)
def test_without_the_database_the_processes_own_are_served(client: Client) -> None:
    """And that it is away."""
    with mock.patch.object(metrics, "read_fleet", side_effect=OperationalError("10.0.0.1 refused")):
        answer = client.get("/metrics")
    found = parse(answer.content.decode())
    assert answer.status_code == 200
    assert found["database_up",] == 0
    assert ("event_loop_lag_seconds_count",) in found
    assert ("current_queue",) not in found
    assert "10.0.0.1" not in answer.content.decode()


@pytest.mark.django_db(transaction=True)
def test_a_database_that_hangs_is_not_waited_for(client: Client) -> None:
    """Longer than any wait for it may last."""
    over = threading.Event()
    with (
        mock.patch.object(metrics, "read_fleet", side_effect=lambda: over.wait(60)),
        override_settings(DATABASE_TIMEOUT_SECONDS=0.2),
    ):
        try:
            assert parse(client.get("/metrics").content.decode())["database_up",] == 0
        finally:
            over.set()


@pytest.mark.parametrize(
    ("path", "setting"), [("/metrics", "ROUTER_METRICS_ACCESS"), ("/status", "ROUTER_STATUS_ACCESS")]
)
@pytest.mark.django_db(transaction=True)
def test_who_may_ask(path: str, setting: str) -> None:
    """Anyone, staff, or who has the token; the others get a short text."""
    client = Client()
    assert client.get(path).status_code == 200
    with override_settings(**{setting: "staff"}):
        refused = client.get(path)
        assert (refused.status_code, refused.content) == (403, b"For staff only: sign in at /admin/.\n")
        client.force_login(User.objects.create_user("guest"))
        assert client.get(path).status_code == 403
        client.force_login(User.objects.create_user("operator", is_staff=True))
        assert client.get(path).status_code == 200
        User.objects.update(is_active=False)
        assert client.get(path).status_code == 403
    with override_settings(**{setting: "token"}, ROUTER_MACHINE_TOKEN=TOKEN):
        for given in (None, "", TOKEN, f"Basic {TOKEN}", "Bearer ", f"Bearer {TOKEN}x", "Bearer tökén"):
            refused = client.get(path, headers={} if given is None else {"Authorization": given})
            assert (refused.status_code, refused.content) == (401, b"A bearer token is needed.\n"), given
            assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert client.get(path, headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200
    with override_settings(**{setting: "token"}, ROUTER_MACHINE_TOKEN=""):
        assert client.get(path, headers={"Authorization": "Bearer "}).status_code == 401


@pytest.mark.django_db(transaction=True)
def test_staff_cannot_be_told_while_the_database_is_away(client: Client) -> None:
    """503, and nothing is shown."""
    client.cookies["sessionid"] = "any"
    with (
        override_settings(ROUTER_METRICS_ACCESS="staff"),
        mock.patch("replicas.access.get_user", side_effect=OperationalError("10.0.0.1 refused")),
    ):
        answer = client.get("/metrics")
    assert answer.status_code == 503
    assert b"10.0.0.1" not in answer.content


async def test_totals_never_fall() -> None:
    """Not when a session's replica is lost before it has begun, nor when one is missing for a moment as it ends."""
    carried = instruments._Carried()

    def shown() -> Samples:
        return samples(carried.collect())

    carried.live = lambda: [Moved(1, 10, 5, 500), Moved(2, 20, 0, 0)]
    assert (shown()["bytes_total", "up"], shown()["bytes_total", "down"], shown()["current_sessions",]) == (30, 500, 2)
    carried.live = lambda: [Moved(1, 10, 0, 0), Moved(2, 20, 0, 0)]
    assert (shown()["bytes_total", "down"], shown()["frames_total", "down"]) == (500, 5)
    carried.ended(Moved(1, 10, 6, 600))
    carried.live = lambda: [Moved(2, 25, 0, 0)]
    assert (shown()["bytes_total", "up"], shown()["bytes_total", "down"], shown()["frames_total", "up"]) == (35, 600, 3)


async def test_a_process_asks_for_the_token_at_its_own_port_too() -> None:
    """Where ROUTER_METRICS_ACCESS says so."""
    port = free_port()

    def ask(given: str) -> tuple[int, str, bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Authorization": given})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
                return answer.status, "", answer.read()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.headers["WWW-Authenticate"], refused.read()

    with override_settings(
        ROUTER_METRICS_LISTEN=("127.0.0.1", port), ROUTER_METRICS_ACCESS="token", ROUTER_MACHINE_TOKEN=TOKEN
    ):
        watching = asyncio.create_task(vitals.watch(instruments.EXPOSED))
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(urllib.error.URLError):
                    status, _, shown = await asyncio.to_thread(ask, f"Bearer {TOKEN}")
                    break
                await asyncio.sleep(0.02)
        assert status == 200
        assert ("current_sessions",) in parse(shown.decode())
        for given in ("", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x"):
            refusal = (401, "Bearer", b"A bearer token is needed.\n")
            assert await asyncio.to_thread(ask, given) == refusal, given
        watching.cancel()
        await asyncio.wait({watching})


async def test_a_port_that_is_taken_costs_only_the_metrics(caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, and tried again until it is free; then it is served, and at the end given back."""
    port = free_port()
    blocker = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", port)
    with (
        override_settings(ROUTER_METRICS_LISTEN=("127.0.0.1", port)),
        mock.patch.object(vitals, "RETRY_SECONDS", 0.05),
        caplog.at_level("INFO", "replicas.metrics"),
    ):
        watching = asyncio.create_task(vitals.watch(instruments.EXPOSED))
        async with asyncio.timeout(20):
            while "cannot be served" not in caplog.text:
                await asyncio.sleep(0.02)
            blocker.close()
            await blocker.wait_closed()
            while "are served" not in caplog.text:
                await asyncio.sleep(0.02)
        answer = await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{port}/metrics")
        with answer:
            assert ("current_sessions",) in parse(answer.read().decode())
        watching.cancel()
        await asyncio.wait({watching})
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    (await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", port)).close()
                    break
                await asyncio.sleep(0.02)
    assert caplog.text.count("cannot be served") == 1
