"""What a stranger can write where a handshake is expected, against a whole server: Twisted, autobahn, Daphne and ours.

Beside tests/fuzz, which holds our own modules to properties one by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from proxy.daphne import MAX_BODY_BYTES
from tests.acceptance.neighbours import undisturbed
from tests.acceptance.servers import Router
from tests.raw import soon

GOOD = [
    b"GET /v1/stream HTTP/1.1", b"Host: localhost", b"Connection: Upgrade", b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
]  # fmt: skip
ODD = [
    b"GET /v1/stream?" + b"q" * 5000 + b" HTTP/1.1", b"GET /v1/stream?a=%ff%00\xff HTTP/1.1",
    b"GET //v1/stream HTTP/1.1", b"GET /v1/stream\xff HTTP/1.1", b"GET /v1/stream%ff HTTP/1.1",
    b"GET http://169.254.169.254/v1/stream HTTP/1.1", b"POST /v1/stream HTTP/1.1", b"GET /v1/stream HTTP/1.0",
    b"PRI * HTTP/2.0", b"Host:", b"Host: [::1", b"Host: a,b", b"Host: \xff", b"Connection: close, Upgrade",
    b"Connection: keep-alive", b"Upgrade: h2c", b"Sec-WebSocket-Version: 99", b"Sec-WebSocket-Version: x",
    b"Sec-WebSocket-Key: x", b"Sec-WebSocket-Key: \xff", b"Sec-WebSocket-Protocol: \xff\xfe",
    b"Sec-WebSocket-Protocol: a, b, a", b"Sec-WebSocket-Protocol:", b"Sec-WebSocket-Protocol: %ff",
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=99", b"Sec-WebSocket-Extensions: ;;=",
    b"Origin: null", b"Origin: \xff", b"Origin: http://[", b"Origin: http://a:99999", b"Origin: a\x01b",
    b"Cookie: \xff=; =;", b"X-Forwarded-For: " + b"1.1.1.1, " * 200, b"X-Forwarded-For: \x01", b"X-A: a\x85Host: b",
    b"Daphne-Root-Path: /x%ff", b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 99999999999999999999",
    b"Transfer-Encoding: chunked", b"Expect: 100-continue", b": x", b"no colon", b" folded", b"A" * 20_000, b"\0",
    b"\r", b"\n",
]  # fmt: skip


WAITS_SECONDS = 0.1  # without an answer: it waits for a body, say


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A good handshake of which lines are replaced, left out, put in or written twice."""
    lines = list(GOOD)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(lines)))
        odd = draw(st.sampled_from(GOOD + ODD) | st.binary(max_size=30))
        lines[at : at + draw(st.integers(0, 1))] = [odd]
    return b"\r\n".join(lines) + b"\r\n\r\n" + draw(st.sampled_from([b"", b"", b"\x81\x80AAAA", b"garbage"]))


def answer_to(port: int, octets: bytes, waits: float = WAITS_SECONDS) -> bytes:
    """All that comes back until the server closes. Where it waits for more than that, it hears that none will come."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port)) as peer, contextlib.suppress(ConnectionError):
        peer.sendall(octets)  # the server may have read enough: then the connection is reset
        peer.settimeout(waits)
        with contextlib.suppress(TimeoutError):
            answer = peer.recv(65_536)
        peer.settimeout(20)
        peer.shutdown(socket.SHUT_WR)
        while piece := peer.recv(65_536):
            answer += piece
    return answer


def test_no_handshake_of_a_stranger_breaks_the_server(quick_daphne: Router) -> None:
    """It is answered or cut off; never an error of the server's, an address of ours, or a traceback in the log."""
    logged = len(quick_daphne.log)

    @settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
    @given(heads())
    @example(b"\r\n".join([*GOOD, b"Origin: http://["]) + b"\r\n\r\n")
    @example(b"\r\n".join([*GOOD, b"Sec-WebSocket-Protocol: \xff"]) + b"\r\n\r\n")
    def held(octets: bytes) -> None:
        answer = answer_to(quick_daphne.port, octets)
        assert answer[:9] in (b"", b"HTTP/1.1 ", b"HTTP/1.0 ")
        assert answer[9:10] in (b"", b"1", b"2", b"3", b"4"), answer[:200]
        assert b"Traceback" not in answer

    held()
    assert quick_daphne.answers()
    assert "Traceback" not in quick_daphne.log[logged:]
    assert "ERROR" not in quick_daphne.log[logged:]


