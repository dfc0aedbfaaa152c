"""The API for programs that are no operator's: servers that register themselves, backends that ask for tickets."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import threading
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client

from api.models import Scope
from dashboard import database
from proxy.models import StreamToken, Ticket
from replicas import tokens
from replicas.models import Replica, ReplicaState
from tests.integration.placing import add_replica
from tests.integration.programs import V1, Api, problem

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_server_registers_itself_and_renews() -> None:
    api = Api(Scope.REGISTER)
    body = {"url": "http://gpu-1:8000", "ttl_seconds": 30, "max_sessions": 2}
    first, _, second = [api("PUT", "/replicas/gpu-1", body | more) for more in ({}, {}, {"weight": 2.0})]
    assert (first.status_code, second.status_code) == (201, 200)
    told = second.json()
    assert (told["name"], told["origin"], told["weight"], told["registered_ttl_seconds"]) == (
        "gpu-1",
        "itself",
        2.0,
        30,
    )
    assert Replica.objects.get().renewals == 2
    # A renewal that changes nothing is no act.
    assert [entry.action_flag for entry in LogEntry.objects.order_by("pk")] == [1, 2]
    problem(api("GET", "/replicas"), 403)


def test_what_a_renewal_changes_stands_in_the_log() -> None:
    """Where its sessions go from now on, say; and that it takes sessions again."""
    api = Api(Scope.REGISTER)
    api("PUT", "/replicas/gpu-1", {"url": "http://gpu-1:8000", "ttl_seconds": 30})
    Replica.objects.update(state=ReplicaState.DRAINING, lapsed=True)
    api("PUT", "/replicas/gpu-1", {"url": "http://gpu-1:9000", "ttl_seconds": 30})
    said = LogEntry.objects.latest("pk").get_change_message()
    assert "http://gpu-1:8000" in said
    assert "http://gpu-1:9000" in said
    assert "draining" in said
    assert api.token.name in said


def test_what_people_made_is_not_touched() -> None:
    """Neither by its name nor by its URL; nor may such a token delete it."""
    api = Api(Scope.REGISTER)
    row = add_replica("a")
    told = problem(api("PUT", "/replicas/a", {"url": "http://gpu-1:8000", "ttl_seconds": 30}), 409)
    assert row.url not in json.dumps(told)  # such a token reads nothing
    problem(api("PUT", "/replicas/gpu-1", {"url": row.url, "ttl_seconds": 30}), 409)
    problem(api("DELETE", "/replicas/a"), 404)
    assert list(Replica.objects.values_list("name", "renewals")) == [("a", 0)]
    api("PUT", "/replicas/gpu-1", {"url": "http://gpu-1:8000", "ttl_seconds": 30})
    problem(Api(Scope.REGISTER)("PUT", "/replicas/gpu-2", {"url": "http://gpu-1:8000", "ttl_seconds": 30}), 409)
    assert api("DELETE", "/replicas/gpu-1").status_code == 204


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": "http://a"}, "ttl_seconds"),
        ({"url": "http://a", "ttl_seconds": 1}, "ttl_seconds"),
        ({"url": "http://a", "ttl_seconds": 3601}, "ttl_seconds"),
        ({"url": "a", "ttl_seconds": 30}, "url"),
    ],
)
def test_what_a_registration_cannot_be(body: Any, field: str) -> None:
    told = problem(Api(Scope.REGISTER)("PUT", "/replicas/a", body), 422)
    assert [each["field"] for each in told["errors"]] == [field]


# --- tickets ---


def stream(**fields: Any) -> tuple[str, StreamToken]:
    text = tokens.new_token(tokens.STREAM)
    kept = {"digest": tokens.digest(text), "beginning": tokens.beginning(text)}
    return text, StreamToken.objects.create(name=text[:40], **kept, **fields)


def ask(client: Client, text: str, origin: str) -> Any:
    body = json.dumps({"origin": origin})
    headers = {"Authorization": f"Bearer {text}"}
    return client.post(f"{V1}/tickets", body, content_type="application/json", headers=headers)


def test_a_stream_token_gets_tickets_for_its_pages(client: Client) -> None:
    text, token = stream(origins="https://*.example.com")
    told = ask(client, text, "https://APP.example.com:443")
    assert told.status_code == 201
    assert told.json()["expires_in"] == 30
    made = Ticket.objects.get(digest=tokens.digest(told.json()["ticket"]))
    assert (made.origin, made.token) == ("https://app.example.com", token)
    problem(ask(client, text, "https://elsewhere.org"), 403)
    for wrong in ("app.example.com", "https://bücher.example", "https://a\0b", "https://a\ud800"):
        problem(ask(client, text, wrong), 422)


def test_tickets_wait_for_no_slow_look(client: Client) -> None:
    """Of an operator's: both of the dashboard's threads are busy."""
    text, _ = stream()
    looked = threading.Event()
    busy = [database._threads.submit(looked.wait) for _ in range(2)]
    try:
        assert ask(client, text, "https://app.example.com").status_code == 201
        assert not any(each.done() for each in busy)
    finally:
        looked.set()


def test_tickets_are_given_for_stream_tokens_alone(client: Client, settings: Any) -> None:
    off, _ = stream(enabled=False)
    for text in (off, tokens.new_token(tokens.STREAM), Api().text, ""):
        problem(ask(client, text, "https://app.example.com"), 401)
    settings.ROUTER_ALLOWED_ORIGINS = ["https://app.example.com"]
    text, _ = stream()
    assert ask(client, text, "https://app.example.com").status_code == 201
    problem(ask(client, text, "https://other.example.com"), 403)
    problem(Api(Scope.EDIT)("GET", "/tickets"), 405)


def test_a_register_token_touches_nothing_of_another_ones() -> None:
    one, other, editor = Api(Scope.REGISTER), Api(Scope.REGISTER), Api(Scope.EDIT)
    body = {"url": "http://gpu-1:8000", "ttl_seconds": 30}
    assert one("PUT", "/replicas/gpu-1", body).status_code == 201
    told = problem(other("PUT", "/replicas/gpu-1", body | {"url": "http://elsewhere:8000"}), 409)
    assert "gpu-1:8000" not in told["detail"]
    problem(other("DELETE", "/replicas/gpu-1"), 404)
    assert editor("PUT", "/replicas/gpu-1", body).status_code == 200
    assert one("PUT", "/replicas/gpu-1", body).status_code == 200  # its own still
    assert editor("DELETE", "/replicas/gpu-1").status_code == 204


def test_a_register_token_learns_nothing_of_others_from_what_it_may_not_delete() -> None:
    """Neither which ids there are, nor their names: all are answered like one that does not exist."""
    api, other = Api(Scope.REGISTER), Api(Scope.REGISTER)
    people = add_replica("10.1.2.3:8000", url="http://10.1.2.3:8000")
    Replica.objects.create(name="10.1.2.3:8000", url="http://elsewhere")
    others = other("PUT", "/replicas/gpu-2", {"url": "http://gpu-2", "ttl_seconds": 30}).json()["id"]
    mine = api("PUT", "/replicas/gpu-1", {"url": "http://gpu-1", "ttl_seconds": 30}).json()["id"]
    Replica.objects.filter(pk=people.pk).update(registered_by=api.token.pk)  # a file has taken it over since
    answers = set()
    for named in (people.pk, "10.1.2.3:8000", others, "gpu-2", mine + 1000, "nobody"):
        told = problem(api("DELETE", f"/replicas/{named}"), 404)
        answers.add(told["detail"].replace(f"'{named}'", "'x'"))
    assert len(answers) == 1
    assert api("DELETE", f"/replicas/{mine}").status_code == 204


def test_who_may_only_add_takes_no_others_registration() -> None:
    """The scope edit is not enough: its user may add replicas, and change none."""
    adder = User.objects.create_user("adder", is_staff=True)
    adder.user_permissions.add(Permission.objects.get(codename="add_replica"))
    server, editor = Api(Scope.REGISTER), Api(Scope.EDIT, user=adder)
    body = {"url": "http://gpu-1:8000", "ttl_seconds": 30}
    assert server("PUT", "/replicas/gpu-1", body).status_code == 201
    problem(editor("PUT", "/replicas/gpu-1", body | {"weight": 9.0}), 409)
    problem(editor("PUT", "/replicas/gpu-2", body), 409)
    assert Replica.objects.get().weight == 1.0
    assert editor("PUT", "/replicas/gpu-2", {"url": "http://gpu-2:8000", "ttl_seconds": 30}).status_code == 201


def test_renamed_by_people_it_is_renewed_and_deleted_by_its_server() -> None:
    api = Api(Scope.REGISTER)
    body = {"url": "http://gpu-1:8000", "ttl_seconds": 30}
    id = api("PUT", "/replicas/gpu-1", body).json()["id"]
    assert Api()("PATCH", "/replicas/gpu-1", {"name": "big"}).status_code == 200
    add_replica("gpu-1", url="http://elsewhere")
    renewed = api("PUT", "/replicas/gpu-1", body)
    assert (renewed.status_code, renewed.json()["id"], renewed.json()["name"]) == (200, id, "big")
    assert Replica.objects.get(pk=id).renewals == 1
    assert api("DELETE", f"/replicas/{renewed.json()['name']}").status_code == 204


def test_no_server_registers_with_a_number_for_its_name() -> None:
    """It would be somebody else's id."""
    row = add_replica("a")
    told = problem(Api(Scope.REGISTER)("PUT", f"/replicas/{row.pk}", {"url": "http://b", "ttl_seconds": 30}), 422)
    assert [each["field"] for each in told["errors"]] == ["name"]


