"""Contract A as a user meets it: real demo replicas, a real prober, real daphne, a client that was not written here.

The story of a day: load a file, stream, kill the primary, see the next session elsewhere, see it come back.
"""

from __future__ import annotations

import asyncio
import json
import signal

import pytest
from websockets.exceptions import ConnectionClosed

from tests.acceptance.fleet import Fleet, next_message, replica_of
from tests.acceptance.moments import Moment
from tests.processes import manage, wait_until


async def test_a_session_streams_in_the_contracts_order(fleet: Fleet) -> None:
    """Text as text, video as binary, in the order of contract B; a snapshot is answered in between."""
    kinds: list[str] = []
    async with fleet.session() as connection:
        await connection.send(json.dumps({"type": "snapshot_state"}))
        async with asyncio.timeout(20):
            while kinds.count("ltx2_segment_complete") < 2:
                received = await connection.recv()
                kinds.append("video" if isinstance(received, bytes) else json.loads(received)["type"])
    assert "continuation_state_snapshot" in kinds
    kinds = [kind for kind in kinds if kind != "continuation_state_snapshot"]
    segment = [
        "ltx2_segment_start", *["step_complete"] * 4, "media_init", "video", "media_segment_complete",
        "ltx2_segment_complete",
    ]  # fmt: skip
    squeezed = [kind for index, kind in enumerate(kinds) if kind != "video" or kinds[index - 1] != "video"]
    assert squeezed == ["queue_status", "gpu_assigned", "ltx2_stream_start", *segment, *segment]


async def test_the_primary_killed_comes_back(fleet: Fleet) -> None:
    """The running session hears worker_failed and 1011, the next one is on the secondary, later ones on the primary."""
    async with fleet.session() as first:
        assert await replica_of(first) == "a"
        await next_message(first, "ltx2_segment_complete")
        fleet.kill("a")
        error = await next_message(first, "error")
        assert (error["code"], error["retryable"]) == ("worker_failed", True)
        with pytest.raises(ConnectionClosed):
            await next_message(first, "nothing more")
        assert first.close_code == 1011
    async with fleet.session() as second:  # at once: the prober may not have noticed yet
        assert await replica_of(second) == "b"
        await asyncio.to_thread(fleet.wait_for_status, a="unhealthy", b="healthy")
        fleet.start_replica("a")
        await asyncio.to_thread(fleet.wait_for_status, a="healthy")
        async with fleet.session() as third:
            assert await replica_of(third) == "a"
        await next_message(second, "ltx2_segment_complete")  # never touched by any of it


async def test_a_warming_server_gets_no_session(fleet: Fleet) -> None:
    """`/readyz` answers 200 with "warming": the original router sent it sessions (A7.8, faults.md 38)."""
    fleet.kill("a")
    await asyncio.to_thread(fleet.wait_for_status, a="unhealthy")
    fleet.start_replica("a", "--warmup", "3600")
    await asyncio.to_thread(fleet.replicas["a"].wait_for, "listening")
    await asyncio.to_thread(
        wait_until, lambda: "warming" in manage(fleet.var, "runhealthchecks", "--once", check=False).stdout, 20
    )
    async with fleet.session() as connection:
        assert await replica_of(connection) == "b"


async def test_a_client_waits_in_the_line_where_every_replica_is_full(fleet: Fleet) -> None:
    """What a replica reports are its slots; who finds none free hears its place, and gets the next that is (A7.1)."""
    async with fleet.session() as first, fleet.session() as second:
        assert sorted([await replica_of(first), await replica_of(second)]) == ["a", "b"]
        async with fleet.session() as third:
            told = await next_message(third, "queue_status")
            assert (told["position"], told["queue_depth"]) == (1, 1)
            await second.close()
            assert await replica_of(third) == "b"


async def test_all_down_is_said_within_a_second(fleet: Fleet) -> None:
    """gpu_unavailable and 1013; /readyz says what is missing."""
    fleet.kill("a", "b")
    await asyncio.to_thread(fleet.wait_for_status, a="unhealthy", b="unhealthy")
    started = Moment(fleet.router.pid)
    async with fleet.session() as connection:
        assert (await next_message(connection, "error"))["code"] == "gpu_unavailable"
        with pytest.raises(ConnectionClosed):
            await connection.recv()
        assert (connection.close_code, connection.close_reason) == (1013, "no_healthy_replica")
    assert started.ago < 1
    status, answer = await asyncio.to_thread(fleet.get, "/readyz")
    assert (status, answer["missing"]) == (503, ["available replica"])
    assert "Service Unavailable" not in fleet.router.log  # an answer, no fault of the router


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
async def test_without_a_prober_the_last_word_stands(fleet: Fleet, number: int) -> None:
    """Hung or dead: it is shown as stale, the router stays ready and places sessions as before (faults.md 52)."""
    await asyncio.to_thread(fleet.end_prober, number)

    def stale() -> bool:
        replicas = fleet.get("/status")[1]["replicas"]
        return all(replica["stale"] for replica in replicas) and fleet.get("/readyz")[1]["prober"] == "stale"

    await asyncio.to_thread(wait_until, stale, 40, "stale in /status and /readyz")
    assert fleet.statuses() == {"a": "healthy", "b": "healthy"}
    status, answer = fleet.get("/readyz")
    assert (status, answer["status"], answer["replicas"]["available"]) == (200, "ready", 2)
    async with fleet.session() as connection:
        assert await replica_of(connection) == "a"
    fleet.kill("a")
    async with fleet.session() as connection:  # nobody has noticed: it is found out by trying
        assert await replica_of(connection) == "b"
    assert fleet.statuses() == {"a": "healthy", "b": "healthy"}


async def test_no_log_holds_a_prompt_or_a_query(fleet: Fleet) -> None:
    """One line when a session opens, one when it ends; what the client said is not in them."""
    before = len(fleet.router.log)

    def log() -> str:
        return fleet.router.log[before:]

    async with fleet.session("?token=s3cret") as connection:
        await next_message(connection, "ltx2_segment_complete")
    await asyncio.to_thread(wait_until, lambda: " ended: " in log())
    assert "s3cret" not in fleet.router.log
    assert "fox" not in fleet.router.log
    (opened,) = [line for line in log().splitlines() if " opened: " in line]
    (ended,) = [line for line in log().splitlines() if " ended: " in line]
    assert "client=127.0.0.1:" in opened
    for part in ("replica=a", "by=client", "code=1000", "seconds=", "placed_after=", "frames_up=1", "bytes_down="):
        assert part in ended
