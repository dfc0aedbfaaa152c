"""Tokens in the admin: made there, shown once, and known by nobody afterwards."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client

from api.models import ApiToken
from proxy.models import StreamToken
from replicas import tokens

pytestmark = pytest.mark.django_db

STREAM = {"name": "web", "enabled": "on", "origins": "", "max_sessions": "2", "new_sessions_per_minute": "0"}
PAGES: dict[str, tuple[type[Any], dict[str, str]]] = {
    "proxy/streamtoken": (StreamToken, STREAM),
    "api/apitoken": (ApiToken, {"name": "pipeline", "enabled": "on", "scope": "operate"}),
}


@pytest.mark.parametrize("page", PAGES)
def test_it_is_shown_once(admin_client: Client, admin_user: User, page: str) -> None:
    """On the page that answers, which nobody keeps; not in the list, the form, the log or the session."""
    model, form = PAGES[page]
    answer = admin_client.post(f"/admin/{page}/add/", form | {"user": str(admin_user.pk)})
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    found = re.search(rf"{model.kind}_[\w-]{{43}}", answer.content.decode())
    assert found is not None
    made = model.objects.get()
    assert made.digest == tokens.digest(found[0])
    assert found[0].startswith(made.beginning[:-1])
    for path in ("", f"{made.pk}/change/", f"{made.pk}/history/"):
        assert found[0] not in admin_client.get(f"/admin/{page}/{path}").content.decode()
    assert found[0] not in str(list(LogEntry.objects.values()))
    assert found[0] not in str(dict(admin_client.session))


@pytest.mark.parametrize("page", PAGES)
def test_a_change_makes_no_other(admin_client: Client, admin_user: User, page: str) -> None:
    model, form = PAGES[page]
    admin_client.post(f"/admin/{page}/add/", form | {"user": str(admin_user.pk)})
    made = model.objects.get()
    changed = {name: value for name, value in form.items() if name != "enabled"} | {"user": str(admin_user.pk)}
    shown = admin_client.get(f"/admin/{page}/{made.pk}/change/").content.decode()
    hidden = dict(re.findall(r'<input type="hidden" name="([-\w]+)" value="([^"]*)"', shown))
    assert admin_client.post(f"/admin/{page}/{made.pk}/change/", hidden | changed).status_code == 302
    after = model.objects.get()
    assert (after.digest, after.enabled) == (made.digest, False)


@pytest.mark.parametrize("origins", ["app.example.com", "https://app.example.com/x", "https://*", "HTTPS://A.com"])
def test_what_is_no_origin_is_named(admin_client: Client, origins: str) -> None:
    answer = admin_client.post("/admin/proxy/streamtoken/add/", STREAM | {"origins": origins})
    assert "write one a line" in str(answer.context["adminform"].form.errors["origins"])


def test_nobody_makes_an_api_token_that_may_more_than_they(client: Client, admin_user: User) -> None:
    """Who is no superuser makes tokens for themselves alone."""
    ada = User.objects.create_user("ada", is_staff=True)
    ada.user_permissions.add(Permission.objects.get(codename="add_apitoken"))
    client.force_login(ada)
    form = PAGES["api/apitoken"][1]
    refused = client.post("/admin/api/apitoken/add/", form | {"user": str(admin_user.pk)})
    assert "user" in refused.context["adminform"].form.errors
    assert client.post("/admin/api/apitoken/add/", form | {"user": str(ada.pk)}).status_code == 200
    assert ApiToken.objects.get().user == ada