def test_a_lapsed_one_is_drained_by_an_act() -> None:
    add_replica("a", registered_ttl_seconds=5.0, lapsed=True, state=ReplicaState.DRAINING)
    done = Api(Scope.OPERATE)("POST", "/replicas/a/drain", {})
    assert "already" not in done.json()["said"]
    assert not Replica.objects.get().lapsed
    assert "lapsed → draining" in LogEntry.objects.get().change_message


@pytest.mark.parametrize("state", ["draining", "active", "disabled"])
def test_a_lapsed_one_is_taken_over_by_who_says_its_state(state: str) -> None:
    """Draining too: that it drained already was its lapse, which its next renewal would take back."""
    server = Api(Scope.REGISTER)
    body = {"url": "http://gpu-1:8000", "ttl_seconds": 30}
    server("PUT", "/replicas/gpu-1", body)
    Replica.objects.update(state=ReplicaState.DRAINING)
    Replica.objects.update(lapsed=True)
    assert Api()("PATCH", "/replicas/gpu-1", {"weight": 2.0}).json()["lapsed"]
    changed = Api()("PATCH", "/replicas/gpu-1", {"state": state}).json()
    assert (changed["state"], changed["lapsed"]) == (state, False)
    assert f"draining, lapsed → {state}" in LogEntry.objects.latest("pk").change_message
    assert server("PUT", "/replicas/gpu-1", body).json()["state"] == state


