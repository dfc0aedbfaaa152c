"""Replicas that add themselves: lapse, renewal, removal (replicas/registration.py), and what people do to them."""

from __future__ import annotations

import dataclasses

import pytest
from django.core.exceptions import ValidationError

from proxy import census, steering
from replicas import acts, loading
from replicas.config import parse
from replicas.models import Replica, ReplicaState
from replicas.registration import Conflict, Renewals, Wanted, expire, register
from tests.integration.placing import Process, add_replica

pytestmark = pytest.mark.usefixtures("database")

BY, OTHER = 1, 2  # ids of API tokens
GPU = Wanted("gpu-1", "http://gpu-1:8000", ttl_seconds=10.0)


def pass_time(renewals: Renewals, begin: float, seconds: float) -> None:
    """As the prober looks: each half second."""
    for half in range(int(seconds * 2) + 1):
        expire(*renewals.see(Replica.objects.all(), begin + half / 2))


def state() -> tuple[str, bool]:
    found = Replica.objects.get()
    return str(found.state), found.lapsed


def test_what_is_not_renewed_is_drained_and_then_removed() -> None:
    register(GPU, BY)
    renewals = Renewals()
    pass_time(renewals, 0, 9.5)
    assert state() == ("active", False)
    pass_time(renewals, 10, 0)
    assert state() == ("draining", True)
    pass_time(renewals, 10.5, 9)
    assert Replica.objects.exists()
    pass_time(renewals, 20, 0)
    assert not Replica.objects.exists()


def test_a_renewal_in_time_keeps_it() -> None:
    register(GPU, BY)
    renewals = Renewals()
    for begin in (0, 9, 18):
        pass_time(renewals, begin, 8.5)
        register(GPU, BY)
    assert state() == ("active", False)


def test_a_late_renewal_takes_the_drain_back() -> None:
    register(GPU, BY)
    renewals = Renewals()
    pass_time(renewals, 0, 12)
    assert state() == ("draining", True)
    now, was = register(GPU, BY)
    assert was is not None
    assert (was.state, now.state) == ("draining", "active")
    assert state() == ("active", False)
    pass_time(renewals, 12.5, 9)
    assert state() == ("active", False)


def test_a_drain_of_an_operators_is_not_taken_back() -> None:
    register(GPU, BY)
    Replica.objects.update(state=ReplicaState.DRAINING)
    renewals = Renewals()
    pass_time(renewals, 0, 12)
    register(GPU, BY)
    assert state() == ("draining", False)


def test_with_a_live_session_it_stays_to_the_sessions_end() -> None:
    """Removed as an operator removes one: nothing is cut."""
    made, _ = register(GPU, BY)
    made.delete()
    row = add_replica("gpu-1", registered_ttl_seconds=10.0)
    process = Process()
    claim = process.place_one()
    pass_time(Renewals(), 0, 21)
    assert not Replica.objects.exists()
    assert Replica.everything.get(pk=row.pk).deleted_at is not None
    process.settle(endings=[claim])
    census.purge_replicas()
    assert not Replica.everything.exists()


def test_a_renewal_that_comes_as_it_lapses_wins() -> None:
    """Compare and set: what the prober has read may be old."""
    register(GPU, BY)
    stale = list(Replica.objects.all())
    register(GPU, BY)
    assert expire(stale, []) == []
    assert expire([], stale) == []
    assert state() == ("active", False)


def test_a_file_that_takes_it_over_as_it_lapses_wins() -> None:
    """What the prober has read is a registration's still; the row is the file's by now."""
    register(GPU, BY)
    stale = list(Replica.objects.all())
    loading.load(parse("router: {replicas: [{url: http://gpu-1:8000}]}"))
    assert expire(stale, stale) == []
    assert state() == ("active", False)


def test_time_in_which_nobody_could_read_counts_for_nothing() -> None:
    """The database was away for an hour: nobody could renew either."""
    register(GPU, BY)
    renewals = Renewals()
    pass_time(renewals, 0, 5)
    renewals.forget_last_read()
    pass_time(renewals, 3605, 4)
    assert state() == ("active", False)


def test_a_new_prober_begins_to_watch_anew() -> None:
    register(GPU, BY)
    pass_time(Renewals(), 0, 9)
    pass_time(Renewals(), 9, 9)
    assert state() == ("active", False)


def test_what_it_says_of_itself_is_taken_over() -> None:
    register(GPU, BY)
    register(dataclasses.replace(GPU, url="http://gpu-1:9000", weight=3.0, max_sessions=5, ttl_seconds=20.0), BY)
    found = Replica.objects.get()
    assert (found.url, found.weight, found.max_sessions, found.registered_ttl_seconds) == (
        "http://gpu-1:9000",
        3,
        5,
        20,
    )
    with pytest.raises(ValidationError):
        register(dataclasses.replace(GPU, weight=0.0), BY)


