"""What of a client's handshake its replica gets to see, and what the client gets back (contract A7.5, A7.6, A7.11).

Real servers on both sides; every test runs on daphne and on uvicorn.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest
from asgiref.sync import sync_to_async
from websockets.exceptions import InvalidStatus

from tests.acceptance.servers import Router
from tests.acceptance.test_sessions import client, ended_with, rest_of
from tests.fake_replica import fake_replica
from tests.raw import raw_client


async def test_query_and_allowed_headers_arrive(router: Router) -> None:
    """The query goes on as it was; headers go on where the setting names them (A7.5)."""
    sent = {"X-Tenant": "blue", "Traceparent": "00-ab-cd-01", "Cookie": "sessionid=1", "X-Other": "no"}
    async with fake_replica() as replica:
        await router.place(replica.url)
        url = router.stream_url + "?preset=fast&q=a%20b%2Fc"
        async with client(router, url=url, origin="https://app.example", additional_headers=sent) as connection:
            await connection.send("hello")
            await connection.recv()
    request = replica.seen[0].request
    assert request.path == "/v1/stream?preset=fast&q=a%20b%2Fc"
    assert request.headers["X-Tenant"] == "blue"
    assert request.headers["Traceparent"] == "00-ab-cd-01"
    assert request.headers["Origin"] == "https://app.example"
    assert "Cookie" not in request.headers
    assert "X-Other" not in request.headers


async def test_the_router_says_for_whom_it_asks(router: Router) -> None:
    """X-Forwarded headers and X-Request-ID are the router's; what a client claims in them does not count."""
    claimed = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Request-ID": "forged"}
    async with fake_replica() as replica:
        await router.place(replica.url)
        async with client(router, additional_headers=claimed) as connection:
            await connection.send("hello")
            await connection.recv()
    headers = replica.seen[0].request.headers
    assert headers["X-Forwarded-For"] == "127.0.0.1"
    assert headers["X-Forwarded-Proto"] == "http"
    assert headers["X-Forwarded-Host"] == f"127.0.0.1:{router.port}"
    assert len(headers["X-Request-ID"]) == 32


async def test_an_odd_octet_in_a_header_speaks_against_no_replica(quick_daphne: Router) -> None:
    """Daphne lets it in; the replica gets a space in its place. It used to be a failed connect, and three eject."""
    async with fake_replica() as replica:
        await quick_daphne.place(replica.url)
        for _ in range(4):
            connection = await raw_client(quick_daphne.port, headers={"User-Agent": "a\x01b"})
            await connection.say("hello")
            assert await connection.message() == "hello"
            await connection.close()
    assert [seen.request.headers["User-Agent"] for seen in replica.seen] == ["a b"] * 4


async def test_the_routers_credentials_replace_the_clients(router: Router) -> None:
    """Replicas get ROUTER_UPSTREAM_AUTHORIZATION, and it is never logged."""
    async with fake_replica() as replica:
        await router.place(replica.url)
        async with client(router, additional_headers={"Authorization": "Bearer client-token"}) as connection:
            await connection.send("hello")
            await connection.recv()
    assert replica.seen[0].request.headers.get_all("Authorization") == ["Bearer router-secret"]
    assert "router-secret" not in router.log
    assert "client-token" not in router.log


async def test_the_first_subprotocol_is_chosen_on_both_legs(router: Router) -> None:
    """The client gets its first one, and the replica is asked for that one alone (design, decision 1)."""
    async with fake_replica(subprotocols=["v1.video", "v2.video"]) as replica:
        await router.place(replica.url)
        async with client(router, subprotocols=["v2.video", "v1.video"]) as connection:
            await connection.send("hello")
            await connection.recv()
            assert connection.subprotocol == "v2.video"
    assert replica.seen[0].request.headers["Sec-WebSocket-Protocol"] == "v2.video"


async def test_a_subprotocol_is_taken_as_it_is_written(router: Router) -> None:
    """Also one with a % in it, which Daphne's scope shows otherwise."""
    async with fake_replica(subprotocols=["v1%2Dvideo"]) as replica:
        await router.place(replica.url)
        async with client(router, subprotocols=["v1%2Dvideo", "v2"]) as connection:
            await connection.send("hello")
            assert await connection.recv() == "hello"
            assert connection.subprotocol == "v1%2Dvideo"


async def test_a_replica_that_does_not_agree_is_passed_over(router: Router) -> None:
    """A replica without the client's subprotocol is a failed attempt (faults.md, 25)."""
    async with fake_replica() as silent, fake_replica(subprotocols=["v2.video"]) as agreeing:
        await router.place(silent.url, agreeing.url)
        async with client(router, subprotocols=["v2.video"]) as connection:
            await connection.send("hello")
            assert await connection.recv() == "hello"
    assert len(agreeing.seen) == 1


