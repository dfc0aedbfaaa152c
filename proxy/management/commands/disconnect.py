"""`manage.py disconnect SESSION`: end one session, whichever router process holds it."""

from __future__ import annotations

from time import monotonic, sleep
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from proxy import steering
from proxy.errors import cut_reason
from proxy.models import LIVE, Session
from replicas.admin_display import ago
from replicas.management.database import database_needed

LEAST_CHARACTERS = 6
WAIT_SECONDS, POLL_SECONDS = 3.0, 0.1
SHOWN_SESSIONS = 5


class Command(BaseCommand):
    help = (
        "End one session: its client is told 1012 and the reason, and its slot is free again. Whichever router process "
        "holds it does so, within a second; then this says how it ended."
    )
    requires_system_checks = ("settings",)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "session",
            metavar="SESSION",
            help=f"Its id, as in the logs and in error messages; {LEAST_CHARACTERS} characters of its beginning do, "
            "where they name one.",
        )
        parser.add_argument(
            "--reason",
            metavar="TEXT",
            default=steering.DEFAULT_REASON,
            help="What the client is told, cut to 123 bytes (%(default)s).",
        )
        parser.add_argument("--no-wait", action="store_true", help="Only ask for its end.")

    @database_needed()
    def handle(self, *args: Any, **options: Any) -> None:
        session = find(options["session"].strip())
        reason = cut_reason(options["reason"].strip() or steering.DEFAULT_REASON)
        if not steering.disconnect([session.uid], reason):
            raise CommandError(f"Session {session} has ended at this moment, by itself.")
        asked = f"Session {session} is told to end (1012, “{reason}”)."
        if options["no_wait"]:
            self.stdout.write(asked)
            return
        deadline = monotonic() + WAIT_SECONDS
        while monotonic() < deadline:
            session.refresh_from_db()
            if session.ended_at:
                self.stdout.write(f"Session {session} has ended{_how(session)}.")
                return
            sleep(POLL_SECONDS)
        self.stdout.write(f"{asked} Its router process has not done so within {WAIT_SECONDS:g} s; the wish stands.")


def find(wanted: str) -> Session:
    """The live session whose id is, or begins with, this. Raises CommandError where there is not exactly one."""
    if len(wanted) < LEAST_CHARACTERS:
        raise CommandError(f"“{wanted}” is too short: give at least {LEAST_CHARACTERS} characters of the session’s id.")
    live = list(Session.objects.filter(LIVE, uid__startswith=wanted)[: SHOWN_SESSIONS + 1])
    if len(live) > 1:
        which = ", ".join(session.uid for session in live[:SHOWN_SESSIONS]) + (", …" if live[SHOWN_SESSIONS:] else "")
        raise CommandError(f"Several live sessions begin with “{wanted}”: {which}. Give more of the id.")
    if live:
        return live[0]
    ended = Session.objects.filter(uid__startswith=wanted).first()
    if ended and ended.ended_at:
        raise CommandError(f"Session {ended} has ended already, {ago(ended.ended_at)}{_how(ended)}.")
    raise CommandError(f"There is no session “{wanted}”.")


def _how(session: Session) -> str:
    """“, by the client (closed), 1000”."""
    by = f", by the {session.ended_by}" if session.ended_by else ""
    why = f" ({session.why})" if session.why else ""
    return by + why + (f", {session.close_code}" if session.close_code else "")
