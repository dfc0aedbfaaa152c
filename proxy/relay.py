"""Join two links, wait until one side is gone, and say how the session ended.

Called by the consumer once a replica is open. The links hand frames to each other by themselves (see opening.py for how
that begins, wire.py for what passes); here is only what their departures mean. Must not send an error frame or a close:
the consumer does, from the `Ending`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from proxy import errors
from proxy.errors import Close, Ending
from proxy.frames import TOO_BIG
from proxy.links import Departure, Link
from proxy.opening import Opening

# Codes with which a server says that it cannot go on, not that the session is over (design, decision 3).
CANNOT_GO_ON = {errors.GOING_AWAY, errors.INTERNAL_ERROR, errors.SERVICE_RESTART, errors.TRY_AGAIN_LATER}


@dataclass(frozen=True)
class NotBegun:
    """The replica was lost, or could not go on, before the session had begun: another may be tried.

    `rejection` is what ends the session where there is no other: the replica's own words.
    """

    why: str
    rejection: Ending | None


async def relay(client: Link, replica: Link, opening: Opening, session: str) -> Ending | NotBegun:
    """Relay until one side is gone. What it had sent before has then been handed to the other one's link."""
    opening.offer(replica)
    await asyncio.wait({client.gone, replica.gone}, return_when=asyncio.FIRST_COMPLETED)
    if client.gone.done():
        if client.gone.result().close is not None:
            await opening.all_given()
        return client_departed(client.gone.result(), session)
    departure = replica.gone.result()
    if not opening.begun and (departure.close is None or departure.close.code in CANNOT_GO_ON):
        rejection = _rejection(opening, departure)
        await opening.withdraw()
        return NotBegun(departure.why if departure.close is None else f"closed with {departure.close.code}", rejection)
    ending = _replica_departed(departure, session)
    if opening.withheld is not None:
        return replace(ending, error_frame=opening.withheld)
    if replica.unfinished and client.by_frames:
        # A text frame may not stand inside the message that the client has the beginning of: the close alone says it.
        return replace(ending, error_frame=None)
    return ending


def client_departed(departure: Departure, session: str) -> Ending:
    """How a session ends whose client left first, or was refused by its link."""
    if departure.refused is not None and departure.refused.code == errors.INTERNAL_ERROR:
        return replace(errors.router_failed(session), why=departure.why)
    if departure.refused is not None and departure.refused.code == errors.SERVICE_RESTART:
        return errors.dismissed(departure.refused.reason)
    if departure.refused is not None:
        return errors.client_refused(departure.refused, departure.why)
    return errors.client_closed(departure.close) if departure.close else errors.client_vanished(departure.why)


def _replica_departed(departure: Departure, session: str) -> Ending:
    if departure.close is not None:
        return errors.replica_closed(departure.close)
    if departure.refused is not None and departure.refused.code == TOO_BIG:
        return errors.replica_message_too_big(departure.refused)
    return replace(errors.replica_lost(session, departure.why), to_replica=departure.refused)


def _rejection(opening: Opening, departure: Departure) -> Ending | None:
    if opening.withheld is None:
        return None
    words, opening.withheld = opening.withheld, None
    close = departure.close or Close(errors.TRY_AGAIN_LATER, "session_rejected")
    return replace(errors.replica_closed(close), why="rejected", error_frame=words)
