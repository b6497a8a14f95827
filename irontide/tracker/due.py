"""What is due when: one heap for all torrents, so that ten thousand idle ones cost nothing."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class DueTimes(Generic[K]):
    """At most one time for each key.  A time that was replaced stays in the heap until it comes up."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, K]] = []
        self._current: dict[K, tuple[float, int]] = {}
        self._turn = itertools.count()

    def __len__(self) -> int:
        return len(self._current)

    def set(self, key: K, time: float) -> None:
        """Make ``key`` due at ``time``, and at no other."""
        entry = (time, next(self._turn))
        self._current[key] = entry
        heapq.heappush(self._heap, (*entry, key))
        if len(self._heap) > 2 * len(self._current) + 64:
            self._heap = [(*entry, key) for key, entry in self._current.items()]
            heapq.heapify(self._heap)

    def discard(self, key: K) -> None:
        """Forget the time of ``key``, if it has one."""
        self._current.pop(key, None)

    def at(self, key: K) -> float | None:
        """Return when ``key`` is due."""
        entry = self._current.get(key)
        return None if entry is None else entry[0]

    def next(self) -> float | None:
        """Return the earliest time of all."""
        self._drop_replaced()
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float) -> K | None:
        """Take the earliest key that is due, if any is."""
        self._drop_replaced()
        if not self._heap or self._heap[0][0] > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._current[key]
        return key

    def _drop_replaced(self) -> None:
        while self._heap and self._current.get(self._heap[0][2]) != self._heap[0][:2]:
            heapq.heappop(self._heap)
