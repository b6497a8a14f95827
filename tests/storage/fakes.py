"""
Disks without threads, and storages that are slow or fail.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.errors import StorageError
from irontide.interfaces import Chunk, IBuffer, IDisk, IPieceStorage, Verdict
from irontide.storage.disk import run_job

T = TypeVar("T")


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
