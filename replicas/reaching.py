"""Reach a replica's host: its name is looked up once, each address is checked, and that very address is connected to.

Called for every probe (probe.py) and every session (proxy/upstream.py), so that both keep the same rule. What is
checked is the address that connect() is given: a name that changes between a check and a second look-up (DNS rebinding)
has nothing to change. How to connect is the caller's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import TypeVar

from django.conf import settings

from replicas.addresses import Address, plain, refusal
from replicas.resolver import RESOLVER

# After so long without an answer the next address of a name is tried beside it (RFC 8305 §5).
NEXT_ADDRESS_SECONDS = 0.25

Opened = TypeVar("Opened")
Connect = Callable[[Address], Awaitable[Opened]]
Close = Callable[[Opened], Awaitable[None]]


class AddressRefused(Exception):
    """All addresses of a host are such as no replica may have. The text says why of the first, which is `address`."""

    def __init__(self, why: str, address: Address) -> None:
        super().__init__(f"address not allowed: {why}")
        self.address = address


async def reach(host: str, connect: Connect[Opened], close: Close[Opened]) -> Opened:
    """What `connect` opens at the first address of `host` that answers, of those that are allowed.

    Takes as long as it takes: the deadline is the caller's. `close` lets go of what was opened one too many. Raises
    AddressRefused, OSError where the look-up fails, and of the connects what the last one raised.
    """
    written = _written(host)
    found = await RESOLVER.addresses(host) if written is None else [written]
    refused = {address: why for address in found if (why := refusal(address, settings.ROUTER_REPLICA_NETWORKS))}
    allowed = [plain(address) for address in found if address not in refused]
    if not allowed:
        raise AddressRefused(refused[found[0]], found[0])
    if len(allowed) == 1:
        return await connect(allowed[0])
    return await _first(allowed, connect, close)


@lru_cache(maxsize=1024)  # of a fleet's replicas; every session asks
def _written(host: str) -> Address | None:
    """The address that `host` is; None: it has to be looked up."""
    try:
        return ip_address(host)
    except ValueError:
        return None


async def _first(addresses: list[Address], connect: Connect[Opened], close: Close[Opened]) -> Opened:
    """Connect to one address after the other, the next one when the last has failed or is slow."""
    attempts: list[asyncio.Task[Opened]] = []
    pending: set[asyncio.Task[Opened]] = set()
    taken: asyncio.Task[Opened] | None = None
    try:
        while taken is None:
            if len(attempts) < len(addresses):
                attempts.append(asyncio.create_task(_started(connect, addresses[len(attempts)]), name="connect"))
                pending.add(attempts[-1])
            more = len(attempts) < len(addresses)
            done, pending = await asyncio.wait(
                pending, timeout=NEXT_ADDRESS_SECONDS if more else None, return_when=asyncio.FIRST_COMPLETED
            )
            taken = next((attempt for attempt in done if attempt.exception() is None), None)
            if taken is None and not pending and not more:
                break
        return (taken or attempts[-1]).result()
    finally:
        for attempt in pending:
            attempt.cancel()
        if pending:
            await asyncio.wait(pending)
        for attempt in attempts:
            if attempt is not taken and not attempt.cancelled() and attempt.exception() is None:
                await close(attempt.result())


async def _started(connect: Connect[Opened], address: Address) -> Opened:
    return await connect(address)
