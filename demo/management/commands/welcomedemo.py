"""`manage.py welcomedemo`: say where everything is, once it is there; then wait to be stopped with the others.

A process of the Procfile, because only there is known when the router answers; its lines come after the noise of the
start. Makes the first operator, so that the password is printed where it is seen and is stored nowhere.
"""

from __future__ import annotations

import secrets
import signal
import time
import urllib.error
import urllib.request
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

START_SECONDS = 60.0


class Command(BaseCommand):
    help = "Wait for the router, make the first admin user if there is none, print the addresses, and wait."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=9000)

    def handle(self, *args: Any, **options: Any) -> None:
        address = f"http://localhost:{options['port']}"
        _wait_until_ready(address)
        lines = [f"Player  {address}/", f"Admin   {address}/admin/", f"Status  {address}/status"]
        password = first_admin("admin")
        if password:
            lines += ["", "Admin user: admin", f"Password:   {password}", "It is not shown again."]
        self.stdout.write("\n".join(["", "The router is running.", "", *lines, "", "Ctrl-C stops it.", ""]))
        self.stdout.flush()
        signal.pause()


def first_admin(name: str) -> str | None:
    """Make a superuser if there is none, and return its password; None where there is one."""
    users = get_user_model().objects
    with transaction.atomic():
        if users.filter(is_superuser=True).exists():
            return None
        password = secrets.token_urlsafe(12)
        users.create_superuser(name, email="", password=password)
        return password


def _wait_until_ready(address: str) -> None:
    """Until a replica is available, so that who opens the player sees video; at least until the router answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=5):  # noqa: S310  (an http address of ours)
                return
        except urllib.error.HTTPError as not_ready:
            not_ready.close()
        except OSError:
            pass
        time.sleep(0.2)
    raise CommandError(f"the router at {address} is not ready after {START_SECONDS:g} s; its log above says why")
