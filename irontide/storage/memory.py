"""
The bytes of one torrent in memory: for tests and simulations, and the shortest statement of the contract.

Every Deferred has fired when it is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b, sha1
from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from irontide.interfaces import IBuffer, IPieceStorage
from irontide.metainfo.info import Info
from irontide.metainfo.layout import BLOCK_LENGTH
from irontide.storage.verify import DIGEST_LENGTH
from irontide.values import Chunk, FileStat, Verdict


@implementer(IBuffer)
class OwnBuffer:
    """Memory that belongs to no pool."""

    def __init__(self, data: bytes) -> None:
        self.view = memoryview(bytearray(data))
        self._released = False

    def release(self) -> None:
        """
        Say that nobody uses it any more.

        :raises RuntimeError: that was said already.
        """
        if self._released:
            raise RuntimeError("buffer released twice")
        self._released = True


class MemoryCheck:
    """
    A check that is over, as ``check.Check`` is in the end.

    :ivar done: has fired.
    """

    def __init__(self) -> None:
        self.done: Deferred[bool] = succeed(True)

    def cancel(self) -> None:
        """There is nothing to stop any more."""


@implementer(IPieceStorage)
class MemoryStorage:
    """
    A torrent in a bytearray.

    :ivar data: all bytes; pieces that were never written are zeros.
    :ivar syncs: how often ``sync`` was called.
    """

    def __init__(self, info: Info, data: bytes | None = None) -> None:
        self.info = info
        self.layout = info.layout
        self.data = bytearray(self.layout.total if data is None else data)
        if len(self.data) != self.layout.total:
            raise ValueError(f"{len(self.data)} bytes for a torrent of {self.layout.total}")
        self.root = ""
        self.device = 0
        self.syncs = 0

    def write(self, piece: int, chunks: Sequence[Chunk], hasher: Any = None) -> Deferred[None]:
        """See IPieceStorage."""
        for chunk in chunks:
            if hasher is not None:
                hasher.update(chunk.data)
            self._put(piece, chunk)
        return succeed(None)

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
        before = self._piece(piece)
        for chunk in chunks:
            self._put(piece, chunk)
        after = self._piece(piece)
        passed = sha1(after).digest() == self.info.piece_hash(piece)
        if not passed and sum(len(chunk.data) for chunk in chunks) == len(after):
            self._put(piece, Chunk(0, memoryview(before)))
        return succeed(Verdict(passed, _digests(after) if digests or not passed else ()))

    def hash(self, piece: int) -> Deferred[bool]:
        """See IPieceStorage."""
        return succeed(sha1(self._piece(piece)).digest() == self.info.piece_hash(piece))

    def read(self, piece: int, begin: int, length: int) -> IBuffer | Deferred[IBuffer] | None:
        """See IPieceStorage; always at once."""
        return OwnBuffer(self._piece(piece)[begin : begin + length])

    def when_room(self, wake: Callable[[], None]) -> None:
        """There is always room."""
        wake()

    def sync(self) -> Deferred[None]:
        """See IPieceStorage."""
        self.syncs += 1
        return succeed(None)

    def close(self) -> Deferred[None]:
        """See IPieceStorage."""
        return succeed(None)

    def prepare(self) -> Deferred[None]:
        """Nothing is to be prepared."""
        return succeed(None)

    def stats(self) -> Deferred[dict[int, FileStat]]:
        """There are no files."""
        return succeed({})

    def missing_root(self) -> Deferred[bool]:
        """Memory is never missing."""
        return succeed(False)

    def check(self, pieces: Iterable[int], found: Callable[[int, bool], None]) -> MemoryCheck:
        """Hash ``pieces``; done when it is returned."""
        for piece in pieces:
            found(piece, sha1(self._piece(piece)).digest() == self.info.piece_hash(piece))
        return MemoryCheck()

    def set_wanted(self, wanted: Sequence[bool]) -> Deferred[None]:
        """Memory keeps everything."""
        return succeed(None)

    def move(self, new_root: str, progress: Callable[[int, int], None] | None = None) -> Deferred[None]:
        """Note where the files would be."""
        self.root = new_root
        return succeed(None)

    def delete(self) -> Deferred[None]:
        """Forget all bytes."""
        self.data = bytearray(self.layout.total)
        return succeed(None)

    def _piece(self, piece: int) -> bytes:
        start = piece * self.layout.piece_length
        return bytes(self.data[start : start + self.layout.piece_size(piece)])

    def _put(self, piece: int, chunk: Chunk) -> None:
        start = piece * self.layout.piece_length + chunk.begin
        self.data[start : start + len(chunk.data)] = chunk.data


def _digests(data: bytes) -> tuple[bytes, ...]:
    blocks = (data[start : start + BLOCK_LENGTH] for start in range(0, len(data), BLOCK_LENGTH))
    return tuple(blake2b(block, digest_size=DIGEST_LENGTH).digest() for block in blocks)
