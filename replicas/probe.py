"""One HTTP probe of one replica (contract A4): a request in, a `ProbeResult` and a `Report` out.

Called by prober.py, `runhealthchecks --once` and the admin's "probe now". Expected failures are values, never
exceptions. Must not write anything.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx
from django.conf import settings
from django.utils import timezone

from replicas.health import ProbeResult
from replicas.probe_transport import transport
from replicas.reaching import AddressRefused
from replicas.resolver import RESOLVER
from replicas.rules import MAX_COUNT

MAX_BODY_BYTES = 64 * 1024
MAX_ERROR_CHARACTERS = 200
MAX_READINESS_CHARACTERS = 32
# A deadline that fires later than this says that our own process was stopped or its event loop stalled.
LATE_SECONDS = 0.25
# The words of a JSON answer's `status` that mean: give me sessions. `warming` is not one (contract A7.8).
READY_WORDS = ("ok", "ready")


@dataclass(frozen=True)
class Report:
    """What a replica says of itself (contract B); None and "" where it does not."""

    slots: int | None = None
    sessions: int | None = None
    readiness: str = ""


def http_client() -> httpx.AsyncClient:
    """The client that all probes share. No redirects, no proxies of the environment (contract A7.11)."""
    verify = ssl.create_default_context()
    if settings.ROUTER_UPSTREAM_CA_FILE:
        verify.load_verify_locations(settings.ROUTER_UPSTREAM_CA_FILE)
    headers = {
        "User-Agent": "stream-router-probe",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    if settings.ROUTER_UPSTREAM_AUTHORIZATION:
        headers["Authorization"] = settings.ROUTER_UPSTREAM_AUTHORIZATION
    return httpx.AsyncClient(
        headers=headers,
        transport=transport(verify),
        trust_env=False,
        follow_redirects=False,
        timeout=None,  # noqa: S113  (`probe` has one deadline for all of it)
    )


async def probe(client: httpx.AsyncClient, url: str, path: str, timeout_seconds: float) -> tuple[ProbeResult, Report]:
    """GET `url` + `path` within `timeout_seconds`, connect and body included; at most 64 KiB of it are read.

    A status ≥ 400, any exception and a timeout are failures; so is JSON whose `status` is not "ok" or "ready", and what
    calls itself JSON and cannot be read: it may say that it is not ready. A timeout that a stall of this process made
    says nothing of the replica: then it is asked once more.
    """
    started = time.perf_counter()
    error, report = await _ask(client, url + path, timeout_seconds)
    took = time.perf_counter() - started
    if took > timeout_seconds + LATE_SECONDS:
        started = time.perf_counter()
        error, report = await _ask(client, url + path, timeout_seconds)
        took = time.perf_counter() - started
    latency_ms = None if error else took * 1000
    return ProbeResult(timezone.now(), not error, latency_ms, error[:MAX_ERROR_CHARACTERS]), report


async def probe_all(
    client: httpx.AsyncClient, urls: Iterable[str], path: str, timeout_seconds: float
) -> list[tuple[ProbeResult, Report]]:
    """`probe` each, all at once."""
    return await asyncio.gather(*(probe(client, url, path, timeout_seconds) for url in urls))


async def _ask(client: httpx.AsyncClient, url: str, timeout_seconds: float) -> tuple[str, Report]:
    """What is wrong ("" for nothing), and what the replica reports."""
    try:
        async with asyncio.timeout(timeout_seconds), client.stream("GET", url) as response:
            body = await _beginning(response)
        return _verdict(response, body)
    except TimeoutError:
        why = ": the name look-up hangs" if RESOLVER.is_asking(httpx.URL(url).raw_host.decode()) else ""
        return f"timeout after {timeout_seconds:g} s{why}", Report()
    except AddressRefused as refused:  # only operators read it: of a name, the address is what they have to know
        return f"{refused} ({refused.address})", Report()
    except httpx.HTTPError as failure:
        return _words(failure), Report()
    except Exception as failure:  # contract A4: any exception is a failure
        return type(failure).__name__, Report()


async def _beginning(response: httpx.Response) -> bytes:
    """The body, or of one that is too long a byte more than MAX_BODY_BYTES."""
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            break  # leaving the stream drops the connection: the rest is not read
    return body[: MAX_BODY_BYTES + 1]


def _verdict(response: httpx.Response, body: bytes) -> tuple[str, Report]:
    """What is wrong with an answer ("" for nothing), and what it reports."""
    answer, unreadable = _json(response, body)
    facts = answer if isinstance(answer, dict) else {}
    report = _report(facts)
    if response.status_code >= 400:
        return f"HTTP {response.status_code}", report
    if unreadable and _calls_itself_json(response):
        return unreadable, report
    if "status" in facts and report.readiness not in READY_WORDS:
        return report.readiness or "a status that is no word", report
    return "", report


def _json(response: httpx.Response, body: bytes) -> tuple[object, str]:
    """The body's value, and why there is none."""
    if len(body) > MAX_BODY_BYTES:
        return None, f"JSON over {MAX_BODY_BYTES // 1024} KiB"
    if (coding := response.headers.get("Content-Encoding", "identity").lower()) != "identity":
        return None, f"JSON in {_printable(coding)}, which was not asked for"
    try:
        return json.loads(body), ""
    except (ValueError, RecursionError):
        return None, "JSON that cannot be read"


def _calls_itself_json(response: httpx.Response) -> bool:
    kind: str = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _report(facts: dict[str, Any]) -> Report:
    slots, free = _count(facts.get("total_gpus")), _count(facts.get("available_gpus"))
    sessions = _count(facts.get("sessions"))
    if sessions is None and slots is not None and free is not None:
        sessions = max(0, slots - free)
    word = facts.get("status")
    readiness = _printable(word) if isinstance(word, str) else ""
    return Report(slots, sessions, readiness[:MAX_READINESS_CHARACTERS].strip())


def _printable(text: str) -> str:
    """What of `text` can stand in a line, and in any database."""
    return "".join(filter(str.isprintable, text))


def _count(value: object) -> int | None:
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT
    return int(value) if usable else None  # type: ignore[call-overload]


def _words(failure: httpx.HTTPError) -> str:
    """A few words for operators: the system's own where there are any, without addresses."""
    cause: BaseException | None = failure
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"TLS: {cause.verify_message}"
        if isinstance(cause, socket.gaierror):
            return f"name look-up failed: {cause.strerror}".lower()
        if isinstance(cause, OSError) and cause.errno and cause.errno > 0:
            return os.strerror(cause.errno).lower()
        cause = cause.__cause__ or cause.__context__
    return {"ConnectError": "cannot connect", "RemoteProtocolError": "not HTTP, or cut off"}.get(
        type(failure).__name__, type(failure).__name__
    )
