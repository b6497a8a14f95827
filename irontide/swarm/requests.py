"""
What we asked of one peer, and where its answers go.

The depth of the pipeline follows the measured rate: a second's worth of blocks, never fewer than a floor
(adaptive depths that can spiral down have starved whole engines), never more than the peer will queue.

What we stop waiting for may come all the same: a choke or a cancel crosses with a block on its way.  So each
request that we gave up stands for one *late* answer that is no violation, even if the same block has been
asked for again meanwhile and comes twice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Protocol

from zope.interface import implementer

from irontide.errors import ProtocolViolation
from irontide.interfaces import IBlockSink
from irontide.metainfo.layout import BLOCK_LENGTH, Layout
from irontide.peer.peer import Peer
from irontide.swarm.open_pieces import OpenPiece, Pool

MIN_PIPELINE = 16
MAX_PIPELINE = 500
PIPELINE_SECONDS = 1.0

# Blocks of which late answers are expected; then the oldest are forgotten.
MAX_LATE = 4096

_REQUEST = struct.Struct(">IBIII")
_REQUEST_ID, _CANCEL_ID = 6, 8
_BLOCK_MASK = BLOCK_LENGTH - 1
_BLOCK_SHIFT = BLOCK_LENGTH.bit_length() - 1


class Blocks(Protocol):
    """What becomes of blocks that have come."""

    now: float

    @property
    def pool(self) -> Pool:
        """Where the memory of open pieces comes from."""

    def open_piece(self, index: int) -> OpenPiece | None:
        """The piece, while it is open."""

    def block_came(
        self, requests: Requests, piece: OpenPiece | None, block: int, length: int, *, new: bool
    ) -> None:
        """A block is complete: in its place if ``new``, else thrown away."""


@implementer(IBlockSink)
class Requests:
    """
    The blocks that one peer was asked for, by their number in the torrent.

    :ivar host: the remote address: what gets blamed.
    :ivar asked: those still expected, with their open piece.
    :ivar working: the piece that this peer is being asked for just now.
    :ivar received: bytes of wanted blocks that came and that nobody has counted yet.
    :ivar refused: the peer rejected a request although it does not choke us: it gets a rest until the next
        tick, or we would ask and it would reject without end.
    """

    __slots__ = (
        "_bpp",
        "_late",
        "_layout",
        "_owner",
        "_scratch",
        "_target",
        "asked",
        "host",
        "peer",
        "received",
        "redundant",
        "refused",
        "working",
    )

    def __init__(self, peer: Peer, layout: Layout, owner: Blocks) -> None:
        self.peer = peer
        self.host = peer.host
        self.asked: dict[int, OpenPiece] = {}
        self.working: OpenPiece | None = None
        self.received = self.redundant = 0
        self.refused = False
        self._layout = layout
        self._bpp = -(-layout.piece_length // BLOCK_LENGTH)
        self._owner = owner
        self._late: dict[int, int] = {}  # how many answers of each
        self._scratch: bytearray | None = None
        self._target = MIN_PIPELINE

    # --- asking ----------------------------------------------------------------------------------------

    def room(self) -> int:
        """
        How many more blocks this peer may be asked for now; 0 until a batch is worth it.

        A snubbed peer is asked for one block, to see whether it is alive.
        """
        if self.refused:
            return 0
        if self.peer.snubbed:
            return 0 if self.asked else 1
        room = self._target - len(self.asked)
        return room if room >= self._target >> 3 else 0

    def adapt(self, rate: float) -> None:
        """Set the depth of the pipeline from the peer's rate in bytes/s."""
        wanted = int(rate * PIPELINE_SECONDS) // BLOCK_LENGTH + 1
        self._target = min(max(MIN_PIPELINE, wanted), MAX_PIPELINE, self.peer.reqq)

    def note(self, piece: OpenPiece, blocks: Sequence[int]) -> bytes:
        """Remember that these blocks are asked for; return the frames that ask."""
        index, whole, pack = piece.index, piece.whole, _REQUEST.pack
        if not self.asked:
            self.peer.last_block = self._owner.now  # its time to answer begins
        base = index * self._bpp
        self.asked.update(dict.fromkeys([base + block for block in blocks], piece))
        frames = [
            pack(
                13,
                _REQUEST_ID,
                index,
                block << _BLOCK_SHIFT,
                BLOCK_LENGTH if block < whole else piece.block_length(block),
            )
            for block in blocks
        ]
        return b"".join(frames)

    def blocks_of(self, piece: OpenPiece) -> set[int]:
        """Which blocks of ``piece`` this peer is asked for."""
        base = piece.index * self._bpp
        return {key - base for key, asked in self.asked.items() if asked is piece}

    def cancel(self, piece: OpenPiece, block: int) -> bytes:
        """No longer wait for a block; return the frame that says so, or nothing if it was not asked for."""
        if not self.forget(piece, block):
            return b""
        return _REQUEST.pack(13, _CANCEL_ID, piece.index, block << _BLOCK_SHIFT, piece.block_length(block))

    def forget(self, piece: OpenPiece, block: int) -> bool:
        """No longer wait for a block; it may still come."""
        key = piece.index * self._bpp + block
        if self.asked.pop(key, None) is None:
            return False
        piece.give_up(block)
        self._expect_late(key)
        return True

    def forget_all(self, keep: Iterable[int] = ()) -> list[OpenPiece]:
        """No longer wait for anything but the pieces ``keep``; return the pieces concerned."""
        kept = set(keep)
        touched = {}
        for key, piece in list(self.asked.items()):
            if piece.index not in kept:
                self.forget(piece, key % self._bpp)
                touched[piece.index] = piece
        return list(touched.values())

    def rejected(self, piece: int, begin: int, length: int) -> OpenPiece | None:
        """The peer will not send this block; returns its piece, or None if nobody expects it any more."""
        self._layout.block(piece, begin, length)
        block = begin >> _BLOCK_SHIFT
        key = piece * self._bpp + block
        found = self.asked.get(key)
        if begin & _BLOCK_MASK or (found is not None and length != found.block_length(block)):
            raise ProtocolViolation("rejected a request that was never made")
        if found is None:
            if not self._came_late(key):
                raise ProtocolViolation("rejected a request that was never made")
            return None
        del self.asked[key]
        found.give_up(block)
        return found

    def _expect_late(self, key: int) -> None:
        self._late[key] = self._late.pop(key, 0) + 1
        if len(self._late) > MAX_LATE:
            del self._late[next(iter(self._late))]

    def _came_late(self, key: int) -> bool:
        """One late answer less is expected; False if there was none to expect."""
        count = self._late.pop(key, 0)
        if count > 1:
            self._late[key] = count - 1
        return count > 0

    # --- IBlockSink ------------------------------------------------------------------------------------

    def claim(self, piece: int, begin: int, length: int) -> memoryview | None:
        """Where the block goes."""
        found = self.asked.get(piece * self._bpp + (begin >> _BLOCK_SHIFT))
        block = begin >> _BLOCK_SHIFT
        if found is None:
            found = self._late_piece(piece, begin, length)
            if found is None:
                return None
        elif begin & _BLOCK_MASK or piece != found.index or length != found.block_length(block):
            raise ProtocolViolation("a block of another length than was asked for")
        return found.claim(self, block, self._owner.pool)

    def _late_piece(self, piece: int, begin: int, length: int) -> OpenPiece | None:
        """The open piece of a block that we gave up and that comes all the same."""
        block = self._layout.block(piece, begin, length)
        key = piece * self._bpp + (block.begin >> _BLOCK_SHIFT)
        if key not in self._late or begin & _BLOCK_MASK:
            raise ProtocolViolation("a block that was never requested")
        found = self._owner.open_piece(piece)
        if found is not None and length != found.block_length(begin >> _BLOCK_SHIFT):
            raise ProtocolViolation("a block of another length than was asked for")
        return found

    def take(self, piece: int, begin: int, data: memoryview) -> None:
        """Copy a block that is here as a whole."""
        block = begin >> _BLOCK_SHIFT
        key = piece * self._bpp + block
        found = self.asked.get(key)
        if (
            found is not None
            and found.index == piece
            and not begin & _BLOCK_MASK
            and found.take(block, data, self.host, self._owner.now)
        ):
            del self.asked[key]
            self.received += BLOCK_LENGTH
            self._owner.block_came(self, found, block, BLOCK_LENGTH, new=True)
            return
        target = self.claim(piece, begin, len(data))
        if target is not None:
            target[:] = data
        self.complete(piece, begin, len(data))

    def complete(self, piece: int, begin: int, length: int) -> None:
        """The block is where it was claimed."""
        block = begin >> _BLOCK_SHIFT
        key = piece * self._bpp + block
        found = self.asked.pop(key, None)
        if found is not None:
            new = found.received(self, block, self._owner.now)
            found.give_up(block)
        else:
            self._came_late(key)
            found = self._owner.open_piece(piece)
            new = found is not None and found.received(self, block, self._owner.now)
        if new:
            self.received += length
        else:
            self.redundant += length
        self._owner.block_came(self, found, block, length, new=new)

    def release(self, piece: int, begin: int, length: int) -> None:
        """The connection ended in the middle of a block."""
        found = self._owner.open_piece(piece)
        if found is not None:
            found.release_claim(self, begin >> _BLOCK_SHIFT)

    # --- Claimant --------------------------------------------------------------------------------------

    def revoke_claim(self) -> None:
        """Somebody else was faster: the rest of the block that is arriving is thrown away."""
        self.peer.connection.revoke_claim()

    def scratch(self, length: int) -> memoryview:
        """A buffer of this peer's own for one block."""
        if self._scratch is None:
            self._scratch = bytearray(BLOCK_LENGTH)
        return memoryview(self._scratch)[:length]
