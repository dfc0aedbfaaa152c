"""`manage.py loadreplicas FILE`: bring the replicas and the router settings of a YAML file into the database."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from replicas.config import ConfigRefused, parse
from replicas.loading import load
from replicas.management.database import database_needed
from replicas.models import Replica


class Command(BaseCommand):
    help = (
        "Load replicas and router settings from a YAML file. Replicas are matched by URL; what the file leaves out "
        "keeps its value. A file with a mistake changes nothing, and no file ends a session."
    )
    requires_system_checks = ("settings",)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help="The file; - reads standard input.")
        parser.add_argument(
            "--prune",
            action="store_true",
            help="Also remove replicas that an earlier file brought in and this one does not name.",
        )
        parser.add_argument("--if-empty", action="store_true", help="Do nothing where there are replicas already.")
        parser.add_argument("--dry-run", action="store_true", help="Only show what would change.")

    @database_needed()
    def handle(self, *args: Any, **options: Any) -> None:
        name = options["file"]
        if options["if_empty"] and Replica.objects.exists():
            self.stdout.write("There are replicas already: nothing was loaded.")
            return
        try:
            config = parse(_text(name))
            diff = load(config, prune=options["prune"], dry_run=options["dry_run"])
        except ConfigRefused as refused:
            self._warn(refused.warnings)
            raise CommandError(
                f"{name} is refused, nothing was changed:\n" + "\n".join(f"- {p}" for p in refused.problems)
            ) from refused
        self._warn(config.warnings)
        if options["dry_run"]:
            self.stdout.write("Dry run: nothing was changed. A load would do this:")
        for line in diff.lines():
            self.stdout.write(line)
        self.stdout.write(
            f"The file's host and port are options of daphne: "
            f"daphne -b {config.host} -p {config.port} routerproject.asgi:application"
        )

    def _warn(self, warnings: Sequence[str]) -> None:
        for warning in warnings:
            self.stderr.write(self.style.WARNING(f"warning: {warning}"))


def _text(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{name} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{name} is not a text file in UTF-8 (byte {error.start}).") from error
