"""Acts on the spot: what each will do, said before, and then the deed, written into Django's admin log.

Called by views.py with a request's JSON. The deeds themselves are the commands' and the files': replicas/acts.py and
proxy/steering.py; what may stand in a field says replicas/rules.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.db import transaction

from dashboard import access
from dashboard.refused import Refused
from proxy import steering
from proxy.errors import cut_reason
from proxy.models import Session
from replicas import acts, rules, wording
from replicas.health import HEALTHY
from replicas.models import Replica, ReplicaState
from replicas.signals import live_sessions

MOST_SESSIONS = 500  # at once


@dataclass(frozen=True)
class Request:
    """`ask`: nothing is to be done, only said what would be."""

    user: Any
    body: Mapping[str, Any]
    ask: bool
    by: str = ""  # the name of the API token that `user` acts by
    may_edit: bool = True  # a token's scope may be less than its user may

    def refuse_disabled(self, replica: Replica) -> None:
        """What somebody has disabled only who may edit takes back."""
        if replica.state != ReplicaState.DISABLED:
            return
        if not self.may_edit:
            raise Refused(403, f"{replica} is disabled: to take it back this token needs the scope edit.")
        if not access.allowed(self.user, access.EDIT):
            needed = " or ".join(access.EDIT)
            raise Refused(403, f"{replica} is disabled: to take it back you need the permission {needed}.")

    def log(self, about: Replica, text: str) -> None:
        self.log_all([about], text)

    def log_all(self, about: Sequence[Any], text: str) -> None:
        said = f"{text} {by_token(self.by)}" if self.by else text
        LogEntry.objects.log_actions(self.user.pk, about, CHANGE, said)


def by_token(name: str) -> str:
    """What stands in the log behind an act of the API's."""
    return f"(By the API token “{name}”.)"


def act(user: Any, body: Any, by: str = "", *, may_edit: bool = True) -> str:
    """Do what `body` says, or with "ask" say what it would do; gives a sentence. Raises Refused.

    `by`: the name of the API token that `user` acts by; `may_edit`: whether its scope lets it edit.
    """
    if not isinstance(body, dict):
        raise Refused(400, "The body must be a JSON object with “what”.")
    what, ask = body.get("what"), body.get("ask", False)
    if not isinstance(what, str) or what not in ACTS:
        raise Refused(400, f"what: “{what}” is none of {', '.join(ACTS)}.")
    if not isinstance(ask, bool):
        raise Refused(400, f"ask: “{ask}” is neither true nor false.")
    permissions, deed = ACTS[what]
    if not access.allowed(user, permissions):
        raise Refused(403, f"You may not do this: it needs the permission {' or '.join(permissions)}.")
    with transaction.atomic():  # the deed and its line in the log
        return deed(Request(user, body, ask, by, may_edit))


# --- replicas ---


def _make_primary(request: Request) -> str:
    replica = _replica(request.body)
    if replica.primary:
        return f"{replica} is the primary already: nothing to do."
    if request.ask:
        marked = Replica.objects.filter(primary=True).first()
        instead = f" instead of {marked}" if marked else ""
        return f"{replica} becomes the primary{instead} and is filled first; no session moves."
    before = acts.make_primary(replica)
    if before is None:
        raise _gone(replica)
    for other in before:
        if other.pk == replica.pk:
            return f"{replica} is the primary already: nothing to do."
        request.log(other, f"Primary: {other} → {replica}.")
    request.log(replica, f"Primary: {before[0] if before else 'none'} → {replica}.")
    return f"The primary is now {replica}."


def _drain(request: Request) -> str:
    replica, deadline = _replica(request.body, lock=not request.ask), request.body.get("deadline_seconds")
    request.refuse_disabled(replica)
    if deadline is not None:
        try:
            deadline = rules.deadline(deadline)
        except rules.RuleBroken as broken:
            raise Refused(400, f"deadline_seconds: “{deadline}” {broken}.") from broken
    until = replica.drain_deadline_seconds if deadline is None else deadline
    if replica.state == ReplicaState.DRAINING and until == replica.drain_deadline_seconds and not replica.lapsed:
        return f"{replica} is draining already: nothing to do."
    if request.ask:
        return f"{replica}: {wording.kept(_live(replica), until)}."
    steering.drain(replica, deadline)
    was = "draining, lapsed" if replica.lapsed else replica.state
    changed = [_from_to("State", was, ReplicaState.DRAINING)]
    changed.append(_from_to("drain deadline", wording.seconds(replica.drain_deadline_seconds), wording.seconds(until)))
    request.log(replica, f"{'; '.join(filter(None, changed))}.")
    return f"{replica}: draining, {wording.drained(_live(replica), until)}."


