"""What Django would make anew for each test although it is the same each time, made once for all tests of a process."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management.color import no_style
from django.db import connections
from django.test import TransactionTestCase
from servestatic.middleware import ServeStaticMiddleware

KEPT = {"django_content_type", "auth_permission"}


def find_static_files_once(patch: pytest.MonkeyPatch) -> None:
    """Each test client makes all middleware, and this one looks into every app's folders."""
    found: dict[str, dict[str, Any]] = {}
    find = ServeStaticMiddleware.add_files_from_finders

    def add(middleware: ServeStaticMiddleware) -> None:
        if middleware.static_prefix not in found:
            find(middleware)
            found[middleware.static_prefix] = dict(middleware.files)
        middleware.files.update(found[middleware.static_prefix])

    patch.setattr(ServeStaticMiddleware, "add_files_from_finders", add)


def make_permissions_once(patch: pytest.MonkeyPatch) -> None:
    """After a test that was in no transaction all rows go; Django takes these too, and makes them again."""

    def empty(case: TransactionTestCase) -> None:
        for name in case._databases_names(include_mirrors=False):  # type: ignore[attr-defined]
            connection = connections[name]
            tables = set(connection.introspection.django_table_names(only_existing=True, include_views=False)) - KEPT
            connection.ops.execute_sql_flush(connection.ops.sql_flush(no_style(), sorted(tables)))

    patch.setattr(TransactionTestCase, "_fixture_teardown", empty)
