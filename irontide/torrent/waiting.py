"""Many who wait for one thing, each with a Deferred of their own that they may cancel."""

from __future__ import annotations

from twisted.internet.defer import Deferred


class Waiting:
    """Those who wait."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []

    def wait(self) -> Deferred[None]:
        """Fires with the next ``fire``, fails with the next ``fail``; cancelling takes it off the list."""
        waiting: Deferred[None] = Deferred(self._cancelled)
        self._waiting.append(waiting)
        return waiting

    def _cancelled(self, waiting: Deferred[None]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def fire(self) -> None:
        """It happened."""
        ready, self._waiting = self._waiting, []
        for waiting in ready:
            if not waiting.called:  # cancelled by one of those before it
                waiting.callback(None)

    def fail(self, error: Exception) -> None:
        """It will not happen, because of ``error``."""
        ready, self._waiting = self._waiting, []
        for waiting in ready:
            if not waiting.called:
                waiting.errback(error)
