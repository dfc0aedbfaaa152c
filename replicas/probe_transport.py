"""httpx, with every connection made by reaching.py.

Used by probe.py. Only where to connect is decided here: the Host header, SNI and the name that a certificate must have
are the URL's, as ever.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable

import httpcore
import httpx

from replicas.addresses import Address
from replicas.reaching import reach


def transport(verify: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
    """No proxies, and no bound on connections: a probe that waited for another's would be the fault of contract A4.

    None is kept: a replica must be able to accept a new one, and a kept one that the replica closes as the next probe
    goes out (uvicorn does so after 5 s, the default interval) would look like a failure.
    """
    made = httpx.AsyncHTTPTransport(verify=verify, trust_env=False)
    # httpx hands its pool no network backend. That it has the pool here, and uses it, tests hold (test_reaching.py).
    assert isinstance(made._pool, httpcore.AsyncConnectionPool)
    made._pool = httpcore.AsyncConnectionPool(
        ssl_context=verify, max_connections=None, max_keepalive_connections=0, network_backend=_Reaching()
    )
    return made


class _Reaching(httpcore.AsyncNetworkBackend):
    """Raises AddressRefused, which passes through httpcore and httpx as it is."""

    def __init__(self) -> None:
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        async def connect(address: Address) -> httpcore.AsyncNetworkStream:
            return await self._plain.connect_tcp(str(address), port, timeout, local_address, socket_options)

        try:
            return await reach(host, connect, _close)
        except OSError as error:  # of the look-up; the others httpcore has translated
            raise httpcore.ConnectError(str(error)) from error

    async def sleep(self, seconds: float) -> None:
        await self._plain.sleep(seconds)


async def _close(stream: httpcore.AsyncNetworkStream) -> None:
    await stream.aclose()
