"""`manage.py dumpreplicas`: the replicas and the router settings as the YAML that loadreplicas reads."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from replicas.loading import dump
from replicas.management.database import database_needed
from replicas.models import Replica


class Command(BaseCommand):
    help = "Print the replicas and the router settings as YAML, for loadreplicas. Loading it again changes nothing."
    requires_system_checks = ("settings",)

    @database_needed()
    def handle(self, *args: Any, **options: Any) -> None:
        if not Replica.objects.exists():
            raise CommandError("There are no replicas to dump; add one in the admin, or with loadreplicas.")
        self.stdout.write(dump(), ending="")
