"""
Disks without threads, a system whose calls fail on demand, storages that are slow or fail, and torrents.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha1
from random import Random
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.errors import StorageError
from irontide.interfaces import IBuffer, IDisk, IPieceStorage
from irontide.metainfo.bencode import encode
from irontide.metainfo.info import Info
from irontide.storage.beneath import RelativePath
from irontide.storage.disk import run_job
from irontide.storage.system import System
from irontide.values import Chunk, Verdict

T = TypeVar("T")

KIB16 = 16384


def noise(length: int, seed: int = 0) -> bytes:
    """Bytes that look random and are the same each time."""
    return Random(seed).randbytes(length)


def make_info(files: Sequence[tuple[str, int]], data: bytes, piece_length: int = KIB16) -> Info:
    """
    The Info of a torrent called ``t`` with this content.

    :param files: path and length of each; a path that begins with ``.pad/`` is a pad file.
    """
    assert sum(length for _, length in files) == len(data)
    hashes = b"".join(sha1(data[at : at + piece_length]).digest() for at in range(0, len(data), piece_length))
    entries: list[dict[bytes, Any]] = []
    for path, length in files:
        entry: dict[bytes, Any] = {b"path": [part.encode() for part in path.split("/")], b"length": length}
        if path.startswith(".pad/"):
            entry[b"attr"] = b"p"
        entries.append(entry)
    values = {b"files": entries, b"name": b"t", b"piece length": piece_length, b"pieces": hashes}
    return Info.from_bytes(encode(values))


class FailingSystem(System):
    """
    The real system, but for calls that are to fail.

    :ivar failing: by the name of the method: which error, and how many calls go well before.
    :ivar calls: the names of the methods that were called, in order.
    """

    def __init__(self) -> None:
        self.failing: dict[str, tuple[int, int]] = {}
        self.calls: list[str] = []
        self.longest: dict[str, int] = {}

    def fail(self, name: str, number: int, after: int = 0) -> None:
        """Have all calls of ``name`` fail, but for the next ``after``."""
        self.failing[name] = (number, after)

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failing:
            number, after = self.failing[name]
            if after == 0:
                raise OSError(number, "on demand")
            self.failing[name] = (number, after - 1)

    def _at_most(self, name: str, views: Sequence[memoryview]) -> list[memoryview]:
        """What of ``views`` one call takes, if that is limited: a partial write or read."""
        limit = self.longest.get(name)
        return list(views) if limit is None else [views[0][:limit]]

    def open_root(self, path: str) -> int:
        self._called("open_root")
        return super().open_root(path)

    def open_file(self, root: int, path: RelativePath, flags: int) -> int:
        self._called("open_file")
        return super().open_file(root, path, flags)

    def preadv(self, fd: int, views: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        self._called("preadv_nowait" if flags else "preadv")
        return super().preadv(fd, self._at_most("preadv", views), offset, flags)

    def pwritev(self, fd: int, views: Sequence[memoryview], offset: int) -> int:
        self._called("pwritev")
        return super().pwritev(fd, self._at_most("pwritev", views), offset)

    def fdatasync(self, fd: int) -> None:
        self._called("fdatasync")
        super().fdatasync(fd)

    def sync_directory(self, root: int, path: RelativePath) -> None:
        self._called("sync_directory")
        super().sync_directory(root, path)

    def allocate(self, fd: int, length: int) -> None:
        self._called("allocate")
        super().allocate(fd, length)

    def rename(self, old_root: int, old: RelativePath, new_root: int, new: RelativePath) -> None:
        self._called("rename")
        super().rename(old_root, old, new_root, new)

    def unlink(self, root: int, path: RelativePath) -> None:
        self._called("unlink")
        super().unlink(root, path)


@implementer(IDisk)
class InlineDisk:
    """Runs every job before the call returns."""

    def call(self, device: int, work: Callable[[], T]) -> Deferred[T]:
        return _fired(run_job(work))

    def sync_call(self, device: int, work: Callable[[], T]) -> Deferred[T]:
        return _fired(run_job(work))


def _fired(result: Any) -> Deferred[Any]:
    deferred: Deferred[Any] = Deferred()
    if isinstance(result, Failure):
        deferred.errback(result)
    else:
        deferred.callback(result)
    return deferred


@implementer(IDisk)
class SlowDisk:
    """Runs jobs when turned by hand, in order."""

    def __init__(self) -> None:
        self.jobs: deque[tuple[Callable[[], Any], Deferred[Any]]] = deque()

    def call(self, device: int, work: Callable[[], T]) -> Deferred[T]:
        deferred: Deferred[T] = Deferred()
        self.jobs.append((work, deferred))
        return deferred

    sync_call = call

    @property
    def pending(self) -> int:
        return len(self.jobs)

    def turn(self, count: int = 1) -> None:
        """Run the ``count`` jobs that wait for longest."""
        for _ in range(count):
            work, deferred = self.jobs.popleft()
            _fired(run_job(work)).chainDeferred(deferred)

    def turn_all(self) -> None:
        """Run jobs until none waits."""
        while self.jobs:
            self.turn()


@implementer(IPieceStorage)
class SlowStorage:
    """Wraps a storage: what it answers is told when turned by hand, in order."""

    def __init__(self, storage: IPieceStorage) -> None:
        self._storage = storage
        self.answers: deque[tuple[Deferred[Any], Deferred[Any]]] = deque()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    @property
    def pending(self) -> int:
        return len(self.answers)

    def turn(self, count: int = 1) -> None:
        """Tell the ``count`` oldest answers."""
        for _ in range(count):
            answer, told = self.answers.popleft()
            answer.chainDeferred(told)

    def turn_all(self) -> None:
        """Tell answers until none is left."""
        while self.answers:
            self.turn()

    def _later(self, answer: Deferred[T]) -> Deferred[T]:
        told: Deferred[T] = Deferred()
        self.answers.append((answer, told))
        return told

    def write(self, piece: int, chunks: Sequence[Chunk], hasher: Any = None) -> Deferred[None]:
        return self._later(self._storage.write(piece, chunks, hasher))

    def verify_and_write(
        self,
        piece: int,
        chunks: Sequence[Chunk],
        *,
        hasher: Any = None,
        hashed: int = 0,
        digests: bool = False,
    ) -> Deferred[Verdict]:
        return self._later(
            self._storage.verify_and_write(piece, chunks, hasher=hasher, hashed=hashed, digests=digests)
        )

    def hash(self, piece: int) -> Deferred[bool]:
        return self._later(self._storage.hash(piece))

    def read(self, piece: int, begin: int, length: int) -> IBuffer | Deferred[IBuffer] | None:
        answer = self._storage.read(piece, begin, length)
        if answer is None:
            return None
        return self._later(answer if isinstance(answer, Deferred) else _fired(answer))

    def sync(self) -> Deferred[None]:
        return self._later(self._storage.sync())

    def close(self) -> Deferred[None]:
        return self._later(self._storage.close())


@implementer(IPieceStorage)
class FailingStorage:
    """
    Wraps a storage: the methods named in ``failing`` fail with its StorageError.

    :ivar failing: method names, with the error of each; may be changed at any time.
    """

    def __init__(self, storage: IPieceStorage, failing: dict[str, StorageError] | None = None) -> None:
        self._storage = storage
        self.failing = dict(failing or {})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def _or_fail(self, name: str, call: Callable[[], Any]) -> Any:
        return fail(self.failing[name]) if name in self.failing else call()

    def write(self, piece: int, chunks: Sequence[Chunk], hasher: Any = None) -> Deferred[None]:
        return self._or_fail("write", lambda: self._storage.write(piece, chunks, hasher))

    def verify_and_write(
        self,
        piece: int,
        chunks: Sequence[Chunk],
        *,
        hasher: Any = None,
        hashed: int = 0,
        digests: bool = False,
    ) -> Deferred[Verdict]:
        return self._or_fail(
            "verify_and_write",
            lambda: self._storage.verify_and_write(
                piece, chunks, hasher=hasher, hashed=hashed, digests=digests
            ),
        )

    def hash(self, piece: int) -> Deferred[bool]:
        return self._or_fail("hash", lambda: self._storage.hash(piece))

    def read(self, piece: int, begin: int, length: int) -> IBuffer | Deferred[IBuffer] | None:
        return self._or_fail("read", lambda: self._storage.read(piece, begin, length))

    def sync(self) -> Deferred[None]:
        return self._or_fail("sync", self._storage.sync)

    def close(self) -> Deferred[None]:
        return self._or_fail("close", self._storage.close)
