"""The demo replica, driven over its real socket through contract B."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import random
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from demo import session as sessions
from demo.replica import Options, Replica
from demo.session import Pace
from demo.video import Format
from tests.processes import Running, manage, managing

SMALL = Format(160, 90, 12)
FAST = Pace(segment_seconds=0.25, speed=20)


def options(**changes: Any) -> Options:
    return Options(**{"name": "a", "format": SMALL, "pace": FAST} | changes)


def session(replica: Replica) -> connect:
    return connect(replica.url.replace("http", "ws") + "/v1/stream", max_size=None, proxy=None, compression=None)


async def say(connection: ClientConnection, kind: str = "session_init_v2", **fields: Any) -> None:
    await connection.send(json.dumps({"type": kind, **fields}))


async def hear(connection: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of that type; others are passed over."""
    async with asyncio.timeout(15):
        while True:
            received = await connection.recv()
            if isinstance(received, str) and (message := json.loads(received))["type"] == kind:
                return message


async def closing(connection: ClientConnection) -> tuple[int | None, str | None]:
    async with asyncio.timeout(15):
        await connection.wait_closed()
    return connection.close_code, connection.close_reason


@contextlib.contextmanager
def replica_process(var: Path, *arguments: str) -> Iterator[tuple[Running, str]]:
    """`manage.py rundemoreplica` and the address of its WebSocket."""
    with managing("replica", ["rundemoreplica", "--port", "0", "--fps", "12", *arguments], var) as running:
        running.wait_for("listening on")
        yield running, running.log.split("listening on ")[1].split()[0].replace("http", "ws") + "/v1/stream"


async def paused(connection: ClientConnection) -> None:
    """A session that holds its slot and generates nothing."""
    await say(connection, auto_extension_enabled=False)
    await hear(connection, "ltx2_stream_start")
    await say(connection, "generation_paused_updated", paused=True)


async def ask(replica: Replica, path: str) -> dict[str, Any]:
    def get() -> dict[str, Any]:
        with urllib.request.urlopen(replica.url + path, timeout=5) as answer:  # noqa: S310
            return json.load(answer)

    return await asyncio.to_thread(get)


async def test_its_http_answers_are_the_contracts() -> None:
    """/health, /readyz and /status, with numbers that are true."""
    async with Replica(options(slots=2)) as replica, session(replica) as connection:
        await say(connection)
        await hear(connection, "gpu_assigned")
        assert await ask(replica, "/health") == {"status": "ok", "sessions": 1, "stream_mode": "av_fmp4"}
        ready = await ask(replica, "/readyz")
        assert ready | {"status": "ready", "total_gpus": 2, "available_gpus": 1, "queue_size": 0} == ready
        status = await ask(replica, "/status")
        assert status["gpu_status"] == {"gpu0": "busy", "gpu1": "free"}


async def test_while_it_warms_up_it_says_so_and_takes_nobody() -> None:
    """200 with "warming", as real servers answer."""
    async with Replica(options(warmup_seconds=3600)) as replica:
        assert (await ask(replica, "/readyz"))["status"] == "warming"
        async with session(replica) as connection:
            assert (await hear(connection, "error"))["code"] == "session_rejected"


async def test_beyond_its_slots_it_rejects() -> None:
    """error/session_rejected, then 1013; it is the first thing it says."""
    async with Replica(options()) as replica, session(replica) as first:
        await say(first)
        await hear(first, "gpu_assigned")
        async with session(replica) as second:
            first_word = json.loads(await second.recv())  # not queue_status: it is not to wait
            assert (first_word["type"], first_word["retryable"]) == ("error", True)
            assert await closing(second) == (1013, "session_rejected")


async def test_who_comes_back_at_once_is_not_rejected() -> None:
    """A clean close frees the slot for the very next client, paused or not; a client that vanished too."""
    async with Replica(options()) as replica:
        for _ in range(10):
            async with session(replica) as connection:
                await say(connection)
                await hear(connection, "ltx2_segment_start")
            async with session(replica) as connection:
                await paused(connection)
        connection = await session(replica)
        await paused(connection)
        connection.transport.abort()
        async with asyncio.timeout(2):
            while replica.slots.sessions:
                await asyncio.sleep(0.01)


