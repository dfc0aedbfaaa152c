"""`manage.py rundemoreplica`: a streaming replica that needs no GPU, until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from demo.replica import Options, Replica
from demo.session import Pace
from demo.video import Format


def number(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], Any]:
    """An option's type: a number from `low` to `high`, refused in words that say so."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            whole = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {whole} from {low:g} to {high:g}")
        return value

    return read


class Command(BaseCommand):
    help = "Run a streaming replica that needs no GPU: it speaks the servers' protocol and generates real H.264 video."
    requires_system_checks: list[str] = []  # it is a server of its own and uses no database

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("--name", default="demo", help="Shown in the video and in gpu_assigned.")
        add("--host", default="127.0.0.1", help="Address to listen on.")
        add("--port", type=number(int, 0, 65535), default=0, help="Port to listen on; 0 takes a free one.")
        add("--path", default="/v1/stream", help="Where the WebSocket is.")
        add("--slots", type=number(int, 1, 64), default=1, help="Sessions at once.")
        add("--queue", type=number(int, 0, 1000), default=0, help="Sessions that may wait; 0 rejects them.")
        add("--warmup", type=number(float, 0, 3600), default=0.0, metavar="SECONDS", help="How long it is warming.")
        add("--segment-seconds", type=number(float, 0.1, 10), default=1.5, help="Length of a segment of video.")
        add("--segments", type=number(int, 0, 1_000_000), default=0, help="Segments a session; 0 for no cap.")
        add("--speed", type=number(float, 0.1, 100), default=1.0, help="Times real time at which it generates.")
        add("--session-timeout", type=number(float, 1, 86_400), default=600.0, metavar="SECONDS")
        add("--width", type=number(int, 64, 1920), default=640, help="Pixels, even.")
        add("--height", type=number(int, 64, 1080), default=360, help="Pixels, even.")
        add("--fps", type=number(int, 1, 60), default=24, help="Frames a second.")

    def handle(self, *args: Any, **options: Any) -> None:
        for name in ("width", "height"):
            if options[name] % 2:
                raise CommandError(f"--{name} {options[name]}: H.264 needs an even number of pixels.")
        if not options["path"].startswith("/"):
            raise CommandError(f"--path {options['path']}: must begin with /, like /v1/stream.")
        chosen = Options(
            name=options["name"],
            host=options["host"],
            port=options["port"],
            path=options["path"],
            slots=options["slots"],
            queue=options["queue"],
            warmup_seconds=options["warmup"],
            format=Format(options["width"], options["height"], options["fps"]),
            pace=Pace(options["segment_seconds"], options["speed"], options["segments"], options["session_timeout"]),
        )
        try:
            asyncio.run(self.serve(chosen))
        except OSError as error:
            raise CommandError(f"cannot listen on {chosen.host}:{chosen.port}: {error.strerror}") from error

    async def serve(self, options: Options) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, stop.set)
        async with Replica(options) as replica:
            slots = f"{options.slots} slot{'s' if options.slots != 1 else ''}"
            self.stdout.write(f"demo replica {options.name}: listening on {replica.url} ({slots})")
            self.stdout.flush()
            await stop.wait()
