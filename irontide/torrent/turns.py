"""One change of a torrent at a time, in the order in which they were asked for."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock

Change = Callable[[], Coroutine[Any, Any, None]]


class Turns:
    """Those who wait for their turn, and whether any of them will not wait for long."""

    def __init__(self) -> None:
        self._lock = DeferredLock()
        self._impatient: set[object] = set()

    @property
    def hurry(self) -> bool:
        """Whether somebody is in line who wants what runs, and what is in line before, to be short."""
        return bool(self._impatient)

    def run(self, change: Change) -> Deferred[None]:
        """Run ``change`` when its turn has come; fires when it is done."""
        return self._lock.run(lambda: Deferred.fromCoroutine(change()))

    def run_soon(self, change: Change) -> Deferred[None]:
        """As ``run``; ``hurry`` until the turn has come, or whoever asked has given up."""
        waits = object()
        self._impatient.add(waits)

        async def begin() -> None:
            self._impatient.discard(waits)
            await change()

        def ended(result: Any) -> Any:
            self._impatient.discard(waits)
            return result

        return self.run(begin).addBoth(ended)
