"""
The pieces that are being downloaded: which blocks are asked for, which have come, and where their bytes lie.

A block's memory is reserved when it is *requested*, so what arrives always has a place and a reader never
waits.  Each block is copied once, from the received bytes into the piece's pooled buffer.  A piece larger
than a segment of the pool takes its segments one by one, and gives each back as soon as it is full and
written: so a piece larger than the whole pool can be downloaded.

Who writes where: a block has one claim at a time.  A second peer that sends the same block (end game) gets
a scratch buffer of its own; whoever completes first wins, and the other's claim is revoked.  So nobody
writes to a buffer that a worker reads, or that is back in the pool.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from irontide.interfaces import IBuffer
from irontide.metainfo.layout import BLOCK_LENGTH, Layout
from irontide.values import Chunk

SEGMENT_LENGTH = 1 << 20
SEGMENT_BLOCKS = SEGMENT_LENGTH // BLOCK_LENGTH

# How many peers may be asked for one block in the end game.
MAX_ASKERS = 4

MISSING, RECEIVED, WRITTEN = 0, 1, 2


class Claimant(Protocol):
    """What an open piece asks of a peer."""

    host: str
    """The remote address, which is what gets blamed."""

    def revoke_claim(self) -> None:
        """Throw away the rest of the block that is arriving just now."""

    def scratch(self, length: int) -> memoryview:
        """A buffer of the peer's own for one block."""


class Pool(Protocol):
    """Where segments come from."""

    def take(self, size: int) -> IBuffer | None:
        """A buffer of ``size`` bytes, or None while there is no room."""


