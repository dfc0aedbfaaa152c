"""What all tests share: real servers where they are installed, and in CI the rule that nothing is skipped."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.backing_servers import Missing, running_postgres, running_redis
from tests.isolation import VAR_DIR

# Without a deadline an example: a loaded machine is no fault. `ci` draws the same examples in every run, `fuzz` (make
# fuzz) many and new ones.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile(
    "fuzz", deadline=None, max_examples=20_000, suppress_health_check=list(hypothesis.HealthCheck)
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")

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


@pytest.fixture(scope="session", autouse=True)
def made_once() -> Iterator[None]:
    """See once.py."""
    from tests import once

    with pytest.MonkeyPatch.context() as patch:
        once.find_static_files_once(patch)
        once.make_permissions_once(patch)
        yield


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """The test database is a file: threads of the code under test share it, as they do in production."""
    from django.conf import settings

    settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = str(Path(VAR_DIR, "test.sqlite3"))


@pytest.fixture
def admin_user(db: None) -> Any:
    """As pytest-django's, without a password: hashing one takes half a second, and `admin_client` types none."""
    from django.contrib.auth.models import User

    return User.objects.create_superuser("admin", "admin@example.com")


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


class Prepared:
    """The databases that this run has made, by their kind; a server ends with the run."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._made = folder, dict[str, dict[str, Any]]()
        self.servers = contextlib.ExitStack()

    def config(self, kind: str) -> dict[str, Any]:
        """With its tables. Raises Missing."""
        from routerproject import databases
        from tests.databases import prepare

        if kind not in self._made:
            if kind == "sqlite":
                made = databases.sqlite(str(self._folder / "shared.sqlite3"))
            else:
                made = databases.from_url(self.servers.enter_context(running_postgres()).url)
            prepare(made)
            self._made[kind] = made
        return self._made[kind]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any) -> Iterator[Prepared]:
    made = Prepared(tmp_path_factory.mktemp("databases"))
    with django_db_blocker.unblock(), made.servers:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, prepared: Prepared, django_db_blocker: Any) -> Iterator[str]:
    """Once for each kind: an empty database, which the code under test and the test itself reach by any thread."""
    from tests.databases import empty, pointed_at

    with django_db_blocker.unblock():
        try:
            config = prepared.config(request.param)
        except Missing as missing:
            pytest.skip(str(missing))
        with pointed_at(config):
            empty()
            yield request.param
