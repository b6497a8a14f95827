"""
Jobs that hash pieces, run in worker threads; hashing and reading release the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b, sha1
from typing import Any

from irontide.errors import StorageError
from irontide.metainfo.layout import BLOCK_LENGTH
from irontide.storage.places import Places, is_missing
from irontide.storage.reads import read_into
from irontide.storage.writes import write_chunks
from irontide.values import Chunk, Verdict

READ_LENGTH = 256 << 10
"""What is read at a time to be hashed: it stays in a core's cache."""
DIGEST_LENGTH = 8


def write_part(places: Places, piece: int, chunks: Sequence[Chunk], hasher: Any) -> None:
    """Write parts of a piece that cannot be judged yet."""
    if hasher is not None:
        for chunk in chunks:
            hasher.update(chunk.data)
    write_chunks(places, piece, chunks)


def verify_and_write(
    places: Places, piece: int, chunks: Sequence[Chunk], hasher: Any, hashed: int, digests: bool
) -> Verdict:
    """See ``IPieceStorage.verify_and_write``."""
    if len(chunks) > 1:
        chunks = sorted(chunks, key=_begin)
    size = places.layout.piece_size(piece)
    in_memory = _covers(chunks, size)
    if not in_memory:
        write_chunks(places, piece, chunks)
    if hasher is None:
        hasher, hashed = sha1(usedforsecurity=False), 0
    for data in _bytes_of(places, piece, chunks, hashed, size):
        hasher.update(data)
    passed = hasher.digest() == places.info.piece_hash(piece)
    if passed and in_memory:
        write_chunks(places, piece, chunks)
    if passed and not digests:
        return Verdict(True)
    return Verdict(passed, tuple(_digests(places, piece, chunks, size)))


def _begin(chunk: Chunk) -> int:
    return chunk.begin


def _covers(chunks: Sequence[Chunk], size: int) -> bool:
    """Tell whether ``chunks``, in order, leave nothing out."""
    end = 0
    for chunk in chunks:
        if chunk.begin > end:
            return False
        end = max(end, chunk.begin + len(chunk.data))
    return end >= size


def _bytes_of(
    places: Places, piece: int, chunks: Sequence[Chunk], start: int, end: int
) -> Iterator[memoryview]:
    """The bytes of a piece from ``start`` to ``end``: from memory if they are there, else from disk."""
    for chunk in chunks:
        if chunk.begin >= end:
            break
        if chunk.begin > start:
            yield from _from_disk(places, piece, start, chunk.begin)
            start = chunk.begin
        if chunk.begin + len(chunk.data) > start:
            yield chunk.data[start - chunk.begin : end - chunk.begin]
            start = min(end, chunk.begin + len(chunk.data))
    if start < end:
        yield from _from_disk(places, piece, start, end)


def _from_disk(places: Places, piece: int, start: int, end: int) -> Iterator[memoryview]:
    yield from read_through(places, piece, start, end, memoryview(bytearray(min(READ_LENGTH, end - start))))


def read_through(
    places: Places, piece: int, start: int, end: int, scratch: memoryview
) -> Iterator[memoryview]:
    """Read a part of a piece through ``scratch``; each view is valid until the next is asked for."""
    while start < end:
        view = scratch[: min(len(scratch), end - start)]
        read_into(places, piece, start, view)
        yield view
        start += len(view)


def _digests(places: Places, piece: int, chunks: Sequence[Chunk], size: int) -> Iterator[bytes]:
    """A short digest for each block: equal blocks have equal ones, and nobody finds two that collide."""
    for start in range(0, size, BLOCK_LENGTH):
        digest = blake2b(digest_size=DIGEST_LENGTH)
        for data in _bytes_of(places, piece, chunks, start, min(size, start + BLOCK_LENGTH)):
            digest.update(data)
        yield digest.digest()


def hash_piece(places: Places, piece: int, scratch: memoryview) -> bool:
    """Tell whether a piece on disk is right; what is missing is not; raises StorageError."""
    hasher = sha1(usedforsecurity=False)
    try:
        for data in read_through(places, piece, 0, places.layout.piece_size(piece), scratch):
            hasher.update(data)
    except StorageError as error:
        if is_missing(error):
            return False
        raise
    return hasher.digest() == places.info.piece_hash(piece)


def hash_one(places: Places, piece: int) -> bool:
    """``hash_piece`` with memory of its own."""
    size = min(READ_LENGTH, places.layout.piece_size(piece))
    return hash_piece(places, piece, memoryview(bytearray(size)))
