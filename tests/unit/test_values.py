"""What may stand in a variable of the environment, each rule for itself (routerproject/values.py, databases.py)."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from routerproject import databases, values
from routerproject.environment import Unusable

GOOD = [
    (values.host, ["a.example", ".example.com", "*", "127.0.0.1", "[::1]", "[2001:db8::1]", "my_host", "a."]),
    (values.origin, ["https://a.example", "http://a:8000", "https://*.example.com", "https://[::1]:8443"]),
    (values.redis_url, ["redis://h", "redis://:pw@h:6379/0", "rediss://u:p@h/1", "unix:///run/redis.sock"]),
    (values.stream_path, ["/v1/stream", "/ws", "/administration", "/statics"]),
    (values.address, ["127.0.0.1:9700", "0.0.0.0:1", "[::1]:65535", "metrics.internal:9700"]),
    (values.networks, ["10.0.0.0/8", "10.0.0.0/8, fd00::/8,", "127.0.0.1"]),
    (values.token, ["0123456789abcdef", "a-token/with+signs=="]),
]
BAD = [
    (values.host, "a.example:8000", "a.example:8000 has a port"),
    (values.host, "::1", "is no host name"),
    (values.host, "[::1]:8000", "has a port"),
    (values.host, "[::1", "is no host name"),
    (values.host, "http://a", "is no host name"),
    (values.host, "a b", "is no host name"),
    (values.origin, "a.example", "has no scheme"),
    (values.origin, "https://", "names no host"),
    (values.origin, "https://:443", "names no host"),
    (values.origin, "https://a/", "has more than scheme, host and port"),
    (values.origin, "https://a/login", "has more than"),
    (values.origin, "https://a?b", "has more than"),
    (values.origin, "https://u@a", "has more than"),
    (values.address, "9700", "it has no host"),
    (values.address, ":9700", "it has no host"),
    (values.address, "*:9700", "it has no host"),
    (values.address, "127.0.0.1", "it has no host"),
    (values.address, "127.0.0.1:0", "its port is not one from 1 to 65535"),
    (values.address, "127.0.0.1:http", "its port is not one from 1 to 65535"),
    (values.address, "::1:9700", "is no host name"),
    (values.networks, ",", "there is nothing between the commas"),
    (values.networks, "10.0.0.0/8,gpu", "gpu is no network"),
    (values.networks, "10.0.0.1/8", "10.0.0.1/8 has more bits than its prefix; write 10.0.0.0/8"),
    (values.networks, "169.254.0.0/16", "169.254.0.0/16 is link-local, where no replica may be"),
    (values.token, "short", "it has less than 16 characters"),
    (values.redis_url, "redis://", "it names no host"),
    (values.redis_url, "redis://:6379", "it names no host"),
    (values.redis_url, "redis://h:port", "its port is not one from 1 to 65535"),
    (values.redis_url, "redis://h:99999/0", "its port is not one from 1 to 65535"),
    (values.redis_url, "redis://h:0", "its port is not one from 1 to 65535"),
    (values.redis_url, "redis://h/name", "its database is no number"),
    (values.redis_url, "unix://", "it names no socket"),
    (values.certificates, "ca.pem", "the path is relative"),
    (values.certificates, "/no/such/ca.pem", "it cannot be read: No such file or directory"),
    *(
        (values.stream_path, path, f"{path} is the router's own")
        for path in (
            "/",
            "/status",
            "/readyz",
            "/livez",
            "/metrics",
            "/admin",
            "/admin/x",
            "/dashboard",
            "/dashboard/live",
            "/static",
            "/static/a",
        )
    ),
]


@pytest.mark.parametrize(("rule", "value"), [(rule, value) for rule, good in GOOD for value in good])
def test_what_can_be_used_is_taken(rule: Callable[[str], object], value: str) -> None:
    """Each form that the README or Django promises."""
    assert rule(value)


@pytest.mark.parametrize(("rule", "value", "wrong"), BAD)
def test_what_cannot_be_used_is_refused_with_the_reason(rule: Callable[[str], object], value: str, wrong: str) -> None:
    """Found at the start, not by the first session or the first look at the admin."""
    with pytest.raises(Unusable) as told:
        rule(value)
    assert wrong in str(told.value)


def test_a_ca_file_is_loaded(tmp_path: Path) -> None:
    """One that TLS cannot load would be found by the first probe of an https replica."""
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(file))
    assert values.certificates(str(file))
    for garbage in ("", "nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        file.write_text(garbage)
        with pytest.raises(Unusable, match="it holds no certificate"):
            values.certificates(str(file))
    assert issubclass(ssl.SSLError, OSError)  # it must be asked for before OSError


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("mysql://u:p@h/n", "it is of another kind"),
        ("postgres://", "it names no database"),
        ("postgres://u:p@h:5432", "it names no database"),
        ("sqlite://", "a database in memory"),
        ("sqlite://:memory:", "a database in memory"),
        ("sqlite:///router.sqlite3", "the path is relative"),
        ("sqlite:////no/such/folder/router.sqlite3", "the folder does not exist"),
        ("sqlite:////tmp", "it is a folder"),
        ("sqlite:////tmp/r.sqlite3?timeout=30", "the router sets timeout itself"),
        ("sqlite:////tmp/r.sqlite3?init_command=x&transaction_mode=DEFERRED", "sets init_command, transaction_mode"),
        ("postgres://h/n?connect_timeout=60", "the router sets connect_timeout itself"),
        ("postgres://h/n?keepalives=0&tcp_user_timeout=0", "the router sets keepalives, tcp_user_timeout itself"),
        ("postgres://h/n?options=-c%20Statement_Timeout%3D0", "the router sets statement_timeout itself"),
    ],
)
def test_a_database_that_cannot_be_used_is_refused_with_the_reason(url: str, wrong: str) -> None:
    """Also options that would undo the bound on every wait."""
    with pytest.raises(Unusable) as told:
        databases.from_url(url)
    assert wrong in str(told.value)


def test_a_folder_that_cannot_be_written_is_no_place_for_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite writes a journal beside the file. (For root all folders can be written.)"""
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(Unusable, match="cannot be written"):
        databases.from_url(f"sqlite:///{tmp_path}/router.sqlite3")


def test_the_options_of_a_url_stand_beside_the_routers() -> None:
    """TLS and a search path are the operator's, the bounds are ours."""
    found = databases.from_url("postgres://u:p@h:5433/n?sslmode=require&options=-c%20search_path%3Drouter")
    options = found["OPTIONS"]
    assert (found["NAME"], options["sslmode"], options["connect_timeout"]) == ("n", "require", 2)
    assert options["options"].startswith("-c search_path=router -c statement_timeout=2500 -c lock_timeout=2500")
    assert databases.from_url("postgres://h/n")["OPTIONS"]["options"].startswith("-c statement_timeout=2500")
