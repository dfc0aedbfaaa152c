"""manage.py check and the start of the server: a wrong setting is named, never half-used."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from websockets.sync.client import connect

from routerproject import checks
from tests.canaries import canary
from tests.ports import free_port
from tests.processes import BIN, ROOT, SQLITE, environment, manage, managing, migrated, running

WRONG = {
    "SECRET_KEY": ("short", "50 or more"),
    "DEBUG": ("perhaps", "true or false"),
    "ALLOWED_HOSTS": ("http://a.example", "host names without scheme"),
    "HTTPS_ONLY": ("sometimes", "true or false"),
    "BEHIND_PROXY": ("2", "true or false"),
    "CSRF_TRUSTED_ORIGINS": ("router.example.com", "origins with their scheme"),
    "DATABASE_URL": ("mysql://u:p@h/n", "postgres://"),
    "REDIS_URL": ("http://redis", "redis://"),
    "ROUTER_STREAM_PATHS": ("v1/stream", "begin with /"),
    "ROUTER_UPSTREAM_PATH": ("/a?b", "begins with /"),
    "ROUTER_MAX_MESSAGE_BYTES": ("48MiB", "whole bytes"),
    "ROUTER_CONNECT_TIMEOUT_SECONDS": ("0", "seconds, 0.1 to 60"),
    "ROUTER_FAILOVER_TIMEOUT_SECONDS": ("-1", "seconds"),
    "ROUTER_PING_INTERVAL_SECONDS": ("x", "seconds"),
    "ROUTER_PING_TIMEOUT_SECONDS": ("inf", "seconds"),
    "ROUTER_FORWARD_HEADERS": ("Origin,Upgrade", "header names"),
    "ROUTER_UPSTREAM_AUTHORIZATION": ("a\tb", "printable ASCII"),
    "ROUTER_UPSTREAM_CA_FILE": ("/no/such/file.pem", "PEM file"),
    "ROUTER_REPLICA_NETWORKS": ("10.0.0.0/33", "networks separated by commas"),
    "ROUTER_HISTORY_DAYS": ("0", "whole days"),
    "ROUTER_VAR_DIR": ("relative/var", "absolute path"),
    "LOG_LEVEL": ("LOUD", "DEBUG, INFO"),
    "LOG_FORMAT": ("xml", "text or json"),
}
# Of the right form, and of no use.
USELESS = {
    "ALLOWED_HOSTS": ("a.example:8000", "(a.example:8000 has a port); allowed: a list"),
    "CSRF_TRUSTED_ORIGINS": ("https://", "(https:// names no host); allowed: a list"),
    "DATABASE_URL": ("sqlite:////no/such/r.sqlite3", "(the folder does not exist); allowed: sqlite:////absolute"),
    "REDIS_URL": ("redis://h:port", "(its port is not one from 1 to 65535); allowed: redis://"),
    "ROUTER_REPLICA_NETWORKS": ("169.254.0.0/16", "is link-local, where no replica may be); allowed: networks"),
    "ROUTER_STREAM_PATHS": (",", "(there is nothing between the commas); allowed: a list"),
    "ROUTER_UPSTREAM_CA_FILE": (str(ROOT / "README.md"), "(it holds no certificate); allowed: the absolute path"),
    "ROUTER_VAR_DIR": (str(ROOT / "README.md"), "; allowed: a folder the router may write"),
}


@pytest.mark.parametrize("settings", [WRONG, USELESS], ids=["wrong", "useless"])
def test_check_names_every_wrong_setting_at_once(tmp_path: Path, settings: dict[str, tuple[str, str]]) -> None:
    """By name, with the value (but for secrets), what is wrong and what is allowed."""
    given = {"SECRET_KEY": ""} | {name: value for name, (value, _) in settings.items()}
    done = manage(tmp_path, "check", check=False, **given)
    assert done.returncode == 1
    for name, (value, allowed) in settings.items():
        line = next(line for line in done.stderr.splitlines() if f"(router.E001) {name}=" in line)
        assert allowed in line
        secret = name in ("SECRET_KEY", "DATABASE_URL", "REDIS_URL", "ROUTER_UPSTREAM_AUTHORIZATION")
        assert (repr(value) in line) is not secret


def test_a_secret_key_that_was_emptied_is_named(tmp_path: Path) -> None:
    """Django would say no more than that a SECRET_KEY must not be empty."""
    (tmp_path / "secret_key").touch()
    said = manage(tmp_path, "check", check=False, SECRET_KEY="").stderr
    assert "its file secret_key holds less than 50 characters" in said


def test_a_log_level_is_written_in_any_case(tmp_path: Path) -> None:
    """As flags are."""
    manage(tmp_path, "check", LOG_LEVEL="debug")


def test_the_server_does_not_start_with_a_wrong_setting(tmp_path: Path) -> None:
    """The same message, and an exit code that a supervisor sees."""
    done = subprocess.run(
        [str(BIN / "daphne"), "-p", str(free_port()), "routerproject.asgi:application"],
        cwd=ROOT,
        env=environment(tmp_path, ROUTER_PING_INTERVAL_SECONDS="never"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "ROUTER_PING_INTERVAL_SECONDS='never' cannot be used" in done.stderr


def test_the_server_does_not_start_on_a_daphne_that_has_changed(tmp_path: Path) -> None:
    """Never a silent half-router: the seam that is gone is named (design, decision 13)."""
    script = (
        "from daphne.ws_protocol import WebSocketFactory\n"
        "WebSocketFactory.buildProtocol = lambda self, address: None\n"
        "import routerproject.asgi\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "WebSocketFactory.protocol no longer names the class" in done.stderr


SAFE = {
    "SECRET_KEY": secrets.token_urlsafe(64), "ALLOWED_HOSTS": "router.example.com", "HTTPS_ONLY": "true",
    "ROUTER_STATUS_ACCESS": "staff", "ROUTER_METRICS_ACCESS": "staff",
}  # fmt: skip


def deployed(var: Path, **changes: str) -> CompletedProcess[str]:
    return manage(var, "check", "--deploy", "--fail-level", "WARNING", check=False, **SAFE | changes)


def test_production_settings_pass_the_deploy_check(tmp_path: Path) -> None:
    more = {
        "ALLOWED_HOSTS": "localhost,router.example.com", "BEHIND_PROXY": "true", "ROUTER_TRUSTED_PROXIES": "1",
        "ROUTER_METRICS_LISTEN": "10.0.0.7:9700", "ROUTER_METRICS_ACCESS": "token",
        "ROUTER_UPSTREAM_AUTHORIZATION": canary("upstream"), "ROUTER_REPLICA_NETWORKS": "10.0.0.0/8",
    }  # fmt: skip
    for changes in ({}, more):
        done = deployed(tmp_path, **changes)
        assert "no issues" in done.stdout, done.stderr


def test_what_is_not_for_strangers_fails_the_deploy_check(tmp_path: Path) -> None:
    """Each as an error, for which any `check --deploy` exits 1; it says what to set."""
    unsafe = {
        "HTTPS_ONLY": ("", "router.E003"), "ALLOWED_HOSTS": ("", "router.E005"), "DEBUG": ("true", "router.E008"),
        "ROUTER_STATUS_ACCESS": ("", "router.E006"), "ROUTER_METRICS_ACCESS": ("", "router.E007"),
        "BEHIND_PROXY": ("true", "router.E009"), "ROUTER_METRICS_LISTEN": ("0.0.0.0:9700", "router.E010"),
    }  # fmt: skip
    changes = {name: value for name, (value, _) in unsafe.items()}
    done = manage(tmp_path, "check", "--deploy", check=False, **SAFE | changes)
    assert done.returncode == 1
    for name, (_, id) in unsafe.items():
        line = next(line for line in done.stderr.splitlines() if f"({id})" in line)
        assert f"({id}) {name} is" in line
    errors = done.stderr.partition("WARNINGS")[0]
    assert all(id in errors for _, id in unsafe.values())
    said = {"BEHIND_PROXY": "ROUTER_TRUSTED_PROXIES", "ROUTER_METRICS_LISTEN": "ROUTER_METRICS_ACCESS"}
    assert all(f"Set {said.get(name, name)}" in errors for name in unsafe)


@pytest.mark.parametrize("hosts", [["localhost"], ["[::1]", "localhost", "127.0.0.1"], ["a.example", "*"]])
def test_hosts_of_one_desk_are_none_for_production(settings: Any, hosts: list[str]) -> None:
    """Not in another order either, nor some of them, nor all hosts that there are."""
    settings.ALLOWED_HOSTS = hosts
    assert "router.E005" in [found.id for found in checks.defaults_that_are_for_one_desk(None)]


@pytest.mark.parametrize(
    ("host", "access", "fails"),
    [
        ("127.0.0.1", "staff", False), ("::1", "staff", False), ("localhost", "staff", False),
        ("::", "staff", True), ("gpu-7", "staff", True), ("10.0.0.7", "public", True), ("10.0.0.7", "token", False),
    ],
)  # fmt: skip
def test_metrics_for_other_machines_ask_for_the_token(settings: Any, host: str, access: str, fails: bool) -> None:
    settings.ROUTER_METRICS_LISTEN, settings.ROUTER_METRICS_ACCESS = (host, 9700), access
    assert ("router.E010" in [found.id for found in checks.defaults_that_are_for_one_desk(None)]) is fails


def test_our_secret_for_any_replica_is_a_warning(tmp_path: Path) -> None:
    """Who may add one has it sent to a server of theirs; the secret is not shown."""
    done = deployed(tmp_path, ROUTER_UPSTREAM_AUTHORIZATION=canary("upstream"))
    assert done.returncode == 1
    assert "(router.W002) ROUTER_UPSTREAM_AUTHORIZATION is set and ROUTER_REPLICA_NETWORKS is not" in done.stderr


def test_our_commands_refuse_a_wrong_setting(tmp_path: Path) -> None:
    """They run no more than this check; nothing is done in some default's place."""
    migrated(tmp_path)
    file = tmp_path / "replicas.yaml"
    file.write_text("router:\n  replicas:\n    - url: http://10.0.0.1:8000\n")
    before = (tmp_path / SQLITE).read_bytes()
    for command in (["loadreplicas", str(file)], ["runhealthchecks", "--once"]):
        done = manage(tmp_path, *command, check=False, DATABASE_URL="mysql://u:p@h/n")
        assert done.returncode == 1
        assert "(router.E001) DATABASE_URL='(hidden)' cannot be used" in done.stderr
        assert done.stdout == ""
        assert (tmp_path / SQLITE).read_bytes() == before


