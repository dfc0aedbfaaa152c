"""Who may stream: what a client has shown is judged here, before placement looks for a slot.

Called by the consumer, once a session. Database work in a thread of its own, bounded in time; where neither a token nor
a limit is asked for, nothing is asked of the database at all. Limits are counted by placement (limits.py).
"""

from __future__ import annotations

import asyncio
from functools import partial
from weakref import WeakKeyDictionary

from django.conf import settings
from django.utils import timezone

from proxy import tickets
from proxy.claims import ORIGIN_NOT_ALLOWED, UNAUTHORIZED, Access
from proxy.credentials import Credentials, allows
from proxy.models import StreamToken
from replicas import client_address, tokens
from replicas.database import Database
from replicas.models import ClientAuth, RouterSettings

# One a process; tests have a loop each.
_databases: WeakKeyDictionary[asyncio.AbstractEventLoop, Database] = WeakKeyDictionary()


class NotAdmitted(Exception):
    """`reason`: UNAUTHORIZED or ORIGIN_NOT_ALLOWED. Says nothing of which tokens there are."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def admit(shown: Credentials, address: str | None, current: RouterSettings) -> Access:
    """What limits count the client by. Raises NotAdmitted, TimeoutError or a database's fault."""
    allowed = settings.ROUTER_ALLOWED_ORIGINS
    if allowed and shown.origin is not None and not allows(allowed, shown.origin):
        raise NotAdmitted(ORIGIN_NOT_ALLOWED)
    limited = current.max_sessions_per_address or current.new_sessions_per_minute
    counted = client_address.counted_as(address) if address is not None and limited else None
    # Anything but a browser can say what origin it likes: one that says none shows a token where origins are narrowed.
    if current.client_auth == ClientAuth.OPEN and not (allowed and shown.origin is None):
        return Access(address=counted)
    if not shown.shown:
        raise NotAdmitted(UNAUTHORIZED)
    async with asyncio.timeout(settings.DATABASE_TIMEOUT_SECONDS):
        token = await _database()(partial(_token, shown), writes=shown.ticket is not None)
    return Access(counted, token.pk, token.name, token.max_sessions, token.new_sessions_per_minute)


def _token(shown: Credentials) -> StreamToken:
    if shown.token is not None:
        found = StreamToken.objects.filter(digest=tokens.digest(shown.token)).first()
    else:
        found = tickets.redeem(shown.ticket or "", shown.origin)
    if found is None or not found.usable(timezone.now()):
        raise NotAdmitted(UNAUTHORIZED)
    if found.allowed_origins and (shown.origin is None or not allows(found.allowed_origins, shown.origin)):
        # Not for its origin: that would tell who has found a token that it is good somewhere.
        raise NotAdmitted(UNAUTHORIZED)
    return found


def _database() -> Database:
    loop = asyncio.get_running_loop()
    if loop not in _databases:
        _databases[loop] = Database("admission", "proxy.admission")
    return _databases[loop]


async def end() -> None:
    if (database := _databases.pop(asyncio.get_running_loop(), None)) is not None:
        await database.close()
