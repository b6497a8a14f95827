"""
Where pieces, blocks and files lie in the bytes of a torrent, and in each other.

The one place where indexes that strangers send are judged: what comes out of ``Layout.block`` and
``Layout.piece`` is right, and nobody asks again.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from attrs import frozen

from irontide.errors import ProtocolViolation
from irontide.metainfo.bitfield import Bitfield

BLOCK_LENGTH = 16384
"""The unit of requests: every block but the last of a piece has this length."""
MAX_REQUEST = 8 * BLOCK_LENGTH
"""The longest request that a peer may make."""


@frozen
class File:
    """
    A file of a torrent.

    :ivar path: safe to be created below a folder: sanitised, unique, at least one component.
    :ivar offset: where it begins in the bytes of the torrent.
    :ivar pad: no file on disk stands for it: zeros that align the next one, or a symbolic link, which is
        not made (BEP 47).
    :ivar attributes: letters of BEP 47, such as ``x`` for executable.
    """

    path: tuple[str, ...]
    length: int
    offset: int
    pad: bool = False
    attributes: str = ""


@frozen
class Block:
    """A part of a piece that exists: ``length`` bytes, at least one, from ``begin`` on."""

    piece: int
    begin: int
    length: int


@frozen
class Span:
    """A part of a file: ``length`` bytes, at least one, from ``offset`` on."""

    file: int
    offset: int
    length: int


class Layout:
    """
    The geometry of one torrent.

    :param total: the length of all files together, at least 1.
    :param files: in order and without gaps, as in ``Info``.
    :ivar pieces: how many pieces there are.
    """

    __slots__ = ("_ends", "_indexes", "_last", "_starts", "files", "piece_length", "pieces", "total")

    def __init__(self, total: int, piece_length: int, files: Sequence[File]) -> None:
        self.total = total
        self.piece_length = piece_length
        self.pieces = -(-total // piece_length)
        self.files = files
        self._last = total - (self.pieces - 1) * piece_length
        self._indexes = [index for index, file in enumerate(files) if file.length]
        self._starts = [files[index].offset for index in self._indexes]
        self._ends = [*self._starts[1:], total]

    def piece(self, index: int) -> int:
        """
        Return ``index`` if there is such a piece.

        :raises ProtocolViolation: there is none.
        """
        if not 0 <= index < self.pieces:
            raise ProtocolViolation(f"piece {index} of {self.pieces}")
        return index

    def piece_size(self, index: int) -> int:
        """Return the length of a piece; only that of the last may be less than ``piece_length``."""
        return self.piece_length if index < self.pieces - 1 else self._last

    def blocks_in(self, index: int) -> int:
        """Return how many blocks a piece has."""
        return -(-self.piece_size(index) // BLOCK_LENGTH)

    def block(self, piece: int, begin: int, length: int) -> Block:
        """
        Return the part of a piece that a peer asks for; it may be any, up to MAX_REQUEST.

        :raises ProtocolViolation: it does not exist, is empty or too long.
        """
        if not 0 <= piece < self.pieces:
            raise ProtocolViolation(f"piece {piece} of {self.pieces}")
        if not 0 < length <= MAX_REQUEST:
            raise ProtocolViolation(f"a block of {length} bytes")
        if not 0 <= begin <= self.piece_size(piece) - length:
            raise ProtocolViolation(
                f"bytes {begin} to {begin + length} of a piece of {self.piece_size(piece)}"
            )
        return Block(piece, begin, length)

    def bitfield(self, data: bytes) -> Bitfield:
        """
        Return the bitfield that a peer sent.

        :raises ProtocolViolation: it does not fit this torrent.
        """
        return Bitfield.from_bytes(data, self.pieces)

    def spans(self, piece: int, begin: int, length: int) -> Sequence[Span]:
        """
        Return the parts of files that a part of a piece consists of, in order.

        Files of length 0 never appear; pad files do, the caller asks ``files[span.file].pad``.
        """
        start = piece * self.piece_length + begin
        at = bisect_right(self._starts, start) - 1
        if start + length <= self._ends[at]:  # nearly always
            return (Span(self._indexes[at], start - self._starts[at], length),)
        spans = []
        while length > 0:
            part = min(length, self._ends[at] - start)
            spans.append(Span(self._indexes[at], start - self._starts[at], part))
            start += part
            length -= part
            at += 1
        return spans

    def pieces_of(self, file: int) -> range:
        """Return the pieces that have bytes of a file: none if it is empty."""
        start, length = self.files[file].offset, self.files[file].length
        first = start // self.piece_length
        return range(first, -(-(start + length) // self.piece_length) if length else first)

    def files_of(self, piece: int) -> range:
        """
        Return the files that have bytes in a piece.

        An empty file that lies between two of them is in the range too.
        """
        start = piece * self.piece_length
        first = bisect_right(self._starts, start) - 1
        behind = bisect_left(self._starts, start + self.piece_size(piece))
        return range(self._indexes[first], self._indexes[behind - 1] + 1)
