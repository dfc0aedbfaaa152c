"""By which outcome and code the end of a session is counted (proxy/instruments.py)."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from pathlib import Path

import pytest

from proxy import errors
from proxy.errors import Close, Ending
from proxy.instruments import CODES, OUTCOMES, code_label, outcome

ROOT = Path(__file__).resolve().parents[2]
GIVEN: dict[str, list[tuple[Ending, str]]] = {
    "client_closed": [
        (errors.client_closed(Close(1000)), "client_closed"),
        (errors.client_closed(Close(None)), "client_closed"),
    ],
    "client_vanished": [
        (errors.client_vanished(), "client_vanished"),
        (errors.client_vanished("no answer to a ping"), "client_vanished"),
    ],
    "client_refused": [
        (errors.client_refused(Close(1009), "over the limit"), "message_too_big"),
        (errors.client_refused(Close(1002), "reserved bits are set"), "protocol_error"),
        (errors.client_refused(Close(1007), "not UTF-8"), "protocol_error"),
        (errors.client_refused(Close(1008), "takes too little"), "stalled"),
    ],
    "replica_closed": [
        (errors.replica_closed(Close(1011, "replica_lost")), "replica_closed"),
        (errors.replica_closed(Close(4000)), "replica_closed"),
        (replace(errors.replica_closed(Close(1013)), why="rejected"), "session_rejected"),
    ],
    "replica_message_too_big": [(errors.replica_message_too_big(Close(1009)), "message_too_big")],
    "replica_lost": [(errors.replica_lost("s", "vanished"), "replica_lost")],
    "every_attempt_failed": [(errors.every_attempt_failed("s", "every attempt failed"), "replica_unreachable")],
    "router_failed": [(errors.router_failed("s"), "internal_error")],
    "no_healthy_replica": [(errors.no_healthy_replica(), "no_healthy_replica")],
    "router_unavailable": [(errors.router_unavailable(), "router_unavailable")],
    "queue_full": [(errors.queue_full(), "queue_full")],
    "queue_timeout": [(errors.queue_timeout(), "queue_timeout")],
    "router_draining": [(errors.router_draining(), "router_draining")],
    "dismissed": [
        (errors.dismissed("please move on"), "disconnected"),
        (errors.dismissed("replica_drained"), "replica_drained"),
        (errors.dismissed("slot_lost"), "slot_lost"),
    ],
    "not_admitted": [(errors.not_admitted("address_rate"), "not_admitted")],
    "router_stops": [(errors.router_stops(), "router_shutdown")],
}


@pytest.mark.parametrize(("ending", "expected"), [case for cases in GIVEN.values() for case in cases])
def test_each_ending_has_its_outcome(ending: Ending, expected: str) -> None:
    """One of those that there are."""
    assert outcome(ending) == expected
    assert expected in OUTCOMES


def test_no_ending_is_forgotten() -> None:
    """Whoever adds one to errors.py is asked here how it counts."""
    makers = {
        name
        for name, function in vars(errors).items()
        if inspect.isfunction(function) and name[0] != "_" and function.__annotations__.get("return") == "Ending"
    }
    assert makers == GIVEN.keys()


@pytest.mark.parametrize(("code", "label"), [(None, "none"), (1000, "1000"), (1013, "1013"), (4001, "other")])
def test_codes_are_bounded(code: int | None, label: str) -> None:
    """What a peer may choose makes no new series."""
    assert code_label(code) == label
    assert 1005 not in CODES


def test_lines_about_a_session_carry_its_id() -> None:
    """In JSON as a field of its own, not only in the text."""
    for path in (ROOT / "proxy").glob("*.py"):
        for call in re.findall(r"logger\.\w+\((?:[^()]|\([^()]*\))*\)", path.read_text()):
            if '"session %s' in call:
                assert '"session": ' in call, (path.name, call)
