"""What one client may have of the router: so many sessions at once, and so many new ones in a minute.

Called by settling.py within its turn, so that no race of clients, processes or hosts gets past a limit. By address
(router settings) and by stream token (its own). Where no limit is set nothing is asked and nothing kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from django.db import connection
from django.utils import timezone

from proxy.claims import ADDRESS_RATE, ADDRESS_SESSIONS, TOKEN_RATE, TOKEN_SESSIONS, Claim
from proxy.turn import Asked
from replicas.models import RouterSettings

RATE_SECONDS = 60.0


class _Asking(NamedTuple):
    condition: str
    parameters: Sequence[Any] = ()


class _Limit:
    """Of one kind: what those who come have already, counted up as they are let in."""

    def __init__(self, column: str, asking: _Asking, keys: set[Any]) -> None:
        self._asked: Asked | None = None
        if keys:
            places = ", ".join(["%s"] * len(keys))
            self._asked = Asked(
                f"SELECT {column}, COUNT(*) FROM proxy_session"  # noqa: S608  (names of ours)
                f" WHERE {column} IN ({places}) AND {asking.condition} GROUP BY {column}",
                [*keys, *asking.parameters],
            )
        self._found: Counter[Any] | None = None

    def reached(self, key: Any, most: int) -> bool:
        return self._has[key] >= most

    def count(self, key: Any) -> None:
        self._has[key] += 1

    @property
    def _has(self) -> Counter[Any]:
        if self._found is None:
            self._found = Counter(dict(self._asked.rows()) if self._asked is not None else {})
        return self._found


def over_limits(arrivals: Sequence[Claim], settings: RouterSettings) -> dict[str, str]:
    """By uid: which limit refuses it. In order of arrival; who is refused does not count."""
    own = {claim.uid: _own(claim, settings) for claim in arrivals}
    if not any(own.values()):
        return {}
    since = connection.ops.adapt_datetimefield_value(timezone.now() - timedelta(seconds=RATE_SECONDS))
    until = connection.ops.adapt_datetimefield_value(timezone.now() + timedelta(seconds=RATE_SECONDS))
    live, new = _Asking("ended_at IS NULL"), _Asking("opened_at > %s AND opened_at < %s", (since, until))
    wanted = (
        (ADDRESS_SESSIONS, "address", live),
        (ADDRESS_RATE, "address", new),
        (TOKEN_SESSIONS, "token", live),
        (TOKEN_RATE, "token", new),
    )
    limits = {
        reason: _Limit(column, asking, {each[reason][0] for each in own.values() if reason in each})
        for reason, column, asking in wanted
    }
    refused = {}
    for uid, its in own.items():
        reason = next((reason for reason, (key, most) in its.items() if limits[reason].reached(key, most)), None)
        if reason is not None:
            refused[uid] = reason
            continue
        for reason, (key, _) in its.items():
            limits[reason].count(key)
    return refused


def _own(claim: Claim, settings: RouterSettings) -> dict[str, tuple[Any, int]]:
    """The limits that bear on a session: reason → whose, and how many."""
    access = claim.access
    all_of_them = {
        ADDRESS_SESSIONS: (access.address, settings.max_sessions_per_address),
        ADDRESS_RATE: (access.address, settings.new_sessions_per_minute),
        TOKEN_SESSIONS: (access.token, access.max_sessions),
        TOKEN_RATE: (access.token, access.new_sessions_per_minute),
    }
    return {reason: (key, most) for reason, (key, most) in all_of_them.items() if key is not None and most}
