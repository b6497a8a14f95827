"""
The one thread that writes to the store.

A pool would not do: SQLite wants one writer, and what was asked for first has to be committed first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

T = TypeVar("T")


class Writer(Protocol):
    """Runs work in the order in which it was asked for."""

    def call(self, work: Callable[[], T]) -> Deferred[T]:
        """Run ``work``; fires in the reactor thread with what it returns or raises."""
        ...

    def stop(self) -> None:
        """Take no more work; what was asked for before still runs."""
        ...


class WriterThread:
    """
    A Writer with a thread of its own.

    The thread is a daemon: a process that has to end at once does not wait for it, and a commit that is
    cut short has not happened.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str = "irontide-store") -> None:
        self._reactor = reactor
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Deferred[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def call(self, work: Callable[[], T]) -> Deferred[T]:
        """See Writer."""
        done: Deferred[T] = Deferred()
        self._jobs.put((work, done))
        return done

    def stop(self) -> None:
        """See Writer."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, done = job
            try:
                result = work()
            except BaseException:
                self._reactor.callFromThread(done.errback, Failure())
            else:
                self._reactor.callFromThread(done.callback, result)
