"""`manage.py preparedemo`: what `make run` does before it starts the processes. May be run any number of times."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

DEMO_REPLICAS = Path(__file__).resolve().parents[2] / "replicas.yaml"


class Command(BaseCommand):
    help = "Check that the ports are free, migrate, collect static files, load the demo replicas if there are none."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ports", nargs="+", type=int, metavar="PORT", help="A port that must be free.")

    def handle(self, *args: Any, **options: Any) -> None:
        for port in options["ports"]:
            _must_be_free(port)
        call_command("migrate", verbosity=0)
        call_command("collectstatic", interactive=False, verbosity=0)
        # Only into an empty table: replicas and a primary that someone has set up are theirs.
        call_command("loadreplicas", str(DEMO_REPLICAS), if_empty=True)


def _must_be_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise CommandError(
                f"port {port} cannot be used ({error.strerror}): stop what listens there; "
                "the router's own port can also be chosen: make run PORT=9100"
            ) from error