def test_cookies_are_for_https_and_this_host_alone(tmp_path: Path) -> None:
    """With HTTPS_ONLY: no other host of the domain can set one, and none travels in the clear."""
    expected = {
        "SESSION_COOKIE_NAME": "__Host-sessionid", "CSRF_COOKIE_NAME": "__Host-csrftoken",
        "SESSION_COOKIE_SECURE": True, "CSRF_COOKIE_SECURE": True, "SESSION_COOKIE_HTTPONLY": True,
    }  # fmt: skip
    script = (
        f"import json\nfrom django.conf import settings as s\nprint(json.dumps([getattr(s, n) for n in {[*expected]}]))"
    )
    shown = manage(tmp_path, "shell", "-v", "0", "-c", script, HTTPS_ONLY="true").stdout
    assert json.loads(shown) == [*expected.values()]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A router as after `make install` and `manage.py migrate` alone: nothing collected, DEBUG off."""
    var, port = tmp_path_factory.mktemp("start"), free_port()
    migrated(var)
    command = [str(BIN / "daphne"), "-p", str(port), "routerproject.asgi:application"]
    with running("daphne", command, var, LOG_FORMAT="json") as process:
        process.wait_until(lambda: _answers(f"http://localhost:{port}/livez"))
        yield f"http://localhost:{port}"


def test_djangos_own_server_speaks_websocket_too(tmp_path: Path) -> None:
    """Daphne's runserver; no other command loads Daphne."""
    migrated(tmp_path)
    port = free_port()
    with managing("runserver", ["runserver", "--noreload", str(port)], tmp_path) as process:
        process.wait_until(lambda: _answers(f"http://localhost:{port}/livez"))
        with connect(f"ws://localhost:{port}/v1/stream", proxy=None) as client:
            assert json.loads(client.recv())["code"] == "gpu_unavailable"


@pytest.mark.parametrize("page", ["/", "/admin/login/"])
def test_every_page_comes_with_its_styles(address: str, page: str) -> None:
    """Every stylesheet, script and icon that a page names is there."""
    html = _get(address + page)
    links = [part.split('"')[0] for part in html.split('href="')[1:] + html.split('src="')[1:]]
    static = [link for link in links if link.startswith("/static/")]
    assert len(static) >= 3
    for link in static:
        assert _get(address + link)
    assert _get(address + "/favicon.ico").startswith("<svg")


def test_the_secret_key_is_kept_in_the_var_folder(address: str, tmp_path: Path) -> None:
    """Made by the first process that needs it."""
    manage(tmp_path, "check", SECRET_KEY="")
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
        return answer.read().decode()


def _answers(url: str) -> bool:
    try:
        return bool(_get(url))
    except OSError:
        return False
