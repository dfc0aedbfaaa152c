"""`manage.py welcomedemo`: say where everything is, once it is there; then wait to be stopped with the others.

A process of the Procfile, because only there is known when the router answers; its lines come after the noise of the
start. Makes the first operator, so that the password is printed where it is seen and is stored nowhere.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

START_SECONDS = 60.0  # for the router; without it there is nothing to welcome to
REPLICA_SECONDS = 15.0  # for a replica; without one the router still runs, and says what is missing
POLL_SECONDS = 1.0


class Command(BaseCommand):
    help = "Wait for the router, make the first admin user if there is none, print the addresses, and wait."
    requires_system_checks = ("settings",)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=9000)

    def handle(self, *args: Any, **options: Any) -> None:
        started = time.time()
        address = f"http://localhost:{options['port']}"
        if not _within(START_SECONDS, lambda: _get(f"{address}/livez") is not None):
            raise CommandError(f"the router at {address} does not answer after {START_SECONDS:g} s; its log says why")
        ready = _within(REPLICA_SECONDS, lambda: _is_ready(address, started))
        where = {"Player": "/", "Dashboard": "/dashboard/", "Admin": "/admin/", "Status": "/status"}
        lines = [f"{what:<10} {address}{path}" for what, path in where.items()]
        lines += ["", *admin_lines()]
        if not ready:
            lines += ["", "No replica is available yet: until one is, sessions are refused."]
            lines += what_is_missing(_get(f"{address}/status"))
        self.stdout.write("\n".join(["", "The router is running.", "", *lines, "", "Ctrl-C stops it.", ""]))
        self.stdout.flush()
        signal.pause()


def is_closed() -> bool:
    """Whether /status is not for anyone (ROUTER_STATUS_ACCESS): then it is not for this command."""
    return bool(settings.ROUTER_STATUS_ACCESS != "public")


def _is_ready(address: str, since: float) -> bool:
    if is_closed():
        return _get(f"{address}/readyz") is not None
    return replica_available(_get(f"{address}/status"), since)


def replica_available(status: Any, since: float) -> bool:
    """Whether /status has a replica that a session could go to, by a probe after `since`: older words are of an
    earlier run."""
    replicas = status["replicas"] if status else []
    return any(replica["available"] and (replica["checked_at"] or 0) >= since for replica in replicas)


def what_is_missing(status: Any) -> list[str]:
    """A line for every replica of /status, as it stands now."""
    if is_closed():
        return ["  Who may see /status is limited (ROUTER_STATUS_ACCESS); the dashboard says what is missing."]
    if not status:
        return ["The status does not answer: the router's log says why."]
    shown = [f"  {r['name']} at {r['url']}: {r['state']}, {r['status']}" for r in status["replicas"]]
    return shown or ["  There are no replicas: add one in the admin."]


def admin_lines() -> list[str]:
    """Who may log in: a new admin with a password, or the one there is with the way to a new password."""
    password = first_admin("admin")
    if password:
        return ["Admin user: admin", f"Password:   {password}", "It is not shown again."]
    name = get_user_model().objects.filter(is_superuser=True).order_by("pk").values_list("username", flat=True)[0]
    command = f"{os.path.relpath(sys.executable)} manage.py changepassword {name}"
    return [f"Admin user: {name}, with the password it has", f"For a new one: {command}"]


def first_admin(name: str) -> str | None:
    """Make a superuser if there is none, and return its password; None where there is one."""
    users = get_user_model().objects
    with transaction.atomic():
        if users.filter(is_superuser=True).exists():
            return None
        password = secrets.token_urlsafe(12)
        users.create_superuser(name, email="", password=password)
        return password


def _within(seconds: float, condition: Any) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _get(url: str) -> Any:
    """The JSON at `url`; None where it does not answer with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  (an http address of ours)
            return json.load(answer)
    except OSError:  # HTTPError is one
        return None
