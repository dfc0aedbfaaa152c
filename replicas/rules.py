"""PURE. What may stand in a replica's fields and in the settings' blocks (contract A6), in one place.

Called by the model fields' validators (so by the admin form and `full_clean`) and by config.py for the YAML. Each
rule takes a value as it was given and returns it as it is stored, or raises `RuleBroken` with a message that says
what is allowed. Must not know where a value comes from: the caller names the field.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Sequence
from urllib.parse import SplitResult, urlsplit

from replicas.addresses import literal, never

MAX_URL_LENGTH = 255
MAX_NAME_LENGTH = 63
MAX_SECONDS = 3600.0
MAX_DEADLINE_SECONDS = 86_400.0
MAX_COUNT = 1_000_000

# What a resolver can be asked for: labels of letters, digits, - and _ (compose files use it), 63 at most (RFC 1035).
_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
# urlsplit takes `[::1]8001` for `[::1]`: what stands between is lost without a word.
_HOST_AND_PORT = re.compile(r"(\[[^][]*:[^][]*\]|[^][:]+)(:[0-9]+)?")

# Four numbers that are no IPv4 address, or one with zeros in front: no client of HTTP takes them for a host.
_FOUR_NUMBERS = re.compile(r"[0-9]+(\.[0-9]+){3}")

_AFFINITY = re.compile(r"(query|header|cookie):[A-Za-z0-9_.-]{1,80}")


class RuleBroken(ValueError):
    """A value that is not allowed; the text says what is, and how to mend it."""


def replica_url(value: object) -> str:
    """`http(s)://host[:port]`, host lower-cased, port kept as written, a trailing `/` taken off.

    Refused: another scheme, no host, a path other than `/`, a query, a fragment, user info, a port out of range, and
    addresses that are never a replica's (addresses.py). What a name resolves to is checked when it is connected to.
    """
    if not isinstance(value, str):
        raise RuleBroken("must be text like http://streamer-a:8000")
    text = value.strip()
    if len(text) > MAX_URL_LENGTH:
        raise RuleBroken(f"must be at most {MAX_URL_LENGTH} characters")
    if any(character.isspace() or not character.isprintable() for character in text):
        raise RuleBroken("must not contain spaces or control characters")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise RuleBroken(f"is not a URL ({error}); write it like http://streamer-a:8000") from error
    if parts.scheme not in ("http", "https"):
        raise RuleBroken("must begin with http:// or https://, like http://streamer-a:8000")
    if not host:
        raise RuleBroken("must name a host, like http://streamer-a:8000")
    _refuse_all_but_the_address(parts, text)
    _refuse_what_is_no_host(host)
    _refuse_where_no_replica_is(host)
    if port == 0 or not _HOST_AND_PORT.fullmatch(parts.netloc):
        raise RuleBroken("must have after its host nothing, or a : and a port from 1 to 65535")
    shown_host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown_host}" + (f":{port}" if port is not None else "")


def _refuse_all_but_the_address(parts: SplitResult, text: str) -> None:
    if "@" in parts.netloc:
        raise RuleBroken("must not contain user info; credentials go into the setting ROUTER_UPSTREAM_AUTHORIZATION")
    if parts.path not in ("", "/"):
        raise RuleBroken(f"must not have a path ({parts.path!r}); the paths are settings of the router")
    if parts.query or "?" in text:
        raise RuleBroken("must not have a query (?…)")
    if parts.fragment or "#" in text:
        raise RuleBroken("must not have a fragment (#…)")


def _refuse_what_is_no_host(host: str) -> None:
    if _HOST_NAME.fullmatch(host):
        return
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError as error:
        raise RuleBroken(
            f"must name a host by letters, digits, - and . or by its address, not {host!r}; "
            "write an international name in its xn-- form"
        ) from error
    if address.scope_id is not None:
        raise RuleBroken("must not name a network interface (%…); give the replica a routable address")


def _refuse_where_no_replica_is(host: str) -> None:
    address = literal(host)
    if address is not None and (word := never(address)):
        shown = "" if str(address) == host else f" ({address})"
        article = "an" if word == "unspecified" else "a"
        raise RuleBroken(
            f"must not have {article} {word} address{shown}; "
            "give the name or the address at which other hosts reach the replica"
        )
    if _FOUR_NUMBERS.fullmatch(host) and str(address) != host:
        raise RuleBroken(
            "must have as an IPv4 address four numbers from 0 to 255 without zeros in front, like 10.0.0.5"
        )


def same_replica(url: str) -> str:
    """What two normalised URLs of one server have in common: the scheme's default port made explicit.

    `http://a` and `http://a:80` are stored as written, but are one replica and must not be added twice.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{port}"


def spellings(url: str) -> tuple[str, ...]:
    """Every normalised URL that means the same replica as `url`: with the default port, and without it."""
    explicit = same_replica(url)
    portless, _, port = explicit.rpartition(":")
    default = "443" if url.startswith("https:") else "80"
    return (explicit, portless) if port == default else (explicit,)


