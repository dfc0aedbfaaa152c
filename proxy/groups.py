"""Who may do what: the groups that operators of a router expect, and their permissions.

Made by `manage.py makegroups`; they count in the admin and on the dashboard alike. What somebody has given to a group
beside these stays its own.
"""

from __future__ import annotations

from django.contrib.auth.models import Group, Permission
from django.db import transaction

_SEE = frozenset(
    f"{app}.view_{model}"
    for app, models in {
        "replicas": ("replica", "healthtransition", "routersettings"),
        "proxy": ("session", "routerprocess", "streamtoken"),
        "admin": ("logentry",),
    }.items()
    for model in models
)
_STEER = _SEE | {"replicas.drain_replica", "proxy.disconnect_session"}
_EDIT = _STEER | {
    "replicas.add_replica", "replicas.change_replica", "replicas.delete_replica", "replicas.change_routersettings",
    "proxy.add_streamtoken", "proxy.change_streamtoken", "proxy.delete_streamtoken",
}  # fmt: skip

GROUPS: dict[str, tuple[str, frozenset[str]]] = {
    "Viewers": ("see all, change nothing", _SEE),
    "Operators": ("also drain replicas, take drains back, and disconnect sessions", _STEER),
    "Editors": ("also add, change and delete replicas, change the router settings, and make stream tokens", _EDIT),
}


class NotMigrated(Exception):
    """A permission is not in the database yet; the text names it."""


def make_groups() -> dict[str, int]:
    """Make what is missing; give for each group how many permissions it was given. Raises NotMigrated."""
    with transaction.atomic():
        there = {
            f"{permission.content_type.app_label}.{permission.codename}": permission
            for permission in Permission.objects.select_related("content_type")
        }
        given = {}
        for name, (_, wanted) in GROUPS.items():
            if missing := wanted - there.keys():
                raise NotMigrated(", ".join(sorted(missing)))
            group, _ = Group.objects.get_or_create(name=name)
            has = set(group.permissions.values_list("pk", flat=True))
            new = [there[name] for name in wanted if there[name].pk not in has]
            group.permissions.add(*new)
            given[name] = len(new)
        return given
