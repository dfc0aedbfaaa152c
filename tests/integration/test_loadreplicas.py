"""loadreplicas and dumpreplicas: a file into the database and back (contract A6)."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, ProgrammingError, connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicas import rules
from replicas.admin import ReplicaAdmin
from replicas.config import parse
from replicas.loading import dump, load
from replicas.models import Policy, Replica, RouterSettings
from tests.integration.test_intent import sessions_on
from tests.unit.test_config import REFUSED, replicas

pytestmark = pytest.mark.django_db

A_AND_B = replicas("{url: 'http://a:1', name: a, primary: true}", "{url: 'http://b:2', weight: 2}")


def run(text: str, tmp_path: Path, *options: str) -> str:
    file, out = tmp_path / "replicas.yaml", io.StringIO()
    file.write_text(text)
    call_command("loadreplicas", str(file), *options, stdout=out, stderr=out)
    return out.getvalue()


def primary() -> list[str]:
    return list(Replica.objects.filter(primary=True).values_list("url", flat=True))


def test_a_load_adds_and_a_second_one_changes_nothing(tmp_path: Path) -> None:
    """Idempotent, and the diff says so."""
    first, second = run(A_AND_B, tmp_path), run(A_AND_B, tmp_path)
    assert "+ added: a (http://a:1), primary" in first
    assert "+ added: b:2 (http://b:2)" in first
    assert "= unchanged: a" in second
    assert "added" not in second
    assert list(Replica.objects.values_list("url", "weight")) == [("http://a:1", 1.0), ("http://b:2", 2.0)]


def test_host_and_port_are_told_as_daphnes_options(tmp_path: Path) -> None:
    """They are not the database's: the server that listens is started with them."""
    assert "daphne -b 10.0.0.1 -p 9123 routerproject" in run(A_AND_B + "  host: 10.0.0.1\n  port: 9123\n", tmp_path)


def test_what_a_file_leaves_out_keeps_its_value(tmp_path: Path) -> None:
    """Weight, state and thresholds that someone set in the admin stay."""
    run(A_AND_B, tmp_path)
    Replica.objects.filter(url="http://b:2").update(state="draining", max_sessions=4, weight=7)
    RouterSettings.objects.create(interval_seconds=9)
    out = run(replicas("{url: 'http://b:2/'}", rest="  health_check: {timeout_seconds: 1.5}"), tmp_path)
    b = Replica.objects.get(url="http://b:2")
    assert (b.state, b.max_sessions, b.weight) == ("draining", 4, 7)
    assert (RouterSettings.current().interval_seconds, RouterSettings.current().timeout_seconds) == (9, 1.5)
    assert "~ changed: health_check: timeout_seconds 2.0 → 1.5" in out


def test_a_file_sets_how_sessions_are_placed(tmp_path: Path) -> None:
    """Key by key; one line of the diff for each block that changes, and one that says which does not."""
    RouterSettings.objects.create(queue_max_length=7, affinity="query:user")
    rest = (
        "  health_check: {path: /health}\n  balancing: {policy: random}\n"
        "  queue: {timeout_seconds: 9, when_down: true}\n"
    )
    out = run(replicas("{url: 'http://a:1', drain_deadline_seconds: 60}", rest=rest), tmp_path)
    now = RouterSettings.current()
    assert (now.policy, now.affinity, now.queue_max_length) == ("random", "query:user", 7)
    assert (now.queue_timeout_seconds, now.queue_when_down) == (9, True)
    assert "~ changed: balancing: policy least_sessions → random\n" in out
    assert "~ changed: queue: timeout_seconds 120.0 → 9.0, when_down false → true\n" in out
    assert "= unchanged: health_check\n" in out
    assert Replica.objects.get().drain_deadline_seconds == 60


def test_a_file_that_drains_says_what_it_leaves(tmp_path: Path) -> None:
    """How many sessions the replica keeps; and the drain is counted."""
    run(A_AND_B, tmp_path)
    sessions_on(Replica.objects.get(name="a"), 7)
    text = replicas("{url: 'http://a:1', state: draining}", "{url: 'http://b:2', state: draining}")
    out = run(text, tmp_path)
    assert "~ changed: a (http://a:1): state active → draining, keeps 7 sessions\n" in out
    assert "~ changed: b:2 (http://b:2): state active → draining, keeps no sessions\n" in out
    run(text, tmp_path)
    assert list(Replica.objects.values_list("drains", flat=True)) == [1, 1]


def test_prune_leaves_live_sessions_their_replica(tmp_path: Path) -> None:
    """A file that names it again brings in a new one."""
    run(A_AND_B, tmp_path)
    old = Replica.objects.get(url="http://b:2")
    sessions_on(old, 3)
    out = run(replicas("{url: 'http://a:1'}"), tmp_path, "--prune")
    assert "- removed: b:2 (http://b:2), keeps 3 sessions to their end\n" in out
    assert (Replica.objects.count(), Replica.everything.count()) == (1, 2)
    assert "http://b:2" not in dump()
    assert "+ added: b:2 (http://b:2)" in run(A_AND_B, tmp_path)
    assert Replica.objects.get(url="http://b:2").pk != old.pk


