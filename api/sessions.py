"""/sessions, /queue and /events: who is where, who waits, and how replicas have fared."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from ninja import Query
from pydantic import AfterValidator, AwareDatetime, Field

from api.auth import may
from api.database import in_time
from api.models import Scope
from api.paging import Ordered, page
from api.problems import Problem
from api.replicas import caller, find
from api.routing import Router
from api.schemas import Disconnect, Done, Event, Page, Queue, SessionShown
from dashboard import actions
from proxy.explain import explain
from proxy.models import LIVE, PLACED, WAITING, Session
from replicas.models import HealthTransition

router = Router()

STATES = {"live": PLACED, "waiting": WAITING, "ended": ~LIVE, "all": Q()}
MOST_WAITING = 1000
NO_SESSION = "There is no such session (any more)."
ID = re.compile("[0-9a-f]{32}")


def _in_utc(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError as error:  # a first or last day that another time zone has, and UTC has not
        raise ValueError("must be a time from the years 1 to 9999 in UTC") from error


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain the character 0")  # PostgreSQL's text holds none
    return text


Since = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Text = Annotated[str, AfterValidator(_storable)]


class SessionsWanted(Ordered):
    state: Literal["live", "waiting", "ended", "all"] = "all"
    replica: Text = Field("", max_length=63, description="a replica's id or name")
    client: Text = Field("", max_length=64, description="the beginning of the client's address")
    since: Since | None = Field(None, description="opened at this time or later")


class EventsWanted(Ordered):
    replica: Text = Field("", max_length=63, description="a replica's id or name")
    since: Since | None = None


def show(session: Session) -> dict[str, Any]:
    over = session.ended_at is not None
    return {
        "id": session.uid, "state": "ended" if over else "waiting" if session.url is None else "live",
        "replica": session.replica_name or None, "replica_id": session.replica_id,
        "process": session.process.name if session.process else None, "client": session.client,
        "stream_token": session.token_name or None, "opened_at": session.opened_at, "placed_at": session.placed_at,
        "first_media_at": session.first_media_at, "ended_at": session.ended_at, "attempts": session.attempts,
        "frames_up": session.frames_up, "bytes_up": session.bytes_up, "frames_down": session.frames_down,
        "bytes_down": session.bytes_down, "close_code": session.close_code, "ended_by": session.ended_by or None,
        "why": session.why or None, "story": explain(session) if over else None,
    }  # fmt: skip


@router.get("/sessions", response=Page[SessionShown], auth=may(Scope.READ), tags=["sessions"], summary="List sessions")
async def listed(request: HttpRequest, wanted: Query[SessionsWanted]) -> Any:
    caller(request).require("proxy.view_session", "proxy.change_session")

    def work() -> dict[str, Any]:
        rows = Session.objects.select_related("process").filter(STATES[wanted.state])
        if wanted.replica:
            rows = rows.filter(replica=find(wanted.replica).pk)
        if wanted.client:
            rows = rows.filter(client__startswith=wanted.client)
        if wanted.since is not None:
            rows = rows.filter(opened_at__gte=wanted.since)
        return page(rows, wanted, show, newest=wanted.order == "newest")

    return await in_time(work)


@router.get("/sessions/{id}", response=SessionShown, auth=may(Scope.READ), tags=["sessions"], summary="One session")
async def one(request: HttpRequest, id: str) -> Any:
    caller(request).require("proxy.view_session", "proxy.change_session")
    return await in_time(lambda: show(_find(id)))


@router.post(
    "/sessions/{id}/disconnect", response=Done, auth=may(Scope.OPERATE), tags=["sessions"], summary="End one with 1012"
)
async def disconnect(request: HttpRequest, id: str, body: Disconnect, dry_run: bool = False) -> Any:
    by = caller(request)
    wanted = {"what": "disconnect", "sessions": [_usable(id)], "reason": body.reason, "ask": dry_run}
    return {"said": await in_time(lambda: actions.act(by.user, wanted, by=by.token)), "dry_run": dry_run}


@router.get("/queue", response=Queue, auth=may(Scope.READ), tags=["sessions"], summary="The line")
async def queue(request: HttpRequest) -> Any:
    caller(request).require("proxy.view_session", "proxy.change_session")

    def work() -> dict[str, Any]:
        now, line = timezone.now(), Session.objects.filter(WAITING).order_by("id")
        first = list(line.values_list("uid", "client", "opened_at")[:MOST_WAITING])
        waits = [_seconds(now, opened_at) for _, _, opened_at in first]
        return {
            "length": len(first) if len(first) < MOST_WAITING else line.count(),
            "longest_wait_seconds": max(waits, default=0.0),
            "waiting": [
                {"position": place, "id": uid, "client": client, "waits_seconds": waits[place - 1]}
                for place, (uid, client, _) in enumerate(first, 1)
            ],
        }

    return await in_time(work)


@router.get("/events", response=Page[Event], auth=may(Scope.READ), tags=["events"], summary="Changes of health")
async def events(request: HttpRequest, wanted: Query[EventsWanted]) -> Any:
    caller(request).require("replicas.view_healthtransition", "replicas.change_replica")

    def work() -> dict[str, Any]:
        rows = HealthTransition.objects.select_related("replica")
        if wanted.replica:
            rows = rows.filter(replica=find(wanted.replica).pk)
        if wanted.since is not None:
            rows = rows.filter(at__gte=wanted.since)
        return page(rows, wanted, _event, newest=wanted.order == "newest")

    return await in_time(work)


@router.get("/events/{id}", response=Event, auth=may(Scope.READ), tags=["events"], summary="One change of health")
async def event(request: HttpRequest, id: int) -> Any:
    caller(request).require("replicas.view_healthtransition", "replicas.change_replica")

    def work() -> dict[str, Any]:
        found = HealthTransition.objects.select_related("replica").filter(pk=id).first()
        if found is None:
            raise Problem(404, "There is no such event (any more).")
        return _event(found)

    return await in_time(work)


def _event(row: HealthTransition) -> dict[str, Any]:
    return {
        "id": row.pk, "at": row.at, "replica": row.replica.name, "replica_id": row.replica_id,
        "old_status": row.old_status, "new_status": row.new_status, "reason": row.reason,
    }  # fmt: skip


def _find(id: str) -> Session:
    found = Session.objects.select_related("process").filter(uid=_usable(id)).first()
    if found is None:
        raise Problem(404, NO_SESSION)
    return found


def _usable(id: str) -> str:
    if not ID.fullmatch(id):
        raise Problem(404, NO_SESSION)
    return id


def _seconds(now: datetime, since: datetime) -> float:
    return round(max(0.0, (now - since).total_seconds()), 3)