async def test_an_unasked_subprotocol_is_a_failed_attempt(router: Router) -> None:
    """A replica that answers with a subprotocol nobody asked for is broken (faults.md, 25)."""
    unasked = fake_replica(select_subprotocol=lambda connection, offered: "surprise")
    async with unasked as broken, fake_replica() as other:
        await router.place(broken.url, other.url)
        async with client(router) as connection:
            await connection.send("hello")
            assert await connection.recv() == "hello"
    assert len(other.seen) == 1


async def test_nothing_is_compressed_on_either_leg(router: Router) -> None:
    """Compression is offered by most clients and agreed to by none of ours (A7.6)."""
    async with fake_replica(compression="deflate") as replica:
        await router.place(replica.url)
        async with client(router, compression="deflate") as connection:
            await connection.send("hello")
            await connection.recv()
            assert connection.response is not None
            assert "Sec-WebSocket-Extensions" not in connection.response.headers
    assert "Sec-WebSocket-Extensions" not in replica.seen[0].request.headers


async def test_every_stream_path_leads_to_the_upstream_path(router: Router) -> None:
    """ROUTER_STREAM_PATHS may name several; replicas are asked for ROUTER_UPSTREAM_PATH."""
    async with fake_replica() as replica:
        await router.place(replica.url)
        async with client(router, url=f"ws://127.0.0.1:{router.port}/ws") as connection:
            await connection.send("hello")
            await connection.recv()
    assert replica.seen[0].request.path == "/v1/stream"


async def test_another_path_is_refused(router: Router) -> None:
    """A mistyped address is an HTTP error, not a session."""
    with pytest.raises(InvalidStatus) as refusal:
        await client(router, url=f"ws://127.0.0.1:{router.port}/v1/strem")
    assert refusal.value.response.status_code in (403, 404)


async def test_a_stream_path_tells_plain_http_what_it_is(router: Router) -> None:
    """A browser or a probe that asks without an upgrade gets 426, whatever Host it names."""
    request = urllib.request.Request(f"http://127.0.0.1:{router.port}/v1/stream", headers={"Host": "10.9.8.7"})
    with pytest.raises(urllib.error.HTTPError) as answer:
        await sync_to_async(urllib.request.urlopen, thread_sensitive=False)(request, timeout=5)
    assert answer.value.code == 426
    assert answer.value.headers["Upgrade"] == "websocket"
    answer.value.close()


async def test_a_websocket_is_accepted_whatever_its_host(router: Router) -> None:
    """Load balancers connect by address: ALLOWED_HOSTS is not for streams."""
    async with fake_replica() as replica:
        await router.place(replica.url)
        elsewhere = {"url": "ws://10.9.8.7/v1/stream", "host": "127.0.0.1", "port": router.port}
        async with client(router, **elsewhere) as connection:
            await connection.send("hello")
            assert await connection.recv() == "hello"


@pytest.mark.parametrize("router_settings", [{"http_proxy": "http://127.0.0.1:9", "ws_proxy": "http://127.0.0.1:9"}])
async def test_the_environments_proxies_are_not_used(own_router: Router) -> None:
    """A replica is connected to directly, whatever proxies the environment names (A7.11)."""
    async with fake_replica() as replica:
        await own_router.place(replica.url)
        async with client(own_router) as connection:
            await connection.send("hello")
            assert await connection.recv() == "hello"


@pytest.mark.parametrize("router_settings", [{"BEHIND_PROXY": "true"}])
async def test_behind_a_proxy_of_ours_its_headers_count(own_router: Router) -> None:
    """With BEHIND_PROXY the client is the one that the proxy names, and its request id stays."""
    named = {
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "video.example",
        "X-Request-ID": "req-42",
    }
    async with fake_replica() as replica:
        await own_router.place(replica.url)
        async with client(own_router, additional_headers=named) as connection:
            await connection.send("hello")
            await connection.recv()
    headers = replica.seen[0].request.headers
    assert headers["X-Forwarded-For"] == "203.0.113.7, 127.0.0.1"
    assert headers["X-Forwarded-Proto"] == "https"
    assert headers["X-Forwarded-Host"] == "video.example"
    assert headers["X-Request-ID"] == "req-42"


async def test_an_internal_address_never_reaches_a_client(router: Router) -> None:
    """Frames and reasons name the session and nothing of the inside (A7.10)."""
    async with fake_replica(status=503) as broken:
        await router.place(broken.url)
        async with client(router) as connection:
            (frame,) = await rest_of(connection)
        code, reason = ended_with(connection)
    port = broken.url.rpartition(":")[2]
    for text in (str(frame), str(reason)):
        assert port not in text
        assert "127.0.0.1" not in text
        assert "Error" not in text
    assert (code, json.loads(frame)["code"]) == (1011, "worker_failed")
