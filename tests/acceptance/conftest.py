"""The routers that session tests drive: each test that asks for `router` runs on daphne and on uvicorn. And a page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright
from pytest_django.plugin import DjangoDbBlocker

from tests.acceptance import scenes
from tests.acceptance.certificates import AUTHORITY
from tests.acceptance.fleet import Fleet, running_fleet
from tests.acceptance.pages import ARGUMENTS, NOTE_PHASES
from tests.acceptance.servers import PATIENT, Router, running_router
from tests.acceptance.stage import Stage, staged
from tests.raw import hang_up


@pytest.fixture(autouse=True)
async def _nothing_left_open() -> AsyncIterator[None]:
    """A test that fails leaves no connection to the next one."""
    yield
    await hang_up()


@pytest.fixture(scope="session", params=["daphne", "uvicorn"])
def router(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker
) -> Iterator[Router]:
    """A router with the default settings but short timeouts; shared by the tests, which each place their replicas."""
    var = tmp_path_factory.mktemp(request.param)
    AUTHORITY.cert_pem.write_to_path(str(var / "ca.pem"))
    with running_router(
        request.param,
        var,
        django_db_blocker,
        ROUTER_UPSTREAM_CA_FILE=var / "ca.pem",
        ROUTER_CONNECT_TIMEOUT_SECONDS=2,
        ROUTER_STREAM_PATHS="/v1/stream,/ws",
        ROUTER_FORWARD_HEADERS="Origin,User-Agent,Traceparent,X-Tenant",
        ROUTER_UPSTREAM_AUTHORIZATION="Bearer router-secret",
    ) as running:
        yield running


@pytest.fixture(params=["daphne", "uvicorn"])
def patient_router(
    request: pytest.FixtureRequest, tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> Iterator[Router]:
    """A router that gives a replica its time: for tests that keep their own replicas busy."""
    with running_router(request.param, tmp_path, django_db_blocker, **PATIENT) as running:
        yield running


# Times short enough that a fault is found within seconds, and long enough that a loaded machine is none.
QUICK = {
    "ROUTER_PING_INTERVAL_SECONDS": 1,
    "ROUTER_PING_TIMEOUT_SECONDS": 2,
    "ROUTER_STALL_TIMEOUT_SECONDS": 3,
    "ROUTER_CONNECT_TIMEOUT_SECONDS": 2,
}


@pytest.fixture(scope="session")
def quick_daphne(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Router]:
    """A router on daphne that pings, and loses its patience, within seconds; shared."""
    with running_router("daphne", tmp_path_factory.mktemp("quick"), django_db_blocker, **QUICK) as running:
        yield running


@pytest.fixture(scope="session")
def quick_uvicorn(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Router]:
    """The same on uvicorn, which does the pinging of clients itself."""
    pings = ["--ws-ping-interval", "1", "--ws-ping-timeout", "2"]
    var = tmp_path_factory.mktemp("quick-uvicorn")
    with running_router("uvicorn", var, django_db_blocker, options=pings, **QUICK) as running:
        yield running


@pytest.fixture(params=["daphne", "uvicorn"])
def quick_router(request: pytest.FixtureRequest) -> Router:
    """Each of the two above, for what does not depend on the raw path."""
    found: Router = request.getfixturevalue(f"quick_{request.param}")
    return found


@pytest.fixture
def router_settings() -> dict[str, str]:
    """The environment of `own_router`, given by a test's parametrize."""
    return {}


@pytest.fixture
def own_router(router_settings: dict[str, str], tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> Iterator[Router]:
    """A router on daphne of the test's own, with the settings that it names."""
    with running_router("daphne", tmp_path, django_db_blocker, **router_settings) as running:
        yield running


@pytest.fixture(scope="module")
def standing_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet")) as found:
        yield found


@pytest.fixture
def fleet(standing_fleet: Fleet) -> Fleet:
    """The whole house, as it was at first; shared by a module's tests."""
    standing_fleet.mend()
    return standing_fleet


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page whose errors, a broken Content-Security-Policy among them, fail the test."""
    page = await browser.new_page()
    await page.add_init_script(NOTE_PHASES)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))

    def printed(message: ConsoleMessage) -> None:
        if message.type == "error" and message.location["url"]:  # no address: of axe, which we put into it
            errors.append(f"{page.url}: {message.text}")

    page.on("console", printed)
    yield page
    assert errors == []


@pytest.fixture
async def rough(browser: Browser) -> Page:
    """A page that may have errors on its console: of connections that are refused."""
    return await browser.new_page()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """What plays the router for the dashboard's page: seven replicas, something the matter with most of them."""
    async with staged(scenes.eventful(), sessions=scenes.sessions(70), history=scenes.history()) as stage:
        yield stage
