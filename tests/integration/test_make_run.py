"""What `make run` does, step by step: the preparation, the processes of the Procfile, the first operator."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest
from django.contrib.auth import authenticate

from demo.management.commands.welcomedemo import first_admin
from tests.ports import free_port
from tests.processes import BIN, ROOT, environment, manage, wait_until


def test_the_preparation_may_be_run_again(tmp_path: Path) -> None:
    """A second time it changes nothing: what someone edited meanwhile stays."""
    port = str(free_port())
    assert "+ added: a (http://127.0.0.1:9101), primary" in manage(tmp_path, "preparedemo", port).stdout
    assert (tmp_path / "static" / "admin").is_dir()
    manage(tmp_path, "shell", "-v0", "-c", "from replicas.models import *; Replica.objects.filter(name='b').delete()")
    assert "nothing was loaded" in manage(tmp_path, "preparedemo", port).stdout
    assert "name: b" not in manage(tmp_path, "dumpreplicas").stdout


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """Before anything is started, with the way out."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = manage(tmp_path, "preparedemo", str(port), check=False)
    assert done.returncode == 1
    assert f"port {port} cannot be used" in done.stderr
    assert "make run PORT=" in done.stderr


@pytest.mark.django_db
def test_the_first_admin_is_made_once() -> None:
    """With a password that works and is stored as a hash; where there is an operator, nobody is made."""
    password = first_admin("admin")
    assert password is not None
    user = authenticate(username="admin", password=password)
    assert user is not None
    assert user.is_superuser
    assert password not in user.password
    assert first_admin("admin") is None


def test_the_processes_start_together_say_where_they_are_and_end_together(tmp_path: Path) -> None:
    """The Procfile under honcho: addresses and password are printed when a session could be placed; Ctrl-C ends all."""
    port, log_path = free_port(), tmp_path / "honcho.log"
    ports = {"9101": str(free_port()), "9102": str(free_port())}
    procfile = tmp_path / "Procfile"
    text = (ROOT / "Procfile").read_text()
    yaml = (ROOT / "demo" / "replicas.yaml").read_text()
    for fixed, free in ports.items():
        text, yaml = text.replace(fixed, free), yaml.replace(fixed, free)
    procfile.write_text(text)
    (tmp_path / "replicas.yaml").write_text(yaml)
    manage(tmp_path, "migrate", "--verbosity", "0")
    manage(tmp_path, "loadreplicas", str(tmp_path / "replicas.yaml"))
    path = f"{BIN}:{os.environ['PATH']}"
    with log_path.open("wb") as log:
        honcho = subprocess.Popen(
            [str(BIN / "honcho"), "--no-colour", "-d", str(ROOT), "-f", str(procfile), "start"],
            cwd=ROOT,
            env=environment(tmp_path, ROUTER_PORT=port, PATH=path),
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: "Ctrl-C stops it." in log_path.read_text(), 60, "the welcome")
        printed = log_path.read_text()
        for address in (
            f"http://localhost:{port}/",
            f"http://localhost:{port}/admin/",
            f"http://localhost:{port}/status",
        ):
            assert address in printed
        assert re.search(r"Password:   \S{16}", printed)
        with urllib.request.urlopen(f"http://localhost:{port}/readyz", timeout=5) as answer:
            assert answer.status == 200
    finally:
        honcho.send_signal(signal.SIGINT)
        honcho.wait(30)
    for used in (port, *map(int, ports.values())):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", used))  # nobody listens there any more
