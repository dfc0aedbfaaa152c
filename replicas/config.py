"""The config file of contract A6, read: YAML text → a `FileConfig` whose every value keeps the rules of rules.py.

Called by loadreplicas; loading.py applies the result. All that is wrong with a file is found at once and named by key
and value. Must not touch the database: a refused file changes nothing.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import yaml

from replicas import rules
from replicas.models import ClientAuth, Policy, ReplicaState

DEFAULT_HOST, DEFAULT_PORT = "0.0.0.0", 9000  # noqa: S104  (what the original router listens on)

Rule = Callable[[object], Any]

# The blocks beside `replicas`: block → key in the file → (field of RouterSettings, rule).
BLOCKS: dict[str, dict[str, tuple[str, Rule]]] = {
    "health_check": {
        "path": ("health_path", rules.health_path),
        "interval_seconds": ("interval_seconds", rules.seconds),
        "timeout_seconds": ("timeout_seconds", rules.seconds),
        "failure_threshold": ("failure_threshold", rules.threshold),
        "recovery_threshold": ("recovery_threshold", rules.threshold),
    },
    "balancing": {
        "policy": ("policy", rules.one_of(Policy.values)),
        "slow_start_seconds": ("slow_start_seconds", rules.pause),
        "affinity": ("affinity", rules.affinity),
        "affinity_ttl_seconds": ("affinity_ttl_seconds", rules.seconds),
    },
    "queue": {
        "max_length": ("queue_max_length", rules.length),
        "timeout_seconds": ("queue_timeout_seconds", rules.seconds),
        "when_down": ("queue_when_down", rules.flag),
    },
    "access": {
        "client_auth": ("client_auth", rules.one_of(ClientAuth.values)),
        "max_sessions_per_address": ("max_sessions_per_address", rules.limit),
        "new_sessions_per_minute": ("new_sessions_per_minute", rules.limit),
    },
}
ROUTER_KEYS = ("host", "port", "replicas", *BLOCKS)

# One replica: key in the file → rule; the field of Replica has the same name.
REPLICA: dict[str, Rule] = {
    "url": rules.replica_url,
    "name": rules.replica_name,
    "primary": rules.flag,
    "weight": rules.weight,
    "max_sessions": rules.max_sessions,
    "state": rules.one_of(ReplicaState.values),
    "drain_deadline_seconds": rules.deadline,
}
# Those for which `null` is a value: that there is none. Elsewhere it is the same as leaving the key out.
MAY_BE_NULL = ("max_sessions", "drain_deadline_seconds")


class ConfigRefused(ValueError):
    """A file that is not applied. `problems` has a line for each thing that is wrong, `warnings` for what may be."""

    def __init__(self, problems: list[str], warnings: Sequence[str] = ()) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.warnings = warnings


@dataclass
class FileConfig:
    """What a file says: of each replica and of each block only the keys that stand in it."""

    replicas: list[dict[str, Any]] = field(default_factory=list)
    blocks: dict[str, dict[str, Any]] = field(default_factory=dict)  # by block, then by field of RouterSettings
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    warnings: list[str] = field(default_factory=list)


def parse(text: str) -> FileConfig:
    """Read a file's text. Raises ConfigRefused with every problem of it."""
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader, see below)
    except _Unfit as error:
        raise ConfigRefused([f"the file is not usable YAML: {_place(error)}; put text in quotes"]) from error
    except yaml.YAMLError as error:
        raise ConfigRefused([f"the file is not YAML: {_place(error)}"]) from error
    except RecursionError as error:
        raise ConfigRefused(["the file is not usable YAML: it is nested too deeply"]) from error
    reader = _Reader()
    config = reader.read(document)
    if reader.problems:
        raise ConfigRefused(reader.problems, config.warnings)
    return config


