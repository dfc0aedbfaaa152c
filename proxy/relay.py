"""Join two links: pass messages both ways, watch both peers, and say how the session ended.

Called by the consumer once a replica is open. Each direction holds one message and waits until the other side has
taken it: that is the push-back. Must not send an error frame or a close: the consumer does, from the `Ending`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, NoReturn

from django.conf import settings

from proxy import errors
from proxy.errors import Ending
from proxy.links import ClientLink, Link, LinkClosed

# What a client sent before it left is still delivered, for so long: a replica that takes nothing must not keep
# the session of a client that is gone.
LAST_WORDS_SECONDS = 5.0
# The replica must hear within 1 s that its client vanished (faults.md, 1).
VANISHED_SECONDS = 0.5


async def relay(client: ClientLink, replica: Link, session: str) -> Ending:
    """Forward until one side is gone. All that it sent before is delivered before this returns (bounded)."""
    upward = _task(_forward(client, replica), f"session {session}: client to replica")
    downward = _task(_forward(replica, client), f"session {session}: replica to client")
    client_leaves = _task(_leaving(client), f"session {session}: departure of the client")
    client_falls_silent = _task(_watch(client), f"session {session}: watch on the client")
    replica_falls_silent = _task(_watch(replica), f"session {session}: watch on the replica")
    # Those that know most of why come first: several may end in the same moment.
    tasks = (client_falls_silent, replica_falls_silent, client_leaves, upward, downward)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        closed = _departure(tasks)
        if closed.link is client:
            downward.cancel()  # nobody is left to read it
            bound = LAST_WORDS_SECONDS if closed.close else VANISHED_SECONDS
            await asyncio.wait({upward}, timeout=bound)
        else:
            upward.cancel()
            # Without a bound of its own: the client may be slow. One that stopped reading is found by its watch.
            await asyncio.wait({downward, client_leaves, client_falls_silent}, return_when=asyncio.FIRST_COMPLETED)
        return _ending(closed, client, session)
    finally:
        await _cancelled(tasks)


async def _forward(source: Link, sink: Link) -> NoReturn:
    while True:
        await sink.send(await source.receive())


async def _leaving(link: ClientLink) -> NoReturn:
    """Ends when the peer leaves, even while the other side takes none of what it sent."""
    raise await link.wait_gone()


async def _watch(link: Link) -> NoReturn:
    """Ends with LinkClosed when the peer is silent for a ping interval and then gives no answer to a ping.

    Any byte counts as an answer. While we hold the peer back, its silence means nothing.
    """
    interval, timeout = settings.ROUTER_PING_INTERVAL_SECONDS, settings.ROUTER_PING_TIMEOUT_SECONDS
    loop = asyncio.get_running_loop()
    while True:
        if link.heard_at is None:  # the server under the link watches its peer itself
            await asyncio.sleep(3600)
            continue
        wait = link.heard_at + interval - loop.time()
        if wait > 0 or link.paused:
            await asyncio.sleep(max(wait, 0.01) if not link.paused else interval)
            continue
        asked_at = loop.time()
        link.ping()
        await asyncio.sleep(timeout)
        if link.heard_at < asked_at and not link.paused:
            link.abort()  # so that what it sent before is all there will be
            raise LinkClosed(link, None, "no answer to a ping")


def _departure(tasks: Iterable[asyncio.Task[NoReturn]]) -> LinkClosed:
    """Why the first of `tasks` ended. Raises its exception where that is a fault of ours."""
    error = next(task.exception() for task in tasks if task.done())
    if isinstance(error, LinkClosed):
        return error
    raise error or AssertionError("a relay's task ended without saying why")


def _ending(closed: LinkClosed, client: Link, session: str) -> Ending:
    if closed.link is client:
        if closed.refused:
            return errors.client_broke_the_protocol(closed.refused)
        return errors.client_closed(closed.close) if closed.close else errors.client_vanished(closed.why)
    if closed.close:
        return errors.replica_closed(closed.close)
    if closed.refused and closed.refused.code == errors.TOO_BIG:
        return errors.replica_message_too_big(settings.ROUTER_MAX_MESSAGE_BYTES)
    return errors.replica_lost(session, closed.why)


def _task(work: Coroutine[Any, Any, NoReturn], name: str) -> asyncio.Task[NoReturn]:
    return asyncio.create_task(work, name=name)


async def _cancelled(tasks: Iterable[asyncio.Task[NoReturn]]) -> None:
    for task in tasks:
        task.cancel()
    # Their failures were looked at, or come of the ending that is under way.
    await asyncio.gather(*tasks, return_exceptions=True)
