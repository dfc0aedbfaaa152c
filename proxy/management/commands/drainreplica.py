"""`manage.py drainreplica NAME`: let a replica take no new sessions, and see how many are left."""

from __future__ import annotations

import sys
from time import sleep
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseFault
from django.db import connection

from proxy import steering
from replicas import rules, wording
from replicas.management.database import database_needed
from replicas.models import Replica, ReplicaState
from replicas.signals import live_sessions

POLL_SECONDS = 1.0
SHOWN_REPLICAS = 20  # of those that an unknown name might have meant
INTERRUPTED = 130  # 128 + SIGINT, as a shell says it


class Command(BaseCommand):
    help = (
        "Drain a replica: it takes no new sessions and keeps those there are. To take it back, activate it in the "
        "admin. Exits 0 also where it was draining already."
    )
    requires_system_checks = ("settings",)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("replica", metavar="NAME", help="The replica's name, or its URL.")
        parser.add_argument(
            "--deadline",
            type=float,
            metavar="SECONDS",
            help="Close the sessions that are left after so many seconds (1012, spread over 10 s). Counts from the "
            "drain's beginning, or from a change of it. Left out: the replica's own stands, if it has one.",
        )
        parser.add_argument(
            "--wait", action="store_true", help="Wait until no session is left. Ctrl-C ends the waiting, not the drain."
        )

    @database_needed()
    def handle(self, *args: Any, **options: Any) -> None:
        deadline = options["deadline"]
        try:
            if deadline is not None:
                rules.deadline(deadline)
        except rules.RuleBroken as broken:
            raise CommandError(f"--deadline {deadline:g}: {broken}") from broken
        replica = find(options["replica"])
        begun = steering.drain(replica, deadline)
        replica.refresh_from_db()
        left = live_sessions().get(replica.pk, 0)
        said = wording.drained(left, replica.drain_deadline_seconds)
        self.stdout.write(f"{replica}: {'draining' if begun else 'draining already'}, {said}.")
        if options["wait"]:
            try:
                self._wait(replica, left)
            except KeyboardInterrupt:
                self.stdout.write(f"{replica}: still draining; only the waiting has ended.")
                sys.exit(INTERRUPTED)

    def _wait(self, replica: Replica, told: int) -> None:
        """Until no session is left there; says so at each change. A database that is away is waited for."""
        away = False
        while told:
            sleep(POLL_SECONDS)
            try:
                left = live_sessions().get(replica.pk, 0)
                active = Replica.objects.filter(pk=replica.pk, state=ReplicaState.ACTIVE).exists()
            except DatabaseFault:
                connection.close()
                if not away:
                    self.stderr.write("The database does not answer; the drain goes on, and the waiting.")
                away = True
                continue
            away = False
            if left != told:
                self.stdout.write(f"{replica}: {wording.sessions(left)} left.")
                told = left
            if left and active:
                raise CommandError(f"{replica} was activated meanwhile: it takes new sessions again.")


def find(wanted: str) -> Replica:
    """The replica of this name or URL. Raises CommandError, with what there is, where it is not clear which."""
    found = list(Replica.objects.filter(name=wanted.strip())) or _by_url(wanted)
    if len(found) > 1:
        urls = ", ".join(replica.url for replica in found)
        raise CommandError(f"{len(found)} replicas are named “{wanted}”: {urls}. Name one by its URL.")
    if not found:
        there = [f"{replica} ({replica.url})" for replica in Replica.objects.all()[: SHOWN_REPLICAS + 1]]
        more = ", …" if len(there) > SHOWN_REPLICAS else "."
        known = ", ".join(there[:SHOWN_REPLICAS]) + more if there else "none."
        raise CommandError(f"There is no replica “{wanted}”, by name or by URL. There are: {known}")
    return found[0]


def _by_url(wanted: str) -> list[Replica]:
    try:
        return list(Replica.objects.filter(url__in=rules.spellings(rules.replica_url(wanted))))
    except rules.RuleBroken:
        return []
