"""`manage.py preparedemo`: what `make run` does before it starts the processes. May be run any number of times."""

from __future__ import annotations

import io
import socket
import tempfile
from pathlib import Path
from typing import Any

import yaml
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

DEMO_REPLICAS = Path(__file__).resolve().parents[2] / "replicas.yaml"
# The variables of `make run`, in the order of the arguments.
VARIABLES = ("PORT", "DEMO_PORT_A", "DEMO_PORT_B")


class Command(BaseCommand):
    help = "Check that the ports are free, migrate, collect static files, load the demo replicas if there are none."
    requires_system_checks = ("settings",)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ports", nargs=3, metavar="PORT", help="The router's port, then the demo replicas'.")

    def handle(self, *args: Any, **options: Any) -> None:
        ports = [_port(name, text) for name, text in zip(VARIABLES, options["ports"], strict=True)]
        if len(set(ports)) < len(ports):
            raise CommandError(f"{', '.join(VARIABLES)} must differ; they are {', '.join(map(str, ports))}.")
        for name, port in zip(VARIABLES, ports, strict=True):
            _must_be_free(name, port)
        call_command("migrate", verbosity=0)
        call_command("makegroups", stdout=io.StringIO())
        call_command("collectstatic", interactive=False, verbosity=0)
        # Only into an empty table: replicas and a primary that someone has set up are theirs.
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
            yaml.safe_dump(_demo_replicas(ports[1:]), file)
            file.flush()
            call_command("loadreplicas", file.name, if_empty=True)


def _port(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise CommandError(f"{name}={text}: a port is a whole number from 1 to 65535.")
    return int(text)


def _must_be_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise CommandError(
                f"port {port} cannot be used ({error.strerror}): stop what listens there, or choose another, "
                f"like make run {name}={_free_port()}"
            ) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _demo_replicas(ports: list[int]) -> dict[str, Any]:
    """demo/replicas.yaml, at the ports that were chosen."""
    document: dict[str, Any] = yaml.safe_load(DEMO_REPLICAS.read_text(encoding="utf-8"))
    for replica, port in zip(document["router"]["replicas"], ports, strict=True):
        replica["url"] = f"http://127.0.0.1:{port}"
    return document
