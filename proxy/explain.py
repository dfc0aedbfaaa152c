"""PURE. Why a session has ended, in a sentence: “replica b vanished 12 s in; client told worker_failed”.

Called by the dashboard and the admin. The words of `why` are those of errors.py, of the links and of census.py; a test
holds that each ending of errors.py is known here. For operators: clients never see it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from proxy.claims import LIMITS, ORIGIN_NOT_ALLOWED, UNAUTHORIZED
from proxy.errors import INTERNAL_ERROR, POLICY_VIOLATION, SERVICE_RESTART, TRY_AGAIN_LATER
from proxy.frames import TOO_BIG

WHY_CHARACTERS = 100  # of `why` that a row keeps


class Row(Protocol):
    """What is read of a row of `Session`."""

    @property
    def opened_at(self) -> datetime: ...
    @property
    def placed_at(self) -> datetime | None: ...
    @property
    def ended_at(self) -> datetime | None: ...
    @property
    def replica_name(self) -> str: ...
    @property
    def attempts(self) -> int: ...
    @property
    def close_code(self) -> int | None: ...
    @property
    def ended_by(self) -> str: ...
    @property
    def why(self) -> str: ...
    @property
    def disconnect_reason(self) -> str | None: ...


def explain(row: Row) -> str:
    """One sentence without a capital and a full stop; "" while the session lives.

    What the client was told is what the contract says of such an end. Only where a replica was lost in the middle of a
    message over 1 MiB it heard the close alone: the row does not know.
    """
    if row.ended_at is None:
        return ""
    asked = row.disconnect_reason
    if asked is not None and row.close_code == SERVICE_RESTART and row.why == asked[:WHY_CHARACTERS]:
        return f"an operator ended it {_in(row)}: “{asked}”; client told {SERVICE_RESTART}"
    return {"client": _by_client, "replica": _by_replica}.get(row.ended_by, _by_router)(row)


def spell(seconds: float) -> str:
    """“0.3 s”, “12 s”, “3 min 5 s”, “2 h 5 min”; a clock that went back is no time at all."""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")


def _by_client(row: Row) -> str:
    if row.why == "closed":
        how = "without a code" if row.close_code is None else str(row.close_code)
        done = "closed it" if row.placed_at is not None else "left"
        return f"client {done} after {_time(row)} ({how})"
    if row.placed_at is None:
        return f"client {_LOST.get(row.why, row.why)} after {_time(row)}"
    return f"client {_LOST.get(row.why, row.why)} {_in(row)}; replica told 1001"


def _by_replica(row: Row) -> str:
    if row.why == "closed":
        how = "without a code" if row.close_code is None else str(row.close_code)
        return f"{_replica(row)} closed it after {_time(row)} ({how})"
    if row.why == "rejected":
        return f"{_replica(row)} rejected it, and no other had room; client told session_rejected"
    if row.why.startswith("closed with "):
        return f"{_replica(row)} {row.why} before the session had begun, {_in(row)}; client told worker_failed"
    what = _LOST.get(row.why) or f"broke the protocol ({row.why})"
    return f"{_replica(row)} {what} {_in(row)}; client told worker_failed"


def _by_router(row: Row) -> str:
    if row.why in _BY_ROUTER:
        return f"{_BY_ROUTER[row.why](row)}{_told(row)}"
    if row.close_code == SERVICE_RESTART:
        return f"ended {_in(row)}: “{row.why}”; client told {SERVICE_RESTART}"
    if row.close_code == POLICY_VIOLATION:
        return f"client {_LOST.get(row.why, row.why)} {_in(row)}; told {POLICY_VIOLATION}"
    if row.close_code == TOO_BIG:
        return f"client sent a {row.why} {_in(row)}; told {TOO_BIG}"
    if row.close_code == INTERNAL_ERROR:
        return f"the router could not go on {_in(row)}: {row.why}; client told worker_failed"
    if row.close_code is not None:
        return f"client broke the protocol ({row.why}) {_in(row)}; told {row.close_code}"
    return f"the router ended it {_in(row)}: {row.why or 'nobody has written why'}"


# What a link says of a peer that is lost or too slow.
_LOST = {
    "vanished": "vanished",
    "no answer to a ping": "did not answer a ping",
    "takes too little of what it is sent": "took too little of what it was sent",
    "sends too little inside a frame": "sent too little inside a frame",
    "fault of the router": "was lost by a fault of the router, its log says how",
}

_BY_ROUTER: dict[str, Callable[[Row], str]] = {
    UNAUTHORIZED: lambda row: "it had shown no valid stream token or ticket",
    ORIGIN_NOT_ALLOWED: lambda row: "its page's origin is not allowed",
    "replica's message over the limit": lambda row: f"{_replica(row)} sent a message over the limit {_in(row)}",
    "every attempt failed": lambda row: (
        f"no replica could be reached in {row.attempts} {'attempt' if row.attempts == 1 else 'attempts'}"
    ),
    "internal error": lambda row: f"the router failed {_in(row)}, its log says how",
    "no_healthy_replica": lambda row: "no replica was healthy",
    "router_unavailable": lambda row: "the database did not answer",
    "queue_full": lambda row: "all replicas were busy and the line was full",
    "queue_timeout": lambda row: f"no replica came free after {_time(row)}",
    "router_draining": lambda row: "its router process was draining and took no new sessions",
    "router stops": lambda row: f"its router process was stopped {_in(row)}",
    "router_shutdown": lambda row: f"its router process was draining, and the deadline came {_in(row)}",
    "replica_drained": lambda row: f"{_replica(row)} was draining, and the deadline came {_in(row)}",
    "slot_lost": lambda row: f"its router process stood still, and its slot was given away {_in(row)}",
    "router process vanished": lambda row: f"its router process vanished {_in(row)}",
    "stopped": lambda row: f"its router process was stopped {_in(row)}",
    "given up": lambda row: "its router process had given it up: the database answered too late",
}


_BY_ROUTER |= dict.fromkeys(LIMITS, lambda row: f"a limit was reached ({row.why})")


def _told(row: Row) -> str:
    if row.close_code is None:
        return "; client cut off"
    if row.why == "replica's message over the limit":
        return f"; both told {TOO_BIG}"
    if row.close_code == INTERNAL_ERROR:
        return "; client told worker_failed"
    if row.close_code == TRY_AGAIN_LATER or row.why == "router_draining":
        return "; client told gpu_unavailable"
    return f"; client told {row.close_code}"


def _replica(row: Row) -> str:
    return f"replica {row.replica_name}" if row.replica_name else "its replica"


def _in(row: Row) -> str:
    """“12 s in”; of one that never had a replica “after 12 s in the line”."""
    return f"{_time(row)} in" if row.placed_at is not None else f"after {_time(row)}"


def _time(row: Row) -> str:
    """With its replica; “12 s in the line” where it had none."""
    assert row.ended_at is not None
    if row.placed_at is not None:
        return spell((row.ended_at - row.placed_at).total_seconds())
    return f"{spell((row.ended_at - row.opened_at).total_seconds())} in the line"
