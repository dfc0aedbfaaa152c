"""What a client meets in the line: refusals, departures, a large init, a rejection (issue 4, 3; faults.md 15, 17, 27).

Two processes on SQLite without Redis.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Iterator

import pytest
from pytest_django.plugin import DjangoDbBlocker

from tests.acceptance.cluster import Cluster, running_cluster
from tests.acceptance.visitors import Visitor, leave_all, line_up, served, visitor, within
from tests.raw import close_frame, raw_client
from tests.slotted_replica import ASSIGNED, Stay, slotted_replica, slotted_replicas

MIB = 1024 * 1024
# One who left is out of the line within so many seconds; without Redis a slot is handed over within so many.
GONE_SECONDS, HANDOVER_SECONDS = 2.0, 1.0
HOLD_BYTES = MIB


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Cluster]:
    """The second process holds no more than 1 MiB of a waiting client: then its reading is paused."""
    with running_cluster(tmp_path_factory.mktemp("queue"), django_db_blocker, processes=1) as found:
        found.start(ROUTER_HOLD_BYTES=HOLD_BYTES)
        yield found


async def test_a_line_that_is_full_refuses_the_next(cluster: Cluster) -> None:
    """queue_full, 1013, over both processes; when one leaves, there is room for one again."""
    async with slotted_replica(slots=1) as replica:
        await cluster.configure(queue_max_length=2)
        await cluster.place(replica)
        holder = await served(cluster.routers[0])
        line = await line_up(cluster.routers)
        for router in cluster.routers:
            refused = await visitor(router)
            await refused.end(1)
            assert refused.refusal == ("gpu_unavailable", 1013, "queue_full")
            assert refused.told == []
        await line[0].leave()
        again = await visitor(cluster.routers[0])
        await again.queued()
        assert again.position == 2
        await leave_all([holder, line[1], again])
        await cluster.empty()


async def test_a_line_of_length_0_lets_nobody_wait(cluster: Cluster) -> None:
    """queue_max_length 0: who finds no slot is refused at once."""
    async with slotted_replica(slots=1) as replica:
        await cluster.configure(queue_max_length=0)
        await cluster.place(replica)
        holder = await served(cluster.routers[0])
        refused = await visitor(cluster.routers[0])
        await refused.end(1)
        assert refused.refusal == ("gpu_unavailable", 1013, "queue_full")
        await holder.leave()
        await cluster.empty()  # nobody waits for the slot meanwhile
        await leave_all([await served(cluster.routers[0])])


async def test_who_waits_too_long_is_told_so(cluster: Cluster) -> None:
    """queue_timeout, 1013; the next one moves up, and has its own time."""
    async with slotted_replica(slots=1) as replica:
        await cluster.configure(queue_timeout_seconds=4)
        await cluster.place(replica)
        holder = await served(cluster.routers[0])
        asked = time.monotonic()
        first = await visitor(cluster.routers[0])
        await first.queued()
        await asyncio.sleep(2.5)  # so much later comes
        second = await visitor(cluster.routers[1])
        await second.queued()
        await first.end(6)
        assert first.refusal == ("gpu_unavailable", 1013, "queue_timeout")
        assert first.ended_at is not None
        assert first.ended_at - asked >= 4
        assert first.ended_at - first.opened_at <= 5
        await second.until(lambda found: found.position == 1, 1, "its move to the head")
        await holder.leave()
        await second.served(1)
        await second.leave()


async def test_with_no_healthy_replica_nobody_is_left_waiting(cluster: Cluster) -> None:
    """no_healthy_replica at once for newcomers, and for those in the line when the last replica falls ill."""
    async with slotted_replica(slots=1) as replica:
        await cluster.configure()
        await cluster.place(replica)
        holder = await served(cluster.routers[0])
        line = await line_up(cluster.routers)
        await cluster.observe(replica, "unhealthy")
        newcomers = [await visitor(router) for router in cluster.routers]
        for refused in [*newcomers, *line]:
            await refused.end(1)
            assert refused.refusal == ("gpu_unavailable", 1013, "no_healthy_replica")
        assert all(newcomer.told == [] for newcomer in newcomers)
        await holder.leave()
        await cluster.empty()


async def test_when_down_clients_wait_for_a_replica_to_recover(cluster: Cluster) -> None:
    """queue_when_down: they hear their place, and are served within a moment of its recovery, in their order."""
    async with slotted_replica(slots=2) as replica:
        await cluster.configure(queue_when_down=True, slow_start_seconds=0)
        await cluster.place(replica, status="unhealthy")
        line = []
        for number in range(3):
            line.append(await visitor(cluster.routers[number % 2]))
            await line[-1].queued()
            assert line[-1].position == number + 1
        await cluster.observe(replica, "healthy")
        await asyncio.gather(line[0].served(1), line[1].served(1))
        assert line[2].served_at is None
        await line[0].leave()
        await line[2].served(HANDOVER_SECONDS)
        await leave_all(line)


@pytest.mark.parametrize("how", ["closes", "resets", "hangs up"])
async def test_who_leaves_the_line_is_never_given_a_slot(cluster: Cluster, how: str) -> None:
    """Out within 2 s, however it goes (15); the next one moves up."""
    async with slotted_replica(slots=1) as replica:
        await cluster.configure()
        await cluster.place(replica)
        holder = await served(cluster.routers[0])
        leaver = await visitor(cluster.routers[0])
        await leaver.queued()
        next_one = await visitor(cluster.routers[1])
        await next_one.queued()
        assert next_one.position == 2
        await depart(leaver, how)
        await next_one.until(lambda found: found.position == 1, GONE_SECONDS, "its move to the head")
        await holder.leave()
        await next_one.served(HANDOVER_SECONDS)
        await next_one.leave()
        await cluster.empty()
        assert len(replica.stays) == replica.attempts == 2


@pytest.mark.parametrize("how", ["resets", "hangs up"])
async def test_who_leaves_behind_a_paused_read_is_never_given_a_slot(cluster: Cluster, how: str) -> None:
    """The same where the router holds all it may of what this client has sent, and reads no more of it."""
    async with slotted_replica(slots=1) as replica:
        await cluster.configure()
        await cluster.place(replica)
        holder = await served(cluster.routers[0])
        leaver = await visitor(cluster.routers[1])
        await leaver.queued()
        next_one = await visitor(cluster.routers[0])
        await next_one.queued()
        assert next_one.position == 2
        sending = asyncio.create_task(flood(leaver))
        await asyncio.wait({sending}, timeout=1.0)  # a client that could go on sending would have by now
        assert not sending.done()
        sending.cancel()
        await asyncio.wait({sending})
        await depart(leaver, how)
        await next_one.until(lambda found: found.position == 1, GONE_SECONDS, "its move to the head")
        await holder.leave()
        await next_one.served(HANDOVER_SECONDS)
        await next_one.leave()
        await cluster.empty()
        assert len(replica.stays) == replica.attempts == 2


async def flood(found: Visitor) -> None:
    """More than all buffers on the way hold."""
    for _ in range(64):
        await found.peer.say(b"\0" * MIB)


async def depart(found: Visitor, how: str) -> None:
    if how == "closes":
        await found.leave()
    elif how == "resets":
        found.peer.abort()
    else:
        found.peer.writer.transport.abort()  # without a close frame, and with what it has not sent


async def test_a_43_mib_init_waits_in_the_line_and_arrives_whole(cluster: Cluster) -> None:
    """17: what a waiting client sends is held, its pings are answered, and its replica gets every octet."""
    async with slotted_replica(slots=1, serve=digest) as replica:
        await cluster.configure()
        await cluster.place(replica)
        holder = await served(cluster.routers[0])
        found = await visitor(cluster.routers[0])
        await found.queued()
        init = json.dumps({"type": "session_init_v2", "initial_image": os.urandom(43 * MIB // 2).hex()})
        await found.peer.say(init)
        await found.peer.say("and then")
        for number in range(3):
            await found.peer.ping(b"%d" % number)
        async with asyncio.timeout(10):
            while found.peer.pongs != [b"0", b"1", b"2"]:
                await asyncio.sleep(0.01)
        assert found.served_at is None
        await holder.leave()
        await found.served(5)
        await found.until(lambda found: len(found.messages) == 3, 20, "both messages at the replica")
        assert found.messages == [ASSIGNED, digest_of(init), digest_of("and then")]
        found.check_line()
        await found.leave()


async def digest(stay: Stay) -> None:
    """Answer each message with its digest."""
    await stay.peer.say(ASSIGNED)
    while (message := await stay.peer.message()) is not None:
        await stay.peer.say(digest_of(message))
    stay.left()
    await stay.peer.send(close_frame(1000))


def digest_of(message: str | bytes) -> str:
    octets = message.encode() if isinstance(message, str) else message
    return f"{len(octets)} {hashlib.sha256(octets).hexdigest()}"


async def test_who_is_rejected_is_served_when_the_slot_comes_free(cluster: Cluster) -> None:
    """A replica that has less room than it is said to: its rejection is not seen, and nothing is lost (27)."""
    async with slotted_replica(slots=2) as replica:
        replica.mode, replica.really = "strict", 1
        await cluster.configure()
        await cluster.place(replica)
        holder = await served(cluster.routers[0])
        rejected = await visitor(cluster.routers[1])
        await rejected.peer.say("my init")
        await rejected.queued()
        assert (rejected.position, replica.rejected) == (1, 1)
        await holder.leave()
        await rejected.served(HANDOVER_SECONDS)
        await rejected.until(lambda found: "my init" in found.messages, 2, "its init at the replica")
        assert rejected.messages == [ASSIGNED, "my init"]
        assert rejected.errors == []
        rejected.check_line()
        await rejected.leave()
        assert replica.most == 1
        await cluster.empty()


async def test_who_is_rejected_goes_back_to_the_head_of_the_line(cluster: Cluster) -> None:
    """Its slot is a stranger's: it stays before all that have come since, and is served once the replica has room."""
    async with slotted_replica(slots=1) as replica:
        await cluster.configure()
        await cluster.place(replica)
        stranger = await raw_client(replica.port)
        replica.mode, replica.really = "strict", 1
        rejected = await visitor(cluster.routers[1])
        await rejected.peer.say("my init")
        await rejected.queued()
        newcomers = []
        for place, router in enumerate(cluster.routers, 2):
            newcomers.append(await visitor(router))
            await newcomers[-1].queued()
            assert newcomers[-1].position == place
        await stranger.close()
        await rejected.served(5)  # full counts for 1 s, then for 2
        await rejected.until(lambda found: "my init" in found.messages, 2, "its init at the replica")
        for found in (rejected, *newcomers):
            assert found.errors == []
            found.check_line()
        assert all(newcomer.served_at is None for newcomer in newcomers)
        await rejected.leave()
        await newcomers[0].served(HANDOVER_SECONDS)
        await newcomers[0].leave()
        await newcomers[1].served(HANDOVER_SECONDS)
        await newcomers[1].leave()
        assert replica.most == 1
        await cluster.empty()


