"""What goes in and out: pydantic models, from which the API's description (OpenAPI) is made.

Names are those of the config file (contract A6) and of /status (A5) where the thing is the same. What a value must be
beyond its type says replicas/rules.py, as for the admin and the files.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from ninja import Schema
from pydantic import ConfigDict, Field

from replicas.registration import MAX_TTL_SECONDS, MIN_TTL_SECONDS
from replicas.rules import MAX_COUNT, MAX_DEADLINE_SECONDS, MAX_NAME_LENGTH, MAX_URL_LENGTH

Item = TypeVar("Item")

Url = Annotated[str, Field(max_length=MAX_URL_LENGTH, description="http(s)://host:port, without a path")]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH)]
Weight = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]
Slots = Annotated[int, Field(ge=1, le=MAX_COUNT, strict=True)]
Deadline = Annotated[float, Field(ge=0, le=MAX_DEADLINE_SECONDS, strict=True)]
Ttl = Annotated[float, Field(ge=MIN_TTL_SECONDS, le=MAX_TTL_SECONDS, strict=True)]
State = Annotated[str, Field(pattern="^(active|draining|disabled)$")]


class Given(Schema):
    model_config = ConfigDict(extra="forbid")


class ReplicaGiven(Given):
    url: Url
    name: Name | None = Field(None, description="Left out: the URL's host and port.")
    primary: bool = Field(False, description="409 where another has the mark; make-primary moves it.")
    weight: Weight = 1.0
    max_sessions: Slots | None = Field(None, description="Null: what it reports itself.")
    state: State = "active"
    drain_deadline_seconds: Deadline | None = None


class ReplicaChanged(Given):
    """Only what is given is changed. Null is a value for max_sessions and drain_deadline_seconds: none."""

    url: Url = ""
    name: Name = ""
    primary: bool = False
    weight: Weight = 1.0
    max_sessions: Slots | None = None
    state: State = "active"
    drain_deadline_seconds: Deadline | None = None


class Registration(Given):
    """What a streaming server says of itself, again and again, within `ttl_seconds` each time."""

    url: Url
    ttl_seconds: Ttl
    weight: Weight = 1.0
    max_sessions: Slots | None = None


class Drain(Given):
    deadline_seconds: Deadline | None = Field(
        None, description="Sessions left after so long are closed (1012). Null: the replica's own deadline stands."
    )


class Disconnect(Given):
    reason: Annotated[str, Field(max_length=123)] = Field("", description="Reaches the client. Left out: a usual one.")


class ReplicaShown(Schema):
    id: int
    name: str
    url: str
    primary: bool
    weight: float
    max_sessions: int | None
    state: str
    drain_deadline_seconds: float | None
    status: str = Field(description="unknown, healthy or unhealthy: what the prober says")
    status_since: datetime | None
    last_ok_at: datetime | None
    last_latency_ms: float | None
    last_error: str
    consecutive_failures: int
    slots: int | None = Field(description="max_sessions, or what it reports; null: unlimited")
    sessions: int = Field(description="live now, over all router processes")
    origin: str = Field(description="people, file or itself")
    registered_ttl_seconds: float | None
    lapsed: bool = Field(description="it registered itself and has not renewed that: it is drained")


class SessionShown(Schema):
    id: str = Field(description="as in the logs, in error messages and in X-Request-ID")
    state: str = Field(description="waiting, live or ended")
    replica: str | None
    replica_id: int | None
    process: str | None
    client: str
    stream_token: str | None
    opened_at: datetime
    placed_at: datetime | None
    first_media_at: datetime | None
    ended_at: datetime | None
    attempts: int
    frames_up: int = Field(description="of an ended one, as are those below")
    bytes_up: int
    frames_down: int
    bytes_down: int
    close_code: int | None
    ended_by: str | None
    why: str | None
    story: str | None = Field(description="of an ended one, in a sentence")


class Waiting(Schema):
    position: int
    id: str
    client: str
    waits_seconds: float


class Queue(Schema):
    length: int
    longest_wait_seconds: float
    waiting: list[Waiting] = Field(description="the first of them, in order")


class Event(Schema):
    id: int
    at: datetime
    replica: str
    replica_id: int
    old_status: str
    new_status: str
    reason: str


class Page(Schema, Generic[Item]):
    items: list[Item]
    next: str | None = Field(description="the cursor of the next page; null: there is none")


class Done(Schema):
    said: str = Field(description="what was done, or with dry_run what would be")
    dry_run: bool


class TicketWanted(Given):
    origin: Annotated[str, Field(max_length=255)] = Field(description="of the page, like https://app.example.com")


class TicketGiven(Schema):
    ticket: str
    expires_in: int = Field(description="seconds")


class ProblemField(Schema):
    field: str
    value: str
    fix: str


class ProblemShown(Schema):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[ProblemField] = []


def given(body: Schema) -> dict[str, Any]:
    """What the caller has written, and nothing that it left out."""
    return body.dict(exclude_unset=True)
