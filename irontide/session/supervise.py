"""
The parts of a session that live as long as it does, and what follows when one of them fails (contract S).

A failure stays with its part: a *required* one ends the session, which is told exactly once; one that is
*restarted* comes again after a while, longer each time; one that is *best effort* is missed, and that is all.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from attrs import define
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.interfaces import IService

RESTART_FIRST, RESTART_LAST = 5.0, 300.0
"""Seconds until a part is started again; doubled with each failure, unless it ran well for so long."""


class Policy(Enum):
    """What follows from the failure of a part."""

    REQUIRED = "the session stops"
    RESTART = "it is started again"
    BEST_EFFORT = "it is logged"


@implementer(IService)
@define(eq=False)
class Part:
    """A service made of two functions."""

    name: str
    start: Callable[[], Deferred[None]]
    stop: Callable[[], Deferred[None]]


@define(eq=False)
class _Supervised:
    service: IService
    policy: Policy
    up: bool = False
    since: float = 0.0
    after: float = RESTART_FIRST
    restart: IDelayedCall | None = None


class Supervisor:
    """Starts and stops the parts of a session, and deals with their failures."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, failed: Callable[[str, Failure], None]) -> None:
        """:param failed: is told, once, which required part has failed."""
        self._clock = clock
        self._tell = failed
        self._told = False
        self._parts: dict[str, _Supervised] = {}

    def start(self, service: IService, policy: Policy) -> Deferred[None]:
        """Start a part; fails only if a required one cannot start, which is then no part."""
        part = self._parts[service.name] = _Supervised(service, policy)
        return self._start(part)

    def _start(self, part: _Supervised) -> Deferred[None]:
        def up(_: object) -> None:
            part.up = True
            part.since = self._clock.seconds()

        def not_up(failure: Failure) -> Failure | None:
            if part.policy is Policy.REQUIRED:
                self._parts.pop(part.service.name, None)
                return failure
            self._without(part, failure)
            return None

        return maybeDeferred(part.service.start).addCallbacks(up, not_up)

    def failed(self, name: str, failure: Failure) -> None:
        """A part has ended by itself; of no consequence for one that is being stopped."""
        part = self._parts.get(name)
        if part is None or not part.up:
            return
        part.up = False
        if part.policy is not Policy.REQUIRED:
            stopped = maybeDeferred(part.service.stop).addErrback(self._not_in_order, name)
            stopped.addCallback(lambda _: self._without(part, failure))
        elif not self._told:
            self._told = True
            self._log.failure("{name} has failed: stopping", failure, name=name)
            self._tell(name, failure)

    def _without(self, part: _Supervised, failure: Failure) -> None:
        """Go on without a part, for a while or for good."""
        name = part.service.name
        self._log.failure("{name} has failed", failure, name=name)
        if self._parts.get(name) is not part or part.policy is Policy.BEST_EFFORT:
            return
        if part.since and self._clock.seconds() - part.since >= RESTART_LAST:
            part.after = RESTART_FIRST
        part.since = 0.0
        part.restart = self._clock.callLater(part.after, self._again, part)
        part.after = min(RESTART_LAST, 2 * part.after)

    def _again(self, part: _Supervised) -> None:
        part.restart = None
        self._start(part)

    def stop(self, name: str, within: float) -> Deferred[bool]:
        """
        Stop a part; fires with whether it stopped in order, and never fails.

        :param within: seconds; after them it is not waited for any longer.
        """
        part = self._parts.pop(name, None)
        if part is None:
            return succeed(True)
        if part.restart is not None:
            part.restart.cancel()
            return succeed(True)
        return in_time(maybeDeferred(part.service.stop), within, self._clock, f"stopping {name}")

    def _not_in_order(self, failure: Failure, name: str) -> None:
        self._log.failure("{name} did not stop in order", failure, name=name)


_log = Logger()


def in_time(work: Deferred[object], seconds: float, clock: IReactorTime, what: str) -> Deferred[bool]:
    """Fire with whether ``work`` ended well within ``seconds``; else it goes on; errors are logged."""
    told: Deferred[bool] = Deferred()

    def late() -> None:
        _log.error("{what} takes longer than {seconds:.1f} s", what=what, seconds=seconds)
        told.callback(False)

    def done(result: object) -> None:
        if isinstance(result, Failure):
            _log.failure("{what} failed", result, what=what)
        if not told.called:
            timer.cancel()
            told.callback(not isinstance(result, Failure))

    timer = clock.callLater(max(0.0, seconds), late)
    work.addBoth(done)
    return told
