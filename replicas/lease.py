"""Which prober works: a lease that is observed, not compared (design, decision 8).

Called by prober.py, in its database thread. The holder counts `beat` up; who has seen it stand still for
TAKEOVER_SECONDS of its own monotonic clock takes over with a higher epoch. No time of another machine is ever
compared, so a clock that jumps moves nothing. Every write of health is done under `still_held`, so that two probers
never double-count.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field

from django.db.models import F, QuerySet
from django.utils import timezone

from replicas.models import ProberLease
from replicas.stillness import Stillness

BEAT_SECONDS = 2.0
TAKEOVER_SECONDS = 10.0


class LeaseLost(Exception):
    """Another prober has taken over: what this one knows counts no more."""


@dataclass
class Lease:
    """One prober's view of the lease."""

    name: str
    epoch: int | None = None  # None: not held
    _stillness: Stillness = field(default_factory=Stillness)

    @property
    def held(self) -> bool:
        return self.epoch is not None

    def try_to_take(self, monotonic_now: float) -> str:
        """Take the lease if it is free, or if its holder was seen standing still; return who holds it then.

        `monotonic_now` is the caller's clock when this read began. Where it raises a database's fault, the caller
        must call `forget_last_read`.
        """
        row = ProberLease.objects.filter(pk=1).first() or ProberLease.objects.get_or_create(pk=1)[0]
        stood_still = self._stillness.see((row.epoch, row.beat), monotonic_now)
        if row.holder and stood_still < TAKEOVER_SECONDS:
            return row.holder
        # Taken only if it is still what was read: of two that try, one changes a row.
        unchanged = ProberLease.objects.filter(pk=1, epoch=row.epoch, beat=row.beat, holder=row.holder)
        taken = {"epoch": row.epoch + 1, "beat": row.beat + 1, "holder": self.name, "beaten_at": timezone.now()}
        if unchanged.update(**taken):
            self.epoch = row.epoch + 1
            return self.name
        return row.holder or "one that was faster"

    @property
    def seen_beating(self) -> bool:
        """Of another's: has the last read found its count moved?"""
        return self._stillness.moved

    def forget_last_read(self) -> None:
        """See Stillness: the last read of `try_to_take` has failed."""
        self._stillness.forget_last_read()

    def beat(self) -> None:
        """Show that this prober lives. Raises LeaseLost."""
        if not self._mine().update(beat=F("beat") + 1, beaten_at=timezone.now()):
            self.epoch = None
            raise LeaseLost

    def still_held(self) -> None:
        """Inside a transaction: lock the lease until its end. Raises LeaseLost if it is another's."""
        if self._mine().select_for_update().first() is None:
            self.epoch = None
            raise LeaseLost

    def release(self) -> None:
        """Let the next prober begin at once. Nothing happens when the lease is not held (any more)."""
        self._mine().update(holder="")
        self.epoch = None

    def _mine(self) -> QuerySet[ProberLease]:
        """The row, while the lease is ours."""
        return ProberLease.objects.none() if self.epoch is None else ProberLease.objects.filter(pk=1, epoch=self.epoch)


def own_name() -> str:
    """Who holds the lease, for people: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"[:120]