async def test_a_slot_being_left_is_given_to_one_newcomer_only() -> None:
    """Two who come while one leaves: one gets the slot, the other is rejected."""
    async with Replica(options()) as replica:
        leaving = await session(replica)
        await paused(leaving)
        leaving.protocol.send_close(1000)
        leaving.transport.write(b"".join(leaving.protocol.data_to_send()))
        async with session(replica) as second, session(replica) as third:
            kinds = sorted([await outcome(second), await outcome(third)])
        assert kinds == ["error", "gpu_assigned"]


async def outcome(connection: ClientConnection) -> str:
    """Whether it is taken or rejected."""
    with contextlib.suppress(ConnectionClosed):
        await say(connection)
    async with asyncio.timeout(10):
        while (kind := json.loads(await connection.recv())["type"]) == "queue_status":
            pass
    return str(kind)


async def test_with_a_queue_clients_wait_in_line() -> None:
    """Positions are told, and fall; who leaves the line is out of it."""
    async with Replica(options(queue=2)) as replica:
        first = await session(replica)
        await say(first)
        await hear(first, "gpu_assigned")
        async with session(replica) as second, session(replica) as third:
            while (await hear(second, "queue_status"))["position"] != 1:
                pass
            while (await hear(third, "queue_status"))["position"] != 2:
                pass
            await second.close()
            while (await hear(third, "queue_status"))["position"] != 1:
                pass
            await first.close()
            await say(third)
            await hear(third, "gpu_assigned")


async def test_a_stream_to_its_cap() -> None:
    """Segments are numbered, chunks counted, and the end has its reason."""
    async with Replica(options(pace=Pace(0.25, 20, segment_cap=2))) as replica, session(replica) as connection:
        await say(connection, curated_prompts=["one", "two"])
        prompts, chunks, told = [], 0, []
        async with asyncio.timeout(15):
            async for received in connection:
                if isinstance(received, bytes):
                    chunks += 1
                    continue
                message = json.loads(received)
                if message["type"] == "ltx2_segment_start":
                    prompts.append((message["segment_idx"], message["prompt"]))
                if message["type"] == "media_segment_complete":
                    told.append(message["chunks"])
        assert prompts == [(0, "one"), (1, "two")]
        assert sum(told) == chunks
        assert await closing(connection) == (1000, "segment_cap")


async def test_a_snapshot_resumes_elsewhere() -> None:
    """continuation_state brings segment number and prompts to another server."""
    async with Replica(options()) as one, Replica(options(name="b")) as two:
        async with session(one) as connection:
            await say(connection, curated_prompts=["a lake"])
            await hear(connection, "ltx2_segment_complete")
            await say(connection, "snapshot_state")
            state = (await hear(connection, "continuation_state_snapshot"))["state"]
        async with session(two) as connection:
            await say(connection, continuation_state=state)
            start = await hear(connection, "ltx2_segment_start")
        assert start["segment_idx"] >= 1
        assert start["prompt"] == "a lake"


async def test_generation_pauses_and_goes_on() -> None:
    """While it is paused no segment begins."""
    async with Replica(options()) as replica, session(replica) as connection:
        await say(connection, auto_extension_enabled=False)
        await hear(connection, "ltx2_stream_start")
        await say(connection, "generation_paused_updated", paused=True)
        await say(connection, "segment_prompt_source", prompt="later")
        await say(connection, "snapshot_state")
        await hear(connection, "continuation_state_snapshot")  # everything before it has been read
        with pytest.raises(TimeoutError):  # silence
            await asyncio.wait_for(connection.recv(), 0.5)
        await say(connection, "generation_paused_updated", paused=False)
        assert (await hear(connection, "ltx2_segment_start"))["prompt"] == "later"


async def test_the_preset_asked_for_is_echoed() -> None:
    """Contract B: ltx2_stream_start says it."""
    async with Replica(options()) as replica, session(replica) as connection:
        await say(connection, preset="cinema")
        assert (await hear(connection, "ltx2_stream_start"))["preset"] == "cinema"


async def test_legacy_jpeg_is_a_jpeg_a_frame() -> None:
    """The mode is said, and every binary message is a picture."""
    async with Replica(options()) as replica, session(replica) as connection:
        await say(connection, stream_mode="legacy_jpeg")
        media = await hear(connection, "media_init")
        assert (media["mode"], media["mime"]) == ("legacy_jpeg", "image/jpeg")
        frames = [await connection.recv() for _ in range(3)]
        assert [Image.open(io.BytesIO(frame)).format for frame in frames] == ["JPEG"] * 3


