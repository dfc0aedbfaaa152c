"""PostgreSQL and Redis for tests: real servers on free ports of the loopback interface, ended with the test.

Raises Missing, with the install hint, where a server is not installed.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.canaries import DATABASE_PASSWORD, REDIS_PASSWORD
from tests.ports import free_port


class Missing(Exception):
    """A server that is not installed here."""


@dataclass
class Redis:
    """A Redis that keeps nothing on disk, which a test may stop and start again."""

    program: str
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{REDIS_PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [
            self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder),
            "--requirepass", REDIS_PASSWORD,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _wait_for_port(self.port)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def freeze(self) -> None:
        """It stops where it is, with all connections open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[Redis]:
    program = shutil.which("redis-server")
    if program is None:
        raise Missing("needs redis-server: apt-get install redis-server")
    server = Redis(program, folder, free_port())
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def running_redis(folder: Path) -> Iterator[str]:
    """For who only needs its URL."""
    with redis_server(folder) as server:
        yield server.url


@dataclass
class Postgres:
    """A PostgreSQL cluster of its own, which a test may stop and start again."""

    programs: Path
    folder: Path
    port: int
    durable: bool = False  # does a commit wait for the disk? A test's data need not outlive it

    @property
    def url(self) -> str:
        # It asks for no password; one that is given must be seen nowhere.
        return f"postgres://postgres:{DATABASE_PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        if not self.durable:
            options += " -c fsync=off"
        self._control("start", "-o", options, "-l", str(self.folder / "log"))

    def stop(self) -> None:
        self._control("stop", "-m", "immediate")

    def freeze(self) -> None:
        """Its processes stop where they are, with all connections open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        pid = (self.folder / "data" / "postmaster.pid").read_text().split()[0]
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (pid, *children):
            with contextlib.suppress(ProcessLookupError):  # a backend that has just ended
                os.kill(int(each), number)

    def _control(self, *arguments: str) -> None:
        _as_postgres(str(self.programs / "pg_ctl"), "-D", str(self.folder / "data"), "-w", *arguments)


@contextlib.contextmanager
def running_postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """A fresh cluster. Its server refuses to run as root, so that it runs as `postgres` where tests run as root."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    if not found:
        raise Missing("needs PostgreSQL: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="router-postgres-"))
    if os.getuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
    server = Postgres(Path(found[-1]), folder, free_port(), durable)
    try:
        _as_postgres(
            str(server.programs / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "--no-sync"
        )
        server.start()
        yield server
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _as_postgres(*command: str) -> None:
    user = "postgres" if os.getuid() == 0 else None
    quiet = subprocess.DEVNULL
    subprocess.run(command, check=True, stdout=quiet, stderr=quiet, cwd="/", timeout=60, user=user)


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}")