def test_what_people_made_is_never_watched_or_touched() -> None:
    add_replica("a")
    pass_time(Renewals(), 0, 100)
    assert state() == ("active", False)
    with pytest.raises(Conflict):
        register(dataclasses.replace(GPU, name="a"), BY)


def test_a_file_that_names_it_takes_it_over() -> None:
    """From then on it is the file's: it neither lapses nor is overwritten. A dump leaves out what comes by itself."""
    register(GPU, BY)
    assert "gpu-1" not in loading.dump()
    loading.load(parse("router: {replicas: [{url: http://gpu-1:8000}]}"))
    assert "gpu-1" in loading.dump()
    pass_time(Renewals(), 0, 100)
    assert state() == ("active", False)
    with pytest.raises(Conflict):
        register(GPU, BY)


@pytest.mark.parametrize(("named", "then"), [("", "active"), (", state: draining", "draining")])
def test_a_file_that_takes_over_a_lapsed_one_puts_it_back_to_work(named: str, then: str) -> None:
    """Nobody renews it any more, who would take that drain back. Unless the file names its state."""
    register(GPU, BY)
    pass_time(Renewals(), 0, 12)
    file = parse(f"router: {{replicas: [{{url: http://gpu-1:8000{named}}}]}}")
    told = loading.load(file, dry_run=True)
    assert state() == ("draining", True)
    assert loading.load(file) == told
    assert state() == (then, False)
    assert "origin itself → file" in told.changed[0]
    assert ("state draining → active" in told.changed[0]) == (not named)


def test_what_one_token_has_registered_another_does_not_take() -> None:
    """A stolen token of one server moves no sessions of another's; who may edit may."""
    register(GPU, BY)
    moved = dataclasses.replace(GPU, url="http://elsewhere:8000")
    with pytest.raises(Conflict, match="another token"):
        register(moved, OTHER)
    assert Replica.objects.get().url == GPU.url
    register(moved, OTHER, anybodys=True)
    found = Replica.objects.get()
    assert (found.url, found.registered_by) == (moved.url, BY)  # whose it stays, so that its own server renews it
    assert register(GPU, BY)[1] is not None


def test_a_new_name_that_people_gave_it_stays() -> None:
    """And it stays in service: who registers it goes on with the name that it knows."""
    register(GPU, BY)
    Replica.objects.update(name="the big one")
    renewed, was = register(dataclasses.replace(GPU, weight=2.0), BY)
    assert was is not None
    assert (renewed.name, renewed.weight, renewed.renewals) == ("the big one", 2.0, 1)
    with pytest.raises(Conflict):
        register(GPU, OTHER)


@pytest.mark.parametrize("namesake", ["people", "itself"])
def test_its_name_given_to_another_one_takes_nothing_from_it(namesake: str) -> None:
    """Whether it is called otherwise now, or both have that name: a server is known by its address first."""
    mine, _ = register(GPU, BY)
    if namesake == "people":
        other = add_replica("gpu-2")
    else:
        other, _ = register(Wanted("gpu-2", "http://gpu-2:8000", ttl_seconds=10.0), BY)
    for name in ("gpu-1", "the big one"):
        Replica.objects.filter(pk=mine.pk).update(name=name)
        Replica.objects.filter(pk=other.pk).update(name="gpu-1")
        renewed, was = register(GPU, BY)
        assert was is not None
        assert (renewed.pk, renewed.name, renewed.url) == (mine.pk, name, GPU.url)
    other.refresh_from_db()
    assert (other.renewals, other.url) == (0, "http://gpu-2:8000")


@pytest.mark.parametrize("how", ["steering", "acts", "a queryset", "a save"])
def test_a_drain_that_an_operator_wants_of_a_lapsed_one_stays(how: str) -> None:
    """Whoever says what it is to be has taken it over from its lapse: a renewal does not take that back."""
    register(GPU, BY)
    pass_time(Renewals(), 0, 12)
    assert state() == ("draining", True)
    replica = Replica.objects.get()
    if how == "steering":
        assert steering.drain(replica)
    elif how == "acts":
        acts.set_state(replica, ReplicaState.DRAINING)
    elif how == "a queryset":
        Replica.objects.update(state=ReplicaState.DRAINING)
    else:
        replica.save(update_fields=["state"])
    register(GPU, BY)
    assert state() == ("draining", False)
