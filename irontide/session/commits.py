"""
Makes progress durable, in the one safe order: the data is written, then synced, and only then are the bits
committed that speak of it.  (Bits first is how crash images come to claim pieces that are not there.)

What many torrents did within a second goes into one transaction.  Each torrent is synced on its own, so
that a slow disk holds up its own torrents only.
"""

from __future__ import annotations

from collections.abc import Callable
from sqlite3 import DatabaseError, OperationalError
from typing import Protocol

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from irontide.errors import StoreError
from irontide.interfaces import IStore
from irontide.values import Progress

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

    def __init__(
        self,
        store: IStore,
        clock: IReactorTime,
        changed: Callable[[], None] = lambda: None,
        broken: Callable[[Failure], None] = lambda failure: None,
    ) -> None:
        """
        :param changed: is told when ``degraded`` is another.
        :param broken: is told what a commit failed with, if it is not that the store refused.
        """
        self.degraded: str | None = None
        self._store = store
        self._clock = clock
        self._changed = changed
        self._broken = broken
        self._noted: dict[Committed, int] = {}
        self._waiting_bytes = 0
        self._syncing: dict[Committed, Deferred[None]] = {}
        self._syncing_bytes = 0
        self._ready: dict[bytes, Progress] = {}
        self._ready_bytes = 0
        self._waiting: list[Deferred[None]] = []
        self._committing: Deferred[None] | None = None
        self._due: IDelayedCall | None = None
        self._retry: IDelayedCall | None = None
        self._retry_after = RETRY_FIRST
        self._failing_since = 0.0
        self._dropped: set[bytes] = set()
        self._stopped = False

    async def _progress(self, infohash: bytes) -> Progress | None:
        committed = await self._store.progress(infohash)
        newer = self._ready.get(infohash)
        return committed if newer is None else merged(committed, newer)

    def progress(self, infohash: bytes) -> Deferred[Progress | None]:
        """The last that was committed, or is to be as soon as the store takes it."""
        return Deferred.fromCoroutine(self._progress(infohash))

    # --- from a note to a snapshot that is synced --------------------------------------------------------

    def note(self, torrent: Committed, written: int) -> None:
        """``torrent`` has ``written`` more bytes to commit."""
        self._noted[torrent] = self._noted.get(torrent, 0) + written
        if self._stopped:
            return
        if torrent not in self._syncing:
            self._waiting_bytes += written
        if self._waiting_bytes >= MAX_UNCOMMITTED:
            self._begin_all()
        self._begin_soon()

    def _begin_soon(self) -> None:
        if self._due is None and self._noted and not self._stopped:
            self._due = self._clock.callLater(DELAY, self._is_due)

    def _is_due(self) -> None:
        self._due = None
        self._begin_all()
        self._begin_soon()

    def _begin_all(self) -> None:
        """Begin for all but those whose disk is busy with the last time."""
        self._waiting_bytes = 0
        for torrent in [torrent for torrent in self._noted if torrent not in self._syncing]:
            self._begin(torrent)

    def _begin(self, torrent: Committed) -> None:
        """Take a snapshot, sync, have it ready."""
        written = self._noted.pop(torrent)
        ended: Deferred[None] = Deferred()
        self._syncing[torrent] = ended
        self._syncing_bytes += written
        snapshot = torrent.snapshot()

        def synced(result: object) -> None:
            del self._syncing[torrent]
            self._syncing_bytes -= written
            if isinstance(result, Failure):
                torrent.sync_failed(result)
            else:
                self._make_ready(snapshot)
                self._ready_bytes += written
                if self.degraded is None:
                    self._flush()
            ended.callback(None)

        torrent.sync().addBoth(synced)

    def forget(self, torrent: Committed) -> Deferred[None]:
        """Begin nothing new for ``torrent``; fires when no sync of it is under way."""
        self._noted.pop(torrent, None)
        syncing = self._syncing.get(torrent)
        return succeed(None) if syncing is None else _also(syncing)

    def drop(self, infohash: bytes) -> None:
        """The torrent is removed: commit nothing more of it."""
        self._ready.pop(infohash, None)
        if self._committing is not None:
            self._dropped.add(infohash)

    # --- from there to the store -------------------------------------------------------------------------

    def commit(self, progress: Progress) -> Deferred[None]:
        """
        Commit now; the data must be synced already.

        Fails with StoreError if the store refuses, which does not undo it: it is tried again later.
        """
        done: Deferred[None] = Deferred()
        self._make_ready(progress)
        self._waiting.append(done)
        self._flush()
        return done

    def _make_ready(self, progress: Progress) -> None:
        self._ready[progress.infohash] = merged(self._ready.get(progress.infohash), progress)

    def _flush(self) -> None:
        if self._committing is not None or not (self._ready or self._waiting):
            return
        ready, self._ready = self._ready, {}
        waiting, self._waiting = self._waiting, []
        sent, self._ready_bytes = self._ready_bytes, 0
        self._committing = self._store.commit(list(ready.values()))
        self._committing.addBoth(self._committed, ready, waiting, sent)

    def _committed(
        self, result: object, ready: dict[bytes, Progress], waiting: list[Deferred[None]], sent: int
    ) -> None:
        self._committing = None
        if isinstance(result, Failure):
            self._refused(result, ready, sent)
        else:
            self._accepted()
        self._dropped.clear()
        for done in waiting:
            if isinstance(result, Failure):
                done.errback(Failure(StoreError(str(result.value))))
            else:
                done.callback(None)
        if self._waiting or (self._ready and self.degraded is None):
            self._flush()

    def _accepted(self) -> None:
        self._cancel_retry()
        self._retry_after = RETRY_FIRST
        if self.degraded is not None:
            self.degraded = None
            self._log.info("the store takes commits again")
            self._changed()

    def _refused(self, failure: Failure, ready: dict[bytes, Progress], sent: int) -> None:
        """What was not committed is committed later, or fetched again after a crash: only time is lost."""
        for infohash, progress in ready.items():
            if infohash in self._dropped:
                continue
            newer = self._ready.get(infohash)
            self._ready[infohash] = progress if newer is None else merged(progress, newer)
        self._ready_bytes += sent
        known = self.degraded
        if known is None:
            self._log.error("the store refuses, trying again: {reason}", reason=failure.value)
            self._failing_since = self._clock.seconds()
        self.degraded = str(failure.value)
        if self._retry is None and not self._stopped:
            self._retry = self._clock.callLater(self._retry_after, self._try_again)
            self._retry_after = min(RETRY_LAST, self._retry_after * 2)
        if known != self.degraded:
            self._changed()
        if failure.check(StoreError) is None or _is_corrupt(failure.value):
            self._broken(failure)

    def _try_again(self) -> None:
        self._retry = None
        self._flush()

    def may_request(self) -> bool:
        """False once too much is uncommitted, or for too long, because the store refuses."""
        if self.degraded is None:
            return True
        uncommitted = self._ready_bytes + self._syncing_bytes + sum(self._noted.values())
        return uncommitted < HOLD_BYTES and self._clock.seconds() - self._failing_since < HOLD_SECONDS

    # --- the end -----------------------------------------------------------------------------------------

    def stop(self) -> Deferred[None]:
        """Commit what is ready, begin nothing more; fires when nothing is under way, committed or not."""
        self._stopped = True
        self._cancel_retry()
        if self._due is not None:
            self._due.cancel()
            self._due = None
        self._flush()
        if self._committing is None:
            return succeed(None)
        return _also(self._committing).addCallback(lambda _: self._rest())

    def _rest(self) -> Deferred[None] | None:
        """What became ready during the last commit."""
        more = self._committing is not None or (self._ready and self.degraded is None)
        return self.stop() if more else None

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None


def merged(old: Progress | None, new: Progress) -> Progress:
    """What a store has of both, committed one after the other."""
    if old is None:
        return new
    at_rest = new.stats.keys() - new.dirty
    dirty = (old.dirty - at_rest) | new.dirty
    stats = {file: stat for file, stat in {**old.stats, **new.stats}.items() if file not in dirty}
    return evolve(new, stats=stats, dirty=dirty)


def _is_corrupt(error: BaseException | None) -> bool:
    """Whether the database is damaged, other than merely full or on a disk that fails just now."""
    cause = None if error is None else error.__cause__
    return isinstance(cause, DatabaseError) and not isinstance(cause, OperationalError)


def _also(deferred: Deferred[None]) -> Deferred[None]:
    """Another Deferred that fires when ``deferred`` does, whatever becomes of it."""
    other: Deferred[None] = Deferred()

    def pass_on(result: object) -> object:
        other.callback(None)
        return result

    deferred.addBoth(pass_on)
    return other
