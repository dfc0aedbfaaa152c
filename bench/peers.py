"""The proxies that are compared: how each is started, how its version is asked for, and what to install where it lacks.

Configuration is that of a minimal WebSocket proxy; "256k" says the buffers are tuned, all else is each one's default.
One worker process or thread each. run.py starts them, measure.py measures them.
"""

from __future__ import annotations

import getpass
import importlib.metadata
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import router
from bench.processes import environment

Command = tuple[list[str], dict[str, str]]  # arguments, environment


@dataclass(frozen=True)
class Site:
    """Where a peer is to work: its folder, its port, the replica's port, the prepared folder of the router."""

    folder: Path
    port: int
    replica_port: int
    router: Path | None = None


@dataclass(frozen=True)
class Peer:
    """A proxy. `command` writes what it needs into the site's folder; `lacks` names what is not installed."""

    name: str
    label: str
    command: Callable[[Site], Command] | None  # None: no proxy at all
    version: Callable[[], str]
    lacks: Callable[[], str | None] = lambda: None
    deflate: bool = False  # client and replica offer permessage-deflate

    @property
    def is_router(self) -> bool:
        return self.name.startswith("router")


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


def _uvicorn(site: Site, *arguments: str) -> list[str]:
    return [*_module("uvicorn"), "--host", "127.0.0.1", "--port", str(site.port), "--log-level", "warning", *arguments]


def _router_on_daphne(site: Site) -> Command:
    assert site.router is not None
    command = [*_module("daphne"), "-b", "127.0.0.1", "-p", str(site.port), "routerproject.asgi:application"]
    return command, router.router_environment(router.copy(site.router))


def _router_on_uvicorn(site: Site) -> Command:
    assert site.router is not None
    options = ["--ws-max-size", str(48 * 1024 * 1024), "--ws-per-message-deflate", "false", "--no-proxy-headers"]
    command = _uvicorn(site, *options, "routerproject.asgi:application")
    return command, router.router_environment(router.copy(site.router))


def _original(site: Site) -> Command:
    replica = f"ws://127.0.0.1:{site.replica_port}/v1/stream"
    return _uvicorn(site, "bench.original:app"), environment(BENCH_REPLICA=replica)


def _floor(site: Site) -> Command:
    return [*_module("bench.floor"), str(site.port), str(site.replica_port)], environment()


HAPROXY = """\
global
    nbthread 1
    maxconn 4000
    {tuning}
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
frontend clients
    bind 127.0.0.1:{port}
    default_backend replicas
backend replicas
    server replica 127.0.0.1:{replica_port}
"""


def _haproxy(tuning: str = "") -> Callable[[Site], Command]:
    def command(site: Site) -> Command:
        config = site.folder / f"haproxy-{site.port}.cfg"
        config.write_text(HAPROXY.format(tuning=tuning, port=site.port, replica_port=site.replica_port))
        return ["haproxy", "-db", "-f", str(config)], environment()

    return command


NGINX = """\
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 8192;
pid {folder}/nginx-{port}.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-{port}-body;
    proxy_temp_path {folder}/nginx-{port}-proxy;
    fastcgi_temp_path {folder}/nginx-{port}-fastcgi;
    uwsgi_temp_path {folder}/nginx-{port}-uwsgi;
    scgi_temp_path {folder}/nginx-{port}-scgi;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://127.0.0.1:{replica_port};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            {tuning}
        }}
    }}
}}
"""


def _nginx(tuning: str = "") -> Callable[[Site], Command]:
    def command(site: Site) -> Command:
        config = site.folder / f"nginx-{site.port}.conf"
        me = getpass.getuser()
        config.write_text(
            NGINX.format(
                user=f"user {me};" if me == "root" else "", folder=site.folder, port=site.port,
                replica_port=site.replica_port, tuning=tuning,
            )
        )  # fmt: skip
        return ["nginx", "-p", str(site.folder), "-e", "stderr", "-c", str(config)], environment()

    return command


def _program(name: str) -> Callable[[], str | None]:
    return lambda: None if shutil.which(name) else f"apt-get install {name}"


def _packages(*names: str) -> Callable[[], str | None]:
    def lacks() -> str | None:
        missing = [name for name in names if not _version_of(name)]
        return f"pip install {' '.join(missing)}" if missing else None

    return lacks


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _versions(*packages: str) -> Callable[[], str]:
    return lambda: ", ".join(f"{name} {_version_of(name)}" for name in packages)


def _asked(*command: str) -> Callable[[], str]:
    def version() -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = re.search(r"(\d+(?:\.\d+)+)", done.stdout + done.stderr)
        return f"{command[0]} {found.group(1)}" if found else command[0]

    return version


_UVICORN = ("uvicorn", "uvloop", "httptools", "websockets")
_ORIGINAL = (*_UVICORN, "fastapi")

PEERS = (
    Peer("direct", "no proxy", None, lambda: ""),
    Peer("floor", "two asyncio transports joined (floor)", _floor, lambda: f"Python {sys.version.split()[0]}"),
    Peer("router", "this router, daphne", _router_on_daphne, _versions("daphne", "channels", "django", "websockets")),
    Peer(
        "router-messages", "this router by messages, uvicorn", _router_on_uvicorn, _versions(*_UVICORN, "channels"),
        _packages(*_UVICORN),
    ),
    Peer("haproxy", "HAProxy", _haproxy(), _asked("haproxy", "-v"), _program("haproxy")),
    Peer(
        "haproxy-256k", "HAProxy, 256 KiB buffers", _haproxy("tune.bufsize 262144"), _asked("haproxy", "-v"),
        _program("haproxy"),
    ),
    Peer("nginx", "nginx", _nginx(), _asked("nginx", "-v"), _program("nginx")),
    Peer(
        "nginx-256k", "nginx, 256 KiB buffers",
        _nginx("proxy_buffer_size 256k; proxy_buffers 4 256k; proxy_busy_buffers_size 256k;"), _asked("nginx", "-v"),
        _program("nginx"),
    ),
    Peer("original", "original's design, no compression", _original, _versions(*_ORIGINAL), _packages(*_ORIGINAL)),
    Peer(
        "original-deflate", "original's design, default compression", _original, _versions(*_ORIGINAL),
        _packages(*_ORIGINAL), deflate=True,
    ),
)  # fmt: skip
