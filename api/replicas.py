"""/replicas: which there are, and what is done to them. Rules, acts and log are those of the admin and the dashboard.

A replica is named by its id, or by its name where no other has it. `?dry_run=true` says what an act would do.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from typing import Any

from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.http import parse_etags
from ninja import Query, Status

from api.auth import Caller, may
from api.database import in_time
from api.models import Scope
from api.paging import PageWanted, page
from api.problems import Problem
from api.routing import Router
from api.schemas import (
    Done,
    Drain,
    Page,
    Registration,
    ReplicaChanged,
    ReplicaGiven,
    ReplicaShown,
    given,
)
from api.values import check, invalid, usable
from dashboard import actions
from replicas import registration, rules
from replicas.admin_log import from_to
from replicas.models import Replica
from replicas.signals import live_sessions

router = Router(tags=["replicas"])


def show(replica: Replica, live: dict[int, int] | None = None) -> dict[str, Any]:
    seen = replica.observed
    counted = live_sessions() if live is None else live
    return {
        "id": replica.pk, "name": replica.name, "url": replica.url, "primary": replica.primary,
        "weight": replica.weight, "max_sessions": replica.max_sessions, "state": str(replica.state),
        "drain_deadline_seconds": replica.drain_deadline_seconds, "status": replica.status,
        "status_since": seen and seen.status_since, "last_ok_at": seen and seen.last_ok_at,
        "last_latency_ms": seen and seen.last_latency_ms, "last_error": seen.last_error if seen else "",
        "consecutive_failures": seen.consecutive_failures if seen else 0, "slots": replica.slots,
        "sessions": counted.get(replica.pk, 0),
        "origin": "itself" if replica.registered else "file" if replica.from_file else "people",
        "registered_ttl_seconds": replica.registered_ttl_seconds, "lapsed": replica.lapsed,
    }  # fmt: skip


def find(named: str, *, lock: bool = False, registered_by: int | None = None) -> Replica:
    """Raises Problem: there is none, or there are several of that name.

    `registered_by`: only one that the token of this id has registered; of others nothing is told.
    """
    rows = Replica.objects.select_for_update(of=("self",), no_key=True) if lock else Replica.objects.all()
    rows = rows.select_related("health")
    if registered_by is not None:
        rows = rows.filter(registered_by=registered_by).exclude(registered_ttl_seconds=None)
    if "\0" in named:  # PostgreSQL's text holds none
        raise Problem(404, f"There is no replica {named!r}.")
    if named.isascii() and named.isdecimal() and len(named) < 19 and (found := rows.filter(pk=int(named)).first()):
        return found
    named_so = list(rows.filter(name=named)[:10])
    if not named_so:
        raise Problem(404, f"There is no replica {named!r} (any more).")
    if len(named_so) > 1:
        ids = ", ".join(str(each.pk) for each in named_so)
        raise Problem(409, f"Several replicas have the name {named!r}: name one by its id ({ids}).")
    return named_so[0]


def tag(replica: Replica) -> str:
    """Of what people edit, for If-Match."""
    edited = {name: str(getattr(replica, name)) for name in ReplicaGiven.model_fields}
    return f'"{hashlib.sha256(json.dumps(edited, sort_keys=True).encode()).hexdigest()[:16]}"'


def _must_match(request: HttpRequest, row: Replica) -> None:
    """If-Match, of a row that is locked: * or a list of tags, compared strongly (RFC 9110 §13.1.1). Raises Problem."""
    wanted = request.headers.get("If-Match")
    if wanted is not None and not {"*", tag(row)} & set(parse_etags(wanted)):
        raise Problem(412, f"{row} has been changed since it was read; read it again.")


def _address(replica: Replica) -> str:
    """For Location: by its id, which no other gets."""
    return reverse("api:replica", kwargs={"replica": replica.pk})


# --- reading ---


@router.get("", response=Page[ReplicaShown], auth=may(Scope.READ), summary="List replicas")
async def listed(request: HttpRequest, wanted: Query[PageWanted]) -> Any:
    def work() -> dict[str, Any]:
        live = live_sessions()
        return page(Replica.objects.with_health(), wanted, partial(show, live=live), newest=False)

    caller(request).require("replicas.view_replica", "replicas.change_replica")
    return await in_time(work)


@router.get("/{replica}", response=ReplicaShown, auth=may(Scope.READ), summary="One replica", url_name="replica")
async def one(request: HttpRequest, replica: str, response: HttpResponse) -> Any:
    caller(request).require("replicas.view_replica", "replicas.change_replica")
    found, shown = await in_time(lambda: (row := find(replica), show(row)))
    response["ETag"] = tag(found)
    return shown


# --- editing ---


@router.post("", response={201: ReplicaShown}, auth=may(Scope.EDIT), summary="Add a replica")
async def added(request: HttpRequest, body: ReplicaGiven, response: HttpResponse) -> Any:
    by = caller(request)
    by.require("replicas.add_replica")

    def work() -> tuple[Replica, dict[str, Any]]:
        with transaction.atomic():
            replica = Replica(**usable({name: value for name, value in given(body).items() if value is not None}))
            check(replica)
            _save(replica)
            _log(by, replica, ADDITION, f"Added {replica.url}.")
            return replica, show(find(str(replica.pk)))

    replica, shown = await in_time(work)
    response["ETag"], response["Location"] = tag(replica), _address(replica)
    return Status(201, shown)


@router.patch("/{replica}", response=ReplicaShown, auth=may(Scope.EDIT), summary="Change a replica")
async def changed(request: HttpRequest, replica: str, body: ReplicaChanged, response: HttpResponse) -> Any:
    """With If-Match only if it is still as it was read (412 otherwise). Cuts no session."""
    by = caller(request)
    by.require("replicas.change_replica")

    def work() -> tuple[Replica, dict[str, Any]]:
        with transaction.atomic():
            row = find(replica, lock=True)
            _must_match(request, row)
            wanted = usable(given(body))
            if "url" in wanted and "name" not in wanted and row.name == rules.default_name(row.url):
                wanted["name"] = rules.default_name(wanted["url"])  # nobody gave the old one, which is another server's
            was = {name: getattr(row, name) for name in wanted}
            if row.lapsed and "state" in was:  # whoever says what it is to be takes it over from its lapse
                was["state"] = f"{row.state}, lapsed"
            for name, value in wanted.items():
                setattr(row, name, value)
            check(row)
            differing = [name for name in wanted if was[name] != getattr(row, name)]
            if differing:
                _save(row, differing)
                said = "; ".join(from_to(name, was[name], getattr(row, name)) for name in differing)
                _log(by, row, CHANGE, f"{said}.")
            return (row := find(str(row.pk))), show(row)

    row, shown = await in_time(work)
    response["ETag"] = tag(row)
    return shown


@router.delete("/{replica}", response={204: None}, auth=may(Scope.EDIT, Scope.REGISTER), summary="Delete a replica")
async def deleted(request: HttpRequest, replica: str) -> Any:
    """Cuts no session: with live ones it stays, out of use, to the last one's end. With If-Match as PATCH.

    With the scope register only what this token has registered; of others it is told nothing.
    """
    by = caller(request)
    edits = Scope.EDIT in by.scopes
    by.require("replicas.delete_replica", *([] if edits else ["replicas.add_replica"]))

    def work() -> None:
        with transaction.atomic():
            row = find(replica, lock=True, registered_by=None if edits else by.token_id)
            _must_match(request, row)
            _log(by, row, DELETION, f"Deleted {row.url}.")
            row.delete()

    await in_time(work)
    return Status(204, None)


@router.put(
    "/{replica}",
    response={200: ReplicaShown, 201: ReplicaShown},
    auth=may(Scope.REGISTER),
    summary="Register, or renew it",
)
async def registered(request: HttpRequest, replica: str, body: Registration, response: HttpResponse) -> Any:
    """A streaming server adds itself, and renews that within `ttl_seconds`, again and again.

    Not renewed, it is drained, and after as long again removed. What has its URL is renewed under the name that people
    have given it since. Replicas that people or files made are never touched (409).
    """
    by = caller(request)
    by.require("replicas.add_replica")
    anybodys = Scope.EDIT in by.scopes and by.user.has_perm("replicas.change_replica")

    def work() -> tuple[Replica, bool, dict[str, Any]]:
        said = usable({"name": replica} | given(body))
        try:
            with transaction.atomic():
                row, was = registration.register(registration.Wanted(**said), by.token_id, anybodys=anybodys)
                if was is None:
                    _log(by, row, ADDITION, f"Registered itself: {row.url}.")
                elif changed := _changed(was, row):
                    _log(by, row, CHANGE, f"Says of itself: {changed}.")
        except registration.Conflict as conflict:
            raise Problem(409, f"{str(conflict).capitalize()}.") from conflict
        except ValidationError as error:
            raise invalid(error, said) from error
        return row, was is None, show(row)

    row, new, shown = await in_time(work)
    if new:
        response["Location"] = _address(row)
    return Status(201 if new else 200, shown)


def _changed(was: Replica, now: Replica) -> str:
    """By a renewal, of what people can edit; "" where nothing is: that is no act."""
    names = ("url", "weight", "max_sessions", "state")
    return "; ".join(from_to(name, a, b) for name in names if (a := getattr(was, name)) != (b := getattr(now, name)))


# --- acts ---


@router.post(
    "/{replica}/drain", response=Done, auth=may(Scope.OPERATE), summary="Take no new sessions, keep those there are"
)
async def drain(request: HttpRequest, replica: str, body: Drain, dry_run: bool = False) -> Any:
    return await _act(request, "drain", replica, dry_run, given(body))


@router.post("/{replica}/activate", response=Done, auth=may(Scope.OPERATE), summary="Take new sessions again")
async def activate(request: HttpRequest, replica: str, dry_run: bool = False) -> Any:
    return await _act(request, "activate", replica, dry_run)


@router.post("/{replica}/disable", response=Done, auth=may(Scope.EDIT), summary="As drain, and it is not probed")
async def disable(request: HttpRequest, replica: str, dry_run: bool = False) -> Any:
    return await _act(request, "disable", replica, dry_run)


@router.post("/{replica}/make-primary", response=Done, auth=may(Scope.EDIT), summary="Move the primary's mark here")
async def make_primary(request: HttpRequest, replica: str, dry_run: bool = False) -> Any:
    return await _act(request, "make_primary", replica, dry_run)


@router.post("/{replica}/probe", response=Done, auth=may(Scope.OPERATE), summary="Have it probed within a second")
async def probe(request: HttpRequest, replica: str, dry_run: bool = False) -> Any:
    return await _act(request, "probe_now", replica, dry_run)


async def _act(request: HttpRequest, what: str, named: str, dry_run: bool, more: dict[str, Any] | None = None) -> Any:
    by = caller(request)

    def work() -> str:
        body = {"what": what, "replica": find(named).pk, "ask": dry_run} | (more or {})
        return actions.act(by.user, body, by=by.token, may_edit=Scope.EDIT in by.scopes)

    return {"said": await in_time(work), "dry_run": dry_run}


def caller(request: HttpRequest) -> Caller:
    found: Caller = request.auth  # type: ignore[attr-defined]  # ninja puts it there
    return found


# --- writing ---


def _save(replica: Replica, fields: list[str] | None = None) -> None:
    try:
        replica.save(update_fields=fields)
    except IntegrityError as error:
        raise Problem(409, "Somebody else has changed the same at this moment; read it again.") from error


def _log(by: Caller, replica: Replica, flag: int, said: str) -> None:
    LogEntry.objects.log_actions(
        by.user.pk, [replica], flag, f"{said} {actions.by_token(by.token)}", single_object=True
    )