def _activate(request: Request) -> str:
    replica = _replica(request.body, lock=not request.ask)
    request.refuse_disabled(replica)
    when = "" if replica.status == HEALTHY else " once it is healthy"
    return _set_state(request, replica, ReplicaState.ACTIVE, f"takes new sessions{when}")


def _disable(request: Request) -> str:
    replica = _replica(request.body, lock=not request.ask)
    return _set_state(request, replica, ReplicaState.DISABLED, "takes no new sessions and is not probed")


def _set_state(request: Request, replica: Replica, state: ReplicaState, means: str) -> str:
    if replica.state == state:
        return f"{replica} is {state.value} already: nothing to do."
    if request.ask:
        return f"{replica}: {wording.kept(_live(replica))}; {means}."
    was = acts.set_state(replica, state)
    if was is None:
        raise _gone(replica)
    if was != state:
        request.log(replica, f"{_from_to('State', was, state)}.")
    return f"{replica}: {state.value}, {means}."


def _probe_now(request: Request) -> str:
    replica = _replica(request.body)
    if replica.state == ReplicaState.DISABLED:
        raise Refused(409, f"{replica} is disabled, so it is not probed: activate it first.")
    if request.ask:
        return f"{replica}: probed within a second, beside the usual rounds; the result counts like theirs."
    if not acts.ask_for_probe(replica):
        raise _gone(replica)
    request.log(replica, "Probe asked for.")
    return f"{replica}: a probe is asked for."


def _replica(body: Mapping[str, Any], *, lock: bool = False) -> Replica:
    """With `lock` it is as it is read until the deed is done."""
    id = body.get("replica")
    if not isinstance(id, int) or isinstance(id, bool) or not 0 < id < 2**63:
        raise Refused(400, f"replica: “{id}” is no id of a replica, which is a whole number.")
    rows = Replica.everything.select_for_update(of=("self",), no_key=True) if lock else Replica.everything.all()
    replica = rows.select_related("health").filter(pk=id).first()
    if replica is None:
        raise Refused(404, f"There is no replica {id} (any more).")
    if replica.deleted_at is not None:
        raise Refused(409, f"{replica} is deleted; it {wording.deleted(_live(replica))}. Add it again to use it.")
    return replica


def _gone(replica: Replica) -> Refused:
    return Refused(404, f"{replica} is gone.")


def _live(replica: Replica) -> int:
    return live_sessions().get(replica.pk, 0)


def _from_to(what: str, old: str, new: str) -> str:
    return f"{what}: {old} → {new}" if old != new else ""


# --- sessions ---


def _disconnect(request: Request) -> str:
    uids = _uids(request.body.get("sessions"))
    reason = request.body.get("reason") or steering.DEFAULT_REASON
    if not _is_text(reason):
        raise Refused(400, f"reason: “{reason}” is no text.")
    reason = cut_reason(reason.strip() or steering.DEFAULT_REASON)
    there = list(Session.objects.filter(uid__in=uids))
    if not there:
        raise Refused(404, "There is no such session (any more).")
    live = [session for session in there if session.ended_at is None]
    if not live:
        raise Refused(409, "Ended already, without you: nothing is left to disconnect.")
    if request.ask:
        return f"Ends {wording.sessions(len(live), 'live')} (1012, “{reason}”); nobody else is touched."
    asked = steering.disconnect([session.uid for session in live], reason)
    request.log_all(live, f"Disconnected: {reason}")
    return f"Told to end: {wording.sessions(asked)} (1012, “{reason}”)."


def _is_text(given: Any) -> bool:
    """Not all that JSON calls a string is: a database holds neither the character 0 nor half a character."""
    if not isinstance(given, str) or "\0" in given:
        return False
    try:
        given.encode()
    except UnicodeEncodeError:
        return False
    return True


def _uids(given: Any) -> list[str]:
    if not isinstance(given, list) or not given or not all(map(_is_text, given)):
        raise Refused(400, "sessions: must be a list of ids of sessions, of one at least.")
    if len(given) > MOST_SESSIONS:
        raise Refused(400, f"sessions: {len(given)} are more than the {MOST_SESSIONS} that may be ended at once.")
    return given


ACTS: dict[str, tuple[tuple[str, ...], Callable[[Request], str]]] = {
    "make_primary": (access.EDIT, _make_primary),
    "drain": (access.DRAIN, _drain),
    "activate": (access.DRAIN, _activate),  # of a drain; see refuse_disabled
    "disable": (access.EDIT, _disable),
    "probe_now": (access.EDIT, _probe_now),
    "disconnect": (access.DISCONNECT, _disconnect),
}
