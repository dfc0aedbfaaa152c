"""The error frames and close codes of the contract (A1; design: close codes)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import errors
from proxy.errors import Close

KNOWN_CODES = {
    "session_rejected",
    "invalid_message",
    "preset_mismatch",
    "gpu_unavailable",
    "worker_failed",
    "upstream_timeout",
    "internal_error",
}


@given(st.text(max_size=200))
def test_a_reason_is_cut_to_123_bytes_on_a_characters_boundary(reason: str) -> None:
    """RFC 6455 §5.5 leaves 123 bytes for it, and half a character would be invalid UTF-8."""
    cut = Close(1000, reason).reason
    assert len(cut.encode()) <= 123
    assert reason.startswith(cut)
    assert cut == reason or len(cut.encode()) > 119


def test_a_close_without_a_code_has_no_reason() -> None:
    """RFC 6455 §5.5.1: a reason comes only after a code."""
    assert Close(None, "why") == Close(None)


@pytest.mark.parametrize(
    ("ending", "code", "reason", "frame_code"),
    [
        (errors.no_healthy_replica(), 1013, "no_healthy_replica", "gpu_unavailable"),
        (errors.router_unavailable(), 1013, "router_unavailable", "gpu_unavailable"),
        (errors.replica_lost("s1", "connection lost"), 1011, "replica_lost", "worker_failed"),
        (errors.every_attempt_failed("s1", "every attempt failed"), 1011, "replica_unreachable", "worker_failed"),
        (errors.router_failed("s1"), 1011, "internal_error", "worker_failed"),
        (errors.router_stops(), 1012, "router_shutdown", None),
        (errors.replica_closed(Close(4001, "why")), 4001, "why", None),
    ],
)
def test_the_client_is_told(ending: errors.Ending, code: int, reason: str, frame_code: str | None) -> None:
    """Each ending has its close for the client, and its error frame where the contract has one."""
    assert ending.to_client == Close(code, reason)
    if frame_code is None:
        assert ending.error_frame is None
    else:
        frame = json.loads(ending.error_frame or "")
        assert (frame["type"], frame["code"], frame["retryable"]) == ("error", frame_code, True)
        assert frame["code"] in KNOWN_CODES


@pytest.mark.parametrize(
    ("ending", "to_replica"),
    [
        (errors.client_closed(Close(4001, "why")), Close(4001, "why")),
        (errors.client_closed(Close(None)), Close(None)),
        (errors.client_vanished(), Close(1001)),
        (errors.client_refused(Close(1009), "message over the limit"), Close(1001)),
        (errors.router_stops(), Close(1001)),
    ],
)
def test_the_replica_is_told(ending: errors.Ending, to_replica: Close) -> None:
    """A client's own close goes on to the replica; any other end of it is 1001."""
    assert ending.to_replica == to_replica


def test_worker_failed_names_the_session_and_nothing_else() -> None:
    """Why the replica was lost is for the log: it may hold addresses (contract A1)."""
    frame = json.loads(errors.replica_lost("abc", "connection to 10.0.0.1:8000 lost").error_frame or "")
    assert frame["message"] == "router bridge failed: replica lost (session abc)"
