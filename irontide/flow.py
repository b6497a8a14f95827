"""
Bounded flows: who may hold a producer, how much may pass in a time, what waits while a consumer is full.

A reader of the network never waits.  Where its consumer may be full, a BackpressureQueue stands between the
two: it keeps the order, has a cap, and closes a Valve as long as anything waits in it, so that the producer
stops before the cap is met.  Valves have many holders, because the disk, a rate limit and a queue may all
have a reason of their own to stop the same transport.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from math import inf
from typing import Generic, Protocol, TypeVar

from attrs import define

from irontide.errors import Closed, QueueFull

Item = TypeVar("Item")

COMMAND_BACKLOG = 8
"""Cap for commands to the requester of a peer."""
EVENT_BACKLOG = 32
"""Cap for events to a torrent."""
HELD_PATIENCE = 5.0
"""Seconds that a producer may be held by a full consumer before it is disconnected."""

_SLACK = 1e-3  # tokens: additions of floats lose a little


class Pausable(Protocol):
    """The part of IPushProducer that a Valve needs."""

    def pauseProducing(self) -> None:
        """Produce nothing until told so."""

    def resumeProducing(self) -> None:
        """Produce again."""


class Valve:
    """Pauses a producer while anybody holds it: from the first hold to the last release."""

    __slots__ = ("_holders", "_producer")

    def __init__(self, producer: Pausable) -> None:
        self._producer = producer
        self._holders: set[Hashable] = set()

    @property
    def held(self) -> bool:
        """Whether anybody holds it."""
        return bool(self._holders)

    def hold(self, who: Hashable) -> None:
        """``who`` wants the producer to pause; saying so again changes nothing."""
        first = not self._holders
        self._holders.add(who)
        if first:
            self._producer.pauseProducing()

    def release(self, who: Hashable) -> None:
        """``who`` lets go; does nothing if it did not hold."""
        if who in self._holders:
            self._holders.remove(who)
            if not self._holders:
                self._producer.resumeProducing()


class TokenBucket:
    """
    Lets ``rate`` tokens a second pass, and no more than ``burst`` at once.  Time is given, in seconds.

    Who finds one token may take up to a burst of them: the bucket is in debt then, and the next one waits
    until that is paid.  So large takers are not starved by small ones, and the rate is kept on the average.
    What is more than a burst waits until the bucket has the rest of it, or if it never can, until it is full.

    :ivar rate: 0 is unlimited.
    """

    __slots__ = ("_at", "_given_burst", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float | None = None, *, now: float = 0.0) -> None:
        """
        :param burst: the most tokens that are saved, and the largest debt; by default those of a second.
        :param now: the bucket is full then.
        """
        self.rate = _checked(rate)
        self._given_burst = burst
        self._tokens = self.burst = self._burst_for(rate)
        self._at = now

    def _burst_for(self, rate: float) -> float:
        return max(1.0, rate if self._given_burst is None else self._given_burst)

    def set_rate(self, rate: float, now: float) -> None:
        """Another rate from ``now`` on; 0 is unlimited.  Savings and debts stay, within the new burst."""
        self._settle(now)
        self.rate = _checked(rate)
        self.burst = self._burst_for(rate)
        self._tokens = min(self.burst, max(-self.burst, self._tokens))

    def take(self, n: float, now: float) -> bool:
        """Take ``n`` tokens, if it may be now."""
        if not self.rate:
            return True
        self._settle(now)
        if self._tokens < self._needed(n) - _SLACK:
            return False
        self._tokens -= n
        return True

    def available(self, now: float) -> float:
        """How many tokens there are: less than 0 is a debt."""
        if not self.rate:
            return inf
        self._settle(now)
        return self._tokens

    def wait(self, n: float, now: float) -> float:
        """Seconds until ``n`` may be taken, if nobody else takes any: 0 if that is now."""
        if not self.rate:
            return 0.0
        self._settle(now)
        needed = self._needed(n)
        return 0.0 if self._tokens >= needed - _SLACK else (needed - self._tokens) / self.rate

    def _needed(self, n: float) -> float:
        """How many tokens have to be there for ``n`` to be taken."""
        return min(self.burst, max(min(n, 1.0), n - self.burst))

    def _settle(self, now: float) -> None:
        """Add what has come since the last time; a clock that goes back adds nothing."""
        if now > self._at:
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
            self._at = now


def _checked(rate: float) -> float:
    if not 0 <= rate < inf:
        raise ValueError(f"a rate of {rate}")
    return rate


@define
class FlowCounters:
    """
    What many queues have been through, in sum.

    :ivar depth: items that wait now.
    :ivar holds: how often a backlog began.
    :ivar held_seconds: how long backlogs lasted, those that are over.
    :ivar disconnects: producers that were given up.
    :ivar refused: items for which there was no place.
    """

    depth: int = 0
    holds: int = 0
    held_seconds: float = 0.0
    disconnects: int = 0
    refused: int = 0


def _no_time() -> float:
    return 0.0


class BackpressureQueue(Generic[Item]):
    """
    Hands items to a consumer, in order; what it has no room for waits, up to a cap.

    The consumer says by ``full`` whether it has room.  Whoever owns the queue calls ``drain`` when there is
    room again, and ``give_up`` on a producer that was held for more than its patience.  ``deliver`` may call
    ``drain`` and ``close``, but not ``put``: the item in hand would be overtaken.

    An exception out of ``deliver`` is passed on, and its item counts as delivered.  ``Closed`` says that the
    consumer is gone: it closes the queue.

    :ivar counters: may be shared by many queues.
    """

    __slots__ = (
        "_backlog",
        "_cap",
        "_closed",
        "_deliver",
        "_full",
        "_held_since",
        "_seconds",
        "_valve",
        "counters",
    )

    def __init__(
        self,
        cap: int,
        deliver: Callable[[Item], None],
        *,
        full: Callable[[], bool],
        valve: Valve | None = None,
        seconds: Callable[[], float] = _no_time,
        counters: FlowCounters | None = None,
    ) -> None:
        """
        :param cap: how many items may wait.
        :param deliver: takes an item; called only while the consumer has room.
        :param valve: is held as long as anything waits.
        :param seconds: tells the time, for ``held_for`` and the counters.
        """
        if cap < 0:
            raise ValueError(f"a cap of {cap}")
        self.counters = FlowCounters() if counters is None else counters
        self._cap = cap
        self._deliver = deliver
        self._full = full
        self._valve = valve
        self._seconds = seconds
        self._backlog: deque[Item] = deque()
        self._held_since: float | None = None
        self._closed = False

    @property
    def depth(self) -> int:
        """How many items wait."""
        return len(self._backlog)

    @property
    def closed(self) -> bool:
        """Whether the consumer is gone."""
        return self._closed

    def held_for(self) -> float:
        """Seconds for which something has been waiting without a break."""
        return 0.0 if self._held_since is None else self._seconds() - self._held_since

    def put(self, item: Item) -> None:
        """
        Deliver ``item`` if it is its turn and there is room, else let it wait.

        :raises QueueFull: it can do neither; it is not taken.
        :raises Closed: the consumer is gone.
        """
        if self._backlog or self._closed:
            self._put_behind(item)
        elif self._full():
            self._wait(item)
        else:
            self._hand_over(item)

    def _put_behind(self, item: Item) -> None:
        """What waits goes first, as far as there is room."""
        try:
            self._flush()
            self._check_open()
            if not self._backlog and not self._full():
                self._hand_over(item)
            else:
                self._wait(item)
        finally:
            self._let_go()

    def drain(self) -> None:
        """
        Deliver what waits, as far as there is room.

        :raises Closed: the consumer is gone.
        """
        try:
            self._flush()
        finally:
            self._let_go()

    def give_up(self) -> None:
        """The producer was held for too long and is disconnected: counted, and closed."""
        self.counters.disconnects += 1
        self.close()

    def close(self) -> None:
        """The consumer is gone: what waits is dropped, and the valve is open again."""
        self._closed = True
        self.counters.depth -= len(self._backlog)
        self._backlog.clear()
        self._let_go()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the consumer is gone")

    def _flush(self) -> None:
        self._check_open()
        backlog = self._backlog
        while backlog and not self._full():
            self.counters.depth -= 1
            self._hand_over(backlog.popleft())

    def _hand_over(self, item: Item) -> None:
        try:
            self._deliver(item)
        except Closed:
            self.close()
            raise

    def _wait(self, item: Item) -> None:
        if len(self._backlog) >= self._cap:
            self.counters.refused += 1
            raise QueueFull(f"{self._cap} items wait already")
        self._backlog.append(item)
        self.counters.depth += 1
        if self._held_since is None:
            self._held_since = self._seconds()
            self.counters.holds += 1
            if self._valve is not None:
                self._valve.hold(self)

    def _let_go(self) -> None:
        """If nothing waits any more the producer may go on, and may call us before this returns."""
        if self._held_since is not None and not self._backlog:
            self.counters.held_seconds += self.held_for()
            self._held_since = None
            if self._valve is not None:
                self._valve.release(self)
