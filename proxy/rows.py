"""What a turn of placement writes about sessions, in SQL.

Called by settling.py inside its transaction. An update by the ORM for each row would cost ten times as much, and all
other processes wait for this turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from django.db import connection
from django.utils import timezone

from proxy.claims import Claim, Ended, Seat
from proxy.models import Session
from proxy.turn import read

# A statement's parameters are bounded (SQLite: 32,766).
ROWS_AT_ONCE = 500


def write_endings(endings: Iterable[Ended]) -> None:
    _execute(
        "UPDATE proxy_session SET ended_at = %s, ended_by = %s, why = %s, close_code = %s, first_media_at = %s,"
        " frames_up = %s, bytes_up = %s, frames_down = %s, bytes_down = %s WHERE uid = %s"
        " AND (ended_at IS NULL OR close_code IS NULL)",
        [
            (
                _moment(e.at), e.by, _text(e.why, 100), e.code, _moment(e.first_media_at), e.frames_up, e.bytes_up,
                e.frames_down, e.bytes_down, e.claim.uid,
            )
            for e in endings
        ],
    )  # fmt: skip


_INSERT = (
    "INSERT INTO proxy_session (uid, process_id, client, affinity_key, opened_at, replica_id, replica_name, url,"
    " placed_at, attempts, ended_at, ended_by, why)"
)


def write_unseen(process: int, endings: Sequence[Ended]) -> None:
    """Rows for those that were over before a turn saw them: for the log."""
    uids = [ended.claim.uid for ended in endings if ended.claim.id is None]
    if uids:
        found = set(Session.objects.filter(uid__in=uids).values_list("uid", flat=True))
        unseen = set(uids) - found
        write_arrivals(process, [(ended.claim, None, ended.why) for ended in endings if ended.claim.uid in unseen])


def write_arrivals(process: int, arrivals: Sequence[tuple[Claim, Seat | None, str | None]]) -> dict[str, int]:
    """New rows; gives their ids by uid. One that is refused was never in the line: its row is for the log."""
    now = _moment(timezone.now())
    rows = [
        (
            claim.uid, process, _text(claim.client, 64), claim.affinity_key, _moment(claim.opened_at),
            *((seat.replica, seat.name, seat.url, now, 1) if seat is not None else (None, "", None, None, 0)),
            *((now, "router", _text(refusal, 100)) if refusal is not None else (None, "", "")),
        )
        for claim, seat, refusal in arrivals
    ]  # fmt: skip
    ids: dict[str, int] = {}
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        places = ", ".join([f"({', '.join(['%s'] * len(some[0]))})"] * len(some))
        statement = f"{_INSERT} VALUES {places} RETURNING uid, id"
        ids |= read(statement, [value for row in some for value in row])
    return ids


def write_seats(seats: Iterable[tuple[Seat, int]]) -> None:
    now = _moment(timezone.now())
    _execute(
        "UPDATE proxy_session SET replica_id = %s, replica_name = %s, url = %s, placed_at = %s, attempts = attempts + 1"
        " WHERE id = %s",
        [(seat.replica, seat.name, seat.url, now, id) for seat, id in seats],
    )


def write_unseated(id: int, claim: Claim) -> None:
    """Back to the line, with what is to be avoided."""
    Session.objects.filter(pk=id).update(url=None, replica=None, replica_name="", placed_at=None, avoid=claim.avoid)


def _execute(statement: str, rows: Sequence[Sequence[Any]]) -> None:
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(statement, rows)


def _text(text: str, length: int) -> str:
    """As any database takes it: what one session's peer says must not fail a turn that is about all."""
    return text.encode(errors="replace").decode().replace("\0", "?")[:length]


def _moment(moment: datetime | None) -> Any:
    return connection.ops.adapt_datetimefield_value(moment) if moment is not None else None
