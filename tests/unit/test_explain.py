"""One sentence for each way a session can end (proxy/explain.py)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proxy import errors
from proxy.errors import Close, Ending
from proxy.explain import explain, spell

OPENED = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    """As the table has it: waited 2 s, was 12 s with replica b."""

    opened_at: datetime = OPENED
    placed_at: datetime | None = OPENED + timedelta(seconds=2)
    ended_at: datetime | None = OPENED + timedelta(seconds=14)
    replica_name: str = "b"
    attempts: int = 1
    close_code: int | None = None
    ended_by: str = "router"
    why: str = ""
    disconnect_reason: str | None = None


def row(ending: Ending, **more: Any) -> Row:
    """What is written of `ending`."""
    return replace(Row(close_code=ending.code, ended_by=ending.by, why=ending.why[:100]), **more)


# Never on a replica: it stood in the line for 14 s.
LINE: dict[str, Any] = {"placed_at": None, "replica_name": "", "attempts": 0}

GIVEN: dict[str, list[tuple[Ending, str]]] = {
    "client_closed": [
        (errors.client_closed(Close(1000)), "client closed it after 12 s (1000)"),
        (errors.client_closed(Close(None)), "client closed it after 12 s (without a code)"),
    ],
    "client_vanished": [
        (errors.client_vanished(), "client vanished 12 s in; replica told 1001"),
        (errors.client_vanished("no answer to a ping"), "client did not answer a ping 12 s in; replica told 1001"),
    ],
    "client_refused": [
        (
            errors.client_refused(Close(1009), "message over the limit of 1024 bytes"),
            "client sent a message over the limit of 1024 bytes 12 s in; told 1009",
        ),
        (
            errors.client_refused(Close(1002), "reserved bits are set"),
            "client broke the protocol (reserved bits are set) 12 s in; told 1002",
        ),
        (
            errors.client_refused(Close(1008), "takes too little of what it is sent"),
            "client took too little of what it was sent 12 s in; told 1008",
        ),
    ],
    "replica_closed": [(errors.replica_closed(Close(1000, "done")), "replica b closed it after 12 s (1000)")],
    "replica_message_too_big": [
        (
            errors.replica_message_too_big(Close(1009, "message over the limit of 1024 bytes")),
            "replica b sent a message over the limit 12 s in; both told 1009",
        )
    ],
    "replica_lost": [
        (errors.replica_lost("uid", "vanished"), "replica b vanished 12 s in; client told worker_failed"),
        (
            errors.replica_lost("uid", "no answer to a ping"),
            "replica b did not answer a ping 12 s in; client told worker_failed",
        ),
        (
            errors.replica_lost("uid", "reserved opcode"),
            "replica b broke the protocol (reserved opcode) 12 s in; client told worker_failed",
        ),
        (
            errors.replica_lost("uid", "closed with 1012"),
            "replica b closed with 1012 before the session had begun, 12 s in; client told worker_failed",
        ),
    ],
    "every_attempt_failed": [
        (
            errors.every_attempt_failed("uid", "every attempt failed"),
            "no replica could be reached in 1 attempt; client told worker_failed",
        )
    ],
    "router_failed": [
        (errors.router_failed("uid"), "the router failed 12 s in, its log says how; client told worker_failed"),
        (
            replace(errors.router_failed("uid"), why="no space left on device"),
            "the router could not go on 12 s in: no space left on device; client told worker_failed",
        ),
    ],
    "no_healthy_replica": [
        (errors.no_healthy_replica(), "no replica was healthy; client told gpu_unavailable"),
    ],
    "router_unavailable": [
        (errors.router_unavailable(), "the database did not answer; client told gpu_unavailable"),
    ],
    "queue_full": [
        (errors.queue_full(), "all replicas were busy and the line was full; client told gpu_unavailable"),
    ],
    "queue_timeout": [(errors.queue_timeout(), "no replica came free after 12 s; client told gpu_unavailable")],
    "router_draining": [
        (
            errors.router_draining(),
            "its router process was draining and took no new sessions; client told gpu_unavailable",
        )
    ],
    "dismissed": [
        (
            errors.dismissed("replica_drained"),
            "replica b was draining, and the deadline came 12 s in; client told 1012",
        ),
        (
            errors.dismissed("router_shutdown"),
            "its router process was draining, and the deadline came 12 s in; client told 1012",
        ),
        (
            errors.dismissed("slot_lost"),
            "its router process stood still, and its slot was given away 12 s in; client told 1012",
        ),
        (errors.dismissed("maintenance"), "ended 12 s in: “maintenance”; client told 1012"),
    ],
    "not_admitted": [
        (errors.not_admitted("unauthorized"), "it had shown no valid stream token or ticket; client told 1008"),
        (errors.not_admitted("origin_not_allowed"), "its page's origin is not allowed; client told 1008"),
        (errors.not_admitted("token_rate"), "a limit was reached (token_rate); client told 1008"),
    ],
    "router_stops": [(errors.router_stops(), "its router process was stopped 12 s in; client told 1012")],
}
CASES = [case for cases in GIVEN.values() for case in cases]


def test_every_ending_of_the_contract_is_known() -> None:
    """A new one in errors.py needs its sentence here."""
    endings = {
        name
        for name, made in inspect.getmembers(errors, inspect.isfunction)
        if not name.startswith("_") and inspect.signature(made).return_annotation == "Ending"
    }
    assert endings == GIVEN.keys()


@pytest.mark.parametrize(("ending", "sentence"), CASES, ids=[sentence for _, sentence in CASES])
def test_an_ending_in_one_sentence(ending: Ending, sentence: str) -> None:
    """Who did what, when, and what the client was told."""
    assert explain(row(ending)) == sentence


@pytest.mark.parametrize(
    ("ending", "sentence"),
    [
        (errors.client_closed(Close(1001)), "client left after 14 s in the line (1001)"),
        (errors.client_vanished(), "client vanished after 14 s in the line"),
        (errors.queue_timeout(), "no replica came free after 14 s in the line; client told gpu_unavailable"),
        (errors.router_stops(), "its router process was stopped after 14 s in the line; client told 1012"),
    ],
)
def test_one_that_only_waited(ending: Ending, sentence: str) -> None:
    """It had no replica."""
    assert explain(row(ending, **LINE)) == sentence


@pytest.mark.parametrize(
    ("why", "sentence"),
    [
        ("router process vanished", "its router process vanished 12 s in; client cut off"),
        ("stopped", "its router process was stopped 12 s in; client cut off"),
        ("given up", "its router process had given it up: the database answered too late; client cut off"),
        ("", "the router ended it 12 s in: nobody has written why"),
    ],
)
def test_one_that_others_have_ended(why: str, sentence: str) -> None:
    """Its own process could not say anything any more (census.py): there is no close code."""
    assert explain(Row(why=why)) == sentence


def test_an_operators_words_are_told_as_theirs() -> None:
    """And only where they are what ended it: a wish may come too late."""
    reason = "maintenance " + "x" * 111
    asked = row(errors.dismissed(reason), disconnect_reason=reason)
    assert explain(asked) == f"an operator ended it 12 s in: “{reason}”; client told 1012"
    assert explain(row(errors.client_closed(Close(1000)), disconnect_reason=reason)).startswith("client closed it")


def test_a_rejection_that_no_other_replica_made_good() -> None:
    """The client heard the replica's own words."""
    rejected = replace(errors.replica_closed(Close(1013, "session_rejected")), why="rejected")
    assert explain(row(rejected)) == "replica b rejected it, and no other had room; client told session_rejected"


def test_a_live_session_has_no_end_to_explain() -> None:
    """Nothing is said."""
    assert explain(Row(ended_at=None)) == ""


@pytest.mark.parametrize("make", [lambda: Row(why="x\ny", ended_by=""), lambda: Row(close_code=4000, why="odd")])
def test_what_nobody_knows_has_a_sentence_all_the_same(make: Callable[[], Row]) -> None:
    """Of another version, say."""
    assert explain(make())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0.0 s"), (0.26, "0.3 s"), (9.97, "10 s"), (59.4, "59 s"), (60, "1 min"), (185, "3 min 5 s"),
     (3600, "1 h"), (7500, "2 h 5 min")],
)  # fmt: skip
def test_time_in_words(seconds: float, words: str) -> None:
    """As people say it."""
    assert spell(seconds) == words
