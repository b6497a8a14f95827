"""Flow: rate limits, who holds a producer, and a bounded queue between two parties (contract B)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from irontide.errors import Closed, QueueFull

T = TypeVar("T")


class TokenBucket:
    """A rate in units/s with a burst; 0 is unlimited."""

    def __init__(self, rate: float, burst: float | None = None, *, now: float = 0.0) -> None:
        self._now = now
        self.rate = 0.0
        self.set_rate(rate, now)
        self._tokens = self.burst

    def set_rate(self, rate: float, now: float) -> None:
        """Another rate from now on."""
        self.rate = rate
        self.burst = max(rate, 16384.0) if rate else 0.0
        self._tokens = min(getattr(self, "_tokens", self.burst), self.burst)

    def available(self, now: float) -> float:
        """Tokens there are now."""
        self._tokens = min(self.burst, self._tokens + (now - self._now) * self.rate)
        self._now = now
        return self._tokens

    def take(self, count: float, now: float) -> bool:
        """Take tokens."""
        if not self.rate:
            return True
        if self.wait(count, now) > 0:
            return False
        self._tokens -= count
        return True

    def wait(self, count: float, now: float) -> float:
        """Seconds until count may be taken."""
        if not self.rate:
            return 0.0
        need = min(count, self.burst) - self.available(now)
        return max(0.0, need / self.rate)


class Valve:
    """Many may hold a producer."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer
        self._holders: set[str] = set()

    def hold(self, who: str) -> None:
        """Hold."""
        if not self._holders:
            self._producer.pauseProducing()
        self._holders.add(who)

    def release(self, who: str) -> None:
        """Let go."""
        if who in self._holders:
            self._holders.discard(who)
            if not self._holders:
                self._producer.resumeProducing()


class BackpressureQueue(Generic[T]):
    """Interim."""

    def __init__(self, cap: int, deliver: Callable[[T], None], *, full: Callable[[], bool]) -> None:
        self._cap, self._deliver, self._full = cap, deliver, full
        self._backlog: deque[T] = deque()
        self._closed = False

    @property
    def depth(self) -> int:
        """Backlog."""
        return len(self._backlog)

    def put(self, item: T) -> None:
        """Deliver or queue."""
        if self._closed:
            raise Closed("closed")
        if not self._backlog and not self._full():
            self._deliver(item)
            return
        if len(self._backlog) >= self._cap:
            raise QueueFull("full")
        self._backlog.append(item)

    def drain(self) -> None:
        """Deliver."""
        while self._backlog and not self._full():
            self._deliver(self._backlog.popleft())

    def close(self) -> None:
        """Closed."""
        self._closed = True
        self._backlog.clear()
