"""PURE. How a session ends: the error frames and close codes of the contract (A1, and the table in README.md).

Called by relay.py, search.py and consumers.py; the consumer sends what an `Ending` says. Every text here may reach a
client: no address, URL or exception text may come in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from proxy.claims import (
    ADDRESS_RATE,
    ADDRESS_SESSIONS,
    LIMITS,
    ORIGIN_NOT_ALLOWED,
    TOKEN_RATE,
    TOKEN_SESSIONS,
    UNAUTHORIZED,
)
from proxy.frames import TOO_BIG

# Those that say what is wrong with what a peer sent are in frames.py.
GOING_AWAY = 1001
POLICY_VIOLATION = 1008
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013

MAX_REASON_BYTES = 123  # RFC 6455 §5.5: a control frame holds 125 bytes, the code takes 2


@dataclass(frozen=True)
class Close:
    """A close frame: `code` None is one without a code (RFC 6455 §7.1.5), as a browser's bare close() sends it."""

    code: int | None
    reason: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", cut_reason(self.reason) if self.code is not None else "")


@dataclass(frozen=True)
class Ending:
    """Who ended a session and why, and what each side is told. None: that side is gone, or has been told."""

    by: str  # "client", "replica" or "router"
    why: str  # a few words for the log
    code: int | None  # the close code that the client sent or was sent; None: none was
    to_client: Close | None = None
    to_replica: Close | None = None
    error_frame: str | None = None  # goes to the client before its close


def client_closed(close: Close) -> Ending:
    return Ending("client", "closed", close.code, to_replica=close)


def client_vanished(why: str = "vanished") -> Ending:
    return Ending("client", why, None, to_replica=Close(GOING_AWAY))


def client_refused(close: Close, why: str) -> Ending:
    """A message over the limit (1009), octets that are no WebSocket (1002, 1007), too little for too long (1008)."""
    return Ending("router", why, close.code, to_client=close, to_replica=Close(GOING_AWAY))


def replica_closed(close: Close) -> Ending:
    return Ending("replica", "closed", close.code, to_client=close)


def replica_message_too_big(close: Close) -> Ending:
    """`close` names the limit; both sides are told."""
    why = "replica's message over the limit"
    return Ending("router", why, TOO_BIG, to_client=close, to_replica=Close(GOING_AWAY))


def replica_lost(session: str, why: str) -> Ending:
    return Ending(
        "replica",
        why,
        INTERNAL_ERROR,
        to_client=Close(INTERNAL_ERROR, "replica_lost"),
        error_frame=_bridge_failed("replica lost", session),
    )


def every_attempt_failed(session: str, why: str) -> Ending:
    return Ending(
        "router",
        why,
        INTERNAL_ERROR,
        to_client=Close(INTERNAL_ERROR, "replica_unreachable"),
        error_frame=_bridge_failed("no replica could be reached", session),
    )


def router_failed(session: str) -> Ending:
    """A fault of the router itself; the traceback is in its log."""
    return Ending(
        "router",
        "internal error",
        INTERNAL_ERROR,
        to_client=Close(INTERNAL_ERROR, "internal_error"),
        to_replica=Close(GOING_AWAY),
        error_frame=_bridge_failed("internal error", session),
    )


def no_healthy_replica() -> Ending:
    return _unavailable("no_healthy_replica", "router: no healthy replica available")


def router_unavailable() -> Ending:
    """The database, which knows the replicas, does not answer."""
    return _unavailable("router_unavailable", "router: temporarily unavailable")


def queue_full() -> Ending:
    return _unavailable("queue_full", "router: all replicas are busy and the line is full")


def queue_timeout() -> Ending:
    return _unavailable("queue_timeout", "router: no replica came free in time")


# What a client may not know: which tokens there are. What it should: which limit it is.
_NOT_ADMITTED = {
    UNAUTHORIZED: "router: a valid stream token or ticket is needed",
    ORIGIN_NOT_ALLOWED: "router: not from this origin",
    ADDRESS_SESSIONS: "router: too many sessions at once from this address",
    ADDRESS_RATE: "router: too many new sessions a minute from this address",
    TOKEN_SESSIONS: "router: too many sessions at once with this stream token",
    TOKEN_RATE: "router: too many new sessions a minute with this stream token",
}


def not_admitted(reason: str) -> Ending:
    """It may not stream, or has more than a limit allows: `reason` is one of claims.py. A limit's may try again."""
    frame = error_frame("session_rejected", _NOT_ADMITTED[reason], retryable=reason in LIMITS)
    return Ending("router", reason, POLICY_VIOLATION, to_client=Close(POLICY_VIOLATION, reason), error_frame=frame)


def router_draining() -> Ending:
    """This process takes no new session; another one, or its successor, does."""
    return replace(
        _unavailable("router_draining", "router: restarting"), code=SERVICE_RESTART,
        to_client=Close(SERVICE_RESTART, "router_draining"),
    )  # fmt: skip


def dismissed(reason: str) -> Ending:
    """By an operator, at a drain's deadline, or because its slot was lost."""
    return Ending("router", reason, SERVICE_RESTART, Close(SERVICE_RESTART, reason), Close(GOING_AWAY))


def router_stops() -> Ending:
    return Ending(
        "router",
        "router stops",
        SERVICE_RESTART,
        to_client=Close(SERVICE_RESTART, "router_shutdown"),
        to_replica=Close(GOING_AWAY),
    )


def error_frame(code: str, message: str, *, retryable: bool) -> str:
    """The text frame of contract A1. `code` is one of the error codes that clients know."""
    return json.dumps({"type": "error", "code": code, "message": message, "retryable": retryable})


def cut_reason(reason: str) -> str:
    """`reason` cut to 123 bytes of UTF-8, on a character's boundary."""
    return reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")


def _bridge_failed(what: str, session: str) -> str:
    return error_frame("worker_failed", f"router bridge failed: {what} (session {session})", retryable=True)


def _unavailable(reason: str, message: str) -> Ending:
    return Ending(
        "router",
        reason,
        TRY_AGAIN_LATER,
        to_client=Close(TRY_AGAIN_LATER, reason),
        error_frame=error_frame("gpu_unavailable", message, retryable=True),
    )
