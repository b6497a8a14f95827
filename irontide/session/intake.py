"""
How much the session takes in during one turn of the reactor.

All peers share it: once a turn has taken 5 ms of parsing messages, or while more disk jobs wait than the
disk should have, whoever parses next stops at the message boundary and is woken in a later turn.  Who was
held first is woken first, and goes behind the others if it has not finished: a flood from a hundred peers
does not keep out the one that has a word to say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from irontide.flow import FlowCounters

TURN = 0.005
"""Seconds of one turn of the reactor that go to messages of peers."""

MAX_JOBS = 512
"""Disk jobs queued or running; above, nothing new is taken in."""

RETRY = 0.01


class SharedIntake:
    """
    Says when it is enough for now.

    :param jobs: how many disk jobs are queued or running.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, jobs: Callable[[], int]) -> None:
        self.counters = FlowCounters()
        self._clock = clock
        self._jobs = jobs
        self._turn_began: float | None = None
        self._waiting: deque[Callable[[], None]] = deque()
        self._waking = False

    def begin(self) -> None:
        """A peer begins to parse what it received."""
        if self._turn_began is None:
            self._turn_began = self._clock.seconds()
            self._clock.callLater(0, self._turn_ended)

    def full(self) -> bool:
        """Whether nothing more should be delivered now."""
        began = self._turn_began
        return (began is not None and self._clock.seconds() - began > TURN) or self._jobs() > MAX_JOBS

    def when_room(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` once when it is worth trying again."""
        self._waiting.append(wake)
        self._wake_in(0)

    def _wake_in(self, delay: float) -> None:
        if not self._waking:
            self._waking = True
            self._clock.callLater(delay, self._wake)

    def _turn_ended(self) -> None:
        self._turn_began = None

    def _wake(self) -> None:
        self._waking = False
        if self._jobs() > MAX_JOBS:
            self._wake_in(RETRY)
            return
        self._turn_began = None
        for _ in range(len(self._waiting)):
            if self.full():
                self._wake_in(0)
                return
            wake = self._waiting.popleft()
            try:
                wake()
            except Exception:
                self._log.failure("a peer that was held could not go on")
