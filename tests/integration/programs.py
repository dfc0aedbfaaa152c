"""Programs that use the API over HTTP, through all middleware: what the tests of api/ share."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth.models import User
from django.test import Client

from api.models import ApiToken, Scope
from replicas import tokens

V1 = "/api/v1"


class Api:
    """A program with a token."""

    def __init__(self, scope: str = Scope.EDIT, user: User | None = None, **fields: Any) -> None:
        user = user or User.objects.filter(username="ops").first() or User.objects.create_superuser("ops")
        self.text = tokens.new_token(tokens.API)
        kept = {"digest": tokens.digest(self.text), "beginning": tokens.beginning(self.text)}
        self.token = ApiToken.objects.create(name=f"token-{self.text[4:12]}", user=user, scope=scope, **kept, **fields)
        self.client = Client(headers={"Authorization": f"Bearer {self.text}"}, enforce_csrf_checks=True)

    def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        data = {} if body is None else {"data": json.dumps(body), "content_type": "application/json"}
        return self.client.generic(method, V1 + path, **data, **options)


def problem(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    told: dict[str, Any] = response.json()
    assert told["status"] == status
    assert {"type", "title", "detail"} <= told.keys()
    return told