async def test_a_segment_that_fails_ends_the_stream_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """error, ltx2_stream_complete with reason error, then 1011; the slot is free again."""

    def broken(*arguments: object) -> None:
        raise OSError("the encoder's own words")

    monkeypatch.setitem(sessions.ENCODERS, "av_fmp4", broken)
    async with Replica(options()) as replica, session(replica) as connection:
        await say(connection)
        error = await hear(connection, "error")
        assert (error["code"], error["retryable"]) == ("internal_error", True)
        assert "own words" not in error["message"]
        assert (await hear(connection, "ltx2_stream_complete"))["reason"] == "error"
        assert await closing(connection) == (1011, "error")
        monkeypatch.undo()
        async with session(replica) as next_one:
            await say(next_one)
            await hear(next_one, "ltx2_segment_complete")


async def test_a_bad_message_gets_an_error_and_the_session_goes_on() -> None:
    """But a bad first one ends it."""
    async with Replica(options()) as replica, session(replica) as connection:
        await say(connection)
        await say(connection, "dance")
        assert (await hear(connection, "error"))["code"] == "invalid_message"
        await hear(connection, "ltx2_segment_complete")
    async with Replica(options()) as replica, session(replica) as connection:
        await connection.send("not JSON")
        assert (await hear(connection, "error"))["code"] == "invalid_message"
        assert await closing(connection) == (1008, "invalid_message")


async def test_an_image_of_43_mib_is_taken() -> None:
    """The largest init of contract B."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "blue").save(file, "BMP")
    noise = random.Random(1).randbytes(32 * 1024 * 1024)
    data = base64.b64encode(file.getvalue() + noise).decode()
    assert len(data) > 42 * 1024 * 1024
    async with Replica(options()) as replica, session(replica) as connection:
        await say(connection, initial_image={"data": data})
        await hear(connection, "ltx2_segment_complete")


async def test_a_session_has_its_time() -> None:
    """session_timeout, the end of the stream, then 1000."""
    pace = Pace(0.25, 20, timeout_seconds=1)
    async with Replica(options(pace=pace)) as replica, session(replica) as connection:
        await say(connection)
        await hear(connection, "session_timeout")
        assert (await hear(connection, "ltx2_stream_complete"))["reason"] == "stop_requested"
        assert (await closing(connection))[0] == 1000


async def test_it_is_paced_like_a_gpu() -> None:
    """Never far ahead of the clock: 2 s of video take at least what the lead leaves."""
    pace = Pace(segment_seconds=0.5, speed=1, segment_cap=6)
    async with Replica(options(pace=pace)) as replica, session(replica) as connection:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await say(connection)
        await hear(connection, "ltx2_stream_complete")
        assert loop.time() - started > 3 - 1.5 - 0.5


async def test_stopped_it_says_goodbye_and_exits_0(tmp_path: Path) -> None:
    """SIGTERM with a session that plays, one that is paused and one that has said nothing: each gets 1001, at once."""
    with replica_process(tmp_path, "--slots", "3") as (running, url):
        async with connect(url, proxy=None) as playing, connect(url, proxy=None) as idle, connect(url) as silent:
            await say(playing)
            await hear(playing, "ltx2_segment_start")
            await paused(idle)
            assert await asyncio.to_thread(running.stop, timeout=3) == 0
            for connection in (playing, idle, silent):
                with pytest.raises(ConnectionClosed):
                    await hear(connection, "never")
                assert connection.close_code == 1001


async def test_stopped_it_does_not_wait_for_who_does_not_answer(tmp_path: Path) -> None:
    """A paused client whose connection hangs holds up SIGTERM for 2 s, not for the session's time."""
    with replica_process(tmp_path) as (running, url):
        connection = await connect(url, proxy=None)
        await paused(connection)
        connection.transport.pause_reading()
        assert await asyncio.to_thread(running.stop, timeout=5) == 0
        connection.transport.abort()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--slots", "0"], "'0' is not a whole number from 1 to 64"),
        (["--port", "70000"], "'70000' is not a whole number from 0 to 65535"),
        (["--width", "641"], "--width 641: H.264 needs an even number"),
        (["--path", "v1"], "--path v1: must begin with /"),
        (["--speed", "fast"], "'fast' is not a number"),
    ],
)
def test_a_bad_option_is_refused_in_words(tmp_path: Any, arguments: list[str], words: str) -> None:
    """Option, value, and what is allowed."""
    done = manage(tmp_path, "rundemoreplica", *arguments, check=False)
    assert done.returncode != 0
    assert words in done.stderr
