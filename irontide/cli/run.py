"""
Runs one asynchronous command in a process of its own and turns its outcome into an exit code.

Like task.react, with two differences: the reactor gets the monotonic clock before anything is scheduled,
and the first Ctrl-C is told to the command, which saves; the second ends the process at once.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogBeginner
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.errors import IrontideError
from irontide.service.process import StopSignals, raise_descriptor_limit, use_monotonic_clock

T = TypeVar("T")

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class Interrupted(Exception):
    """The user wants the command to end."""


def first_of(*contenders: Deferred[Any]) -> Deferred[Any]:
    """Fire as the first of these does; the others are cancelled, and what becomes of them is dropped."""

    def give_up(_: object) -> None:
        for each in contenders:
            each.cancel()

    result: Deferred[Any] = Deferred(give_up)
    settled = False

    def settle(outcome: Any) -> None:
        nonlocal settled
        if settled:
            return
        settled = True
        give_up(None)
        result.callback(outcome)

    for each in contenders:
        each.addBoth(settle)
    return result


class Interruption:
    """Whether, and when, the user pressed Ctrl-C."""

    def __init__(self) -> None:
        self.happened = False
        self._waiting: list[Deferred[None]] = []

    def happen(self) -> None:
        """The user has."""
        self.happened = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def wait(self) -> Deferred[None]:
        """Fire when it happens."""
        if self.happened:
            return succeed(None)
        happened: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(happened)
        return happened

    def or_result(self, awaited: Deferred[T]) -> Deferred[T]:
        """Fire as ``awaited`` does, or fail with Interrupted and cancel it, whichever is first."""

        def interrupted(_: None) -> None:
            raise Interrupted

        return first_of(self.wait().addCallback(interrupted), awaited)


@implementer(ILogObserver)
class Complaints:
    """A log observer that passes on what a user at the command line should hear of."""

    def __init__(self, say: Callable[[str], object], log: Callable[[str], object], verbose: bool) -> None:
        self._say = say
        self._log = log
        self._verbose = verbose

    def __call__(self, event: LogEvent) -> None:
        """See ILogObserver."""
        level = event.get("log_level", LogLevel.info)
        if not self._verbose and level < LogLevel.warn:
            return
        text = formatEvent(event)
        failure = event.get("log_failure")
        if failure is not None and self._verbose:
            text += "\n" + failure.getTraceback()
        elif failure is not None:
            text += f": {failure.getErrorMessage()}"
        if text:
            (self._log if self._verbose else self._say)(text)


def once(say: Callable[[str], object]) -> Callable[[str], None]:
    """Wrap ``say`` so that what the log has told already is not told again as the reason of the end."""
    said: deque[str] = deque(maxlen=100)

    def tell(text: str) -> None:
        if not any(earlier.endswith(text) for earlier in said):
            said.append(text)
            say(text)

    return tell


Work = Callable[[Any, Interruption], Coroutine[Deferred[Any], Any, int]]


def run(
    work: Work, *, say: Callable[[str], object], log: Callable[[str], object], verbose: bool = False
) -> int:
    """
    Run ``work(reactor, interruption)`` and return the exit code.

    :param say: takes a line for the user, about what went wrong.
    :param log: takes everything that is logged, instead of ``say``, if ``verbose``.
    """
    from twisted.internet import reactor

    use_monotonic_clock(reactor)
    raise_descriptor_limit()
    say = once(say)
    globalLogBeginner.beginLoggingTo([Complaints(say, log, verbose)], redirectStandardIO=False)
    interruption = Interruption()
    code = FAILED
    loop: Any = reactor

    def ended(result: int) -> None:
        nonlocal code
        code = result
        loop.stop()

    def begin() -> None:
        StopSignals(loop, lambda number, frame: loop.callFromThread(interruption.happen)).install()
        # Whatever happens, even in telling what happened, the process ends.
        exit_code(work(loop, interruption), say).addErrback(lambda _: FAILED).addCallback(ended)

    loop.callWhenRunning(begin)
    loop.run()
    return code


def exit_code(work: Coroutine[Deferred[Any], Any, int], say: Callable[[str], object]) -> Deferred[int]:
    """Wait for ``work``; say what went wrong, in one line; return the exit code for it."""

    def failed(failure: Failure) -> int:
        if failure.check(Interrupted, CancelledError):
            return INTERRUPTED
        if failure.check(BrokenPipeError):
            # Nobody listens any more, so there is nothing to say, now or at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        if failure.check(IrontideError, click.ClickException):
            error = failure.value
            say(error.format_message() if isinstance(error, click.ClickException) else str(error))
        elif failure.check(OSError):
            say(os_error(failure.value))
        else:
            say(f"a bug in irontide: {failure.getErrorMessage()}\n{failure.getTraceback()}")
        return FAILED

    return Deferred.fromCoroutine(work).addErrback(failed)


def os_error(error: object) -> str:
    """Say what the system refused, and about which file."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
