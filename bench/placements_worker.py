"""One process of `bench.placements`: fills the tables, or places sessions for a while and prints how long each took."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "routerproject.settings")
django.setup()

from django.utils import timezone  # noqa: E402  (models need the setup above)

from proxy import memory  # noqa: E402
from proxy.claims import Claim, Ended  # noqa: E402
from proxy.models import RouterProcess, Session  # noqa: E402
from proxy.placement import Placement  # noqa: E402
from replicas.models import Replica, ReplicaHealth  # noqa: E402


def single(url: str) -> None:
    """One replica with one slot."""
    replica = Replica.objects.create(name="bench", url=url, max_sessions=1)
    ReplicaHealth.objects.create(replica=replica, url=url, status="healthy", checked_at=timezone.now())


def fill(replicas: int, live: int, ended: int) -> None:
    now = timezone.now()
    made = Replica.objects.bulk_create(
        Replica(name=f"r{i}", url=f"http://10.{i // 65536}.{i // 256 % 256}.{i % 256}:8000", max_sessions=100_000)
        for i in range(replicas)
    )
    ReplicaHealth.objects.bulk_create(
        ReplicaHealth(replica=r, url=r.url, status="healthy", checked_at=now) for r in made
    )
    other = RouterProcess.objects.create(name="other", ended_at=now)
    rows = [
        Session(
            uid=uuid.uuid4().hex, process=other, replica=made[i % replicas], url=made[i % replicas].url, opened_at=now,
            placed_at=now, ended_at=None if i < live else now,
        )
        for i in range(live + ended)
    ]  # fmt: skip
    Session.objects.bulk_create(rows, batch_size=5000)


async def place(seconds: float, sessions: int) -> list[float]:
    placement = Placement(lambda uid, reason: None)
    await placement.ready()
    memory.settle()  # as a router does
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    until = time.monotonic() + seconds
    took: list[float] = []

    async def one_after_the_other() -> None:
        while time.monotonic() < until:
            began = time.monotonic()
            claim = Claim(uuid.uuid4().hex, "127.0.0.1:1", None, timezone.now())
            await placement.seat(claim, lambda position, depth: None)
            took.append(time.monotonic() - began)
            placement.ended(Ended(claim, timezone.now(), "client", "closed", 1000))

    async with asyncio.TaskGroup() as group:
        for _ in range(sessions):
            group.create_task(one_after_the_other())
    await placement.stop()
    return took


def main(what: str, *arguments: Any) -> None:
    if what == "fill":
        fill(*map(int, arguments))
    elif what == "single":
        single(*arguments)
    else:
        print(json.dumps(asyncio.run(place(float(arguments[0]), int(arguments[1])))))


if __name__ == "__main__":
    main(*sys.argv[1:])
