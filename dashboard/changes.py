"""PURE. What has changed between two states of the dashboard, as its page is told.

A state is what snapshot.py reads. Called by consumers.py with the last state that a watcher was sent: so nothing waits
for one that is slow, it is only told more at once. Called on the loop that carries the frames: a fleet's latencies are
text from the database to the page, or they alone would stall it for 50 ms.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

State = Mapping[str, Any]


class Raw(str):
    """JSON already."""

    __slots__ = ()


def snapshot(state: State) -> dict[str, Any]:
    return {"type": "snapshot", **state}


def changes(old: State, new: State) -> dict[str, Any]:
    """Top-level keys that differ; of replicas the rows, of plots what came on top."""
    found: dict[str, Any] = {"type": "changes", "at": new["at"]}
    for key in new.keys() - {"at", "replicas", "plots"}:
        if old.get(key) != new[key]:
            found[key] = new[key]
    return found | _replicas(old["replicas"], new["replicas"]) | _plots(old["plots"], new["plots"])


def as_json(message: State) -> str:
    """A snapshot or changes; the `latencies` of replicas are Raw."""
    rest = json.dumps({key: value for key, value in message.items() if key != "replicas"})
    if "replicas" not in message:
        return rest
    return f'{rest[:-1]}, "replicas": [{", ".join(map(_row, message["replicas"]))}]}}'


def _row(replica: dict[str, Any]) -> str:
    rest = json.dumps({key: value for key, value in replica.items() if key != "latencies"})
    return f'{rest[:-1]}, "latencies": {replica["latencies"]}}}'


def _replicas(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> dict[str, Any]:
    before = {row["id"]: row for row in old}
    changed = [row for row in new if before.get(row["id"]) != row]
    gone = [*(before.keys() - {row["id"] for row in new})]
    return ({"replicas": changed} if changed else {}) | ({"gone": gone} if gone else {})


def _plots(old: State, new: State) -> dict[str, Any]:
    """One sample more is appended; after a gap all are told again. What has become too old says nothing new."""
    if new["at"] == old["at"]:
        return {}
    if old["at"] is None or new["at"] is None or new["at"] != old["at"] + new["step"]:
        return {"plots": new}
    last = {key: values[-1] for key, values in new.items() if key not in ("step", "at")}
    return {"plots": {"append": {"at": new["at"], **last}}}
