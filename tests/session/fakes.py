"""Stand-ins for what a store needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, execute

T = TypeVar("T")


class ImmediateWriter:
    """A Writer without a thread: work is done when it is asked for."""

    def __init__(self) -> None:
        self.stopped = False

    def call(self, work: Callable[[], T]) -> Deferred[T]:
        """See Writer."""
        assert not self.stopped
        return execute(work)

    def stop(self) -> None:
        """See Writer."""
        self.stopped = True
