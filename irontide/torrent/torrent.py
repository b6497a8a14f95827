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
waits for it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, succeed
from twisted.internet.interfaces import IDelayedCall, IProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from irontide.errors import StorageError, StoreError
from irontide.interfaces import FileStat, PeerAddress, Progress
from irontide.metainfo.bitfield import Bitfield
from irontide.metainfo.torrent_file import TorrentFile
from irontide.storage.file_storage import FileStorage
from irontide.swarm.peerbook import PeerBook
from irontide.torrent import resume
from irontide.torrent.checking import Checking
from irontide.torrent.options import TorrentOptions
from irontide.torrent.running import Running
from irontide.torrent.shared import Shared
from irontide.torrent.status import TorrentStatus, status_of
from irontide.torrent.stopped import Stopped
from irontide.torrent.waiting import Waiting

SPACE_RETRY = 15.0
"""Seconds between two looks whether a full disk has space again."""
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
        self.save_path = save_path
        self.options = options
        self.phase: Checking | Running | Stopped = Stopped()
        self.have = Bitfield(self.info.layout.pieces)
        self._torrent_file = torrent_file
        self._shared = shared
        self._storage: FileStorage | None = None
        self._masks: dict[int, bytes] = {}
        self._dirty: frozenset[int] = frozenset()
        self._uploaded = self._downloaded = 0
        self._lock = DeferredLock()
        self._book = PeerBook()
        self._when_complete = Waiting()
        self._when_checked = Waiting()
        self._retry: IDelayedCall | None = None

    # --- asking ------------------------------------------------------------------------------------------

    @property
    def metainfo(self) -> bytes:
        """The bytes of the .torrent file."""
        return self._torrent_file.raw

    @property
    def complete(self) -> bool:
        """Whether all wanted pieces are there."""
        if isinstance(self.phase, Running):
            return not self.phase.picker.left
        return self.have.complete

    def status(self) -> TorrentStatus:
        """How things stand now."""
        return status_of(
            self.info,
            self.phase,
            self.have,
            self.options.wanted(self.info),
            downloaded=self.downloaded,
            uploaded=self.uploaded,
            complete=self.complete,
        )

    @property
    def downloaded(self) -> int:
        """Bytes of payload since the torrent was added."""
        phase = self.phase
        return self._downloaded + (phase.swarm.downloads.downloaded if isinstance(phase, Running) else 0)

    @property
    def uploaded(self) -> int:
        """Bytes of payload since the torrent was added."""
        phase = self.phase
        return self._uploaded + (phase.swarm.serving.uploaded if isinstance(phase, Running) else 0)

    def when_complete(self) -> Deferred[None]:
        """Fires once all wanted pieces are there and synced; fails with what stops the torrent."""
        if isinstance(self.phase, Running) and self.complete:
            return succeed(None)
        return self._when_complete.wait()

    def when_checked(self) -> Deferred[None]:
        """Fires once it is known what is there."""
        if isinstance(self.phase, Running):
            return succeed(None)
        return self._when_checked.wait()

    def accept(self, address: PeerAddress) -> IProtocol | None:
        """The protocol for a peer that asked for this torrent; None to refuse it."""
        return self.phase.accept(address) if isinstance(self.phase, Running) else None

    # --- changing phase ----------------------------------------------------------------------------------

    def start(self, progress: Progress | None) -> Deferred[None]:
        """Check what is there, then run (unless the user paused it); fires when that is decided."""
        if progress is not None:
            self._uploaded, self._downloaded = progress.uploaded, progress.downloaded
        return self._lock.run(lambda: Deferred.fromCoroutine(self._bring_up(progress)))

    def stop(self, reason: str = "stopped") -> Deferred[None]:
        """Stop and make all progress durable; fires when the files are closed."""
        self._cancel_retry()
        if isinstance(self.phase, Checking):
            self.phase.cancel()
        return self._lock.run(lambda: Deferred.fromCoroutine(self._bring_down(Stopped(), reason)))

    def pause(self) -> Deferred[None]:
        """Stop, and stay so over restarts."""
        return Deferred.fromCoroutine(self._pause())

    async def _pause(self) -> None:
        await self.keep(self.save_path, evolve(self.options, paused=True))
        await self.stop("paused")

    def resume(self) -> Deferred[None]:
        """Go on after a pause or an error."""
        self._cancel_retry()
        return self._lock.run(lambda: Deferred.fromCoroutine(self._resume()))

    def recheck(self) -> Deferred[None]:
        """Believe nothing and hash everything; fires when that is done."""
        if isinstance(self.phase, Checking):
            self.phase.cancel()

        async def again() -> None:
            await self._bring_down(Stopped(), "recheck")
            await self._bring_up(None)

        return self._lock.run(lambda: Deferred.fromCoroutine(again()))

    async def _resume(self) -> None:
        if self.options.paused:
            await self.keep(self.save_path, evolve(self.options, paused=False))
        if isinstance(self.phase, Stopped):
            await self._bring_up(await self._shared.commits.progress(self.infohash))

    async def _bring_up(self, progress: Progress | None) -> None:
        shared = self._shared
        self._storage = storage = shared.storage(self.info, self.save_path, self.options)
        try:
            if progress is not None and any(progress.bits) and await storage.missing_root():
                raise StorageError("storage missing", errno.ENOENT, self.save_path)
            plan = resume.plan(
                self.info, progress, await storage.stats(), boot_id=shared.boot_id, random=shared.random
            )
            self.phase = checking = Checking(self.info, storage, plan)
            self.have = await checking.run()
            self._masks = dict(plan.masks)
            if self.options.paused:
                await self._close_storage()
                self._stopped(Stopped())
                return
            await storage.prepare()
            await self._run(storage)
        except CancelledError:
            await self._close_storage()
            self._stopped(Stopped())
        except StorageError as error:
            await self._close_storage()
            self._stopped(Stopped(error))

    async def _run(self, storage: FileStorage) -> None:
        """Begin to run; what may be written to from now on is durable before the first write."""
        self._dirty = resume.dirty_files(self.info, self.have)
        stats = await storage.stats()
        try:
            await self._shared.commits.commit(self._progress(stats))
        except StoreError as error:
            raise StorageError(f"the store refused: {error}") from error
        self.phase = running = Running(
            self._torrent_file, self.have, self._masks, storage, self.options, self._shared, self, self._book
        )
        running.start()
        self._when_checked.fire()
        if not running.picker.left:
            self._when_complete.fire()

    async def _bring_down(self, then: Stopped, reason: str) -> None:
        """Close connections, write and sync what came, commit it, close the files."""
        phase, storage = self.phase, self._storage
        if isinstance(phase, Stopped):
            self.phase = phase if then.error is not None else then
            return
        if isinstance(phase, Running) and storage is not None:
            await phase.stop(reason)
            for goodbye in phase.goodbye():
                goodbye.addErrback(lambda failure: self._log.failure("a goodbye failed", failure))
            await self._shared.commits.forget(self)
            self._masks = phase.swarm.downloads.masks()
            self._uploaded, self._downloaded = self.uploaded, self.downloaded
            self.phase = then
            if then.error is None or then.error.errno in NO_SPACE:
                try:
                    await storage.sync()
                    self._dirty = frozenset()
                    await self._shared.commits.commit(self._progress(await storage.stats()))
                except (StorageError, StoreError) as error:
                    self._log.error(
                        "could not keep all progress of {name}: {error}", name=self.name, error=error
                    )
        await self._close_storage()
        self._stopped(then)

    async def _close_storage(self) -> None:
        storage, self._storage = self._storage, None
        if storage is not None:
            await storage.close()

    def _stopped(self, phase: Stopped) -> None:
        self.phase = phase
        if phase.error is None:
            return
        self._log.error("{name} stops: {error}", name=self.name, error=phase.error)
        self._when_checked.fail(phase.error)
        self._when_complete.fail(phase.error)
        if phase.error.errno in NO_SPACE:
            self._retry = self._shared.clock.callLater(SPACE_RETRY, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        if isinstance(self.phase, Stopped) and self.phase.error is not None:
            self.resume().addErrback(lambda failure: self._log.failure("could not resume", failure))

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    # --- progress ----------------------------------------------------------------------------------------

    def _progress(self, stats: dict[int, FileStat]) -> Progress:
        masks = self.phase.swarm.downloads.masks() if isinstance(self.phase, Running) else self._masks
        return Progress(
            infohash=self.infohash,
            bits=self.have.to_bytes(),
            masks=masks,
            stats={file: stat for file, stat in stats.items() if file not in self._dirty},
            dirty=self._dirty,
            boot_id=self._shared.boot_id,
            uploaded=self.uploaded,
            downloaded=self.downloaded,
        )

    def snapshot(self) -> Progress:
        """What may be committed once ``sync`` has fired; called before it."""
        return self._progress({})

    def sync(self) -> Deferred[None]:
        """Have all that was written so far on the disk itself."""
        return succeed(None) if self._storage is None else self._storage.sync()

    def sync_failed(self, failure: Failure) -> None:
        """Nothing since the last commit may be believed."""
        self.storage_failed(failure)

    # --- what Running tells ------------------------------------------------------------------------------

    def piece_done(self, index: int) -> None:
        """A piece is verified and written."""
        self._shared.commits.note(self, self.info.layout.piece_size(index))

    def download_complete(self) -> None:
        """All wanted pieces are there: sync, then say so."""
        done = self._lock.run(lambda: Deferred.fromCoroutine(self._completed()))
        done.addErrback(lambda failure: self._log.failure("completing failed", failure))

    async def _completed(self) -> None:
        storage = self._storage
        if storage is None or not isinstance(self.phase, Running):
            return
        try:
            await storage.sync()
            self._dirty = resume.dirty_files(self.info, self.have)
            await self._shared.commits.commit(self._progress(await storage.stats()))
        except StorageError as error:
            self.storage_failed(Failure(error))
            return
        except StoreError as error:
            self._log.error("{name}: not committed yet: {error}", name=self.name, error=error)
            self._shared.commits.note(self, 0)
        self._when_complete.fire()

    def storage_failed(self, failure: Failure) -> None:
        """The disk refused: stop, with what was committed before."""
        error = failure.value
        if not isinstance(error, StorageError):
            self._log.failure("a bug in the storage of {name}", failure, name=self.name)
            error = StorageError(f"internal error: {error}")
        stopping = self._lock.run(
            lambda: Deferred.fromCoroutine(self._bring_down(Stopped(error), "storage failed"))
        )
        stopping.addErrback(lambda failure: self._log.failure("stopping failed", failure))

    # --- for Changes -------------------------------------------------------------------------------------

    def in_turn(self, change: Callable[[], Coroutine[Any, Any, None]]) -> Deferred[None]:
        """Run ``change`` when no other change and no change of phase is under way."""
        return self._lock.run(lambda: Deferred.fromCoroutine(change()))

    async def keep(self, save_path: str, options: TorrentOptions) -> None:
        """Make another save path or other options durable, then put them in force."""
        await self._shared.keep(self, save_path, options)
        self.save_path, self.options = save_path, options

    def files(self) -> FileStorage:
        """The files, also of a torrent that does not run."""
        if self._storage is not None:
            return self._storage
        return self._shared.storage(self.info, self.save_path, self.options)

    @property
    def opened(self) -> FileStorage | None:
        """The files, while they are open."""
        return self._storage

    def add_peers(self, addresses: Sequence[PeerAddress]) -> None:
        """Addresses to try; forgotten unless the torrent runs."""
        if isinstance(self.phase, Running):
            self.phase.add_peers(addresses)

    async def delete_files(self) -> None:
        """Remove the torrent's files; it must be stopped."""
        storage = self.files()
        await storage.delete()
        await storage.close()
