"""The routers that session tests drive: each test that asks for `router` runs on daphne and on uvicorn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_django.plugin import DjangoDbBlocker

from tests.acceptance.servers import Router, running_router


@pytest.fixture(scope="session", params=["daphne", "uvicorn"])
def router(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker
) -> Iterator[Router]:
    """A router with the default settings but short timeouts; shared by the tests, which each place their replicas."""
    with running_router(
        request.param,
        tmp_path_factory.mktemp(request.param),
        django_db_blocker,
        ROUTER_CONNECT_TIMEOUT_SECONDS=1,
        ROUTER_STREAM_PATHS="/v1/stream,/ws",
        ROUTER_FORWARD_HEADERS="Origin,User-Agent,Traceparent,X-Tenant",
        ROUTER_UPSTREAM_AUTHORIZATION="Bearer router-secret",
    ) as running:
        yield running
