"""Free ports for the servers that tests start."""

from __future__ import annotations

import contextlib
import random
import socket

# Below those that the kernel gives to connections: one of them might take the port before its server does, and a client
# that asks for a server too early might be answered by itself.
PORTS = range(11_000, 32_000)
_chance = random.SystemRandom()  # not what a test seeds


def free_port() -> int:
    """A port of the loopback interface on which nothing listens now."""
    for port in _chance.sample(PORTS, k=200):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError(f"no port free in {PORTS}")


def free_in_a_hundred(*last: int) -> list[int]:
    """Ports with these last two digits and the same ones before, on which nothing listens now."""
    for start in _chance.sample(PORTS[::100], k=200):
        ports = [start + number for number in last]
        with contextlib.suppress(OSError), contextlib.ExitStack() as probes:
            for port in ports:
                probes.enter_context(socket.create_server(("127.0.0.1", port)))
            return ports
    raise AssertionError(f"no hundred ports with {last} free")
