"""
Lets ordinary jobs of a torrent run side by side, and those that move its files run alone.

Where a byte lies changes when files are moved, renamed or become wanted; a job that runs meanwhile would
read or write the wrong place.  So such an operation waits until what runs is done, and what comes after it
waits for it, in the order in which it was asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, fail, maybeDeferred

from irontide.errors import StorageError

T = TypeVar("T")


@frozen
class _Waiting:
    start: Callable[[], Deferred[Any]]
    alone: bool
    result: Deferred[Any]


class Gate:
    """
    Starts operations when they may run.

    :ivar free: whether a shared operation would start at once.
    """

    def __init__(self) -> None:
        self._running = 0
        self._alone = False
        self._waiting: deque[_Waiting] = deque()
        self._closed = False
        self._admitting = False
        self.free = True

    def shared(self, start: Callable[[], Deferred[T]]) -> Deferred[T]:
        """Start an operation that others may run beside."""
        return self._enter(start, False)

    def exclusive(self, start: Callable[[], Deferred[T]]) -> Deferred[T]:
        """Start an operation while no other one runs."""
        return self._enter(start, True)

    def close(self, start: Callable[[], Deferred[T]]) -> Deferred[T]:
        """Start the last operation, alone; everything asked for from now on fails with StorageError."""
        result = self._enter(start, True)
        self._closed = True
        self.free = False
        return result

    def _enter(self, start: Callable[[], Deferred[T]], alone: bool) -> Deferred[T]:
        if self._closed:
            return fail(StorageError("the storage is closed"))
        if self._alone or self._waiting or (alone and self._running):
            result: Deferred[T] = Deferred()
            self._waiting.append(_Waiting(start, alone, result))
            self.free = False
            return result
        return self._start(start, alone)

    def _start(self, start: Callable[[], Deferred[T]], alone: bool) -> Deferred[T]:
        self._running += 1
        if alone:
            self._alone = True
            self.free = False
        return maybeDeferred(start).addBoth(self._left)

    def _left(self, outcome: T) -> T:
        """An operation is done, one way or the other."""
        self._running -= 1
        self._alone = False
        if not self._admitting:
            self._admit()
        return outcome

    def _admit(self) -> None:
        """Start what may start; a loop, because operations may be over before they return."""
        self._admitting = True
        try:
            while self._waiting and not self._alone and not (self._waiting[0].alone and self._running):
                waiting = self._waiting.popleft()
                self._start(waiting.start, waiting.alone).chainDeferred(waiting.result)
        finally:
            self._admitting = False
        self.free = not (self._alone or self._waiting or self._closed)
