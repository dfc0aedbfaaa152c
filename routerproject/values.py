"""What may stand in the variables that settings.py reads, where that takes more than a word to say.

Each function takes a value as it was given; it returns True, or raises Unusable, which says what is wrong with it. What
is allowed instead says settings.py. Must not import Django: settings are being made.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from replicas import addresses
from routerproject.environment import Unusable

# Answered for whatever Host, and never redirected: load balancers probe by address (middleware.py).
MACHINE_PATHS = ("/livez", "/readyz", "/status", "/metrics")
TAKEN_PATHS = ("/", "/favicon.ico", "/admin", "/api", "/dashboard", "/static", *MACHINE_PATHS)
TAKEN_TREES = ("/admin/", "/api/", "/dashboard/", "/static/")

ACCESSES = ("public", "staff", "token")
TOKEN_CHARACTERS = 16

_HOST = re.compile(r"\*|\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")


def path(value: str) -> bool:
    return value.startswith("/") and not any(c in value for c in "?#%<> \t") and "//" not in value


def stream_path(value: str) -> bool:
    if value in TAKEN_PATHS or value.startswith(TAKEN_TREES):
        raise Unusable(f"{value} is the router's own")
    return path(value)


def host(value: str) -> bool:
    """As Django compares it with a request's Host, whose port it has taken off."""
    if value.startswith("[") and value.endswith("]"):
        return bool(ipaddress.IPv6Address(value[1:-1]))
    if _HOST.fullmatch(value):
        return True
    port = re.fullmatch(r"(\[.*\]|[^:]+):\d+", value)
    raise Unusable(f"{value} has a port" if port else f"{value} is no host name")


def origin(value: str) -> bool:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https"):
        raise Unusable(f"{value} has no scheme")
    if not parts.hostname:
        raise Unusable(f"{value} names no host")
    if value != f"{parts.scheme}://{parts.netloc}" or "@" in parts.netloc:
        raise Unusable(f"{value} has more than scheme, host and port")
    return parts.port != 0  # raises where it is no number


def origin_rule(value: str) -> bool:
    """An origin as browsers send it: lower case, no default port; or all subdomains of one."""
    if "*" in value.replace("://*.", "://", 1) or value != value.lower():
        raise Unusable(f"{value} is not in the form that browsers send")
    plain = value.replace("://*.", "://any.", 1)
    default = {"http": 80, "https": 443}.get(urlsplit(plain).scheme)
    if urlsplit(plain).port == default:
        raise Unusable(f"{value} has its scheme's own port, which browsers leave out")
    return origin(plain)


def address(value: str) -> tuple[str, int]:
    """`host:port`, IPv6 in []."""
    name, _, port = value.rpartition(":")
    if not name or name.startswith(("*", ".")):
        raise Unusable("it has no host")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535):
        raise Unusable("its port is not one from 1 to 65535")
    host(name)
    return name.strip("[]"), int(port)


def networks(value: str) -> tuple[addresses.Network, ...]:
    """CIDRs, separated by commas."""
    try:
        found = tuple(addresses.network(text.strip()) for text in value.split(",") if text.strip())
    except addresses.NotOne as wrong:
        raise Unusable(str(wrong)) from wrong
    if not found:
        raise Unusable("there is nothing between the commas")
    return found


def token(value: str) -> bool:
    if len(value) < TOKEN_CHARACTERS:
        raise Unusable(f"it has less than {TOKEN_CHARACTERS} characters")
    return value.isascii() and value.isprintable() and " " not in value


def redis_url(value: str) -> bool:
    parts = urlsplit(value)
    if parts.scheme == "unix":
        if not parts.path:
            raise Unusable("it names no socket")
        return True
    if parts.scheme not in ("redis", "rediss"):
        return False
    if not parts.hostname:
        raise Unusable("it names no host")
    try:
        usable_port = parts.port != 0
    except ValueError:
        usable_port = False
    if not usable_port:
        raise Unusable("its port is not one from 1 to 65535")
    if not re.fullmatch(r"(/\d*)?", parts.path):
        raise Unusable("its database is no number")
    return True


def certificates(value: str) -> bool:
    """A PEM file that TLS can load."""
    if not Path(value).is_absolute():
        raise Unusable("the path is relative")
    try:
        ssl.create_default_context(cafile=value)
    except ssl.SSLError as error:
        raise Unusable("it holds no certificate") from error
    except OSError as error:
        raise Unusable(f"it cannot be read: {error.strerror}") from error
    return True
