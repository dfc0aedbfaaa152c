"""Routers whose GET operations answer HEAD too (RFC 9110 §9.1), which load balancers and caches ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import ninja

Operation = TypeVar("Operation", bound=Callable[..., Any])


class Router(ninja.Router):
    def get(self, path: str, **options: Any) -> Callable[[Operation], Operation]:
        return self.api_operation(["GET", "HEAD"], path, **options)
