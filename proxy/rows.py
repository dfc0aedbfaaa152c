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
from proxy.turn import Asked

# A statement's parameters are bounded (SQLite: 32,766).
ROWS_AT_ONCE = 500

# A key last. The types are for PostgreSQL: values that come as rows have none of their own.
_ENDING = {
    "ended_at": "timestamptz", "ended_by": "text", "why": "text", "close_code": "int", "first_media_at": "timestamptz",
    "frames_up": "bigint", "bytes_up": "bigint", "frames_down": "bigint", "bytes_down": "bigint", "uid": "text",
}  # fmt: skip
_SEAT = {"replica_id": "bigint", "replica_name": "text", "url": "text", "placed_at": "timestamptz", "id": "bigint"}


def write_endings(endings: Iterable[Ended]) -> None:
    rows = [
        (
            _moment(e.at), e.by, _text(e.why, 100), e.code, _moment(e.first_media_at), e.frames_up, e.bytes_up,
            e.frames_down, e.bytes_down, e.claim.uid,
        )
        for e in endings
    ]  # fmt: skip
    _update(_ENDING, rows, where="(proxy_session.ended_at IS NULL OR proxy_session.close_code IS NULL)")


_INSERT = (
    "INSERT INTO proxy_session (uid, process_id, client, address, token, token_name, affinity_key, opened_at,"
    " replica_id, replica_name, url, placed_at, attempts, ended_at, ended_by, why)"
)


def write_unseen(process: int, endings: Sequence[Ended]) -> None:
    """Rows for those that were over before a turn saw them: for the log."""
    uids = [ended.claim.uid for ended in endings if ended.claim.id is None]
    if uids:
        found = set(Session.objects.filter(uid__in=uids).values_list("uid", flat=True))
        unseen = set(uids) - found
        write_arrivals(process, [(ended.claim, None, ended.why) for ended in endings if ended.claim.uid in unseen])


def write_arrivals(process: int, arrivals: Sequence[tuple[Claim, Seat | None, str | None]]) -> dict[str, int]:
    """New rows; gives their ids by uid. One that is refused was never in the line: its row is for the log.

    Such a row counts for no limit (limits.py): whoever tries again while every replica is down has had no session.
    """
    now = _moment(timezone.now())
    rows = [
        (
            claim.uid, process, _text(claim.client, 64),
            *((claim.access.address, claim.access.token) if refusal is None else (None, None)),
            claim.access.token_name, claim.affinity_key, _moment(claim.opened_at),
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
        ids |= Asked(statement, [value for row in some for value in row]).rows()
    return ids


def write_seats(seats: Iterable[tuple[Seat, int]]) -> None:
    now = _moment(timezone.now())
    rows = [(seat.replica, seat.name, seat.url, now, id) for seat, id in seats]
    _update(_SEAT, rows, also="attempts = attempts + 1")


def write_unseated(id: int, claim: Claim) -> None:
    """Back to the line, with what is to be avoided."""
    Session.objects.filter(pk=id).update(url=None, replica=None, replica_name="", placed_at=None, avoid=claim.avoid)


def _update(columns: dict[str, str], rows: Sequence[Sequence[Any]], *, also: str = "", where: str = "") -> None:
    """Set `columns` of each of `rows`, by the last of them. PostgreSQL plans each statement: it gets all in one."""
    *names, key = columns
    where = f" AND {where}" if where else ""
    if connection.vendor != "postgresql":
        sets = ", ".join([*(f"{name} = %s" for name in names), *filter(None, [also])])
        if rows:
            with connection.cursor() as cursor:
                cursor.executemany(f"UPDATE proxy_session SET {sets} WHERE {key} = %s{where}", rows)  # noqa: S608
        return
    sets = ", ".join([*(f"{name} = new.{name}" for name in names), *filter(None, [also])])
    typed = ", ".join(f"%s::{kind}" for kind in columns.values())
    plain = ", ".join(["%s"] * len(columns))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        values = f"(VALUES ({typed}){f', ({plain})' * (len(some) - 1)}) AS new ({', '.join(columns)})"
        statement = f"UPDATE proxy_session SET {sets} FROM {values} WHERE proxy_session.{key} = new.{key}{where}"  # noqa: S608
        with connection.cursor() as cursor:
            cursor.execute(statement, [value for row in some for value in row])


def _text(text: str, length: int) -> str:
    """As any database takes it: what one session's peer says must not fail a turn that is about all."""
    return text.encode(errors="replace").decode().replace("\0", "?")[:length]


def _moment(moment: datetime | None) -> Any:
    return connection.ops.adapt_datetimefield_value(moment) if moment is not None else None
