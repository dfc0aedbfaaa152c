"""Who may see the dashboard, and who may do what there. The names of permissions are the admin's.

Called by views.py, consumers.py and actions.py, in threads that may ask the database.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.http import HttpRequest

# Who may edit a replica may also drain it.
EDIT = ("replicas.change_replica",)
DRAIN = ("replicas.drain_replica", "replicas.change_replica")
DISCONNECT = ("proxy.disconnect_session", "proxy.change_session")


def is_staff(user: Any) -> bool:
    """May `user` see it all?"""
    return bool(user.is_authenticated and user.is_active and user.is_staff)


def allowed(user: Any, permissions: tuple[str, ...]) -> bool:
    """One of `permissions` is enough."""
    return any(user.has_perm(permission) for permission in permissions)


def may(user: Any) -> dict[str, bool]:
    """What the page offers `user`; the server asks again when it is done."""
    needs = {"drain": DRAIN, "edit": EDIT, "disconnect": DISCONNECT}
    return {what: allowed(user, permissions) for what, permissions in needs.items()}


def may_by_session(key: str | None) -> dict[str, bool] | None:
    """`may` of who has signed in with the session `key`; None where that is nobody, or no staff (any more)."""
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(key)
    user = get_user(request)  # a changed password, a sign-out: it is nobody's
    return may(user) if is_staff(user) else None