@pytest.mark.parametrize("octet", [b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e", b"\x85", b"\r", b"\n", b"\0"])
def test_no_octet_but_a_lines_end_begins_a_header(quick_daphne: Router, octet: bytes) -> None:
    """Autobahn takes these for one: a client could write X-Forwarded-For past the proxy that is to write it."""
    lines = [*GOOD, b"User-Agent: a" + octet + b"X-Forwarded-For: 6.6.6.6"]
    with socket.create_connection(("127.0.0.1", quick_daphne.port), timeout=20) as peer:
        peer.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
        assert peer.recv(100).startswith(b"HTTP/1.1 400 ")


def test_a_handshake_outside_ascii_is_told_400(quick_daphne: Router) -> None:
    """Daphne's own answer was 500 with the exception's text, and a traceback in the log."""
    for line in (b"Sec-WebSocket-Protocol: \xff", b"Sec-WebSocket-Protocol: a, \xc3\xa4"):
        with socket.create_connection(("127.0.0.1", quick_daphne.port), timeout=20) as peer:
            peer.sendall(b"\r\n".join([*GOOD, line]) + b"\r\n\r\n")
            assert peer.recv(100).startswith(b"HTTP/1.1 400 path or subprotocol is not ASCII\r\n")
    assert "Traceback" not in quick_daphne.log


def test_a_stranger_names_no_prefix_of_the_path(quick_daphne: Router) -> None:
    """Daphne believes Daphne-Root-Path: a proxy that shuts /admin by its path would be walked around, by /x/admin."""
    head = b"GET /x/livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nDaphne-Root-Path: /x\r\n\r\n"
    assert answer_to(quick_daphne.port, head, 20).startswith(b"HTTP/1.1 404 ")
    upgrade = b"\r\n".join([*GOOD, b"Daphne-Root-Path: /x"]) + b"\r\n\r\n"
    assert answer_to(quick_daphne.port, upgrade, 20).startswith(b"HTTP/1.1 101 ")
    assert "Traceback" not in quick_daphne.log


@pytest.mark.parametrize("path", [b"/api/v1/tickets", b"/admin/login/", b"/livez", b"/v1/stream"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_without_end_is_cut_off(quick_daphne: Router, path: bytes, chunked: bool) -> None:
    """Daphne would take all of it into memory before anyone is asked, and with it the process and its sessions."""
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 1000000000000"
    head = [b"POST " + path + b" HTTP/1.1", b"Host: localhost", b"Content-Type: application/x-www-form-urlencoded"]
    piece = b"a" * 65_536
    if chunked:
        piece = b"10000\r\n" + piece + b"\r\n"
    sent, most = 0, 64 * MAX_BODY_BYTES
    with socket.create_connection(("127.0.0.1", quick_daphne.port), timeout=20) as peer:
        peer.sendall(b"\r\n".join([*head, length]) + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while sent < most:
                peer.sendall(piece)
                sent += len(piece)
    assert sent < most
    assert quick_daphne.answers()
    assert "Traceback" not in quick_daphne.log


FORM = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n" % MAX_BODY_BYTES
COOKIE = b'Cookie: a="' + b'\\"' * 7_500 + b'"\r\n'
STRANGE = {
    "a form": b"POST / HTTP/1.1\r\nHost: localhost\r\n" + FORM + b"&" * MAX_BODY_BYTES,
    "chunks of an octet": b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"1\r\na\r\n" * 600_000,
    "a cookie": b"\r\n".join([b"GET /dashboard/live HTTP/1.1", *GOOD[1:], b"Origin: http://localhost"])
    + b"\r\n" + COOKIE + b"\r\n",
}  # fmt: skip


@pytest.mark.parametrize("request_of", STRANGE)
async def test_a_request_that_is_work_to_read_holds_up_nobody(quick_daphne: Router, request_of: str) -> None:
    """Anyone can send it, at any path, and nobody is to read it: others have their turn meanwhile."""

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", quick_daphne.port)
        with contextlib.suppress(ConnectionError):
            writer.write(STRANGE[request_of])
            await soon(writer.drain())
            await soon(reader.read(65_536))
        writer.close()

    async with undisturbed(quick_daphne, unaffected=1.0):
        await asyncio.gather(*(ask() for _ in range(4)))
    assert "Traceback" not in quick_daphne.log


def test_a_body_of_a_megabyte_is_told_what_is_wrong_with_it(quick_daphne: Router) -> None:
    body = b"x" * 2**20
    head = b"POST /api/v1/tickets HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    answer = answer_to(quick_daphne.port, head % len(body) + body, 20)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer
