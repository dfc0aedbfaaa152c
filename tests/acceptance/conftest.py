"""The routers that session tests drive: each test that asks for `router` runs on daphne and on uvicorn. And a page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright
from pytest_django.plugin import DjangoDbBlocker

from tests.acceptance.certificates import AUTHORITY
from tests.acceptance.pages import ARGUMENTS
from tests.acceptance.servers import Router, running_router


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
        ROUTER_CONNECT_TIMEOUT_SECONDS=1,
        ROUTER_STREAM_PATHS="/v1/stream,/ws",
        ROUTER_FORWARD_HEADERS="Origin,User-Agent,Traceparent,X-Tenant",
        ROUTER_UPSTREAM_AUTHORIZATION="Bearer router-secret",
    ) as running:
        yield running


@pytest.fixture
def router_settings() -> dict[str, str]:
    """The environment of `own_router`, given by a test's parametrize."""
    return {}


@pytest.fixture
def own_router(router_settings: dict[str, str], tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> Iterator[Router]:
    """A router on daphne of the test's own, with the settings that it names."""
    with running_router("daphne", tmp_path, django_db_blocker, **router_settings) as running:
        yield running


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
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))

    def printed(message: ConsoleMessage) -> None:
        if message.type == "error" and message.location["url"]:  # no address: of axe, which we put into it
            errors.append(f"{page.url}: {message.text}")

    page.on("console", printed)
    yield page
    assert errors == []