async def test_who_is_rejected_goes_to_a_replica_that_has_room(cluster: Cluster) -> None:
    """The next replica at once, with what the client had sent."""
    async with slotted_replicas(2, slots=2) as (full, free):
        full.mode = "reject"
        await cluster.configure()
        await cluster.place(full, free)
        found = await served(cluster.routers[0])
        await found.peer.say("hello")
        await found.until(lambda found: found.messages == [ASSIGNED, "hello"], 2)
        assert (full.rejected, len(free.stays), found.told, found.errors) == (1, 1, [], [])
        await found.leave()


@pytest.mark.alone
async def test_a_slot_changes_processes_within_a_second_without_redis(cluster: Cluster) -> None:
    """From the old session's end to the new one's handshake, each on the other process."""

    async def handover() -> float:
        async with slotted_replica(slots=1) as replica:
            await cluster.configure()
            await cluster.place(replica)
            line, waits = [await served(cluster.routers[0])], list[float]()
            for number in range(1, 21):
                line.append(await visitor(cluster.routers[number % 2]))
                await line[-1].queued()
                started = time.monotonic()
                await line[-2].leave()
                await line[-1].served(5)
                waits.append(replica.stays[-1].came_at - started)
            await line[-1].leave()
            assert replica.most == 1
            return max(waits)

    await within(HANDOVER_SECONDS, handover)
