"""Who asks: `Authorization: Bearer api_…`, and may it? Looked up for each request, so that a token switched off is off.

Used by the operations as auth=may(Scope.READ).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from ninja.security import HttpBearer

from api.database import signed_in
from api.models import INCLUDED, ApiToken, Scope
from api.problems import Problem
from replicas import tokens

USED_EVERY = timedelta(minutes=1)
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="stream-router"'}


@dataclass(frozen=True)
class Caller:
    """Whose request it is. `user` is loaded with what it may."""

    user: Any
    token: str
    token_id: int
    scopes: frozenset[Scope]

    def require(self, *permissions: str) -> None:
        """One of these is enough; what the user of a token may not do, the token may not. Raises Problem."""
        if not any(self.user.has_perm(permission) for permission in permissions):
            raise Problem(403, f"The user of this token needs the permission {' or '.join(permissions)}.")


class Bearer(HttpBearer):
    """Lets in a token of one kind (replicas/tokens.py), by what `found` says of it in the database's thread."""

    kind: str
    needed: str

    def found(self, token: str) -> Any:
        """Who shows it; None: it is no good."""
        raise NotImplementedError

    async def __call__(self, request: HttpRequest) -> Any:
        text = tokens.bearer(request.headers.get("Authorization", "").strip())
        return await self.authenticate(request, text or "")

    async def authenticate(self, request: HttpRequest, token: str) -> Any:
        who = await signed_in(lambda: self.found(token)) if tokens.is_token(token, self.kind) else None
        if who is None:
            raise Problem(401, self.needed, headers=CHALLENGE)
        return who


class may(Bearer):
    """Lets in an API token with one of `scopes`."""

    kind, needed = tokens.API, "An API token is needed: Authorization: Bearer api_…."

    def __init__(self, *scopes: Scope) -> None:
        super().__init__()
        self._scopes = scopes

    def found(self, token: str) -> Caller | None:
        caller = _caller(token)
        if caller is not None and not caller.scopes.intersection(self._scopes):
            needed = " or ".join(scope.value for scope in self._scopes)
            raise Problem(403, f"This token has not the scope {needed}.")
        return caller


def _caller(text: str) -> Caller | None:
    now = timezone.now()
    found = ApiToken.objects.select_related("user").filter(digest=tokens.digest(text)).first()
    if found is None or not found.usable(now) or not (found.user.is_active and found.user.is_staff):
        return None
    stale = Q(last_used_at=None) | Q(last_used_at__lt=now - USED_EVERY)
    if found.last_used_at is None or found.last_used_at < now - USED_EVERY:
        ApiToken.objects.filter(stale, pk=found.pk).update(last_used_at=now)
    found.user.get_all_permissions()  # kept with it: asked now, while we are in the database's thread
    return Caller(found.user, found.name, found.pk, frozenset(INCLUDED[Scope(found.scope)]))
