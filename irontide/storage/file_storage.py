"""
The bytes of one torrent in files: what the rest of irontide sees of ``storage``.

Everything that may wait for a disk is a job of ``IDisk`` on plain values; this module only says which job, and
which may run beside which (``gate``).  What the jobs do is in ``writes``, ``reads``, ``verify``, ``check``,
``wanted`` and ``move``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.errors import StorageError
from irontide.interfaces import Chunk, IBuffer, IDisk, IPieceStorage, Verdict
from irontide.metainfo.info import Info
from irontide.storage import reads, verify, writes
from irontide.storage.beneath import RelativePath
from irontide.storage.buffers import Buffer, BufferPool
from irontide.storage.files import OpenFiles
from irontide.storage.gate import Gate
from irontide.storage.places import Places

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
        return self._entered(
            self._gate.shared, lambda: self._disk.sync_call(self.device, partial(writes.sync, self._places))
        )

    def flush_dirty_files(self) -> Deferred[None]:
        """Another name of ``sync``."""
        return self.sync()

    def close(self) -> Deferred[None]:
        """See IPieceStorage."""
        return self._entered(
            self._gate.close,
            lambda: self._disk.call(self.device, partial(self._places.open_files.forget, self._places.tree)),
        )

    # --- jobs ---

    def _shared(self, job: Callable[[], T]) -> Deferred[T]:
        """Run a job that others may run beside."""
        return self._entered(self._gate.shared, partial(self._call, job))

    def _alone(self, job: Callable[[], T]) -> Deferred[T]:
        """Run a job that changes where bytes lie."""
        return self._entered(self._gate.exclusive, partial(self._call, job))

    def _call(self, job: Callable[[], T]) -> Deferred[T]:
        places = self._places
        if places.placed:
            return self._disk.call(places.device, job)

        def placed_first() -> T:
            places.ensure_placed()
            return job()

        return self._disk.call(places.device, placed_first)

    @staticmethod
    def _entered(
        enter: Callable[[Callable[[], Deferred[T]]], Deferred[T]], start: Callable[[], Deferred[T]]
    ) -> Deferred[T]:
        """
        Have the gate start an operation.

        The result is a Deferred of its own: cancelling it must not make the gate believe that the job is
        done, because nothing stops a worker.
        """
        result: Deferred[T] = Deferred()
        enter(start).chainDeferred(result)
        return result