def test_the_primary_is_marked_where_no_other_is() -> None:
    api = Api()
    assert api("POST", "/replicas", {"url": "http://a", "primary": True}).json()["primary"]
    told = problem(api("POST", "/replicas", {"url": "http://b", "primary": True}), 409)
    assert [(each["field"], each["value"]) for each in told["errors"]] == [("primary", "True")]
    assert "make-primary" in told["errors"][0]["fix"]
    assert api("POST", "/replicas", {"url": "http://b", "name": "b"}).status_code == 201
    problem(api("PATCH", "/replicas/b", {"primary": True}), 409)
    # Two at once that are wrong, one of them a conflict.
    told = problem(api("POST", "/replicas", {"url": "http://a:80", "primary": True}), 409)
    assert {each["field"] for each in told["errors"]} == {"url", "primary"}
    assert api("POST", "/replicas/b/make-primary").status_code == 200


def test_what_docs_api_md_shows_is_true(client: Client) -> None:
    """Each curl of it, with tokens that are good."""
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    commands = re.findall(r"^    (curl .*?[^\\])$", text, re.MULTILINE | re.DOTALL)
    assert len(commands) >= 3
    api = Api()
    for command in commands:
        words = shlex.split(command.replace("\\\n", " "))
        options = dict(itertools.pairwise(words))
        address = next(word for word in words if word.startswith("https://"))
        path = address.removeprefix(f"https://router.example.com{V1}")
        assert options["-H"].startswith(("Authorization: Bearer api_…", "Content-Type"))
        body = json.loads(options["-d"]) if "-d" in options else None
        assert api(options.get("-X", "GET"), path, body).status_code in (200, 201), command
