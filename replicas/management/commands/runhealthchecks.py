"""`manage.py runhealthchecks`: probe all replicas and keep their health, until told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from tabulate import tabulate

from replicas import rules
from replicas.management.database import database_needed
from replicas.once import OnceResult, probe_once
from replicas.prober import Prober


class Command(BaseCommand):
    help = (
        "Probe the health of all replicas, at the interval of the router settings. SIGTERM or Ctrl-C finishes the "
        "round and exits 0; a second one exits at once. Several may run: one works, the others wait for its lease."
    )
    requires_system_checks = ("settings",)

    def add_arguments(self, parser: CommandParser) -> None:
        how = parser.add_mutually_exclusive_group()
        how.add_argument(
            "--once",
            action="store_true",
            help="Probe each replica once, print a table, and exit: 0 if a session could be placed now, 1 if not.",
        )
        how.add_argument(
            "--interval", type=float, metavar="SECONDS", help="Seconds between probes, instead of the settings' own."
        )

    @database_needed()
    def handle(self, *args: Any, **options: Any) -> None:
        interval = options["interval"]
        try:
            if interval is not None:
                rules.seconds(interval)
            if options["once"]:
                result = asyncio.run(probe_once())
                self.stdout.write(table(result))
                raise SystemExit(0 if result.placeable else 1)
            asyncio.run(run_until_signalled(Prober(interval)))
        except rules.RuleBroken as broken:
            raise CommandError(f"--interval {interval:g}: {broken}") from broken


async def run_until_signalled(prober: Prober) -> None:
    """Run `prober`; the first SIGTERM or SIGINT stops it in order, the second ends the process, without its lease."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def stop() -> None:
        prober.stop()
        for number in signals:
            loop.add_signal_handler(number, leave, number)

    def leave(number: int) -> None:
        giving_up = loop.create_task(prober.give_up_lease(), name="prober: give up the lease")
        giving_up.add_done_callback(lambda _: os._exit(128 + number))

    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        await prober.run()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def table(result: OnceResult) -> str:
    """What `--once` prints: a row a replica, then who wrote it down and whether a session could be placed."""
    rows = [
        (
            ("★ " if replica.primary else "") + replica.name,
            replica.url,
            replica.state,
            f"{replica.status} → {known.health.status}" if known else f"{replica.status} (not probed)",
            f"{known.health.last_latency_ms:.0f} ms" if known and known.health.last_latency_ms is not None else "",
            known.health.last_error if known else "",
        )
        for replica, known in result.replicas
    ]
    lines = [tabulate(rows, headers=("replica", "URL", "state", "status", "latency", "last error"))]
    if not result.written:
        lines.append(f"Not written: the prober {result.lease_holder} is at work.")
    lines.append("A session could be placed now." if result.placeable else "No session could be placed now.")
    return "\n".join(lines)