def replica_name(value: object) -> str:
    """A label for people: 1 to 63 printable characters, stripped."""
    if not isinstance(value, str) or not value.strip():
        raise RuleBroken("must be text, at least one character; leave it out to get the URL's host and port")
    text = value.strip()
    if len(text) > MAX_NAME_LENGTH:
        raise RuleBroken(f"must be at most {MAX_NAME_LENGTH} characters")
    if not text.isprintable():
        raise RuleBroken("must not contain line breaks or control characters")
    return text


def default_name(url: str) -> str:
    """The name of a replica that was given none: its URL's host and port."""
    return urlsplit(url).netloc[:MAX_NAME_LENGTH]


def weight(value: object) -> float:
    """A finite number > 0: the replica's share when sessions are balanced."""
    number = _number(value)
    if not number > 0:
        raise RuleBroken("must be greater than 0; to send a replica nothing, set its state to draining")
    return number


def max_sessions(value: object) -> int:
    """A whole number ≥ 1: the replica's slots."""
    return _count(value, "to send a replica nothing, set its state to draining")


def seconds(value: object) -> float:
    """A duration > 0 and ≤ 3600 s, fractions allowed (interval and timeout of the probes)."""
    number = _number(value)
    if not number > 0:
        raise RuleBroken("must be greater than 0 seconds")
    if number > MAX_SECONDS:
        raise RuleBroken(f"must be at most {MAX_SECONDS:g} seconds")
    return number


def pause(value: object) -> float:
    """A duration from 0 to 3600 s, fractions allowed (slow start)."""
    number = _number(value)
    if not 0 <= number <= MAX_SECONDS:
        raise RuleBroken(f"must be from 0 to {MAX_SECONDS:g} seconds; 0 switches it off")
    return number


def deadline(value: object) -> float:
    """A duration from 0 s to a day, fractions allowed (drain)."""
    number = _number(value)
    if not 0 <= number <= MAX_DEADLINE_SECONDS:
        raise RuleBroken(f"must be from 0 to {MAX_DEADLINE_SECONDS:g} seconds; leave it empty to let sessions end")
    return number


def affinity(value: object) -> str:
    """`none`, or where a client's affinity key is found: `query:NAME`, `header:NAME` or `cookie:NAME`."""
    if not isinstance(value, str) or not (value == "none" or _AFFINITY.fullmatch(value)):
        raise RuleBroken("must be none, query:NAME, header:NAME or cookie:NAME (NAME of letters, digits, - _ .)")
    return value


def one_of(choices: Sequence[str]) -> Callable[[object], str]:
    """A rule: one of `choices`, as written."""

    def rule(value: object) -> str:
        if value not in choices:
            raise RuleBroken(f"must be one of {', '.join(choices)}")
        return str(value)

    return rule


def length(value: object) -> int:
    """A whole number ≥ 0 (clients in the line)."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise RuleBroken(f"must be a whole number from 0 to {MAX_COUNT}; 0 lets nobody wait")
    return value


def limit(value: object) -> int:
    """A whole number ≥ 0 of sessions; 0: no limit."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise RuleBroken(f"must be a whole number from 0 to {MAX_COUNT}; 0 sets no limit")
    return value


def threshold(value: object) -> int:
    """A whole number ≥ 1 of consecutive probes."""
    return _count(value, "1 acts on the first probe")


def health_path(value: object) -> str:
    """The path that probes ask for: begins with one `/`; a query is allowed, a fragment or a space is not."""
    if not isinstance(value, str) or not value.startswith("/") or value.startswith("//"):
        raise RuleBroken("must be a path that begins with one /, like /health")
    if len(value) > MAX_URL_LENGTH:
        raise RuleBroken(f"must be at most {MAX_URL_LENGTH} characters")
    if "#" in value or not value.isascii() or not value.isprintable() or " " in value:
        raise RuleBroken("must not contain spaces, #, or characters outside ASCII")
    return value


def port(value: object) -> int:
    """A TCP port, 1 to 65535."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise RuleBroken("must be a whole number from 1 to 65535")
    return value


def flag(value: object) -> bool:
    """true or false, and nothing that only looks like it (`yes` in quotes, 1)."""
    if not isinstance(value, bool):
        raise RuleBroken("must be true or false")
    return value


def _number(value: object) -> float:
    # bool is an int to Python, but `weight: true` is a slip, not a weight.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RuleBroken("must be a number")
    try:
        number = float(value)
    except OverflowError as error:
        raise RuleBroken("must be a finite number") from error
    if not math.isfinite(number):
        raise RuleBroken("must be a finite number")
    return number


def _count(value: object, remedy: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RuleBroken("must be a whole number")
    if value < 1:
        raise RuleBroken(f"must be at least 1; {remedy}")
    if value > MAX_COUNT:
        raise RuleBroken(f"must be at most {MAX_COUNT}")
    return value
