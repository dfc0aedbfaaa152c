"""A config file into the database, in one transaction, and back.

Called by loadreplicas and dumpreplicas. Replicas are matched by URL; what a file leaves out keeps its value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml
from django.db import IntegrityError, transaction

from replicas import rules, wording
from replicas.config import BLOCKS, REPLICA, ConfigRefused, FileConfig
from replicas.models import Replica, ReplicaState, RouterSettings
from replicas.signals import live_sessions

Wanted = dict[str, dict[str, Any]]  # by rules.same_replica: what the file says of that replica


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
    names are removed; those made by hand stay. Raises ConfigRefused when someone adds the same replica meanwhile.
    """
    try:
        with transaction.atomic():
            diff = _load(config, prune)
            if dry_run:
                transaction.set_rollback(True)
    except IntegrityError as error:
        raise ConfigRefused(["someone else changed the same replicas at this moment; load the file again"]) from error
    return diff


def _load(config: FileConfig, prune: bool) -> Diff:
    diff = Diff()
    wanted = {rules.same_replica(entry["url"]): entry for entry in config.replicas}
    # Locked, so that two loads, or a load and an edit in the admin, do not interleave. `no_key`: placement, which names
    # replicas by their keys, does not wait meanwhile.
    existing = {rules.same_replica(r.url): r for r in Replica.objects.select_for_update(no_key=True).order_by("id")}
    live = live_sessions()
    if prune:
        _prune(wanted, existing, live, diff)
    _move_the_mark(wanted, existing)
    for server, entry in wanted.items():
        if server in existing:
            _change(existing[server], entry, live, diff)
        else:
            _add(entry, diff)
    _load_blocks(config, diff)
    return diff


def _prune(wanted: Wanted, existing: dict[str, Replica], live: dict[int, int], diff: Diff) -> None:
    gone = [server for server, replica in existing.items() if replica.from_file and server not in wanted]
    replicas = [existing.pop(server) for server in gone]
    for replica in replicas:
        left = live.get(replica.pk, 0)
        diff.removed.append(f"{replica} ({replica.url})" + (f", {wording.deleted(left)}" if left else ""))
    Replica.objects.filter(pk__in=[replica.pk for replica in replicas]).delete()


def _move_the_mark(wanted: Wanted, existing: dict[str, Replica]) -> None:
    """Where the file gives the mark to another, its holder loses it first: the constraint allows one at a time."""
    if not any(entry.get("primary") for entry in wanted.values()):
        return
    for server, replica in existing.items():
        if replica.primary and not wanted.get(server, {}).get("primary"):
            Replica.objects.filter(pk=replica.pk).update(primary=False)
            wanted[server] = {**wanted.get(server, {}), "primary": False}  # to be told in the diff


def _add(entry: dict[str, Any], diff: Diff) -> None:
    replica = Replica(**entry, from_file=True)
    replica.save()
    diff.added.append(f"{replica} ({replica.url})" + (", primary" if replica.primary else ""))


def _change(replica: Replica, entry: dict[str, Any], live: dict[int, int], diff: Diff) -> None:
    taken_over = replica.registered
    if taken_over:  # from now on it is the file's: it neither lapses, nor says what it is
        if replica.lapsed:  # nobody is left to renew it, who would take that drain back
            entry = {"state": ReplicaState.ACTIVE, **entry}
        replica.registered_ttl_seconds, replica.lapsed, replica.from_file = None, False, True
        replica.save(update_fields=["registered_ttl_seconds", "lapsed", "from_file"])
    # Not the URL: it names the same replica, with or without the default port, as whoever added it wrote it.
    changed = {name: value for name, value in entry.items() if name != "url" and getattr(replica, name) != value}
    if not changed and not taken_over:
        diff.unchanged.append(f"{replica} ({replica.url})")
        return
    shown = ["origin itself → file"] if taken_over else []
    shown += [f"{name} {_shown(getattr(replica, name))} → {_shown(value)}" for name, value in changed.items()]
    for name, value in changed.items():
        setattr(replica, name, value)
    replica.save(update_fields=list(changed))
    if changed.get("state") == ReplicaState.DRAINING:
        shown.append(wording.drained(live.get(replica.pk, 0), replica.drain_deadline_seconds))
    diff.changed.append(f"{replica} ({replica.url}): {', '.join(shown)}")


def _load_blocks(config: FileConfig, diff: Diff) -> None:
    if not any(config.blocks.values()):
        return
    # Locked, and only what the file changes is written: the admin may be saving the rest at this moment.
    settings, _ = RouterSettings.objects.select_for_update().get_or_create(pk=1)
    to_write: dict[str, Any] = {}
    for block, values in config.blocks.items():
        keys = {name: key for key, (name, _) in BLOCKS[block].items()}
        changed = {name: value for name, value in values.items() if getattr(settings, name) != value}
        shown = [f"{keys[name]} {_shown(getattr(settings, name))} → {_shown(value)}" for name, value in changed.items()]
        if shown:
            diff.changed.append(f"{block}: {', '.join(shown)}")
        elif values:
            diff.unchanged.append(block)
        to_write |= changed
    if to_write:
        RouterSettings.objects.update(**to_write)


def dump() -> str:
    """The database in the form that `load` reads; loading it again changes nothing."""
    settings = RouterSettings.current()
    document = {
        "router": {
            # Those that add themselves come by themselves.
            "replicas": [
                _plain(replica, {name: name for name in REPLICA})
                for replica in Replica.objects.filter(registered_ttl_seconds=None)
            ],
            **{
                block: _plain(settings, {key: name for key, (name, _) in keys.items()})
                for block, keys in BLOCKS.items()
            },
        }
    }
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return text


def _plain(row: object, fields: dict[str, str]) -> dict[str, Any]:
    """key → value, for YAML: a default that nobody has saved yet is a member of its enumeration, and no plain text."""
    values = {key: getattr(row, name) for key, name in fields.items()}
    return {key: str(value) if isinstance(value, str) else value for key, value in values.items()}


def _shown(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
