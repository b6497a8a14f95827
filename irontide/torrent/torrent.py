"""
One torrent, whatever its phase.

========  =======================  ==========================================
phase     leads to                 when
========  =======================  ==========================================
Checking  Running                  everything doubtful is hashed
Checking  Stopped(None)            the user paused it, or the session stops
Checking  Stopped(error)           the disk refused
Running   Stopped(None)            the user paused it, or the session stops
Running   Stopped(error)           the disk refused
Running   Checking                 the user wants a recheck
Stopped   Checking                 the user resumes it; or there is space again
========  =======================  ==========================================

Exactly one phase is in force, and one change of phase is under way at a time: what is asked for meanwhile
waits for it.  Only a check does not last as long as it likes: whatever is to end it ends it at once.

What is there, and durable, is in the ``ledger``; what the user wants, in ``wishes``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import partial

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from irontide.errors import Closed, StorageError, StoreError
from irontide.metainfo.bitfield import Bitfield
from irontide.metainfo.torrent_file import TorrentFile
from irontide.storage.file_storage import FileStorage
from irontide.swarm.peerbook import PeerBook
from irontide.torrent import resume
from irontide.torrent.checking import Checking
from irontide.torrent.ledger import Ledger, NotKept
from irontide.torrent.options import TorrentOptions
from irontide.torrent.retry import Retry
from irontide.torrent.running import Running
from irontide.torrent.shared import Notice, Shared
from irontide.torrent.status import TorrentStatus, status_of
from irontide.torrent.stopped import Stopped
from irontide.torrent.turns import Change, Turns
from irontide.torrent.waiting import Waiting
from irontide.torrent.wishes import Wishes
from irontide.values import PeerAddress, Progress

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Torrent:
    """A torrent of a session."""

    _log = Logger()

    def __init__(
        self,
        torrent_file: TorrentFile,
        save_path: str,
        options: TorrentOptions,
        shared: Shared,
        *,
        added: float,
    ) -> None:
        """:param added: seconds since 1970."""
        self.added = added
        self.info = torrent_file.info
        self.infohash = self.info.infohash
        self.name = self.info.name
        self.phase: Checking | Running | Stopped = Stopped()
        self.wishes = Wishes(save_path, options, partial(shared.keep, self))
        self.ledger = Ledger(self.info, shared.commits, shared.boot_id, self.storage_failed)
        self._torrent_file = torrent_file
        self._shared = shared
        self._turns = Turns()
        self._closed = False
        self._checked = False
        self._completing = False
        self._failing = False
        self._book = PeerBook()
        self._when_complete = Waiting()
        self._when_checked = Waiting()
        self._retry = Retry(shared.clock, self._try_again)

    # --- asking ------------------------------------------------------------------------------------------

    @property
    def metainfo(self) -> bytes:
        """The bytes of the .torrent file."""
        return self._torrent_file.raw

    @property
    def save_path(self) -> str:
        """The directory below which the files are."""
        return self.wishes.save_path

    @property
    def options(self) -> TorrentOptions:
        """What the user wants."""
        return self.wishes.options

    @property
    def have(self) -> Bitfield:
        """The pieces that are there."""
        return self.ledger.have

    @property
    def kept(self) -> bool:
        """Whether everything that came is synced and committed; told after ``stop``."""
        return self.ledger.kept

    @property
    def complete(self) -> bool:
        """Whether all wanted pieces are there."""
        if isinstance(self.phase, Running):
            return not self.phase.picker.left
        return resume.has_all(self.info, self.have, self.options.wanted(self.info))

    def status(self) -> TorrentStatus:
        """How things stand now."""
        return status_of(
            self.info,
            self.phase,
            self.have,
            self.options.wanted(self.info),
            downloaded=self.ledger.downloaded,
            uploaded=self.ledger.uploaded,
            complete=self.complete,
            now=self._shared.clock.seconds(),
        )

    def when_complete(self) -> Deferred[None]:
        """Fires once all wanted pieces are there and synced; fails with what stops the torrent, or Closed."""
        if isinstance(self.phase, Running) and self.complete and not self._completing:
            return succeed(None)
        return self._unless_stopped(self._when_complete)

    def when_checked(self) -> Deferred[None]:
        """Fires once it is known what is there; fails with what prevents that, or Closed."""
        return succeed(None) if self._checked else self._unless_stopped(self._when_checked)

    def _unless_stopped(self, waiting: Waiting) -> Deferred[None]:
        if self._closed:
            return fail(Closed(f"{self.name} is gone"))
        if isinstance(self.phase, Stopped) and self.phase.error is not None:
            return fail(self.phase.error)
        return waiting.wait()

    def accept(self, address: PeerAddress) -> IProtocol | None:
        """The protocol for a peer that asked for this torrent; None to refuse it."""
        return self.phase.accept(address) if isinstance(self.phase, Running) else None

    def add_peers(self, addresses: Sequence[PeerAddress]) -> None:
        """Addresses to try; forgotten unless the torrent runs."""
        if isinstance(self.phase, Running):
            self.phase.add_peers(addresses)

    # --- changing phase ----------------------------------------------------------------------------------

    def in_turn(self, change: Change) -> Deferred[None]:
        """Run ``change`` when no other change and no change of phase is under way."""
        return self._turns.run(change)

    def _soon(self, change: Change) -> Deferred[None]:
        """As ``in_turn``, but no check is waited for: not one that runs, nor one that is in line before."""
        if isinstance(self.phase, Checking):
            self.phase.cancel()
        return self._turns.run_soon(change)

    def start(self, progress: Progress | None) -> Deferred[None]:
        """Check what is there, then run (unless the user paused it); fires when that is decided."""
        if progress is not None:
            self.ledger.transferred_before(progress)
        return self.in_turn(partial(self._bring_up, progress))

    def stop(self, reason: str = "stopped") -> Deferred[None]:
        """Stop and make all progress durable; fires when the files are closed."""
        return self._soon(partial(self._bring_down, Stopped(), reason))

    def close(self, reason: str) -> Deferred[None]:
        """Stop for good; fires when the files are closed.  Whoever waits for anything is told Closed."""
        self._closed = True
        self._retry.end()
        for waiting in (self._when_checked, self._when_complete):
            waiting.fail(Closed(f"{self.name}: {reason}"))
        return self.stop(reason)

    def pause(self) -> Deferred[None]:
        """Stop, and stay so over restarts; fails with StoreError if that cannot be kept, and goes on."""
        return self._wish(True, partial(self.stop, "paused"))

    def resume(self) -> Deferred[None]:
        """Go on after a pause or an error."""
        self._retry.went_well()
        return self._wish(False, lambda: self.in_turn(self._go_on))

    def recheck(self) -> Deferred[None]:
        """Believe nothing and hash everything; fires when that is done."""

        async def again() -> None:
            await self._bring_down(Stopped(), "recheck")
            await self._bring_up(None)

        return self._soon(again)

    async def _go_on(self) -> None:
        if isinstance(self.phase, Stopped) and not self.options.paused:
            await self._bring_up(await self._shared.commits.progress(self.infohash))

    async def _bring_up(self, progress: Progress | None) -> None:
        self._retry.cancel()
        if self._closed or not isinstance(self.phase, Stopped):
            return
        self._failing = self._checked = self.ledger.doubted = False
        storage = self.ledger.storage = self._shared.storage(self.info, self.save_path, self.options)
        stopped = Stopped()
        try:
            await self._check(storage, progress)
            if not self.options.paused:
                await storage.prepare()
                await self.ledger.before_writing(storage, progress)
                self._run(storage)
                return
            await self.ledger.keep_check(storage, progress)
            self._now_checked()
        except CancelledError:
            pass
        except StorageError as error:
            stopped = Stopped(error)
        except Exception as error:
            self._log.failure("a bug: {name} cannot start", name=self.name)
            stopped = Stopped(StorageError(f"internal error: {error!r}"))
        await self.ledger.close_storage()
        self._stopped(stopped)

    async def _check(self, storage: FileStorage, progress: Progress | None) -> None:
        """Find out what is there."""
        if progress is not None and (any(progress.bits) or progress.masks) and await storage.missing_root():
            raise StorageError("storage missing", errno.ENOENT, self.save_path)
        plan = resume.plan(
            self.info,
            progress,
            await storage.stats(),
            boot_id=self._shared.boot_id,
            random=self._shared.random,
            wanted=self.options.wanted(self.info),
        )
        checking = Checking(self.info, storage, plan)
        self._enter(checking)
        if self._turns.hurry:
            checking.cancel()
        self.ledger.have = await checking.run()
        self.ledger.masks = checking.masks
        if plan.check or plan.samples:  # what was found may be in the cache only
            await self.ledger.sync()

    def _run(self, storage: FileStorage) -> None:
        ledger = self.ledger
        file, book, have, masks = self._torrent_file, self._book, ledger.have, ledger.masks
        running = Running(file, have, masks, storage, self.options, self._shared, self, book)
        ledger.runs(running)
        self._enter(running)
        running.start()
        self._now_checked()
        if not running.picker.left:
            self._when_complete.fire()

    async def _bring_down(self, then: Stopped, reason: str) -> None:
        """Close connections, write and sync what came, commit it, close the files."""
        self._retry.cancel()
        phase, storage = self.phase, self.ledger.storage
        if not isinstance(phase, Running) or storage is None:
            if then.error is None:
                self._enter(then)
            return
        await phase.stop(reason)
        for goodbye in phase.goodbye():
            goodbye.addErrback(lambda failure: self._log.failure("a goodbye failed", failure))
        failed = await self.ledger.keep_all(storage)
        self.ledger.rests()
        await self.ledger.close_storage()
        self._stopped(Stopped(then.error or failed))

    def _enter(self, phase: Checking | Running | Stopped) -> None:
        self.phase = phase
        self._shared.notice(self, Notice.PHASE)

    def _now_checked(self) -> None:
        self._checked = True
        self._when_checked.fire()
        self._shared.notice(self, Notice.CHECKED)

    def _stopped(self, phase: Stopped) -> None:
        self._completing = False
        self._enter(phase)
        if phase.error is None:
            return
        self._log.error("{name} stops: {error}", name=self.name, error=phase.error)
        self._when_checked.fail(phase.error)
        self._when_complete.fail(phase.error)
        if isinstance(phase.error, NotKept) or phase.error.errno in NO_SPACE:
            self._retry.later()

    def _try_again(self) -> None:
        self.in_turn(self._go_on).addErrback(self._still_not)

    def _still_not(self, failure: Failure) -> None:
        if failure.check(StoreError) is None:
            self._log.failure("{name} could not go on", failure, name=self.name)
        self._retry.later()

    # --- what Running tells ------------------------------------------------------------------------------

    def piece_done(self, index: int) -> None:
        """A piece is verified and written."""
        self._retry.went_well()
        self.ledger.note(self.info.layout.piece_size(index))

    def blocks_written(self, length: int) -> None:
        """So many bytes of an unfinished piece are written, or just the figures are others."""
        self.ledger.note(length)

    def pieces_failed(self) -> None:
        """Pieces came whose hash was wrong."""
        self._shared.notice(self, Notice.PIECES_FAILED)

    def download_complete(self) -> None:
        """All wanted pieces are there: sync, then say so."""
        self._completing = True
        done = self.in_turn(self.keep_complete)
        done.addErrback(lambda failure: self._log.failure("completing failed", failure))

    async def keep_complete(self) -> None:
        """If all wanted pieces are there, have them synced and committed, then say so; in turn only."""
        phase, storage = self.phase, self.ledger.storage
        self._completing = True
        try:
            done = storage is not None and isinstance(phase, Running) and not phase.picker.left
            if storage is not None and done and await self.ledger.keep_complete(storage):
                self._when_complete.fire()
                self._shared.notice(self, Notice.COMPLETE)
        finally:
            self._completing = False

    def storage_failed(self, failure: Failure) -> None:
        """The disk refused: stop, with what may be believed."""
        error = failure.value
        if not isinstance(error, StorageError):
            self._log.failure("a bug in the storage of {name}", failure, name=self.name)
            error = StorageError(f"internal error: {error}")
        if error.errno not in NO_SPACE:
            self.ledger.doubted = True
        if self._failing or not isinstance(self.phase, Running):
            return
        self._failing = True
        stopping = self._soon(partial(self._bring_down, Stopped(error), "storage failed"))
        stopping.addErrback(lambda failure: self._log.failure("stopping failed", failure))

    # --- what the user wants -----------------------------------------------------------------------------

    def _wish(self, paused: bool, then: Callable[[], Deferred[None]]) -> Deferred[None]:
        if self._closed:
            return fail(Closed(f"{self.name} is gone"))
        return self.wishes.paused(paused, then)

    # --- the files ---------------------------------------------------------------------------------------

    def files(self) -> FileStorage:
        """The files, also of a torrent that does not run."""
        if self.ledger.storage is not None:
            return self.ledger.storage
        return self._shared.storage(self.info, self.save_path, self.options)

    @property
    def opened(self) -> FileStorage | None:
        """The files, while they are open."""
        return self.ledger.storage

    def delete_files(self) -> Deferred[None]:
        """Remove the torrent's files; it must be stopped."""
        return self.in_turn(self._delete_files)

    async def _delete_files(self) -> None:
        storage = self.files()
        try:
            await storage.delete()
        finally:
            await storage.close()
