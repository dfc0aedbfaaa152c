"""Which prober works: a lease that is observed, not compared (design, decision 8).

Called by prober.py, in its database thread. The holder counts `beat` up; who has seen it stand still for
TAKEOVER_SECONDS of its own monotonic clock takes over with a higher epoch. No time of another machine is ever
compared, so a clock that jumps moves nothing. Every write of health is done under `still_held`, so that two probers
never double-count.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from replicas.models import ProberLease

BEAT_SECONDS = 2.0
TAKEOVER_SECONDS = 10.0


class LeaseLost(Exception):
    """Another prober has taken over: what this one knows counts no more."""


@dataclass
class Lease:
    """One prober's view of the lease."""

    name: str
    epoch: int | None = None  # None: not held
    _seen: tuple[int, int] | None = None
    _seen_at: float = 0.0

    @property
    def held(self) -> bool:
        return self.epoch is not None

    def try_to_take(self, monotonic_now: float, *, wait: bool = True) -> str:
        """Take the lease if it is free, or if its holder was seen standing still; return who holds it then.

        `monotonic_now` is the caller's clock when this read began. An outage of the database adds no time: the next
        read after it finds the same count, but the caller must then call `forget` (a holder could not beat either).
        With `wait` false only a lease that nobody holds is taken.
        """
        with transaction.atomic():
            ProberLease.objects.get_or_create(pk=1)
            row = ProberLease.objects.select_for_update().get(pk=1)
            seen = (row.epoch, row.beat)
            if seen != self._seen:
                self._seen, self._seen_at = seen, monotonic_now
            stood_still = wait and monotonic_now - self._seen_at >= TAKEOVER_SECONDS
            if row.holder and not stood_still:
                return row.holder
            row.epoch += 1
            row.beat += 1
            row.holder, row.beaten_at = self.name, timezone.now()
            row.save()
            self.epoch = row.epoch
            return self.name

    def forget(self) -> None:
        """The database was away: begin to observe anew."""
        self._seen = None

    def beat(self) -> None:
        """Show that this prober lives. Raises LeaseLost."""
        with transaction.atomic():
            self.still_held()
            ProberLease.objects.filter(pk=1).update(beat=F("beat") + 1, beaten_at=timezone.now())

    def still_held(self) -> None:
        """Inside a transaction: lock the lease until its end. Raises LeaseLost if it is another's."""
        if self.epoch is None or not ProberLease.objects.select_for_update().filter(pk=1, epoch=self.epoch).exists():
            self.epoch = None
            raise LeaseLost

    def release(self) -> None:
        """Let the next prober begin at once."""
        if self.epoch is not None:
            ProberLease.objects.filter(pk=1, epoch=self.epoch).update(holder="")
            self.epoch = None


def own_name() -> str:
    """Who holds the lease, for people: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"[:120]
