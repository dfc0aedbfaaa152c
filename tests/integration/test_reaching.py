"""Every connection to a replica: looked up once, checked, and made to the very address that was checked (issue 6, 4).

Real servers on the loopback's many addresses; DNS is faked where the C library is asked. Each test runs for a probe and
for a session: both go through replicas/reaching.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from proxy import upstream
from proxy.errors import Close
from proxy.upstream import ReplicaUnreachable, open_replica
from replicas import resolver
from replicas.addresses import Address
from replicas.probe import http_client, probe
from replicas.reaching import reach
from replicas.resolver import Resolver
from tests.acceptance.certificates import AUTHORITY
from tests.fake_replica import FakeReplica, fake_replica
from tests.wire_peers import PLAIN

# What went wrong when the replica at a URL was reached; "" for nothing.
Reached = Callable[[str], Awaitable[str]]


async def by_probe(url: str) -> str:
    async with http_client() as client:
        return (await probe(client, url, "/health", 2))[0].error


async def by_session(url: str) -> str:
    try:
        link = await open_replica(url, PLAIN, 2)
    except ReplicaUnreachable as fault:
        return str(fault)
    await link.close(Close(1000))
    return ""


@pytest.fixture(params=[by_probe, by_session], ids=["probe", "session"])
def reached(request: pytest.FixtureRequest) -> Reached:
    return request.param  # type: ignore[no-any-return]


class Names:
    """DNS: the answers of a name, one after the other, the last of them for ever; each question is noted."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): list(each) for name, each in answers.items()}
        self.asked: list[str] = []
        self._real = socket.getaddrinfo

    def __call__(self, host: Any, port: Any, *rest: Any, **options: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else str(host)
        self.asked.append(name)
        given = self.answers[name]
        addresses = given.pop(0) if len(given) > 1 else given[0]
        return [found for address in addresses for found in self._real(address, port, *rest, **options)]


def named(replica: FakeReplica, name: str) -> str:
    return replica.url.replace("127.0.0.1", name)


def names(monkeypatch: pytest.MonkeyPatch, **answers: list[list[str]]) -> Names:
    made = Names(**answers)
    monkeypatch.setattr(socket, "getaddrinfo", made)
    return made


async def test_a_name_that_changes_has_nothing_to_change(reached: Reached, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the answer that was checked is what is connected to, and nobody asks again."""
    async with fake_replica() as replica:
        dns = names(monkeypatch, rebinding_test=[["127.0.0.1"], ["169.254.169.254"]])
        assert await reached(named(replica, "rebinding.test")) == ""
        assert dns.asked == ["rebinding.test"]
        assert "address not allowed: metadata" in await reached(named(replica, "rebinding.test"))
        assert dns.asked == ["rebinding.test"] * 2


@pytest.mark.parametrize("address", ["169.254.1.1", "fe80::1%1", "::ffff:169.254.1.1", "64:ff9b::a9fe:101"])
async def test_a_name_of_a_link_local_address_is_not_connected_to(
    reached: Reached, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """Whatever stands in DNS; no connect() is tried."""
    names(monkeypatch, evil_test=[[address]])
    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", None)
    assert (await reached("http://evil.test:80")).startswith("address not allowed: link-local")


@pytest.mark.parametrize("url", ["http://169.254.169.254", "http://[fd00:ec2::254]:80", "http://0xa9fea9fe"])
async def test_a_row_from_before_the_rule_is_not_connected_to(reached: Reached, url: str) -> None:
    """Also where the address was written down before there was a rule for it."""
    assert (await reached(url)).startswith("address not allowed: metadata")


async def test_operators_see_the_address_and_sessions_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a name it is what an operator has to know."""
    names(monkeypatch, evil_test=[["169.254.1.1"]])
    assert await by_probe("http://evil.test") == "address not allowed: link-local (169.254.1.1)"
    assert await by_session("http://evil.test") == "address not allowed: link-local"


async def test_the_allow_list_is_asked_for_the_address_that_is_connected_to(
    reached: Reached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a name those addresses are taken that it allows; a literal is held to it, too."""
    async with fake_replica() as replica:
        names(monkeypatch, two_test=[["127.0.0.2", "127.0.0.1"]])
        with override_settings(ROUTER_REPLICA_NETWORKS=[ip_network("127.0.0.2/32")]):
            for host in ("127.0.0.1", "[::ffff:127.0.0.1]"):
                answer = await reached(named(replica, host))
                assert answer.startswith("address not allowed: outside ROUTER_REPLICA_NETWORKS")
            assert "connection refused" in (await reached(named(replica, "two.test"))).lower()
        assert replica.connections == 0
        with override_settings(ROUTER_REPLICA_NETWORKS=[ip_network("127.0.0.1/32")]):
            for host in ("127.0.0.1", "[::ffff:127.0.0.1]", "two.test"):
                assert await reached(named(replica, host)) == ""


async def test_a_name_with_a_dead_address_is_reached_at_its_live_one(
    reached: Reached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, or silent: the next address is tried, within the deadline."""
    async with fake_replica() as replica:
        names(monkeypatch, both_test=[["127.0.0.2", "127.0.0.1"]])
        assert await reached(named(replica, "both.test")) == ""
        with silent("127.0.0.2", int(replica.url.rpartition(":")[2])):
            started = time.monotonic()
            assert await reached(named(replica, "both.test")) == ""
            assert time.monotonic() - started < 1.5


async def test_a_name_whose_addresses_are_all_dead_says_why(reached: Reached, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the system's words, without an address."""
    async with fake_replica() as replica:
        names(monkeypatch, dead_test=[["127.0.0.2", "127.0.0.3", "127.0.0.4"]])
        error = await reached(named(replica, "dead.test"))
    assert "connection refused" in error.lower()
    assert "127" not in error


@contextlib.contextmanager
def silent(address: str, port: int) -> Iterator[None]:
    """A host that does not answer: its queue of connections is full, and the kernel drops what else comes."""
    with socket.socket() as listening, contextlib.ExitStack() as fillers:
        listening.bind((address, port))
        listening.listen(0)
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((address, port))
        yield


async def test_literals_are_not_looked_up(reached: Reached, monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread, no resolver: the opening of a session costs what it did."""
    monkeypatch.setattr(socket, "getaddrinfo", None)
    async with fake_replica() as replica:
        for host in ("127.0.0.1", "[::ffff:127.0.0.1]"):
            assert await reached(named(replica, host)) == ""


async def test_an_odd_spelling_of_an_allowed_address_is_reached(reached: Reached) -> None:
    """The contract does not forbid it."""
    async with fake_replica() as replica:
        assert await reached(named(replica, "127.1")) == ""


@pytest.mark.parametrize(("certified", "fine"), [("replica.test", True), ("other.test", False), ("127.0.0.1", False)])
async def test_a_certificate_is_checked_against_the_name(
    reached: Reached, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certified: str, fine: bool
) -> None:
    """And the Host header is the name: only the connection goes to an address."""
    names(monkeypatch, replica_test=[["127.0.0.1"]])
    tls = ssl_context(certified)
    upstream._tls.cache_clear()
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    try:
        with override_settings(ROUTER_UPSTREAM_CA_FILE=str(tmp_path / "ca.pem")):
            async with fake_replica(tls=tls) as replica:
                error = await reached(replica.url.replace("localhost", "replica.test"))
                if reached is by_session and fine:
                    assert replica.seen[0].request.headers["Host"].startswith("replica.test:")
    finally:
        upstream._tls.cache_clear()
    assert (error == "") is fine
    assert fine or "TLS" in error


def ssl_context(name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(name).configure_cert(context)
    return context


# --- the race of addresses, and the resolver's bounds ---


async def test_what_was_opened_one_too_many_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two addresses that answer at the same moment, and one that never does."""
    names(monkeypatch, three_test=[["127.0.0.1", "127.0.0.2", "127.0.0.3"]])
    second_tried = asyncio.Event()
    opened: list[str] = []
    closed: list[str] = []

    async def connect(address: Address) -> str:
        if str(address) == "127.0.0.1":
            await second_tried.wait()
        elif str(address) == "127.0.0.2":
            second_tried.set()
            await asyncio.sleep(0)
        opened.append(str(address))
        return str(address)

    async def close(address: str) -> None:
        closed.append(address)

    taken = await reach("three.test", connect, close)
    assert set(opened) - set(closed) == {taken}


async def test_a_reach_that_is_cancelled_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a task that still connects."""
    names(monkeypatch, two_test=[["127.0.0.1", "127.0.0.2"]])
    trying: set[str] = set()

    async def connect(address: Address) -> str:
        trying.add(str(address))
        try:
            await asyncio.Event().wait()
        finally:
            trying.discard(str(address))
        return ""

    async def close(address: str) -> None:
        raise AssertionError(address)

    reaching = asyncio.create_task(reach("two.test", connect, close))
    async with asyncio.timeout(5):
        while len(trying) < 2:
            await asyncio.sleep(0.01)
    reaching.cancel()
    await asyncio.wait({reaching})
    assert reaching.cancelled()
    assert not trying
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "connect"]


async def test_names_that_hang_take_no_more_threads_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked beyond them waits its turn and is then answered; who asks twice waits for the same answer."""
    answering, asked = threading.Event(), []

    def look_up(host: str, *rest: Any) -> list[Any]:
        asked.append(host)
        answering.wait(20)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(resolver, "MAX_THREADS", 2)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    mine = Resolver()
    try:
        waiting = [asyncio.create_task(mine.addresses(f"name-{number % 4}.test")) for number in range(40)]
        async with asyncio.timeout(5):
            while len(asked) < 2:
                await asyncio.sleep(0.01)
        assert mine.is_asking("name-3.test")
        waiting[0].cancel()  # who gives up spoils it for nobody
    finally:
        answering.set()
    answers = await asyncio.gather(*waiting[1:])
    assert answers == [[ip_address("127.0.0.1")]] * 39
    assert sorted(asked) == [f"name-{number}.test" for number in range(4)]
    assert not mine.is_asking("name-3.test")


async def test_a_look_up_that_fails_is_the_askers_fault_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one asks anew: DNS that was mended is seen by the next probe."""
    answers: list[Any] = [socket.gaierror(socket.EAI_AGAIN, "try again"), UnicodeError("label too long"), []]

    def look_up(*rest: Any) -> list[Any]:
        answer = answers.pop(0) if answers else [(0, 0, 0, "", ("::1", 0, 0, 0)), (0, 0, 0, "", ("::1", 0, 0, 0))]
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    mine = Resolver()
    for _ in range(3):
        with pytest.raises(socket.gaierror):
            await mine.addresses("a.test")
    assert await mine.addresses("a.test") == [ip_address("::1")]


async def test_where_no_thread_can_be_started_the_look_up_fails_and_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that nobody looks up must not be waited for for ever; with a thread at work, that one takes it."""
    names(monkeypatch, a_test=[["127.0.0.1"]])
    mine = Resolver()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        with pytest.raises(socket.gaierror, match="no thread"):
            await mine.addresses("a.test")
    assert await mine.addresses("a.test") == [ip_address("127.0.0.1")]
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert await mine.addresses("a.test") == [ip_address("127.0.0.1")]


async def test_a_thread_that_has_nothing_to_do_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while; and the next look-up starts another."""
    names(monkeypatch, a_test=[["127.0.0.1"]])
    monkeypatch.setattr(resolver, "IDLE_SECONDS", 0.01)
    mine = Resolver()
    for _ in range(2):
        assert await mine.addresses("a.test") == [ip_address("127.0.0.1")]
        async with asyncio.timeout(5):
            while mine._threads:
                await asyncio.sleep(0.01)
