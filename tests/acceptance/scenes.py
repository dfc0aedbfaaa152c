"""States of a fleet, as the dashboard's snapshot tells them (for stage.py): whole ones, and pieces to change.

All numbers are made up, and the same each time. `NOW` is the server's clock.
"""

from __future__ import annotations

import math
import random
from typing import Any

NOW = 1_764_000_000.0
MAY_ALL = {"drain": True, "edit": True, "disconnect": True}
ERRORS = ("connection refused", "no answer within 2 s", "the server answered 503", "it says that it is warming up")


def replica(number: int, name: str = "", **fields: Any) -> dict[str, Any]:
    """A healthy replica with 8 slots, 3 of them in use."""
    draw = random.Random(number)
    base = 4 + draw.random() * 6
    latencies = [
        [NOW - 30 * (60 - step), round(base * (1 + 0.25 * math.sin(step / 7 + number) + 0.5 * draw.random() ** 4), 2)]
        for step in range(60)
    ]
    return {
        "id": number, "name": name or f"gpu-{number:03d}",
        "url": f"http://10.0.{number // 250}.{number % 250 + 1}:8000",
        "primary": False, "state": "active", "status": "healthy", "status_since": NOW - 86_400 * draw.uniform(0.2, 9),
        "checked_at": NOW - 2, "stale": False, "available": True, "sessions": 3, "slots": 8, "weight": 1,
        "last_error": "", "latency_ms": latencies[-1][1], "latencies": latencies, "ejected_until": None,
        "full_until": None, "slow_start": None, "drain_deadline_seconds": None, "deleted": False, "registered": False,
        "lapsed": False,
    } | fields  # fmt: skip


def unhealthy(number: int, name: str = "", since: float = 190, error: str = ERRORS[0], **fields: Any) -> dict[str, Any]:
    row = replica(number, name, status="unhealthy", status_since=NOW - since, available=False, sessions=0)
    row["latencies"] = [[at, None if at > NOW - since - 40 else ms] for at, ms in row["latencies"]]
    return row | {"latency_ms": None, "last_error": error} | fields


def process(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": number, "name": f"router-{number}:41{number}7", "version": "0.1.0", "started_at": NOW - 93_000,
        "beat_age": 0.4, "state": "live", "sessions": 6, "waiting": 0,
    } | fields  # fmt: skip


def plots(level: float = 12, waiting: bool = False) -> dict[str, Any]:
    """An hour of it: a slow swell, a few openings, now and then a failure; a line of clients near its end."""
    draw = random.Random(7)
    sessions = [max(0, round(level * (0.72 + 0.28 * math.sin(i / 55)) + draw.uniform(-0.8, 0.8))) for i in range(360)]
    line = [max(0, round(5 * math.exp(-(((i - 335) / 14) ** 2)))) if waiting else 0 for i in range(360)]
    return {
        "step": 10, "at": NOW - 3, "sessions": sessions, "waiting": line,
        "opened": [draw.choice((0, 0, 0, 1, 1, 2)) for _ in sessions],
        "failed": [1 if draw.random() < 0.012 else 0 for _ in sessions],
        "bytes_up": [count * 3_100 + draw.randrange(9_000) for count in sessions],
        "bytes_down": [count * 6_300_000 + draw.randrange(12_000_000) for count in sessions],
    }  # fmt: skip


