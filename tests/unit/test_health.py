"""The state machine of contract A3, held against a naive model over random histories."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from replicas.health import HEALTHY, UNHEALTHY, UNKNOWN, Health, ProbeResult, Thresholds, observe

START = datetime(2026, 1, 1, tzinfo=UTC)


def results(history: list[bool]) -> list[ProbeResult]:
    return [
        ProbeResult(START + timedelta(seconds=i), ok, 1.5 * i if ok else None, "" if ok else f"error {i}")
        for i, ok in enumerate(history)
    ]


def after(history: list[bool], thresholds: Thresholds = Thresholds()) -> Health:  # noqa: B008
    health = Health()
    for result in results(history):
        health = observe(health, result, thresholds)
    return health


def model(history: list[bool], thresholds: Thresholds) -> str:
    """Contract A3, read off the history as a whole at each step instead of by counters."""
    status = UNKNOWN
    for end in range(1, len(history) + 1):
        past = history[:end]
        if status in (UNKNOWN, HEALTHY) and len(past) >= thresholds.failure and not any(past[-thresholds.failure :]):
            status = UNHEALTHY
        elif (status == UNKNOWN and past[-1]) or (
            status == UNHEALTHY and len(past) >= thresholds.recovery and all(past[-thresholds.recovery :])
        ):
            status = HEALTHY
    return status


histories = st.lists(st.booleans(), max_size=60)
thresholds_ = st.builds(Thresholds, failure=st.integers(1, 6), recovery=st.integers(1, 6))


@given(histories, thresholds_)
def test_the_machine_agrees_with_the_model(history: list[bool], thresholds: Thresholds) -> None:
    """Whatever comes in whatever order, the status is what the contract says."""
    assert after(history, thresholds).status == model(history, thresholds)


@given(histories)
def test_the_counters_are_the_run_at_the_end(history: list[bool]) -> None:
    """Each result sets the other counter to 0."""
    health = after(history)
    run = 0
    for ok in reversed(history):
        if ok != history[-1]:
            break
        run += 1
    successes, failures = (run, 0) if history and history[-1] else (0, run)
    assert (health.consecutive_successes, health.consecutive_failures) == (successes, failures)


@given(histories)
def test_times_and_latency_are_those_of_the_last_of_their_kind(history: list[bool]) -> None:
    """A success records last_ok_at and the latency, a failure last_failure_at and the error."""
    health = after(history)
    found = results(history)
    good, bad = [r for r in found if r.ok], [r for r in found if not r.ok]
    assert health.checked_at == (found[-1].at if found else None)
    assert health.last_ok_at == (good[-1].at if good else None)
    assert health.last_latency_ms == (good[-1].latency_ms if good else None)
    assert health.last_failure_at == (bad[-1].at if bad else None)
    assert health.last_error == (found[-1].error if found else "")


def test_one_success_makes_an_unknown_replica_healthy() -> None:
    """Whatever recovery_threshold is: a fresh router must not wait."""
    assert after([True], Thresholds(failure=3, recovery=5)).status == HEALTHY


def test_a_failure_short_of_the_threshold_changes_nothing() -> None:
    """One lost probe is no reason to send sessions away."""
    assert after([True, False, False]).status == HEALTHY
    assert after([True, False, False, False]).status == UNHEALTHY
    assert after([False, False]).status == UNKNOWN


def test_a_success_in_between_starts_the_count_anew() -> None:
    """The thresholds are for probes in a row."""
    assert after([True, False, False, True, False, False]).status == HEALTHY


def test_recovery_takes_successes_in_a_row() -> None:
    """recovery_threshold successes, not one (A3)."""
    down = [False, False, False]
    assert after([*down, True]).status == UNHEALTHY
    assert after([*down, True, False, True]).status == UNHEALTHY
    assert after([*down, True, True]).status == HEALTHY
