"""A server that plays the dashboard's part of the router: real HTTP, a real WebSocket, and whatever state a test wants.

Used by the tests of the page alone, where a real fleet would take an hour to get there: 500 replicas, a prober that
died, a socket that hangs. Serves the project's own templates and static files, with the policy that the router sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import mimetypes
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from django.template import Context, Engine

from dashboard.history import HOURS, OFFERED
from routerproject.middleware import POLICY
from tests.ports import free_port
from tests.processes import ROOT

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

STATIC = [ROOT / room / "static" for room in ("dashboard", "routerproject", "demo")]
ENGINE = Engine(
    dirs=[str(ROOT / "dashboard" / "templates")], libraries={"static": "django.templatetags.static"}, autoescape=True
)
PAGE_ROWS = 50


@dataclass
class Stage:
    """What it serves, for the test to change; and what was asked of it.

    `socket`: "open", "refuse" (the handshake), "silent" (accepts, says nothing) or a close code. `http`: as long as
    it is False, nothing but the page and its files is answered.
    """

    state: dict[str, Any]
    sessions: list[dict[str, Any]] = field(default_factory=list)
    history: dict[str, Any] = field(default_factory=dict)
    socket: str | int = "open"
    http: bool = True
    staff: bool = True
    answers: Callable[[dict[str, Any]], tuple[int, dict[str, Any]]] = lambda body: (200, {"said": "done"})
    acts: list[dict[str, Any]] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)  # the queries for sessions
    polls: int = 0
    watchers: set[asyncio.Queue[dict[str, Any] | int]] = field(default_factory=set)
    port: int = 0
    began: float | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dashboard/"

    def tell(self, **changed: Any) -> None:
        """Changes of the state, told to all watchers as the router does."""
        rows = {row["id"]: row for row in self.state["replicas"]}
        for row in changed.get("replicas", []):
            rows[row["id"]] = row
        for gone in changed.get("gone", []):
            rows.pop(gone)
        self.state |= {key: value for key, value in changed.items() if key not in ("gone", "plots")}
        self.state["replicas"] = list(rows.values())
        for watcher in self.watchers:
            watcher.put_nowait({"type": "changes", "at": self.now} | changed)

    def hang_up(self, code: int = 1012) -> None:
        for watcher in self.watchers:
            watcher.put_nowait(code)

    @property
    def now(self) -> float:
        """The clock of the state goes on while it is played."""
        if self.began is None:  # a browser takes its time to come
            self.began = time.monotonic()
        return float(self.state["at"]) + time.monotonic() - self.began

    # --- ASGI ---

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._watch(receive, send)
        elif scope["type"] == "http":
            status, kind, body = await self._answer(scope, receive)
            headers = [(b"content-type", kind.encode()), (b"content-security-policy", POLICY.encode())]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    async def _watch(self, receive: Receive, send: Send) -> None:
        await receive()
        if self.socket == "refuse":
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        if isinstance(self.socket, int):
            await send({"type": "websocket.close", "code": self.socket})
            return
        watcher: asyncio.Queue[dict[str, Any] | int] = asyncio.Queue(maxsize=1000)
        self.watchers.add(watcher)
        leaving = asyncio.create_task(_departure(receive))
        said: dict[str, Any] | int = self.state | {"at": self.now}
        try:
            while not leaving.done():
                if isinstance(said, int):
                    await send({"type": "websocket.close", "code": said})
                    return
                if self.socket == "open":
                    await send({"type": "websocket.send", "text": json.dumps(said)})
                try:
                    said = await asyncio.wait_for(watcher.get(), 1)
                except TimeoutError:
                    said = {"type": "changes", "at": self.now}  # a sign of life
        finally:
            self.watchers.discard(watcher)
            leaving.cancel()

    async def _answer(self, scope: dict[str, Any], receive: Receive) -> tuple[int, str, bytes]:
        path, query = scope["path"], dict(parse_qsl(scope["query_string"].decode()))
        if path.startswith("/static/"):
            return _static(path.removeprefix("/static/"))
        if path in ("/dashboard/", "/dashboard/replicas/1/"):
            return 200, "text/html; charset=utf-8", _page(path).encode()
        if not self.http:
            return _json(503, {})
        if not self.staff:
            return _json(403, {"error": "sign in"})
        if path == "/dashboard/state.json":
            self.polls += 1
            return _json(200, self.state | {"at": self.now})
        if path == "/dashboard/sessions.json":
            self.asked.append(query)
            return _json(200, self._page_of_sessions(query))
        if path == "/dashboard/replicas/1/history.json":
            return _json(200, self.history)
        if path == "/dashboard/act" and scope["method"] == "POST":
            body = json.loads(await _whole(receive))
            body["token"] = dict(scope["headers"]).get(b"x-csrftoken", b"").decode()
            self.acts.append(body)
            return _json(*self.answers(body))
        return _json(404, {})

    def _page_of_sessions(self, query: dict[str, str]) -> dict[str, Any]:
        state, sort = query.get("state", "live"), query.get("sort") or "-opened_at"
        found = [
            row
            for row in self.sessions
            if (state == "all" or row["state"] == state or (state == "live" and row["state"] == "waiting"))
            and query.get("q", "") in f"{row['uid']} {row['client']} {row['replica']}"
            and query.get("replica", "") in ("", str(row["replica_id"]))
        ]
        found.sort(key=lambda row: row[sort.lstrip("-")], reverse=sort.startswith("-"))
        pages = max(1, -(-len(found) // PAGE_ROWS))
        page = min(pages, int(query.get("page", 1)))
        rows = found[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]
        return {"at": self.state["at"], "page": page, "pages": pages, "total": len(found), "rows": rows}


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def _whole(receive: Receive) -> bytes:
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body


def _json(status: int, body: dict[str, Any]) -> tuple[int, str, bytes]:
    return status, "application/json", json.dumps(body).encode()


def _static(name: str) -> tuple[int, str, bytes]:
    for folder in STATIC:
        if (folder / name).is_file():
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            return 200, kind, (folder / name).read_bytes()
    return 404, "text/plain", b""


def _page(path: str) -> str:
    name = "index.html" if path == "/dashboard/" else "replica.html"
    context = {
        "csrf_token": "a-token",
        "replica": {"pk": 1, "name": "a", "url": "http://10.0.0.11:8000"},
        "offered": OFFERED,
        "hours": HOURS,
    }
    return ENGINE.get_template(f"dashboard/{name}").render(Context(context))


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they are pytest's


@contextlib.asynccontextmanager
async def staged(state: dict[str, Any], **options: Any) -> AsyncIterator[Stage]:
    """A stage on a port of its own; ended with the block."""
    stage = Stage(state, port=free_port(), **options)
    config = uvicorn.Config(
        stage, host="127.0.0.1", port=stage.port, log_level="error", lifespan="off", timeout_graceful_shutdown=1
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(), name="stage")
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield stage
    finally:
        stage.hang_up()
        server.should_exit = True
        await serving
