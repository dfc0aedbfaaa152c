"""Version 1 of the API: its parts, and its description at openapi.json."""

from __future__ import annotations

from typing import Any

from ninja import NinjaAPI
from ninja.openapi.schema import OpenAPISchema

from api import problems, replicas, sessions, tickets
from api.schemas import ProblemField, ProblemShown
from replicas.version import VERSION


class Described(NinjaAPI):
    """Says of each operation how it answers where it does not do what it is asked."""

    def get_openapi_schema(self, **options: Any) -> OpenAPISchema:
        described = super().get_openapi_schema(**options)
        problem = {"description": "A problem", "content": {problems.CONTENT_TYPE: {"schema": _PROBLEM}}}
        for item in described["paths"].values():
            item.pop("head", None)  # as GET, without its body
            for operation in item.values():
                operation["responses"]["default"] = problem
        return described


_PROBLEM = ProblemShown.json_schema()
_PROBLEM["properties"]["errors"]["items"] = ProblemField.json_schema()
_PROBLEM.pop("$defs", None)

api = Described(
    title="Stream router",
    version=VERSION,
    description="What machines steer the router by. Errors are problem details (RFC 9457); see docs/api.md.",
    docs_url=None,  # its page would load scripts from elsewhere
    urls_namespace="api",
)
api.add_router("/replicas", replicas.router)
api.add_router("", sessions.router)
api.add_router("/tickets", tickets.router)
problems.install(api)
