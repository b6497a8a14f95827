"""
The bytes of one torrent in files: what the rest of irontide sees of ``storage``.

Everything that may wait for a disk is a job of ``IDisk`` on plain values; this module only says which job it
is, and which may run beside which (``gate``).  What the jobs do: ``writes``, ``reads``, ``verify``,
``check``, ``wanted`` and ``move``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.errors import StorageError
from irontide.interfaces import IBuffer, IDisk, IPieceStorage
from irontide.metainfo.info import Info
from irontide.storage import move as move_jobs
from irontide.storage import reads, verify, writes
from irontide.storage import wanted as wanted_jobs
from irontide.storage.beneath import RelativePath
from irontide.storage.buffers import Buffer, BufferPool
from irontide.storage.check import Check
from irontide.storage.files import OpenFiles
from irontide.storage.gate import Gate
from irontide.storage.places import Places
from irontide.values import Chunk, FileStat, Verdict

T = TypeVar("T")
Preallocate = Literal["sparse", "full"]


@implementer(IPieceStorage)
class FileStorage:
    """
    The files of one torrent below ``root``.

    :ivar info: the torrent.
    """

    def __init__(
        self,
        info: Info,
        root: str,
        *,
        disk: IDisk,
        open_files: OpenFiles,
        upload_pool: BufferPool,
        wanted: Sequence[bool] | None = None,
        preallocate: Preallocate = "sparse",
        paths: Sequence[RelativePath] | None = None,
    ) -> None:
        """
        Nothing is touched on disk yet.

        :param root: the directory the user chose; may be, or be below, a symbolic link.
        :param wanted: for each file; those not wanted are not created.  Default: all are wanted.
        :param preallocate: ``sparse``: files grow as they are written; ``full``: ``prepare`` has all their
            space allocated.
        :param paths: where the files are, if some were renamed.
        """
        self.info = info
        self._places = Places(info, root, open_files, wanted, paths)
        self._disk = disk
        self._pool = upload_pool
        self._preallocate = preallocate
        self._gate = Gate()
        self._closed: Deferred[None] | None = None

    @property
    def root(self) -> str:
        """The directory below which the files are."""
        return self._places.tree.root

    @property
    def device(self) -> int:
        """``st_dev`` of the root; 0 until the first job has asked for it."""
        return self._places.device

    @property
    def paths(self) -> tuple[RelativePath, ...]:
        """Where each file is below the root, as renamed."""
        return tuple(self._places.paths)

    def path(self, file: int) -> str:
        """The full path of a file."""
        return self._places.full_path(self._places.paths[file])

    # --- IPieceStorage ---

    def write(self, piece: int, chunks: Sequence[Chunk], hasher: Any = None) -> Deferred[None]:
        """See IPieceStorage."""
        return self._shared(partial(verify.write_part, self._places, piece, chunks, hasher))

    def verify_and_write(
        self,
        piece: int,
        chunks: Sequence[Chunk],
        *,
        hasher: Any = None,
        hashed: int = 0,
        digests: bool = False,
    ) -> Deferred[Verdict]:
        """See IPieceStorage."""
        return self._shared(
            partial(verify.verify_and_write, self._places, piece, chunks, hasher, hashed, digests)
        )

    def hash(self, piece: int) -> Deferred[bool]:
        """See IPieceStorage."""
        return self._shared(partial(verify.hash_one, self._places, piece))

    def read(self, piece: int, begin: int, length: int) -> IBuffer | Deferred[IBuffer] | None:
        """See IPieceStorage."""
        buffer = self._pool.take(length)
        if buffer is None:
            return None
        places = self._places
        if self._gate.free and places.placed:
            try:
                if reads.read_at_once(places, piece, begin, buffer.view):
                    return buffer
            except StorageError:
                buffer.release()
                return fail(Failure())
        return self._read_in_worker(buffer, partial(reads.read_into, places, piece, begin, buffer.view))

    def _read_in_worker(self, buffer: Buffer, job: Callable[[], None]) -> Deferred[IBuffer]:
        result: Deferred[IBuffer] = Deferred()

        def done(_: None) -> None:
            if result.called:  # nobody waits for it any more
                buffer.release()
            else:
                result.callback(buffer)

        def failed(failure: Failure) -> None:
            buffer.release()
            if not result.called:
                result.errback(failure)

        self._shared(job).addCallbacks(done, failed)
        return result

    def when_room(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` once when the pool for uploads has room again."""
        self._pool.when_room(wake)

    def sync(self) -> Deferred[None]:
        """See IPieceStorage; also the directories of new files."""
        return _shielded(self._gate.shared(partial(self._call, partial(writes.sync, self._places), True)))

    def flush_dirty_files(self) -> Deferred[None]:
        """Another name of ``sync``."""
        return self.sync()

    def close(self) -> Deferred[None]:
        """See IPieceStorage; everything asked for after it fails with StorageError, but closing again."""
        places = self._places
        if self._closed is None:
            forget = partial(places.open_files.forget, places.tree)
            self._closed = self._gate.close(lambda: self._disk.call(places.device, forget))
        result: Deferred[None] = Deferred()

        def tell(outcome: Failure | None) -> Failure | None:
            result.callback(None) if outcome is None else result.errback(outcome)
            return None

        self._closed.addBoth(tell)
        return result

    # --- the files as such ---

    def prepare(self) -> Deferred[None]:
        """
        Make the root, the directories and the wanted empty files; allocate what is to be.

        What exists is left as it is, to be checked.  Needed once before the first write, because writing
        never makes the root: where a disk is not mounted nothing must be put in its place.
        """
        return self._alone(
            partial(wanted_jobs.prepare, self._places, self._preallocate == "full"), synced=True
        )

    def stats(self) -> Deferred[dict[int, FileStat]]:
        """Size and mtime of the files that exist, by index."""
        return self._shared(self._stat_all)

    def _stat_all(self) -> dict[int, FileStat]:
        places = self._places
        found = ((file, places.stat(file)) for file in places.files())
        return {file: FileStat(stat.st_size, stat.st_mtime_ns) for file, stat in found if stat is not None}

    def missing_root(self) -> Deferred[bool]:
        """
        Tell whether nothing of the torrent is there: neither a file of it nor its part file.

        True of a torrent that has pieces means that its disk is not mounted, rather than that somebody
        deleted each file.
        """
        return self._shared(lambda: not wanted_jobs.any_file_exists(self._places))

    def check(self, pieces: Iterable[int], found: Callable[[int, bool], None]) -> Check:
        """
        Hash ``pieces`` on disk, several at a time.

        :param found: is told of each piece, in the order in which they are done.
        """
        check = Check(self._places, self._shared, pieces, found)
        check.start()
        return check

    def set_wanted(self, wanted: Sequence[bool]) -> Deferred[None]:
        """
        Change which files are wanted.

        A file that becomes wanted is made of what the part file has of it; one that is no longer wanted
        stays if it exists.
        """
        job = partial(wanted_jobs.set_wanted, self._places, list(wanted), self._preallocate == "full")
        return self._alone(job, synced=True)

    def move(self, new_root: str, progress: Callable[[int, int], None] | None = None) -> Deferred[None]:
        """
        Have the files below ``new_root``; if that fails, everything is where it was.

        :param progress: told now and then how many bytes of how many are moved.
        """
        move = move_jobs.Move(self._places, new_root)
        return _shielded(self._gate.exclusive(lambda: Deferred.fromCoroutine(self._move(move, progress))))

    async def _move(self, move: move_jobs.Move, progress: Callable[[int, int], None] | None) -> None:
        try:
            device = await self._call(move.begin)
            while await self._call(move.step):
                if progress is not None:
                    progress(move.moved, move.total)
            await self._disk.sync_call(device, move.sync)
        except Exception as error:
            await self._call(partial(move.undo, error))
            raise
        await self._call(move.settle)
        if progress is not None:
            progress(move.total, move.total)

    def rename(self, file: int, new_path: RelativePath) -> Deferred[None]:
        """Give a file another path below the root; if that fails, everything is as it was."""
        return self._alone(partial(move_jobs.rename_file, self._places, file, new_path), synced=True)

    def delete(self) -> Deferred[None]:
        """Remove the torrent's own files, and directories that are empty then."""
        return self._alone(partial(move_jobs.delete, self._places))

    # --- jobs ---

    def _shared(self, job: Callable[[], T]) -> Deferred[T]:
        """Run a job that others may run beside."""
        return _shielded(self._gate.shared(partial(self._call, job)))

    def _alone(self, job: Callable[[], T], *, synced: bool = False) -> Deferred[T]:
        """
        Run a job that changes where bytes lie.

        :param synced: it waits for the medium and runs in the thread for that.
        """
        return _shielded(self._gate.exclusive(partial(self._call, job, synced)))

    def _call(self, job: Callable[[], T], synced: bool = False) -> Deferred[T]:
        places = self._places
        if not places.placed:
            return self._disk.call(places.device, places.ensure_placed).addCallback(
                lambda _: self._run(job, synced)
            )
        return self._run(job, synced)

    def _run(self, job: Callable[[], T], synced: bool) -> Deferred[T]:
        run = self._disk.sync_call if synced else self._disk.call
        return run(self._places.device, job)


def _shielded(operation: Deferred[T]) -> Deferred[T]:
    """
    A Deferred of the caller's own for what ``operation`` brings.

    Cancelling it must not make the gate believe that the job is done: nothing stops a worker.
    """
    result: Deferred[T] = Deferred()
    operation.chainDeferred(result)
    return result
