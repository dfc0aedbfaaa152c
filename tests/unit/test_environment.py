"""Settings from the environment: what is wrong is named, and never raised (routerproject/environment.py)."""

from __future__ import annotations

import json
import logging
import logging.config
import multiprocessing
import stat
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import RequestFactory
from django.utils.log import log_response

from routerproject import databases
from routerproject.environment import Environment, Unusable, kept_secret
from routerproject.logs import is_fault, logging_config

DATABASE = {"cast": databases.from_url, "valid": bool, "allowed": databases.ALLOWED, "secret": True}


def read(kind: str, raw: str | None, default: Any, **options: Any) -> tuple[Any, list[str]]:
    environment = Environment({} if raw is None else {"NAME": raw})
    value = getattr(environment, kind)("NAME", default, **options)
    return value, [str(problem) for problem in environment.problems]


@pytest.mark.parametrize("raw", [None, "", "  "])
def test_unset_and_empty_mean_the_default(raw: str | None) -> None:
    """Compose files and unit files write an empty value for "not set"."""
    assert read("integer", raw, 5, low=1, high=9, unit="days") == (5, [])


@pytest.mark.parametrize(
    ("kind", "raw", "default", "options", "allowed"),
    [
        ("integer", "ten", 5, {"low": 1, "high": 9, "unit": "days"}, "whole days, 1 to 9"),
        ("integer", "1.5", 5, {"low": 1, "high": 9, "unit": "days"}, "whole days, 1 to 9"),
        ("integer", "10", 5, {"low": 1, "high": 9, "unit": "days"}, "whole days, 1 to 9"),
        ("seconds", "0", 2.0, {"low": 0.1, "high": 60}, "seconds, 0.1 to 60, fractions allowed"),
        ("seconds", "nan", 2.0, {"low": 0.1, "high": 60}, "seconds, 0.1 to 60, fractions allowed"),
        ("seconds", "inf", 2.0, {"low": 0.1, "high": 60}, "seconds, 0.1 to 60, fractions allowed"),
        ("flag", "maybe", False, {}, "true or false"),
        ("text", "x", "y", {"allowed": "y or z", "valid": lambda v: v in "yz"}, "y or z"),
        ("words", "a,/b", ["c"], {"allowed": "no slash", "valid": lambda v: "/" not in v}, "no slash"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    kind: str, raw: str, default: Any, options: dict[str, Any], allowed: str
) -> None:
    """And the default is used, so that every problem can be reported at once."""
    value, problems = read(kind, raw, default, **options)
    assert value == default
    (problem,) = problems
    assert problem.startswith(f"NAME={raw!r} cannot be used")
    assert allowed in problem


@pytest.mark.parametrize(("raw", "value"), [("true", True), ("ON", True), ("1", True), ("no", False), ("False", False)])
def test_flags_are_words(raw: str, value: bool) -> None:
    """In any case; anything else is a problem, not false."""
    assert read("flag", raw, not value) == (value, [])


def test_a_list_is_separated_by_commas() -> None:
    """Spaces around the entries and empty ones do not matter."""
    assert read("words", " /a, /b ,", [], allowed="paths") == (["/a", "/b"], [])


def test_a_list_of_nothing_is_a_slip() -> None:
    """ALLOWED_HOSTS=, would refuse every page; where nothing can be meant, `,` says it."""
    value, (problem,) = read("words", ",", ["/a"], allowed="paths")
    assert value == ["/a"]
    assert "there is nothing between the commas" in problem
    assert read("words", ",", ["/a"], allowed="paths", may_be_empty=True) == ([], [])


def test_a_secret_is_never_shown() -> None:
    """Neither a bad key nor the password of a bad database URL."""
    _, (problem,) = read("text", "short", "", allowed="50 characters", valid=lambda v: len(v) > 50, secret=True)
    assert "short" not in problem
    _, (problem,) = read("read", "mysql://user:hunter2@host/db", {}, **DATABASE)
    assert "hunter2" not in problem
    assert "sqlite:///" in problem


def test_a_dollar_in_a_password_stays() -> None:
    """Values are taken as they are, not as references to other variables."""
    value, problems = read("text", "$ecret", "", allowed="any")
    assert (value, problems) == ("$ecret", [])
    config, _ = read("read", "postgres://u:p%40$s@h:5433/n", {}, **DATABASE)
    assert (config["PASSWORD"], config["PORT"], config["NAME"]) == ("p@$s", 5433, "n")


def test_the_secret_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    """Mode 0600, and the same at the next start."""
    path = tmp_path / "var" / "secret_key"
    secret = kept_secret(path)
    assert len(secret) >= 50
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert kept_secret(path) == secret
    assert [file.name for file in path.parent.iterdir()] == ["secret_key"]


def test_processes_that_start_at_once_get_the_same_secret(tmp_path: Path) -> None:
    """Or the sessions of one would be worth nothing in the other."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert len(set(pool.map(kept_secret, [tmp_path / "secret_key"] * 8))) == 1


@pytest.mark.parametrize("content", ["", "short", "\n" * 60])
def test_a_kept_secret_that_is_too_short_is_not_used(tmp_path: Path, content: str) -> None:
    """Whoever emptied the file gets no router whose signatures anybody can make."""
    path = tmp_path / "secret_key"
    path.write_text(content)
    with pytest.raises(Unusable, match="holds less than 50 characters"):
        kept_secret(path)


@pytest.mark.parametrize("style", ["text", "json"])
def test_libraries_that_would_log_headers_stay_quiet(style: str) -> None:
    """At LOG_LEVEL=DEBUG websockets and httpx would print ROUTER_UPSTREAM_AUTHORIZATION and internal URLs."""
    config = logging_config("DEBUG", style)
    for name in ("websockets", "httpx", "httpcore"):
        assert config["loggers"][name]["level"] == "WARNING"
    assert list(config["formatters"]) == [style]


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [("/readyz", 503, False), ("/readyz", 500, True), ("/status", 503, True), ("/admin/", 500, True)],
)
def test_not_ready_is_an_answer_and_no_fault(path: str, status: int, expected: bool) -> None:
    """A 503 of /readyz fills no log at a start; every other failure is logged."""
    response = HttpResponse(status=status)
    found: list[logging.LogRecord] = []
    logger = logging.Logger("django.request")
    logger.addFilter(is_fault)
    handler = logging.Handler()
    handler.emit = found.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    log_response("%s", path, response=response, request=RequestFactory().get(path), logger=logger)
    assert bool(found) is expected
    assert logging_config("INFO", "text")["loggers"]["django.request"]["filters"] == ["answers"]


def test_a_line_of_json_holds_no_request() -> None:
    """Django's records carry the request, and its text the query, which may hold a token."""
    factory = dict(logging_config("INFO", "json")["formatters"]["json"])
    configured = logging.config.DictConfigurator({"version": 1}).configure_formatter(factory)
    record = logging.makeLogRecord({"msg": "Not Found", "request": RequestFactory().get("/v1/stream?token=s3cret")})
    line = configured.format(record)
    assert json.loads(line)["message"] == "Not Found"
    assert "s3cret" not in line
