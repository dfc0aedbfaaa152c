"""`manage.py makegroups`: the groups Viewers, Operators and Editors, or what they lack of their permissions."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from proxy.groups import GROUPS, NotMigrated, make_groups
from replicas.management.database import database_needed


class Command(BaseCommand):
    help = (
        "Makes the groups Viewers, Operators and Editors, or gives them what they lack. Takes nothing from anybody; "
        "put users with “staff status” into them in the admin."
    )
    requires_system_checks = ("settings",)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with database_needed():
                given = make_groups()
        except NotMigrated as missing:
            raise CommandError(f"There is no permission {missing} yet: run manage.py migrate first.") from missing
        for name, number in given.items():
            means, wanted = GROUPS[name]
            was = f"{number} of {len(wanted)} permissions given" if number else "as it should be"
            self.stdout.write(f"{name} ({means}): {was}")
