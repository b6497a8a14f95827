"""Trying again what may go better later: soon at first, then more and more seldom."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

SPACE_RETRY = 15.0
"""Seconds until the first look whether a full disk has space again; each vain one doubles it."""
SPACE_RETRY_LAST = 120.0


class Retry:
    """One call that is to come, or none."""

    def __init__(self, clock: IReactorTime, call: Callable[[], object]) -> None:
        self._clock = clock
        self._call = call
        self._after = SPACE_RETRY
        self._due: IDelayedCall | None = None
        self._ended = False

    def later(self) -> None:
        """Call in a while."""
        self.cancel()
        if self._ended:
            return
        self._due = self._clock.callLater(self._after, self._try)
        self._after = min(SPACE_RETRY_LAST, 2 * self._after)

    def _try(self) -> None:
        self._due = None
        self._call()

    def cancel(self) -> None:
        """Do not call."""
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def end(self) -> None:
        """Never call again."""
        self._ended = True
        self.cancel()

    def went_well(self) -> None:
        """The next time it is soon again."""
        self._after = SPACE_RETRY
