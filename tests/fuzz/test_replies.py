"""What a replica answers: to the opening handshake (proxy/upstream.py) and to a probe (replicas/probe.py)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence

import httpx
from hypothesis import example, given
from hypothesis import strategies as st

from proxy import frames
from proxy.upstream import ReplicaRefused, ReplicaUnreachable, open_replica
from replicas.probe import MAX_ERROR_CHARACTERS, MAX_READINESS_CHARACTERS, Report, _verdict, http_client, probe
from replicas.rules import MAX_COUNT
from tests.fake_replica import handshake_answer, raw_server
from tests.wire_peers import PLAIN

LINES = st.lists(
    st.sampled_from(
        [
            b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 200 OK", b"HTTP/1.1 302 Found", b"HTTP/1.1 401 No",
            b"HTTP/1.0 503 X", b"HTTP/1.1 099 X", b"HTTP/1.1 999 X", b"HTTP/2 200", b"Upgrade: websocket",
            b"Connection: Upgrade", b"Connection: close", b"Sec-WebSocket-Accept: AAAA", b"Sec-WebSocket-Protocol: x",
            b"Sec-WebSocket-Extensions: permessage-deflate", b"Location: http://169.254.169.254/",
            b"Content-Length: 2", b"Content-Length: -1", b"Content-Length: 99999999999", b"Transfer-Encoding: chunked",
            b"Content-Type: application/json", b"Content-Encoding: gzip", b"Content-Encoding: \x80", b"", b"{}",
            b'{"status": "warming"}', b"2\r\n{}\r\n0\r\n", b": x", b"\0", b"a" * 9000,
        ]
    )
    | st.binary(max_size=20),
    max_size=8,
).map(b"\r\n".join)  # fmt: skip
ANSWERS = LINES.map(lambda head: head + b"\r\n\r\n") | LINES | st.binary(max_size=60)
CUTS = st.lists(st.integers(1, 40), min_size=1, max_size=4)


async def in_pieces(writer: asyncio.StreamWriter, octets: bytes, cuts: list[int]) -> None:
    at = index = 0
    while at < len(octets):
        writer.write(octets[at : at + cuts[index % len(cuts)]])
        await asyncio.sleep(0)
        at, index = at + cuts[index % len(cuts)], index + 1


def with_a_server(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    ask: Callable[[str], Awaitable[None]],
) -> None:
    """Ask a replica that answers each request by `answer`, and then closes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer)

    async def run() -> None:
        async with raw_server(talk) as replica:
            await ask(replica.url)

    asyncio.run(run())


@given(ANSWERS, CUTS)
@example(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", [1])
@example(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n", [40])
def test_any_answer_to_a_handshake_is_a_failed_attempt(octets: bytes, cuts: list[int]) -> None:
    """In a line that names no address and repeats nothing of what came."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await in_pieces(writer, octets, cuts)

    async def ask(url: str) -> None:
        said = ""
        try:
            link = await open_replica(url, PLAIN, 5)
            link.abort()
        except (ReplicaUnreachable, ReplicaRefused) as fault:
            said = str(fault)
        assert said, "it was opened without the right Sec-WebSocket-Accept"
        assert said.isprintable()
        assert len(said) < 120
        assert "127.0.0.1" not in said
        assert "169.254" not in said

    with_a_server(answer, ask)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), CUTS)
def test_what_comes_behind_a_handshake_is_frames_to_the_octet(payloads: list[bytes], cuts: list[int]) -> None:
    """Wherever the answer is cut: all that follows its head reaches the session, and nothing else."""
    tail = b"".join(frames.build(frames.BINARY, payload) for payload in payloads)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await in_pieces(writer, await handshake_answer(reader) + tail, cuts)
        await reader.read()

    async def ask(url: str) -> None:
        link = await open_replica(url, PLAIN, 5)
        got, complete = bytearray(), asyncio.Event()

        def sink(units: Sequence[frames.Octets]) -> None:
            got.extend(b"".join(units))
            if len(got) >= len(tail):
                complete.set()

        link.start(sink)
        try:
            async with asyncio.timeout(10):
                await complete.wait()
        finally:
            link.abort()
        assert bytes(got) == tail

    with_a_server(answer, ask)


def check(error: str, report: Report) -> None:
    """What the prober writes down, and shows to operators."""
    assert error.isprintable()
    assert "127.0.0.1" not in error
    for count in (report.slots, report.sessions):
        assert count is None or (type(count) is int and 0 <= count <= MAX_COUNT)
    assert report.readiness.isprintable()
    assert len(report.readiness) <= MAX_READINESS_CHARACTERS
    (error + report.readiness).encode()  # as a database takes it: no lone surrogates


@given(ANSWERS, CUTS)
@example(
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: \x80\r\nContent-Length: 2\r\n\r\n{}", [99]
)
def test_any_answer_to_a_probe_is_a_result(octets: bytes, cuts: list[int]) -> None:
    """A success or a failure in a line of words; never an exception, and no redirect is followed."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await in_pieces(writer, octets, cuts)

    async def ask(url: str) -> None:
        async with http_client() as client:
            result, report = await probe(client, url, "/health", 5)
        assert result.ok == (not result.error)
        assert (result.latency_ms is None) == bool(result.error)
        assert len(result.error) <= MAX_ERROR_CHARACTERS
        check(result.error, report)

    with_a_server(answer, ask)


WORDS = st.sampled_from(["status", "total_gpus", "available_gpus", "sessions"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.sampled_from(["ok", "ready"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=5),
    max_leaves=10,
)
FACTS = st.dictionaries(WORDS, st.integers(-2, 2 * MAX_COUNT) | st.floats() | JSON, max_size=4)
KINDS = st.sampled_from(
    ["application/json", "application/x+json", "text/html", "", "Application/JSON; charset=latin-1"]
)


@given((JSON | FACTS).map(json.dumps).map(str.encode) | st.binary(max_size=40), KINDS, st.integers(200, 599))
@example(b'{"status": "\\ud800"}', "application/json", 200)
@example(b'{"total_gpus": 1e400, "sessions": -0}', "", 200)
def test_any_body_of_a_probe_is_judged(body: bytes, kind: str, status: int) -> None:
    """Only what says that it is ready, or says nothing of it, is a success; counts are kept where they make sense."""
    error, report = _verdict(httpx.Response(status, headers={"Content-Type": kind}), body)
    check(error, report)
    if status >= 400:
        assert error == f"HTTP {status}"
    if not error and report.readiness:
        assert report.readiness in ("ok", "ready")
