"""What a watcher is told of two states of the dashboard (dashboard/changes.py)."""

from __future__ import annotations

import json
from typing import Any

from dashboard.changes import Raw, as_json, changes, snapshot


def state(at: float = 100.0, **more: Any) -> dict[str, Any]:
    plots = {"step": 10, "at": 90.0, "sessions": [1, 2], "failed": [0, 0]}
    return {"at": at, "version": "1", "totals": {"sessions": 2}, "replicas": [], "plots": plots, **more}


def test_a_snapshot_has_everything() -> None:
    """And its type."""
    assert snapshot(state()) == {"type": "snapshot", **state()}


def test_nothing_new_is_only_a_sign_of_life() -> None:
    """With the time that ages are counted from."""
    assert changes(state(), state(101.0)) == {"type": "changes", "at": 101.0}


def test_keys_that_differ_are_told_whole() -> None:
    """Others are not."""
    assert changes(state(), state(101.0, totals={"sessions": 3})) == {
        "type": "changes",
        "at": 101.0,
        "totals": {"sessions": 3},
    }


def test_of_replicas_the_changed_rows_are_told() -> None:
    """New ones too; and which are gone."""
    rows = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "c"}]
    new = [{"id": 1, "name": "a"}, {"id": 2, "name": "renamed"}, {"id": 4, "name": "d"}]
    found = changes(state(replicas=rows), state(replicas=new))
    assert (found["replicas"], found["gone"]) == (new[1:], [3])


def test_a_sample_more_is_appended() -> None:
    """However many have become too old."""
    plots = {"step": 10, "at": 100.0, "sessions": [2, 3], "failed": [0, None]}
    assert changes(state(), state(plots=plots))["plots"] == {"append": {"at": 100.0, "sessions": 3, "failed": None}}


def test_after_a_gap_all_samples_are_told() -> None:
    """A slow watcher has missed some; or there were none at all, before or now."""
    later = {"step": 10, "at": 120.0, "sessions": [2, 3], "failed": [0, None]}
    none: dict[str, Any] = {"step": 10, "at": None, "sessions": [], "failed": []}
    assert changes(state(), state(plots=later))["plots"] == later
    assert changes(state(plots=none), state(plots=later))["plots"] == later
    assert changes(state(plots=later), state(plots=none))["plots"] == none
    assert "plots" not in changes(state(plots=none), state(plots=none))


def test_latencies_pass_as_the_text_that_they_are() -> None:
    """From the database to the page: to read and write them again would cost more than all the rest."""
    rows = [{"id": 1, "name": 'a "b" }', "latencies": Raw("[[30, null]]")}, {"id": 2, "latencies": Raw("[]")}]
    told = json.loads(as_json(snapshot(state(replicas=rows))))
    assert told == {
        **snapshot(state()),
        "replicas": [{"id": 1, "name": 'a "b" }', "latencies": [[30, None]]}, {"id": 2, "latencies": []}],
    }
    assert json.loads(as_json({"type": "changes", "at": 1.0, "gone": [3]})) == {"type": "changes", "at": 1, "gone": [3]}