class OpenPiece:
    """
    One piece that has been requested in part.

    :ivar index: the piece.
    :ivar whole: how many blocks, the first ones, are of full length.
    :ivar missing: how many blocks have not come.
    :ivar free: how many blocks neither came nor are asked of anybody.
    :ivar active: when the last block came (or the piece was opened).
    :ivar unsaved_since: when the oldest block came that is in memory only, and nobody writes.
    """

    __slots__ = (
        "active", "asked", "blocks", "claims", "contributors", "free", "hashed", "hasher", "index",
        "missing", "pending", "scratches", "segments", "size", "state", "unsaved_since", "whole", "worker",
        "writing",
    )  # fmt: skip

    def __init__(self, index: int, size: int, now: float, written: Sequence[int] = ()) -> None:
        self.index = index
        self.size = size
        self.blocks = -(-size // BLOCK_LENGTH)
        self.whole = size // BLOCK_LENGTH
        self.state = bytearray(self.blocks)
        self.asked = bytearray(self.blocks)
        self.segments: list[IBuffer | None] = [None] * -(-size // SEGMENT_LENGTH)
        self.contributors: list[str | None] = [None] * self.blocks
        self.claims: dict[int, Claimant] = {}
        self.scratches: dict[Claimant, int] = {}
        self.active = now
        self.writing = 0
        self.unsaved_since: float | None = None
        # Full segments that wait for their turn to be written, and who works on this piece.
        self.pending: list[int] = []
        self.worker: Claimant | None = None
        # A large piece is hashed while it comes, as far as its segments are full in order.
        self.hasher: object = None
        self.hashed = 0
        for block in written:
            self.state[block] = WRITTEN
        self.missing = self.free = self.blocks - len(written)

    def block_length(self, block: int) -> int:
        """Bytes of a block; only the last one of a piece may be short."""
        return BLOCK_LENGTH if block < self.whole else self.size - block * BLOCK_LENGTH

    # --- memory ----------------------------------------------------------------------------------------

    def reserve(self, block: int, pool: Pool) -> bool:
        """Have memory for ``block``; False if the pool has none."""
        segment = block // SEGMENT_BLOCKS
        if self.segments[segment] is not None:
            return True
        buffer = pool.take(min(SEGMENT_LENGTH, self.size - segment * SEGMENT_LENGTH))
        self.segments[segment] = buffer
        return buffer is not None

    def _view(self, block: int) -> memoryview:
        buffer = self.segments[block // SEGMENT_BLOCKS]
        assert buffer is not None
        start = block % SEGMENT_BLOCKS * BLOCK_LENGTH
        return buffer.view[start : start + self.block_length(block)]

    def full_segment(self, block: int) -> int | None:
        """The segment of ``block``, if nothing more can come for it."""
        segment = block // SEGMENT_BLOCKS
        return segment if self.state.find(MISSING, *self._range(segment)) < 0 else None

    def _range(self, segment: int) -> tuple[int, int]:
        """The blocks of a segment: the first, and the first that is not in it."""
        return segment * SEGMENT_BLOCKS, min((segment + 1) * SEGMENT_BLOCKS, self.blocks)

    def hashable(self, segment: int, blocks: Sequence[int]) -> bool:
        """Whether ``blocks`` of a segment go on where hashing stands: all of them, none spilled before."""
        first, end = self._range(segment)
        return self.hashed == segment * SEGMENT_LENGTH and len(blocks) == end - first

    def chunks(self, segments: Sequence[int] | None = None) -> list[Chunk]:
        """What is in memory, as few chunks as possible, in order."""
        found: list[Chunk] = []
        for segment in range(len(self.segments)) if segments is None else segments:
            buffer = self.segments[segment]
            if buffer is None:
                continue
            base = segment * SEGMENT_LENGTH
            for start, end in self._runs(segment):
                found.append(Chunk(base + start, buffer.view[start:end]))
        return found

    def _runs(self, segment: int) -> Iterator[tuple[int, int]]:
        """Ranges of received bytes within a segment."""
        first, last = self._range(segment)
        block = self.state.find(RECEIVED, first, last)
        while block >= 0:
            end = block
            while end < last and self.state[end] == RECEIVED:
                end += 1
            start = (block - first) * BLOCK_LENGTH
            yield start, min((end - first) * BLOCK_LENGTH, self.size - first * BLOCK_LENGTH)
            block = self.state.find(RECEIVED, end, last)

    def begin_write(self, segments: Sequence[int] | None = None) -> tuple[list[Chunk], list[int]]:
        """What is in memory of these segments (default: all), and its blocks; tell ``written`` later."""
        self.writing += 1
        if segments is None:
            self.unsaved_since = None
        chosen = range(len(self.segments)) if segments is None else segments
        blocks = [
            block
            for segment in chosen
            for block in range(*self._range(segment))
            if self.state[block] == RECEIVED
        ]
        return self.chunks(segments), blocks

    def written(self, blocks: Sequence[int]) -> None:
        """These blocks are on disk: give the memory back of segments that hold nothing else."""
        self.writing -= 1
        for block in blocks:
            self.state[block] = WRITTEN
        self.trim()

    def trim(self) -> None:
        """Give memory back that holds nothing, is promised to nobody, and into which nobody writes."""
        for segment, buffer in enumerate(self.segments):
            if buffer is not None and not self._in_use(segment):
                self._release(segment)

    def _in_use(self, segment: int) -> bool:
        first, last = self._range(segment)
        return (
            self.state.find(RECEIVED, first, last) >= 0
            or any(self.asked[block] and not self.state[block] for block in range(first, last))
            or any(first <= block < last for block in self.claims)
        )

    @property
    def untouched(self) -> bool:
        """Whether nothing of the piece has come or is expected: it might as well not be open."""
        return not (any(self.state) or any(self.asked) or self.claims or self.writing)

    def _release(self, segment: int) -> None:
        buffer, self.segments[segment] = self.segments[segment], None
        if buffer is not None:
            buffer.release()

    def close(self) -> None:
        """Give all memory back; no worker may be reading it any more."""
        self.revoke_claims()
        for segment in range(len(self.segments)):
            self._release(segment)

    def revoke_claims(self) -> None:
        """From now on no peer writes into this piece."""
        claimants = [*self.claims.values(), *self.scratches]
        self.claims, self.scratches = {}, {}
        for claimant in claimants:
            claimant.revoke_claim()

    # --- asking ----------------------------------------------------------------------------------------

    def ask(self, count: int, pool: Pool) -> list[int]:
        """Take up to ``count`` blocks, in order, that are free and have memory; they count as asked."""
        taken: list[int] = []
        block = self._next_free(0)
        while block >= 0 and len(taken) < count:
            end = self._range(block // SEGMENT_BLOCKS)[1]
            if self.reserve(block, pool):
                end = self._end_of_free(block, min(end, block + count - len(taken)))
                self.asked[block:end] = b"\1" * (end - block)
                self.free -= end - block
                taken += range(block, end)
            block = self._next_free(end)
        return taken

    def _end_of_free(self, first: int, last: int) -> int:
        """Where, before ``last``, the free blocks end that begin with ``first``."""
        for taken in (self.asked, self.state):
            last -= len(taken[first:last].lstrip(b"\0"))
        return last

    def has_memory(self) -> bool:
        """Whether any part of the piece has its place in memory."""
        return any(self.segments)

    def has_free_place(self) -> bool:
        """Whether a block is free that needs no more memory than the piece has."""
        return any(
            buffer is not None and 0 <= self._next_free(segment * SEGMENT_BLOCKS) < self._range(segment)[1]
            for segment, buffer in enumerate(self.segments)
        )

    def _next_free(self, block: int) -> int:
        state, asked = self.state, self.asked
        if not self.free:
            return -1
        while (block := asked.find(0, block)) >= 0:
            if not state[block]:
                return block
            block += 1
        return -1

    def ask_again(self, count: int, having: Collection[int]) -> list[int]:
        """
        For the end game: blocks that others were asked for and that have not come, least asked first.

        They have their memory, so this helps where there is no more of it, too.

        :param having: blocks that this peer was asked for already.
        """
        state, asked = self.state, self.asked
        waiting = [
            b for b in range(self.blocks) if 0 < asked[b] < MAX_ASKERS and not state[b] and b not in having
        ]
        waiting.sort(key=asked.__getitem__)
        for block in waiting[:count]:
            asked[block] += 1
        return waiting[:count]

    def give_up(self, block: int) -> None:
        """One peer fewer is asked for ``block``."""
        self.asked[block] -= 1
        if not self.asked[block] and not self.state[block]:
            self.free += 1

    # --- receiving -------------------------------------------------------------------------------------

    def take(self, block: int, data: memoryview, host: str, now: float) -> bool:
        """
        Copy a block that only ``host`` was asked for, and that it has sent; nobody waits for it any more.

        This is what happens to nearly every block, and so in one go.  False, and nothing has changed: the
        block is not of the usual length, or another peer is concerned, so that it takes ``claim`` and
        ``received`` to decide.
        """
        buffer = self.segments[block // SEGMENT_BLOCKS]
        if (
            len(data) != BLOCK_LENGTH
            or block >= self.whole
            or self.state[block]
            or self.asked[block] != 1
            or buffer is None
            or block in self.claims
            or self.scratches
        ):
            return False
        start = block % SEGMENT_BLOCKS * BLOCK_LENGTH
        buffer.view[start : start + BLOCK_LENGTH] = data
        self.state[block] = RECEIVED
        self.asked[block] = 0
        self.missing -= 1
        self.contributors[block] = host
        self.active = now
        if self.unsaved_since is None:
            self.unsaved_since = now
        return True

    def claim(self, peer: Claimant, block: int, pool: Pool) -> memoryview | None:
        """Say where ``peer`` may put the bytes of ``block``; None: nobody needs them any more."""
        if self.state[block]:
            return None
        if block in self.claims:
            self.scratches[peer] = block
            return peer.scratch(self.block_length(block))
        if not self.reserve(block, pool):
            return None
        self.claims[block] = peer
        return self._view(block)

    def received(self, peer: Claimant, block: int, now: float) -> bool:
        """``peer`` has put all of ``block`` where ``claim`` said; False if it came too late to count."""
        if self.state[block]:
            return False
        if self.claims.get(block) is peer:
            del self.claims[block]
        elif self.scratches.pop(peer, None) == block and self.segments[block // SEGMENT_BLOCKS] is not None:
            self._take_from_scratch(peer, block)
        else:
            return False
        for rival in [p for p, b in self.scratches.items() if b == block]:
            del self.scratches[rival]
            rival.revoke_claim()
        self.state[block] = RECEIVED
        if not self.asked[block]:
            self.free -= 1
        self.missing -= 1
        if self.unsaved_since is None:
            self.unsaved_since = now
        self.contributors[block] = peer.host
        self.active = now
        return True

    def _take_from_scratch(self, peer: Claimant, block: int) -> None:
        """``peer`` was faster than the one that the buffer was promised to."""
        slower = self.claims.pop(block, None)
        if slower is not None:
            slower.revoke_claim()
        self._view(block)[:] = peer.scratch(self.block_length(block))

    def release_claim(self, peer: Claimant, block: int) -> None:
        """``peer`` left in the middle of ``block``."""
        self.scratches.pop(peer, None)
        if self.claims.get(block) is peer:
            del self.claims[block]
            self.trim()

    def mask(self) -> bytes:
        """Which blocks are on disk: a bit each, the first block in the highest bit."""
        bits = bytearray(-(-self.blocks // 8))
        for block in range(self.blocks):
            if self.state[block] == WRITTEN:
                bits[block >> 3] |= 0x80 >> (block & 7)
        return bytes(bits)


class OpenPieces:
    """All open pieces of a torrent."""

    def __init__(self, layout: Layout, pool: Pool) -> None:
        self._layout = layout
        self.pool = pool
        self._open: dict[int, OpenPiece] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[OpenPiece]:
        return iter(self._open.values())

    def get(self, index: int) -> OpenPiece | None:
        """The open piece, if it is one."""
        return self._open.get(index)

    def open(self, index: int, now: float, written: Sequence[int] = ()) -> OpenPiece:
        """Open a piece, of which the blocks ``written`` are on disk."""
        piece = OpenPiece(index, self._layout.piece_size(index), now, written)
        self._open[index] = piece
        return piece

    def close(self, piece: OpenPiece) -> None:
        """Forget a piece and give its memory back."""
        if self._open.get(piece.index) is piece:
            del self._open[piece.index]
        piece.close()

    def free_memory(self) -> None:
        """Give all memory back; what is not written is lost, what is remains known."""
        for piece in self._open.values():
            piece.close()