class _Reader:
    def __init__(self) -> None:
        self.problems: list[str] = []
        self.config = FileConfig()

    def read(self, document: object) -> FileConfig:
        if not isinstance(document, dict) or "router" not in document:
            self.problems.append("router: missing; the file must begin with `router:`")
            return self.config
        self._warn_of_unknown("", document, ("router",))
        router = document["router"]
        if not isinstance(router, dict):
            self._problem("router", router, "is not a mapping; it must have `replicas`, indented below it")
            return self.config
        self._warn_of_unknown("router.", router, ROUTER_KEYS)
        if router.get("host") is not None:
            self._read_host(router["host"])
        if router.get("port") is not None:
            self._value("router.port", router["port"], rules.port, lambda port: setattr(self.config, "port", port))
        self._read_replicas(router.get("replicas"))
        for name, keys in BLOCKS.items():
            if router.get(name) is not None:
                self._read_block(f"router.{name}", router[name], keys, self.config.blocks.setdefault(name, {}))
        return self.config

    def _read_host(self, host: object) -> None:
        name = host.strip() if isinstance(host, str) else ""
        if name and name.isprintable() and " " not in name:
            self.config.host = name
        else:
            self._problem("router.host", host, "must be an address or a host name to listen on, like 0.0.0.0")

    def _read_replicas(self, entries: object) -> None:
        if not isinstance(entries, list):
            what = "missing" if entries is None else f"{_shown(entries)} is not a list"
            self.problems.append(f"router.replicas: {what}; list at least one replica, each with its `url`")
            return
        if not entries:
            self.problems.append("router.replicas: [] is empty; list at least one replica, each with its `url`")
        for index, entry in enumerate(entries):
            self._read_replica(f"router.replicas[{index}]", entry)
        self._check_together()

    def _read_replica(self, key: str, entry: object) -> None:
        if not isinstance(entry, dict):
            self._problem(key, entry, "must be a mapping, like `- url: http://streamer-a:8000`")
            return
        self._warn_of_unknown(f"{key}.", entry, REPLICA)
        if entry.get("url") is None:
            self._problem(key, entry, "lacks `url`, like url: http://streamer-a:8000")
        found: dict[str, Any] = {"key": key}
        for name, rule in REPLICA.items():
            if entry.get(name) is not None:
                self._value(f"{key}.{name}", entry[name], rule, partial(found.__setitem__, name))
            elif name in entry and name in MAY_BE_NULL:
                found[name] = None
        self.config.replicas.append(found)

    def _check_together(self) -> None:
        """What no entry can break alone: two of the same server, two primaries; and two of a name."""
        by_server: dict[str, str] = {}
        by_name: dict[str, str] = {}
        primaries = []
        for entry in self.config.replicas:
            key = entry.pop("key")
            if "url" in entry:
                first = by_server.setdefault(rules.same_replica(entry["url"]), key)
                if first != key:
                    self._problem(f"{key}.url", entry["url"], f"is a duplicate of {first}.url; remove one of them")
            if "name" in entry:
                first = by_name.setdefault(entry["name"], key)
                if first != key:
                    self.config.warnings.append(f"{key}.name: {_shown(entry['name'])} is also the name of {first}")
            if entry.get("primary"):
                primaries.append(f"{key}.primary")
        if len(primaries) > 1:
            self.problems.append(f"{', '.join(primaries)}: true more than once; at most one replica is the primary")

    def _read_block(self, prefix: str, block: object, keys: dict[str, tuple[str, Rule]], found: dict[str, Any]) -> None:
        if not isinstance(block, dict):
            self._problem(prefix, block, f"must be a mapping of {', '.join(keys)}, indented below it")
            return
        self._warn_of_unknown(f"{prefix}.", block, keys)
        for key, (name, rule) in keys.items():
            if block.get(key) is not None:
                self._value(f"{prefix}.{key}", block[key], rule, partial(found.__setitem__, name))

    def _value(self, key: str, value: object, rule: Rule, keep: Callable[[Any], None]) -> None:
        try:
            keep(rule(value))
        except rules.RuleBroken as broken:
            self._problem(key, value, str(broken))

    def _problem(self, key: str, value: object, text: str) -> None:
        self.problems.append(f"{key}: {_shown(value)} {text}")

    def _warn_of_unknown(self, prefix: str, mapping: dict[Any, Any], known: Any) -> None:
        for key in mapping:
            if key not in known:
                plain = isinstance(key, str) and key.isprintable() and 0 < len(key) <= _short.maxstring
                name = key if plain else _shown(key)
                self.config.warnings.append(f"{prefix}{name}: unknown key, ignored; known are {', '.join(known)}")


class _Unfit(yaml.constructor.ConstructorError):
    """A value that is not what YAML takes it for: a date with a 13th month, a number of 5,000 digits, `!!int x`."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice: YAML would silently take the last."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # its constructors fail in every way: an index, a key, an attribute
            kind = node.tag.rpartition(":")[2]
            what = str(error) if isinstance(error, ValueError) else f"{_shown(node.value)} is no {kind}"
            raise _Unfit(None, None, what, node.start_mark) from error

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():  # `!!set 0`: refused below
            # `<<` may stand there twice, and a key that is a list or a mapping is refused by the SafeLoader.
            if key_node.tag == "tag:yaml.org,2002:merge" or not isinstance(key_node.value, str):
                continue
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} stands there twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{what}, line {mark.line + 1}, column {mark.column + 1}" if mark else what


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80
_short.maxlevel = 2


def _shown(value: object) -> str:
    """`value` in a line. Not by repr: aliases can make a small file's value as long as the memory is large."""
    return _short.repr(value)