def snapshot(replicas: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """A state that goes with these replicas; `fields` replace what would be in it."""
    slots = [row["slots"] for row in replicas if row["available"]]
    sessions = sum(row["sessions"] for row in replicas)
    return {
        "type": "snapshot", "at": NOW, "version": "0.1.0", "may": dict(MAY_ALL),
        "prober": {"state": "ok", "holder": "router-1:4120", "epoch": 3, "beat_age": 1.2},
        "processes": [process(1, sessions=sessions - sessions // 2), process(2, sessions=sessions // 2)],
        "totals": {
            "sessions": sessions, "waiting": 0, "slots": None if None in slots else sum(slots),
            "bytes_up_per_second": 4_200.0, "bytes_down_per_second": sessions * 640_000.0,
            "opened_per_minute": 5.0, "failed_per_minute": 0.0,
        },
        "line": {"length": 0, "longest_wait": None, "max_length": 100, "timeout_seconds": 120},
        "replicas": replicas, "plots": plots(sessions or 1),
    } | fields  # fmt: skip


def small() -> dict[str, Any]:
    """Three replicas, all well."""
    return snapshot([replica(1, "a", primary=True, sessions=5), replica(2, "b"), replica(3, "c", sessions=1)])


def eventful() -> dict[str, Any]:
    """One of everything that can be seen."""
    rows = [
        replica(1, "ada", primary=True, sessions=8),
        unhealthy(2, "bell"),
        replica(3, "curie", state="draining", available=False, sessions=4, drain_deadline_seconds=600),
        replica(4, "darwin", sessions=2, slow_start=0.4, status_since=NOW - 12),
        replica(5, "euler", sessions=5),
        replica(6, "faraday", ejected_until=NOW + 17, available=False, sessions=1),
        replica(7, "gauss", state="disabled", status="unknown", available=False, sessions=0, latency_ms=None,
                latencies=[]),
    ]  # fmt: skip
    return snapshot(rows)


def large(count: int = 500) -> dict[str, Any]:
    draw = random.Random(3)
    rows = [
        unhealthy(n, error=draw.choice(ERRORS)) if draw.random() < 0.02 else replica(n, sessions=draw.randrange(9))
        for n in range(1, count + 1)
    ]
    return snapshot(rows, processes=[process(n, sessions=500) for n in range(1, 11)])


def session(number: int, **fields: Any) -> dict[str, Any]:
    draw = random.Random(number)
    age = round(draw.expovariate(1 / 400) + 2, 1)
    name = draw.choice(("ada", "curie", "darwin", "euler"))
    return {
        "uid": f"{draw.getrandbits(48):012x}", "replica": name, "replica_id": 1,
        "process": process(number % 2 + 1)["name"],
        "client": f"203.0.113.{number % 250 + 1}", "state": "live", "opened_at": NOW - age, "placed_at": NOW - age,
        "ended_at": None, "age": age, "waited": round(draw.random() ** 6 * 40, 1), "bytes_up": draw.randrange(90_000),
        "bytes_down": int(age * 640_000), "up_per_second": 300.0, "down_per_second": draw.uniform(4e5, 9e5),
        "close_code": None, "sentence": "", "disconnecting": False, "admin": f"/admin/proxy/session/{number}/change/",
    } | fields  # fmt: skip


def sessions(count: int) -> list[dict[str, Any]]:
    ended = [
        session(90_000 + n, state="ended", ended_at=NOW - n, close_code=1011, down_per_second=0.0,
                sentence=f"replica bell vanished {12 + n} s in; client told worker_failed")
        for n in range(3)
    ]  # fmt: skip
    return [session(n) for n in range(count)] + ended


def history() -> dict[str, Any]:
    """A day of replica a: two outages, a drain, and who was there."""
    draw = random.Random(11)
    stays = []
    for n in range(160):
        began = NOW - 86_000 + n * 530 + draw.uniform(0, 300)
        lasted = draw.expovariate(1 / 700) + 20
        live = began + lasted > NOW - 10
        stays.append(
            {"uid": f"{draw.getrandbits(48):012x}", "placed_at": began, "ended_at": None if live else began + lasted,
             "sentence": "" if live else "client closed", "close_code": None if live else 1000,
             "bytes_down": int(lasted * 640_000)}
        )  # fmt: skip
    return {
        "replica": replica(1, "a", primary=True), "from": NOW - 86_400, "to": NOW, "sessions": stays[::-1],
        "transitions": [
            {"at": NOW - 80_000, "old": "unknown", "new": "healthy", "reason": "2 successes in a row"},
            {"at": NOW - 52_000, "old": "healthy", "new": "unhealthy", "reason": f"3 failures in a row: {ERRORS[0]}"},
            {"at": NOW - 51_200, "old": "unhealthy", "new": "healthy", "reason": "2 successes in a row"},
            {"at": NOW - 9_000, "old": "healthy", "new": "unhealthy", "reason": f"3 failures in a row: {ERRORS[1]}"},
            {"at": NOW - 8_700, "old": "unhealthy", "new": "healthy", "reason": "2 successes in a row"},
        ],
        "acts": [
            {"at": NOW - 30_000, "who": "ops", "text": "State: active → draining"},
            {"at": NOW - 28_000, "who": "ops", "text": "State: draining → active"},
        ],
    }  # fmt: skip