def test_primary_true_moves_the_mark(tmp_path: Path) -> None:
    """Also from a replica that the file does not name, or names without the key; and the diff shows both."""
    run(A_AND_B, tmp_path)
    out = run(replicas("{url: 'http://a:1'}", "{url: 'http://b:2', primary: true}"), tmp_path)
    assert primary() == ["http://b:2"]
    assert "a (http://a:1): primary true → false" in out
    assert "unchanged" not in out  # told once
    assert "b:2 (http://b:2): primary false → true" in out
    run(replicas("{url: 'http://c:3', primary: true}"), tmp_path)
    assert primary() == ["http://c:3"]


def test_a_file_without_a_primary_leaves_the_mark(tmp_path: Path) -> None:
    """And `primary: false` takes it off."""
    run(A_AND_B, tmp_path)
    run(replicas("{url: 'http://a:1'}"), tmp_path)
    assert primary() == ["http://a:1"]
    run(replicas("{url: 'http://a:1', primary: false}"), tmp_path)
    assert primary() == []


def test_a_default_port_names_the_same_replica(tmp_path: Path) -> None:
    """Its URL stays as it was first written, and with it what the prober has seen there."""
    run(replicas("{url: 'http://a'}"), tmp_path)
    assert "= unchanged: a (http://a)" in run(replicas("{url: 'http://A:80/'}"), tmp_path)
    assert Replica.objects.get().url == "http://a"


def test_a_thousand_replicas_load_in_one_short_transaction(tmp_path: Path) -> None:
    """It holds SQLite's lock, so it must not grow with the square of the fleet: a query or two a replica."""
    text = replicas(*(f"{{url: 'http://streamer-{number}:8000'}}" for number in range(1000)))
    with CaptureQueriesContext(connection) as queries:
        run(text, tmp_path)
    assert Replica.objects.count() == 1000
    assert len(queries) < 1100


def test_prune_removes_only_what_a_file_brought_in(tmp_path: Path) -> None:
    """A replica made in the admin stays, named in a file or not."""
    run(A_AND_B, tmp_path)
    Replica.objects.create(url="http://by-hand:1", name="by hand")
    out = run(replicas("{url: 'http://a:1'}"), tmp_path, "--prune")
    assert "- removed: b:2 (http://b:2)" in out
    assert set(Replica.objects.values_list("url", flat=True)) == {"http://a:1", "http://by-hand:1"}


def test_a_dry_run_shows_and_changes_nothing(tmp_path: Path) -> None:
    """The same diff, rolled back."""
    run(A_AND_B, tmp_path)
    before = dump()
    out = run(replicas("{url: 'http://c:3', primary: true}"), tmp_path, "--dry-run", "--prune")
    assert "nothing was changed" in out
    assert "+ added: c:3" in out
    assert "- removed" in out
    assert dump() == before


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_file_changes_nothing(case: str, tmp_path: Path) -> None:
    """Exit code 1, the key and the value named, the database as it was."""
    run(A_AND_B, tmp_path)
    before = dump()
    text, expected = REFUSED[case]
    with pytest.raises(CommandError) as refused:
        run(text, tmp_path)
    assert expected in str(refused.value)
    assert refused.value.returncode == 1
    assert dump() == before


def test_a_refused_file_still_gets_its_warnings(tmp_path: Path) -> None:
    """A mistyped key is often why a file is refused."""
    file, err = tmp_path / "replicas.yaml", io.StringIO()
    file.write_text(replicas("{ulr: 'http://a'}"))
    with pytest.raises(CommandError, match="lacks `url`"):
        call_command("loadreplicas", str(file), stderr=err)
    assert "router.replicas[0].ulr: unknown key" in err.getvalue()


@pytest.mark.parametrize("arguments", [["loadreplicas", "-"], ["dumpreplicas"]])
@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        (OperationalError("no such table: replicas_replica"), "run `manage.py migrate` first"),
        (ProgrammingError('relation "r" does not exist\nLINE 1: SELECT'), "run `manage.py migrate` first"),
        (OperationalError("database is locked"), "is it running, and DATABASE_URL right?"),
        (OperationalError('database "r" does not exist'), "is it running, and DATABASE_URL right?"),
    ],
)
def test_a_database_that_cannot_be_used_is_an_error(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], fault: Exception, remedy: str
) -> None:
    """In one sentence with the way out, not in a traceback."""

    def away(*_: object) -> None:
        raise fault

    monkeypatch.setattr("sys.stdin", io.StringIO(A_AND_B))
    with connection.execute_wrapper(away), pytest.raises(CommandError) as told:
        call_command(*arguments)
    assert str(told.value) == f"The database does not answer: {str(fault).splitlines()[0]}; {remedy}"


