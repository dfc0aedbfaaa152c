"""What all tests share: real servers where they are installed, and in CI the rule that nothing is skipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backing_servers import Missing, running_postgres, running_redis
from tests.isolation import VAR_DIR

IN_CI = os.environ.get("CI") == "true"
_skipped: list[str] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that take minutes of real time are for CI, or for whoever asks for them with -m."""
    if IN_CI or config.option.markexpr:
        return
    soaking = [item for item in items if item.get_closest_marker("soak")]
    if soaking:
        config.hook.pytest_deselected(items=soaking)
        items[:] = [item for item in items if item not in soaking]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if IN_CI and _skipped:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if IN_CI and _skipped:
        terminalreporter.section("skipped, which is a failure in CI")
        for name in _skipped:
            terminalreporter.line(name)


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """The test database is a file: threads of the code under test share it, as they do in production."""
    from django.conf import settings

    settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = str(Path(VAR_DIR, "test.sqlite3"))


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium; the test is skipped by name where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("needs Chromium: apt-get install chromium")


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis on a free port."""
    try:
        with running_redis(tmp_path_factory.mktemp("redis")) as url:
            yield url
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A real PostgreSQL on a free port, of the test's own: it may stop it. See backing_servers.Postgres."""
    try:
        with running_postgres() as server:
            yield server
    except Missing as missing:
        pytest.skip(str(missing))
