"""
Makes progress durable, in the one safe order: the data is written, then synced, and only then are the bits
committed that speak of it.  (Bits first is how crash images come to claim pieces that are not there.)

What many torrents did within a second goes into one transaction.  Each torrent is synced on its own, so
that a slow disk holds up its own torrents only.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from irontide.errors import StoreError
from irontide.interfaces import IStore, Progress

DELAY = 1.0
"""Seconds from the first verified piece to the commit."""

MAX_UNCOMMITTED = 32 * 1024 * 1024
"""Bytes after which a commit does not wait for its time."""

RETRY_FIRST, RETRY_LAST = 1.0, 60.0
HOLD_BYTES = 1 << 30
HOLD_SECONDS = 600.0
"""While the store refuses: so much or so long uncommitted, and downloads stop asking for more."""


class Committed(Protocol):
    """A torrent, as seen from here."""

    infohash: bytes

    def snapshot(self) -> Progress:
        """What may be committed once a sync that begins now has ended."""

    def sync(self) -> Deferred[None]:
        """Have what was written so far on the disk itself."""

    def sync_failed(self, failure: Failure) -> None:
        """The sync failed: nothing of the snapshot may be believed."""


class Commits:
    """
    The group commits of a session.

    :ivar degraded: why the store refuses, while it does.
    """

    _log = Logger()

    def __init__(self, store: IStore, clock: IReactorTime) -> None:
        self.degraded: str | None = None
        self._store = store
        self._clock = clock
        self._noted: dict[Committed, int] = {}
        self._syncing: dict[Committed, Deferred[None]] = {}
        self._ready: dict[bytes, Progress] = {}
        self._waiting: list[tuple[bytes, Deferred[None]]] = []
        self._committing: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._retry = RETRY_FIRST
        self._uncommitted = 0
        self._failing_since: float | None = None

    def progress(self, infohash: bytes) -> Deferred[Progress | None]:
        """The last that was committed."""
        return self._store.progress(infohash)

    def note(self, torrent: Committed, written: int) -> None:
        """``torrent`` has ``written`` more bytes to commit."""
        self._noted[torrent] = self._noted.get(torrent, 0) + written
        self._uncommitted += written
        if self._timer is None:
            self._timer = self._clock.callLater(DELAY, self._due)
        if self._noted[torrent] >= MAX_UNCOMMITTED and self.degraded is None:
            self._begin(torrent)

    def _due(self) -> None:
        self._timer = None
        for torrent in list(self._noted):
            self._begin(torrent)
        if self._ready:
            self._flush()

    def _begin(self, torrent: Committed) -> None:
        """Take a snapshot, sync, have it ready; a torrent that is syncing waits for the next time."""
        if torrent in self._syncing:
            if self._timer is None:
                self._timer = self._clock.callLater(DELAY, self._due)
            return
        del self._noted[torrent]
        ended: Deferred[None] = Deferred()
        self._syncing[torrent] = ended
        snapshot = torrent.snapshot()

        def synced(result: object) -> None:
            del self._syncing[torrent]
            if isinstance(result, Failure):
                torrent.sync_failed(result)
            else:
                self._ready[snapshot.infohash] = snapshot
                self._flush()
            ended.callback(None)

        torrent.sync().addBoth(synced)

    def commit(self, progress: Progress) -> Deferred[None]:
        """Commit now; fails with StoreError if the store refuses this time (it is tried again later)."""
        done: Deferred[None] = Deferred()
        self._ready[progress.infohash] = progress
        self._waiting.append((progress.infohash, done))
        self._flush()
        return done

    def _flush(self) -> None:
        if self._committing is not None or not self._ready:
            return
        ready, self._ready = self._ready, {}
        waiting, self._waiting = self._waiting, []
        uncommitted = self._uncommitted
        self._committing = self._store.commit(list(ready.values()))
        self._committing.addBoth(self._committed, ready, waiting, uncommitted)

    def _committed(
        self,
        result: object,
        ready: dict[bytes, Progress],
        waiting: list[tuple[bytes, Deferred[None]]],
        uncommitted: int,
    ) -> None:
        self._committing = None
        if isinstance(result, Failure):
            self._refused(result, ready)
        else:
            self._uncommitted = max(0, self._uncommitted - uncommitted)
            self._accepted()
        for _, done in waiting:
            if isinstance(result, Failure):
                done.errback(Failure(StoreError(str(result.value))))
            else:
                done.callback(None)
        if self.degraded is None:
            self._flush()

    def _accepted(self) -> None:
        if self.degraded is not None:
            self._log.info("the store takes commits again")
        self.degraded = None
        self._failing_since = None
        self._retry = RETRY_FIRST

    def _refused(self, failure: Failure, ready: dict[bytes, Progress]) -> None:
        """What was not committed is committed later, or fetched again after a crash: only time is lost."""
        for infohash, progress in ready.items():
            self._ready.setdefault(infohash, progress)
        if self.degraded is None:
            self._log.error("the store refuses, trying again: {reason}", reason=failure.value)
            self._failing_since = self._clock.seconds()
        self.degraded = str(failure.value)
        if self._timer is None:
            self._timer = self._clock.callLater(self._retry, self._due)
            self._retry = min(RETRY_LAST, self._retry * 2)

    def may_request(self) -> bool:
        """False once too much is uncommitted, or for too long, because the store refuses."""
        if self._failing_since is None:
            return True
        return self._uncommitted < HOLD_BYTES and self._clock.seconds() - self._failing_since < HOLD_SECONDS

    def forget(self, torrent: Committed) -> Deferred[None]:
        """Begin nothing new for ``torrent``; fires when no sync of it is under way."""
        self._noted.pop(torrent, None)
        syncing = self._syncing.get(torrent)
        if syncing is None:
            return succeed(None)
        return _also(syncing)

    def drop(self, infohash: bytes) -> None:
        """The torrent is removed: commit nothing more of it."""
        self._ready.pop(infohash, None)

    def stop(self) -> Deferred[None]:
        """Commit what is ready; fires when nothing is under way, committed or not."""
        self._stop_timer()
        self._flush()
        if self._committing is None:
            return succeed(None)
        return _also(self._committing).addBoth(self._stopped)

    def _stopped(self, _: object) -> Deferred[None] | None:
        self._stop_timer()
        if self._committing is not None or (self._ready and self.degraded is None):
            return self.stop()
        return None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _also(deferred: Deferred[None]) -> Deferred[None]:
    """Another Deferred that fires when ``deferred`` does, whatever becomes of it."""
    other: Deferred[None] = Deferred()

    def pass_on(result: object) -> object:
        other.callback(None)
        return result

    deferred.addBoth(pass_on)
    return other
