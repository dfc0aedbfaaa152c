"""The API against its own description, by schemathesis: no 5xx, every answer as described, whatever is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import given, settings
from pytest_django.plugin import DjangoDbBlocker

from api.models import Scope
from replicas import tokens
from tests.acceptance.cluster import Cluster, running_cluster

NEGATIVE = schemathesis.GenerationMode.NEGATIVE
EXAMPLES = 12  # an operation
TOKEN = tokens.new_token(tokens.API)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("api"), django_db_blocker) as found:
        found.let_in(TOKEN, Scope.EDIT, "fuzzer")
        yield found


def test_the_api_is_as_it_says(cluster: Cluster) -> None:
    """No fault is a value of the right type that the rules refuse, nor a parameter in a query that nobody knows."""
    described = schemathesis.openapi.from_url(f"http://127.0.0.1:{cluster.routers[0].port}/api/v1/openapi.json")
    options = {
        "headers": {"Authorization": f"Bearer {TOKEN}"},
        "excluded_checks": [
            schemathesis.checks.positive_data_acceptance,
            schemathesis.checks.negative_data_rejection,
        ],
    }
    tried = 0
    for found in described.get_all_operations():
        operation = found.ok()

        @settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None)
        @given(case=operation.as_strategy() | operation.as_strategy(generation_mode=NEGATIVE))
        def answers_as_described(case: Any) -> None:
            case.call_and_validate(**options)

        try:
            answers_as_described()
        except BaseException as fault:
            fault.add_note(f"of {operation.label}")
            raise
        tried += 1
    assert tried > 15
