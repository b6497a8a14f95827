"""
What irontide changes in a process that is its own; an embedded Session changes nothing of these.

The clock comes first of all.  Stock reactors use time.time, so a step of the wall clock stalls every timer
or fires all of them.  A DelayedCall keeps the ``seconds`` of the moment when it was made, together with an
absolute time on it: a call from before the switch would be due in decades.  Hence none may exist.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

_log = Logger()

MAX_DESCRIPTORS = 1 << 20
"""Enough for anybody; where there is no limit, some systems say 2**30, and tables get allocated for it."""


def use_monotonic_clock(reactor: Any) -> None:
    """
    Have ``reactor`` run on the monotonic clock; again and again is fine.

    :raises RuntimeError: something is scheduled on the other clock already, or the reactor will not.
    """
    if reactor.seconds is time.monotonic:
        return
    if reactor.getDelayedCalls():
        raise RuntimeError("the reactor has timed calls already; its clock cannot be changed any more")
    reactor.seconds = time.monotonic
    probe = reactor.callLater(3600, lambda: None)
    try:
        if not 3500 < probe.getTime() - time.monotonic() < 3700:
            raise RuntimeError(f"{reactor!r} does not use its clock for timed calls")
    finally:
        probe.cancel()


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files as far as it goes; return what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (OSError, ValueError) as error:
            _log.warn("the limit of open files stays at {soft}: {error}", soft=soft, error=error)
        else:
            soft = most
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


class StopSignals:
    """
    SIGINT and SIGTERM, and what a second one means.

    The first of either stops in order, by ``stop``.  The second ends the process at once, in the signal
    handler itself: it works however busy the reactor is, and the store stands it.  SIGHUP is survived.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        stop: Callable[[int, FrameType | None], object],
        exit_now: Callable[[int], object] = os._exit,
    ) -> None:
        self._reactor = reactor
        self._stop = stop
        self._exit_now = exit_now
        self._seen = False

    def install(self) -> None:
        """Take the signals over."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.stop_signal)
        signal.signal(signal.SIGHUP, self.hangup)

    def stop_signal(self, number: int, frame: FrameType | None) -> None:
        """The signal handler of SIGINT and SIGTERM."""
        if self._seen:
            self._exit_now(128 + number)
        self._seen = True
        self._stop(number, frame)

    def hangup(self, number: int, frame: FrameType | None) -> None:
        """The signal handler of SIGHUP."""
        self._reactor.callFromThread(
            _log.info, "SIGHUP ignored: changed settings take effect at the next start"
        )
