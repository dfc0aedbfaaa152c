"""Free ports for the servers that tests start."""

from __future__ import annotations

import contextlib
import random
import socket


def free_port() -> int:
    """A port of the loopback interface on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def free_in_a_hundred(*last: int) -> list[int]:
    """Ports with these last two digits and the same ones before, on which nothing listens now."""
    # Below those that the kernel gives out by itself.
    for hundred in random.sample(range(110, 320), k=200):
        ports = [100 * hundred + number for number in last]
        with contextlib.suppress(OSError), contextlib.ExitStack() as probes:
            for port in ports:
                probes.enter_context(socket.create_server(("127.0.0.1", port)))
            return ports
    raise AssertionError(f"no hundred ports with {last} free")
