"""A config file into the database and back, in one transaction each.

Called by loadreplicas and dumpreplicas. Replicas are matched by URL; what a file leaves out keeps its value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml
from django.core.exceptions import ValidationError
from django.db import transaction

from replicas import rules
from replicas.config import HEALTH_CHECK, REPLICA, ConfigRefused, FileConfig
from replicas.models import Replica, RouterSettings


@dataclass
class Diff:
    """What loading a file changed, or with a dry run would change: a readable line each."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        marks = {"+ added": self.added, "~ changed": self.changed, "- removed": self.removed}
        shown = [f"{mark}: {line}" for mark, lines in marks.items() for line in lines]
        return shown + [f"= unchanged: {line}" for line in self.unchanged]


def load(config: FileConfig, *, prune: bool = False, dry_run: bool = False) -> Diff:
    """Apply `config`, all or nothing. With `prune`, replicas that an earlier file brought in and this one no longer
    names are removed; those made by hand stay. Raises ConfigRefused when the database's own rules refuse it.
    """
    diff = Diff()
    with transaction.atomic():
        # Locked, so that two loads, or a load and an edit in the admin, do not interleave.
        existing = {rules.same_replica(r.url): r for r in Replica.objects.select_for_update().order_by("id")}
        if prune:
            _prune(config, existing, diff)
        _move_the_mark(config, existing, diff)
        for entry in config.replicas:
            _load_replica(entry, existing.get(rules.same_replica(entry["url"])), diff)
        _load_health_check(config, diff)
        if dry_run:
            transaction.set_rollback(True)
    return diff


def _prune(config: FileConfig, existing: dict[str, Replica], diff: Diff) -> None:
    named = {rules.same_replica(entry["url"]) for entry in config.replicas}
    for server in [server for server, replica in existing.items() if replica.from_file and server not in named]:
        replica = existing.pop(server)
        diff.removed.append(f"{replica} ({replica.url})")
        replica.delete()


def _move_the_mark(config: FileConfig, existing: dict[str, Replica], diff: Diff) -> None:
    """Take the mark off its holder where the file gives it to another: the constraint allows one at a time."""
    marked = next((rules.same_replica(e["url"]) for e in config.replicas if e.get("primary")), None)
    for server, replica in existing.items():
        if marked and replica.primary and server != marked:
            replica.primary = False
            replica.save(update_fields=["primary"])
            diff.changed.append(f"{replica} ({replica.url}): primary true → false")


def _load_replica(entry: dict[str, Any], replica: Replica | None, diff: Diff) -> None:
    if replica is None:
        replica = Replica(**entry, from_file=True)
        _save(replica, entry)
        diff.added.append(f"{replica} ({replica.url})" + (", primary" if replica.primary else ""))
        return
    changes = [
        f"{name} {_shown(getattr(replica, name))} → {_shown(value)}"
        for name, value in entry.items()
        if getattr(replica, name) != value
    ]
    if not changes:
        diff.unchanged.append(f"{replica} ({replica.url})")
        return
    for name, value in entry.items():
        setattr(replica, name, value)
    _save(replica, entry)
    diff.changed.append(f"{replica} ({replica.url}): {', '.join(changes)}")


def _save(replica: Replica, entry: dict[str, Any]) -> None:
    try:
        replica.full_clean()
    except ValidationError as refused:
        raise ConfigRefused([f"{entry['url']}: {' '.join(refused.messages)}"]) from refused
    replica.save()


def _load_health_check(config: FileConfig, diff: Diff) -> None:
    settings = RouterSettings.current()
    changes = [
        f"{key} {_shown(getattr(settings, name))} → {_shown(config.health_check[name])}"
        for key, (name, _) in HEALTH_CHECK.items()
        if name in config.health_check and getattr(settings, name) != config.health_check[name]
    ]
    if changes:
        for name, value in config.health_check.items():
            setattr(settings, name, value)
        settings.save()
        diff.changed.append(f"health_check: {', '.join(changes)}")
    elif config.health_check:
        diff.unchanged.append("health_check")


def dump() -> str:
    """The database in the form that `load` reads; loading it again changes nothing."""
    settings = RouterSettings.current()
    document = {
        "router": {
            "replicas": [{name: getattr(replica, name) for name in REPLICA} for replica in Replica.objects.all()],
            "health_check": {key: getattr(settings, name) for key, (name, _) in HEALTH_CHECK.items()},
        }
    }
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return text


def _shown(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
