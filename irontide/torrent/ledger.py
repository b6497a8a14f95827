"""
What is known of a torrent's bytes, and how that becomes durable.

Bits are committed only for data whose sync began after it was written, and ended well.  Once a sync has
failed, or a write with anything but a full disk, no later sync proves anything (the kernel forgets what it
could not write): everything since the last commit is *doubted*, and not had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import evolve
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from irontide.errors import StorageError, StoreError
from irontide.metainfo.bitfield import Bitfield
from irontide.metainfo.info import Info
from irontide.storage.file_storage import FileStorage
from irontide.torrent.resume import dirty_files
from irontide.torrent.running import Running
from irontide.torrent.shared import Commits
from irontide.values import FileStat, Progress


class NotKept(StorageError):
    """What has to be in the store before the first write is not, because the store refuses."""


class Ledger:
    """
    The progress of one torrent; what Commits asks for snapshots and syncs.

    :ivar have: the pieces that are there.
    :ivar masks: which blocks are there of unfinished pieces, while the torrent does not run.
    :ivar storage: the files, while they are open.
    :ivar doubted: whether nothing since the last commit may be believed.
    :ivar kept: whether everything that came is synced and committed.
    """

    _log = Logger()

    def __init__(
        self, info: Info, commits: Commits, boot_id: str, sync_failed: Callable[[Failure], None]
    ) -> None:
        """:param sync_failed: is told that the torrent has to stop."""
        self.infohash = info.infohash
        self.have = Bitfield(info.layout.pieces)
        self.masks: Mapping[int, bytes] = {}
        self.storage: FileStorage | None = None
        self.doubted = False
        self.kept = True
        self._info = info
        self._commits = commits
        self._boot_id = boot_id
        self._tell = sync_failed
        self._dirty: frozenset[int] = frozenset()
        self._running: Running | None = None
        self._uploaded = self._downloaded = 0

    # --- figures -----------------------------------------------------------------------------------------

    @property
    def downloaded(self) -> int:
        """Bytes of payload since the torrent was added."""
        return self._downloaded + (self._running.swarm.downloads.downloaded if self._running else 0)

    @property
    def uploaded(self) -> int:
        """Bytes of payload since the torrent was added."""
        return self._uploaded + (self._running.swarm.serving.uploaded if self._running else 0)

    def transferred_before(self, progress: Progress) -> None:
        """The totals of earlier sessions."""
        self._uploaded, self._downloaded = progress.uploaded, progress.downloaded

    def runs(self, running: Running) -> None:
        """From now on pieces come."""
        self._running = running
        self.kept = False

    def rests(self) -> None:
        """No more comes; what was counted stays."""
        running = self._running
        if running is not None:
            if not self.doubted:
                self.masks = running.swarm.downloads.masks()
            self._uploaded, self._downloaded = self.uploaded, self.downloaded
            self._running = None

    async def close_storage(self) -> None:
        """Close the files."""
        storage, self.storage = self.storage, None
        if storage is not None:
            try:
                await storage.close()
            except StorageError as error:
                self._log.error("{name}: files not closed: {error}", name=self._info.name, error=error)

    # --- for Commits -------------------------------------------------------------------------------------

    def snapshot(self) -> Progress:
        """What may be committed once a ``sync`` that begins now has fired."""
        return self._progress({}, self._dirty)

    def sync(self) -> Deferred[None]:
        """Have all that was written so far on the disk itself; fails for good once it failed."""
        if self.storage is None:
            return fail(StorageError("the files are closed"))
        return self.storage.sync().addCallback(self._still_believed)

    def _still_believed(self, _: None) -> None:
        if self.doubted:
            raise StorageError("not everything could be written")

    def sync_failed(self, failure: Failure) -> None:
        """Nothing since the last commit may be believed."""
        self.doubted = True
        self._tell(failure)

    def note(self, written: int) -> None:
        """There is more to commit: ``written`` bytes of verified pieces, or figures and masks."""
        if not self.doubted:
            self._commits.note(self, written)

    def _progress(self, stats: Mapping[int, FileStat], dirty: frozenset[int]) -> Progress:
        running = self._running
        return Progress(
            infohash=self.infohash,
            bits=self.have.to_bytes(),
            masks=self.masks if running is None else running.swarm.downloads.masks(),
            stats={file: stat for file, stat in stats.items() if file not in dirty},
            dirty=dirty,
            boot_id=self._boot_id,
            uploaded=self.uploaded,
            downloaded=self.downloaded,
        )

    # --- at the turns of a torrent's life ----------------------------------------------------------------

    async def before_writing(self, storage: FileStorage, progress: Progress | None) -> None:
        """
        Have it in the store which files may be written to from now on.

        :param progress: what the store has.
        :raises NotKept: the store refuses, and does not know enough yet.
        """
        self._dirty = dirty_files(self._info, self.have)
        stats = await storage.stats()
        try:
            await self._commits.commit(self._progress(stats, self._dirty))
        except StoreError as error:
            if not self._dirty <= (frozenset() if progress is None else progress.dirty):
                raise NotKept(f"the store refused: {error}") from error

    async def keep_check(self, storage: FileStorage, progress: Progress | None) -> None:
        """Have it in the store what was found, for a torrent that does not run now."""
        self._dirty = frozenset()
        now = self._progress(await storage.stats(), self._dirty)
        if progress is None or (now.bits, now.masks) != (progress.bits, progress.masks):
            try:
                await self._commits.commit(now)
            except StoreError as error:
                self._not_yet(error)

    async def keep_complete(self, storage: FileStorage) -> bool:
        """All that is wanted has come: sync and commit; files that are whole are at rest from now on."""
        await self._commits.forget(self)  # a sync that is under way speaks of less
        dirty = dirty_files(self._info, self.have)
        progress = self._progress({}, dirty)
        try:
            await self.sync()
            stats = await storage.stats()
        except StorageError:
            self.sync_failed(Failure())
            return False
        at_rest = {file: stat for file, stat in stats.items() if file not in dirty}
        try:
            await self._commits.commit(evolve(progress, stats=at_rest))
            self._dirty = dirty
        except StoreError as error:
            self._not_yet(error)
            self.note(0)
        return True

    async def keep_all(self, storage: FileStorage) -> StorageError | None:
        """Nothing more is written: sync and commit; return why that was not possible."""
        await self._commits.forget(self)
        failed: StorageError | None = None
        if not self.doubted:
            try:
                await self.sync()
                self._dirty = frozenset()
                await self._commits.commit(self._progress(await storage.stats(), self._dirty))
                self.kept = True
            except StoreError as error:
                self._not_yet(error)
            except StorageError as error:
                self.doubted = True
                failed = error
        if self.doubted:
            await self._believe_store()
        return failed

    async def _believe_store(self) -> None:
        """What came since the last commit may be lost: it is not had."""
        try:
            progress = await self._commits.progress(self.infohash)
        except StoreError:
            return
        nothing = Bitfield(self._info.layout.pieces)
        self.have = nothing if progress is None else self._info.layout.bitfield(progress.bits)

    def _not_yet(self, error: StoreError) -> None:
        self._log.error("{name}: not committed yet: {error}", name=self._info.name, error=error)
