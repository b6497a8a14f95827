"""
Who may ask which tracker host when.

A client with a thousand torrents has the means to take a tracker down, or to get itself banned there.  So
requests wait in one queue for each *host*: few are under way at once, they start at a bounded rate, and a
host that fails is left alone for a growing time, by all torrents.  There is no I/O here and no timer: the
time is an argument.

A queue hands its requests back when its host fails: each torrent then has to decide for itself whether it
has another tracker to go to.
"""

from __future__ import annotations

import enum
import heapq
import itertools
from collections.abc import Hashable
from random import Random
from typing import Generic, TypeVar

from irontide.errors import FetchError, TrackerError
from irontide.tracker.due import DueTimes

J = TypeVar("J", bound=Hashable)

PER_HOST = 2
"""Requests under way at one host."""
IN_ALL = 32
"""Requests under way at all hosts together."""
SPACING = 0.1
"""Seconds between the starts of two requests to one host, on average..."""
BURST = 10
"""...of which this many may start together after a quiet time."""
FIRST_BACKOFF = 15.0
LONGEST_BACKOFF = 1800.0
TOO_MANY_REQUESTS = 429


class HostLeftAlone(TrackerError):
    """The request was not sent, because its host has just failed somebody else."""


def blames_host(error: BaseException) -> bool:
    """Tell whether it is the host that fails, and not the torrent that is refused."""
    if not isinstance(error, FetchError):
        return isinstance(error, HostLeftAlone)
    return error.status is None or error.status >= 500 or error.status == TOO_MANY_REQUESTS


class Priority(enum.IntEnum):
    """What goes first; within one class, who asked first."""

    USER = 0
    STARTED = 1
    REGULAR = 2


class _Host(Generic[J]):
    """The queue of one host."""

    __slots__ = ("failed_at", "failures", "free_at", "under_way", "until", "waiting")

    def __init__(self) -> None:
        self.waiting: list[tuple[int, int, J]] = []
        self.under_way = 0
        self.free_at = -float("inf")
        self.failures = 0
        self.failed_at = -float("inf")
        self.until = -float("inf")


class HostQueues(Generic[J]):
    """
    Requests of any kind ``J``, by the host that they are for.

    :ivar spacing: may be set to 0 at the end, when there is only a moment left for goodbyes.
    """

    def __init__(
        self, random: Random, *, per_host: int = PER_HOST, in_all: int = IN_ALL, spacing: float = SPACING
    ) -> None:
        self.spacing = spacing
        self._random = random
        self._per_host = per_host
        self._in_all = in_all
        self._hosts: dict[str, _Host[J]] = {}
        self._ready: DueTimes[str] = DueTimes()
        self._requests: dict[J, str] = {}
        self._under_way: dict[J, tuple[str, float]] = {}
        self._turn = itertools.count()

    def __len__(self) -> int:
        return len(self._requests) + len(self._under_way)

    def put(self, host: str, request: J, priority: Priority) -> None:
        """Let ``request`` wait for its turn at ``host``."""
        queue = self._hosts.setdefault(host, _Host())
        self._requests[request] = host
        heapq.heappush(queue.waiting, (priority, next(self._turn), request))
        self._settle(host, queue)

    def withdraw(self, request: J) -> None:
        """Forget a request, waiting or under way; its host is not judged by it."""
        if request in self._under_way:
            self._end(request)
        elif (host := self._requests.pop(request, None)) is not None:
            self._settle(host, self._hosts[host])

    def take(self, now: float) -> J | None:
        """Return a request that is to start now, or None; it is under way until one of its ends is told."""
        if len(self._under_way) >= self._in_all or (host := self._ready.pop(now)) is None:
            return None
        queue = self._hosts[host]
        request = heapq.heappop(queue.waiting)[2]
        del self._requests[request]
        queue.under_way += 1
        queue.free_at = max(queue.free_at, now - (BURST - 1) * self.spacing) + self.spacing
        self._under_way[request] = (host, now)
        self._settle(host, queue)
        return request

    def next_time(self) -> float | None:
        """Return when ``take`` is worth a call again, as things stand now."""
        return None if len(self._under_way) >= self._in_all else self._ready.next()

    def answered(self, request: J) -> None:
        """The host works, whatever it said."""
        queue = self._hosts[self._under_way[request][0]]
        queue.failures = 0
        queue.until = -float("inf")
        self._end(request)

    def failed(self, request: J, now: float) -> list[J]:
        """
        The host did not answer as a tracker does: leave it alone for a while.

        :returns: all requests that were waiting for it; they are in no queue any more.
        """
        host, began = self._under_way[request]
        queue = self._hosts[host]
        if began >= queue.failed_at:  # what was under way together fails together, and counts once
            queue.failures += 1
            queue.failed_at = now
            backoff = min(FIRST_BACKOFF * 2.0 ** min(queue.failures - 1, 30), LONGEST_BACKOFF)
            queue.until = now + backoff * self._random.uniform(0.8, 1.2)
        waiting = [each for _, _, each in sorted(queue.waiting) if each in self._requests]
        queue.waiting.clear()
        for each in waiting:
            del self._requests[each]
        self._end(request)
        return waiting

    def blocked_until(self, host: str) -> float:
        """Return until when ``host`` is left alone; a time in the past if it is not."""
        queue = self._hosts.get(host)
        return -float("inf") if queue is None else queue.until

    def forgive(self, host: str) -> None:
        """Allow one more try at once, because the user says so; the next failure counts as before."""
        if (queue := self._hosts.get(host)) is not None:
            queue.until = -float("inf")
            self._settle(host, queue)

    def _end(self, request: J) -> None:
        host, _ = self._under_way.pop(request)
        queue = self._hosts[host]
        queue.under_way -= 1
        self._settle(host, queue)

    def _settle(self, host: str, queue: _Host[J]) -> None:
        """Note when this host is next worth looking at, and forget it when there is nothing to remember."""
        while queue.waiting and queue.waiting[0][2] not in self._requests:
            heapq.heappop(queue.waiting)
        if queue.waiting and queue.under_way < self._per_host:
            self._ready.set(host, max(queue.free_at, queue.until))
        else:
            self._ready.discard(host)
            if not queue.waiting and not queue.under_way and not queue.failures:
                del self._hosts[host]
