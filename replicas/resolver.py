"""Host names of replicas: one look-up of a name at a time, in threads that nobody waits for at the end.

Used by reaching.py, for probes and sessions alike. A look-up cannot be interrupted: in an ordinary pool, those of a
name that hangs would pile up, round after round, until no other name is resolved. No answer is kept: DNS is asked for
each connection anew.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from concurrent.futures import Future

from replicas.addresses import Address, literal

# So many names can hang at once before another one waits for them. A thread that waits costs some KiB.
MAX_THREADS = 256
IDLE_SECONDS = 10.0  # to start a thread costs more than most look-ups


class Resolver:
    """Who asks for a name that is being asked for waits for that answer: threads are at most as many as names."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._asked: dict[str, Future[list[Address]]] = {}
        self._waiting: deque[str] = deque()  # not bounded by itself: each of them is in `_asked`, once
        self._threads = self._idle = 0

    async def addresses(self, host: str) -> list[Address]:
        """At least one, in the system's order. Takes as long as it takes; raises socket.gaierror."""
        return await asyncio.wrap_future(self._ask(host))

    def is_asking(self, host: str) -> bool:
        """Has a look-up of `host` not come back?"""
        return host in self._asked

    def _ask(self, host: str) -> Future[list[Address]]:
        with self._lock:
            asked = self._asked.get(host)
            if asked is None:
                asked = self._asked[host] = Future()
                asked.set_running_or_notify_cancel()  # one who does not wait any more cancels it for nobody
                self._waiting.append(host)
                if self._idle >= len(self._waiting):
                    self._lock.notify()
                elif self._threads < MAX_THREADS:
                    self._start_thread(host)
            return asked

    def _start_thread(self, host: str) -> None:
        try:
            threading.Thread(target=self._work, name="name look-up", daemon=True).start()
        except RuntimeError as error:  # the system has none left: one that is there will take it, if one is
            if not self._threads:
                self._waiting.clear()
                del self._asked[host]
                raise socket.gaierror(socket.EAI_MEMORY, "no thread for the look-up") from error
        else:
            self._threads += 1

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._idle += 1
                    self._lock.wait(IDLE_SECONDS)
                    self._idle -= 1
                if not self._waiting:
                    self._threads -= 1
                    return
                host = self._waiting.popleft()
            found: list[Address] | BaseException
            try:
                found = _look_up(host)
            except BaseException as error:  # it is the asker's
                found = error
            with self._lock:
                asked = self._asked.pop(host)
            if isinstance(found, list):
                asked.set_result(found)
            else:
                asked.set_exception(found)


RESOLVER = Resolver()  # one a process: its loops come and go, a look-up that hangs stays


def _look_up(host: str) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, 0, socket.AF_UNSPEC, socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is empty or too long
        raise socket.gaierror(socket.EAI_NONAME, "no host name") from error
    addresses = (literal(str(address[0])) for *_, address in found)
    usable = list(dict.fromkeys(address for address in addresses if address is not None))
    if not usable:
        raise socket.gaierror(socket.EAI_NODATA, "no address")
    return usable