def test_of_the_health_check_only_what_changes_is_written(tmp_path: Path) -> None:
    """What an operator saves at the same moment stays: the row is locked, and written by the column."""
    RouterSettings.objects.create()
    with CaptureQueriesContext(connection) as queries:
        run(A_AND_B + "  health_check: {timeout_seconds: 1.5, failure_threshold: 3}\n", tmp_path)
    (update,) = [query["sql"] for query in queries if query["sql"].startswith('UPDATE "replicas_routersettings"')]
    assert update == 'UPDATE "replicas_routersettings" SET "timeout_seconds" = 1.5'


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Named, with the reason."""
    with pytest.raises(CommandError, match="No such file"):
        call_command("loadreplicas", str(tmp_path / "none.yaml"))


def test_standard_input_is_read_for_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that dumpreplicas on one host feeds loadreplicas on another."""
    monkeypatch.setattr("sys.stdin", io.StringIO(A_AND_B))
    call_command("loadreplicas", "-", stdout=io.StringIO())
    assert Replica.objects.count() == 2


def test_if_empty_leaves_existing_replicas_alone(tmp_path: Path) -> None:
    """`make run` a second time must not undo what was edited."""
    run(A_AND_B, tmp_path)
    assert "nothing was loaded" in run(replicas("{url: 'http://c:3'}"), tmp_path, "--if-empty")
    assert Replica.objects.count() == 2


replica_fields = st.fixed_dictionaries(
    {
        "name": st.text("abc é-1", min_size=1, max_size=10).filter(lambda text: bool(text.strip())),
        "weight": st.floats(0.01, 100),
        "max_sessions": st.none() | st.integers(1, 50),
        "state": st.sampled_from(["active", "draining", "disabled"]),
        "drain_deadline_seconds": st.none() | st.floats(0, 86_400),
    }
)
router_fields = st.fixed_dictionaries(
    {},
    optional={
        "interval_seconds": st.floats(0.1, 60),
        "failure_threshold": st.integers(1, 9),
        "policy": st.sampled_from(Policy.values),
        "slow_start_seconds": st.floats(0, 3600),
        "affinity": st.sampled_from(["none", "query:null", "header:X-User", "cookie:a.b-c_d"]),
        "affinity_ttl_seconds": st.floats(0.1, 3600),
        "queue_max_length": st.integers(0, 1000),
        "queue_timeout_seconds": st.floats(0.1, 3600),
        "queue_when_down": st.booleans(),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.lists(replica_fields, min_size=1, max_size=4), st.none() | router_fields)
def test_loading_a_dump_changes_nothing(fields: list[dict], router: dict | None) -> None:
    """load(dump()) is the identity, whatever is in the database; also where nobody has saved any settings."""
    Replica.objects.all().delete()
    RouterSettings.objects.all().delete()
    for index, values in enumerate(fields):
        Replica(url=f"http://r{index}:80", primary=index == 1, **values | {"name": values["name"].strip()}).save()
    if router is not None:
        RouterSettings.objects.create(**router)
    text = dump()
    diff = load(parse(text))
    assert (diff.added, diff.changed, diff.removed) == ([], [], [])
    assert dump() == text


BAD_VALUES = [("url", "http://a/x"), ("url", "ftp://a"), ("url", "http://u@a"), ("weight", 0), ("weight", -1.5),
              ("max_sessions", 0), ("max_sessions", 1.5), ("weight", "heavy"), ("url", "http://a,b"),
              ("state", "off"), ("name", "x" * 64), ("drain_deadline_seconds", -1)]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), BAD_VALUES)
def test_file_form_and_full_clean_refuse_the_same(field: str, value: object, admin_client: object) -> None:
    """The rules of A6 are in one place and hold everywhere, with the message at the field."""
    values = {"url": "http://a", "name": "a", "weight": 1.0, "state": "active"} | {field: value}
    with pytest.raises(ValidationError) as refused:
        Replica(**values).full_clean()
    assert set(refused.value.message_dict) == {field}
    form = ReplicaAdmin(Replica, None).get_form(_request(), fields=list(values))(data=values)  # type: ignore[arg-type]
    assert field in form.errors
    entry = ", ".join(f"{name}: {entry!r}" for name, entry in values.items())
    with pytest.raises(ValueError, match=rf"replicas\[0\]\.{field}"):
        parse(replicas("{" + entry + "}"))


def test_full_clean_normalises_and_finds_twins() -> None:
    """The admin stores what a file would; the same server under another spelling is refused."""
    replica = Replica(url="HTTP://A:80/")
    replica.full_clean()
    replica.save()
    assert (replica.url, replica.name) == ("http://a:80", "a:80")
    with pytest.raises(ValidationError, match="same server"):
        Replica(url="http://a").full_clean()
    with pytest.raises(ValidationError, match="exists already"):
        Replica(url="http://a:80").full_clean()
    with pytest.raises(ValidationError, match="is not a URL"):
        Replica(url="http://[").full_clean()


def test_a_second_primary_is_refused_with_the_way_to_move_the_mark() -> None:
    """By full_clean in words, and by the database itself."""
    Replica.objects.create(url="http://a", primary=True)
    with pytest.raises(ValidationError, match="Make primary"):
        Replica(url="http://b", primary=True).full_clean()
    assert rules.default_name("http://a:8000") == "a:8000"


def _request() -> object:
    from django.test import RequestFactory

    return RequestFactory().get("/")
