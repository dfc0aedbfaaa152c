"""This process's part in placement: gather what sessions want, take turns, tell them what came of it.

search.py asks for seats, session.py says how sessions end. The event loop never waits for the database: one thread with
a connection of its own does the work, and a slow query elsewhere delays no placement. Must not know links, frames or
what replicas say.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial

from django.conf import settings
from django.db import DataError, IntegrityError
from django.db import Error as DatabaseFault

from proxy import census, instruments, pace
from proxy.claims import NO_HEALTHY_REPLICA, Batch, Claim, Ended, ProcessEnded, Seat, Settled
from proxy.deadlines import Deadlines
from proxy.heart import Heart
from proxy.line import Refused, Tell, Waiter
from proxy.nudges import Nudges
from proxy.settling import settle
from proxy.traffic import Count
from replicas.database import Database
from replicas.models import RouterSettings
from replicas.passive import Outcome

logger = logging.getLogger("proxy.placement")

# So many that have ended are kept for the log while the database is away; beyond, only those that may have a slot.
MAX_ENDINGS = 10_000
# What others have decided is read so often, also without a nudge (design, decision 9).
LOOK_SECONDS = 0.5
# After the line has moved, all that moved in so long is told at once: each arrival and each ending moves it for every
# process, and a look is half a dozen queries.
LINE_SECONDS = 0.1
# After a fault of the database, before the next try.
RETRY_SECONDS = 0.25
TIDY_SECONDS = 10.0
# What was accepted before the listening socket was closed is in its handshake for so long at most, and then placed.
ACCEPTED_SECONDS = 2.0

ROUTER_DRAINING, SLOT_LOST = "router_draining", "slot_lost"


class DatabaseAway(Exception):
    """The database did not answer within DATABASE_TIMEOUT_SECONDS, or answered with an error."""


class Placement:
    """Of one router process, from its start to its end.

    `end_session`(uid, reason) is called for a session that is to end: by an operator's wish, a drain's deadline, or
    because its slot was lost. `carried`: see heart.py. `settings`: as last read.
    """

    def __init__(
        self, end_session: Callable[[str, str], None], carried: Callable[[float], Count] = lambda now: Count()
    ) -> None:
        self.process: int | None = None
        self.settings = RouterSettings()
        self._end_session = end_session
        self._database = Database("placement", "proxy.placement")
        self._nudges = Nudges(self._look_soon, self._line_moved)
        self._deadlines = Deadlines(end_session)
        # What the next turn is about. Bounded by the sessions there are: while the database is away none is added.
        self._batch = Batch()
        self._singly = 0  # so many things are settled one by one, because one of them has failed a turn
        self._waiters: dict[str, Waiter] = {}
        self._claims: dict[str, Claim] = {}  # all live sessions of this process
        self._due = asyncio.Event()
        self._look_due = False
        self._moved: asyncio.TimerHandle | None = None
        self._looked = asyncio.Event()
        self._draining_since: float | None = None
        self._heart = Heart(self._database, self._begin_anew, carried)
        self._anew = asyncio.Lock()
        self._life: asyncio.Task[None] | None = None

    # --- what sessions call ---

    async def ready(self) -> None:
        """Wait until `settings` were read. Raises DatabaseAway."""
        self.start()
        try:
            async with asyncio.timeout(settings.DATABASE_TIMEOUT_SECONDS):
                await self._looked.wait()
        except TimeoutError as late:
            raise DatabaseAway from late

    async def seat(self, claim: Claim, tell: Tell) -> Seat:
        """A slot for `claim`, now or when its turn has come; until then `tell` hears its place in the line.

        Again for one whose replica was no use. Raises Refused or DatabaseAway. Cancelled, it wants none any more.
        """
        now = asyncio.get_running_loop().time()
        if claim.id is None and self._draining_since is not None and now - self._draining_since > ACCEPTED_SECONDS:
            raise Refused(ROUTER_DRAINING)
        self.start()
        self._claims[claim.uid] = claim
        waiter = self._waiters[claim.uid] = Waiter(claim, tell)
        (self._batch.arrivals if claim.id is None else self._batch.returns).append(claim)
        self._due.set()
        try:
            # A turn takes milliseconds, and finds at least that there is a line to stand in.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.DATABASE_TIMEOUT_SECONDS):
                    return await asyncio.shield(waiter.seat)
            if waiter.in_line_since is None and not waiter.seat.done():
                raise DatabaseAway
            return await waiter.seat
        finally:
            if waiter.in_line_since is not None:
                instruments.waited(asyncio.get_running_loop().time() - max(now, waiter.in_line_since))
            waiter.seat.cancel()
            del self._waiters[claim.uid]
            del waiter  # a refusal's traceback has this frame, and the waiter has the refusal

    def learned(self, replica: int, outcome: Outcome) -> None:
        """What an attempt came to; is written with the next turn."""
        self._batch.outcomes.append((replica, outcome))

    def ended(self, ended: Ended) -> None:
        """A session is over: its slot is given back, now or when the database answers again."""
        self._claims.pop(ended.claim.uid, None)
        if ended.claim.id is not None or len(self._batch.endings) < MAX_ENDINGS:
            self._batch.endings.append(ended)
            self._due.set()

    # --- its life ---

    def start(self) -> None:
        """Begin to work; does nothing when it works already."""
        if self._life is None or self._life.done():
            self._life = asyncio.create_task(self._live(), name="placement")

    async def drain(self) -> None:
        """Take no new sessions; those in the line are refused, and those that would have to stand in it."""
        self._draining_since = asyncio.get_running_loop().time()
        for waiter in list(self._waiters.values()):
            if waiter.in_line_since is not None:
                waiter.refuse(ROUTER_DRAINING)
        with contextlib.suppress(DatabaseFault):  # logged; only for people to see
            if self.process is not None:
                await self._database(partial(census.set_draining, self.process), writes=True)

    async def stop(self) -> None:
        """Write down what has ended, and leave the census. Bounded by the database's own bounds."""
        if self._life is None:
            return
        self._life.cancel()
        await asyncio.wait({self._life})
        if self.process is not None:
            self._singly = 0
            batch = self._take()
            batch.arrivals, batch.returns = [], []
            for work in (partial(settle, self.process, batch), partial(census.retire, self.process)):
                with contextlib.suppress(DatabaseFault, ProcessEnded):
                    await self._database(work, writes=True)
        await self._database.close()

    async def _live(self) -> None:
        while True:
            try:
                while self.process is None:
                    await self._register()
                # A side task that ends with an error ends all of them: never a placement that works by halves.
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._take_turns(), name="placement: turns")
                    group.create_task(self._heart.beat(self.process), name="placement: beat")
                    group.create_task(self._remind(), name="placement: remind the line")
                    group.create_task(self._nudges.deliver(), name="placement: send nudges")
                    group.create_task(self._nudges.listen(self.process), name="placement: hear nudges")
            except Exception:
                logger.exception("placement: fault of the router; it begins anew")
                await asyncio.sleep(RETRY_SECONDS)

    async def _register(self) -> None:
        try:
            self.process = await self._database(census.register, writes=True)
        except DatabaseFault:  # logged
            await asyncio.sleep(RETRY_SECONDS)

    # --- turns ---

    async def _take_turns(self) -> None:
        loop = asyncio.get_running_loop()
        look_at = loop.time()
        tidy_at = look_at + TIDY_SECONDS
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(look_at):
                    await self._due.wait()
            self._due.clear()
            tick = loop.time() >= look_at
            try:
                # On the timer also for those who wait: a replica may have recovered, a rejection be forgotten.
                if self._batch or (tick and self._waiters):
                    await self._settle()
                if tick or self._look_due:
                    await self._look()
                if loop.time() >= tidy_at:
                    tidy_at = loop.time() + TIDY_SECONDS  # also after a fault: turns are not to wait for each try
                    await self._tidy()
            except DatabaseFault:  # logged
                await asyncio.sleep(RETRY_SECONDS)
            except ProcessEnded:
                await self._begin_anew()
            if tick:
                look_at = loop.time() + LOOK_SECONDS

    def _take(self) -> Batch:
        """What has gathered. No turn runs now: who has no id and does not wait any more gets a row only for the log."""
        batch, self._batch = self._batch, Batch()
        over = {ended.claim.uid for ended in batch.endings}
        batch.arrivals = [claim for claim in batch.arrivals if claim.uid in self._waiters]
        batch.returns = [claim for claim in batch.returns if claim.uid not in over]
        if self._singly and len(batch) > 1:
            self._batch, batch = batch, batch.take_one()
            self._due.set()
        self._singly = max(0, self._singly - 1)
        return batch

    async def _settle(self) -> None:
        assert self.process is not None
        batch = self._take()
        try:
            settled = await self._database(partial(settle, self.process, batch), writes=True)
        except (ProcessEnded, asyncio.CancelledError):
            self._batch.put_back(batch)  # its thread goes on: what it does not do is for `stop`, or for the next turn
            raise
        except Exception as fault:
            if isinstance(fault, DatabaseFault) and not isinstance(fault, (DataError, IntegrityError)):
                # What has ended is written when the database answers again. Arrivals wait for that, but not for long.
                self._batch.put_back(batch)
                raise
            # One session's trouble, or a replica that was deleted in this moment: the others are settled without it.
            if not batch:
                raise
            logger.exception("placement: a turn about %d has failed", len(batch))
            if len(batch) > 1:
                self._singly = len(batch)
                self._batch.put_back(batch)
                self._due.set()
            return
        instruments.ejected(settled.ejected)
        self._deliver(batch, settled)
        self._nudges.send(seated=settled.seated, moved=settled.moved)

    def _deliver(self, batch: Batch, settled: Settled) -> None:
        for claim in batch.arrivals:
            claim.id = settled.ids.get(claim.uid)
        for claim in batch.returns:
            claim.seat = None
        now = asyncio.get_running_loop().time()
        for waiter in list(self._waiters.values()):
            claim = waiter.claim
            if claim.uid in settled.limited:
                self._claims.pop(claim.uid, None)  # it is not in the table, and nothing will end it there
                waiter.refuse(settled.limited[claim.uid])
            elif claim.id in settled.seats:
                waiter.give(settled.seats[claim.id])
            elif claim.id in settled.refused:
                waiter.refuse(settled.refused[claim.id])
            elif claim.id is None or claim.seat is not None:
                continue  # it came while this turn was taken
            elif settled.stranded:
                waiter.refuse(NO_HEALTHY_REPLICA)
            elif self._draining_since is not None:
                waiter.refuse(ROUTER_DRAINING)
            elif waiter.in_line_since is None:
                waiter.in_line_since = claim.waits_since = now if claim.waits_since is None else claim.waits_since
                self._look_soon()
            elif batch:
                self._line_moved()

    async def _tidy(self) -> None:
        """End sessions that only the database knows of. No turn runs now, so that what has no id has no row."""
        assert self.process is not None
        known = [claim.id for claim in self._claims.values() if claim.id is not None]
        known += [ended.claim.id for ended in self._batch.endings if ended.claim.id is not None]
        if number := await self._database(partial(census.end_strays, self.process, known), writes=True):
            logger.warning("%d sessions that a lost connection had left behind are ended", number)
        seated = {claim.id: claim.uid for claim in self._claims.values() if claim.id and claim.seat}
        for id in await self._database(partial(census.lost_slots, self.process, list(seated)), writes=True):
            if seated[id] in self._claims:
                self._end_session(seated[id], SLOT_LOST)
        await self._database(census.purge_replicas, writes=True)

    # --- looks ---

    def _look_soon(self) -> None:
        self._look_due = True
        self._due.set()

    def _line_moved(self) -> None:
        if self._moved is None and self._waiters:
            self._moved = asyncio.get_running_loop().call_later(LINE_SECONDS, self._look_soon)

    async def _look(self) -> None:
        assert self.process is not None
        self._look_due = False
        if self._moved is not None:
            self._moved.cancel()
            self._moved = None
        waiting = {w.claim.id: w for w in self._waiters.values() if w.claim.id is not None and w.claim.seat is None}
        seen = await self._database(partial(census.look, self.process, list(waiting)))
        self.settings = seen.settings
        pace.keep_only(seen.slow_starting)
        self._looked.set()
        now = asyncio.get_running_loop().time()
        places = {id: place for place, id in enumerate(seen.line, 1)}
        for id, waiter in waiting.items():
            if id in seen.seats:
                waiter.give(seen.seats[id])
            elif id in places:
                waiter.hear(places[id], len(seen.line), now)
        self._deadlines.see(seen.drains, self._claims.values(), now)
        for claim in list(self._claims.values()):
            if claim.id in seen.disconnects:
                self._end_session(claim.uid, seen.disconnects[claim.id])

    async def _remind(self) -> None:
        """Those in the line hear that they wait, and when it is too long, also while the database does not answer."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._remind_all(asyncio.get_running_loop().time())

    def _remind_all(self, now: float) -> None:  # not in the loop above: it would keep the last one while it sleeps
        for waiter in list(self._waiters.values()):
            waiter.remind(now, self.settings.queue_timeout_seconds)

    # --- the census ---

    async def _begin_anew(self) -> None:
        """Others have seen us stand still, and may have given our slots away."""
        assert self.process is not None
        async with self._anew:
            claims = [claim for claim in self._claims.values() if claim.id is not None]
            with contextlib.suppress(DatabaseFault):  # logged; the next beat tries again
                lost = await self._database(partial(census.reclaim, self.process, claims), writes=True)
                logger.warning(
                    "this process had been given up; %d of its %d sessions go on", len(claims) - len(lost), len(claims)
                )
                for claim in lost:
                    self._end_session(claim.uid, SLOT_LOST)
