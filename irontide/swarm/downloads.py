"""
Deals the blocks of a torrent to its peers, and sees complete pieces through.

Which block next, for a peer with room in its pipeline: of the piece it works on; of an open piece that
nobody works on; of a new piece, as the picker says; of a piece that another works on; and in the end game,
of what others were asked for.  Without memory for a new piece only open ones are dealt, so that what is
begun gets finished and frees its memory.  With a rate limit, blocks are dealt one by one, round robin, as
the bucket allows: nobody is read slower, everybody is asked for less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from irontide.interfaces import IPieceStorage
from irontide.metainfo.bitfield import Bitfield
from irontide.metainfo.info import Info
from irontide.swarm.finishing import Finishing
from irontide.swarm.limits import Limits
from irontide.swarm.open_pieces import SEGMENT_LENGTH, OpenPiece, OpenPieces, Pool
from irontide.swarm.picker import Picker
from irontide.swarm.requests import Requests
from irontide.swarm.round_robin import RoundRobin
from irontide.swarm.smart_ban import SmartBan

# A piece without a new block for so long is written as far as it is there, and its memory given back.
SPILL_AFTER = 30.0
# No block is in memory only for longer than this (hardening.md: 30 s, with time left for the write).
SAVE_AFTER = 20.0
# A peer that owes us blocks and sends none for so long is snubbed: others are asked for them.
SNUB_AFTER = 30.0
# In the end game a peer is asked for few blocks at once that others were asked for as well.
END_GAME_BATCH = 16
IDLE_PIECE = 5.0


class SharedPool(Pool, Protocol):
    """The memory for open pieces, shared by all torrents."""

    def when_room(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` once when a buffer came back."""


class Watcher(Protocol):
    """What the swarm wants to know of its downloads."""

    def piece_passed(self, index: int) -> None:
        """A piece is verified and written."""

    def hosts_lied(self, hosts: Iterable[str]) -> None:
        """These sent wrong blocks: it is proved."""

    def blocks_written(self, length: int) -> None:
        """So many bytes of an unfinished piece are written: its mask is worth a commit."""

    def storage_failed(self, failure: Failure) -> None:
        """The disk refused; nothing more is asked for."""


class Downloads:
    """
    The pieces under way of one torrent.

    :ivar now: the time of the last read or tick, good enough for what is counted in seconds.
    :ivar downloaded: bytes of blocks that came and were wanted; ``redundant`` ones were not.
    :ivar failed_bytes: of pieces whose hash was wrong.
    """

    def __init__(
        self, info: Info, have: Bitfield, picker: Picker, storage: IPieceStorage, pool: SharedPool,
        limits: Limits, clock: IReactorTime, watcher: Watcher, may_request: Callable[[], bool] = lambda: True,
    ) -> None:  # fmt: skip
        self.now = clock.seconds()
        self.pool: SharedPool = pool
        self.picker = picker
        self.open = OpenPieces(info.layout, pool)
        self.downloaded = self.redundant = self.failed_bytes = 0
        self.stopped = False
        self._have = have
        self._layout = info.layout
        self._clock = clock
        self._may_request = may_request
        self._watcher = watcher
        self._dealable: dict[int, OpenPiece] = {}
        self._requests: dict[Requests, None] = {}
        self._waiting_for_room = False
        self._ration = RoundRobin(self._requests, limits, clock, self._answers, self._ask_for_one)
        self._finishing = Finishing(storage, SmartBan(), self)

    # --- peers -----------------------------------------------------------------------------------------

    def joined(self, requests: Requests) -> None:
        """A peer may be asked from now on."""
        self._requests[requests] = None

    def left(self, requests: Requests) -> None:
        """A peer is gone: others may be asked for what it owed."""
        self._requests.pop(requests, None)
        self._stops_working(requests)
        self.released(requests.forget_all())

    def lost(self, requests: Requests, index: int) -> None:
        """A peer has a piece no more: it will not send what it was asked for of it."""
        piece = self.open.get(index)
        if piece is not None:
            for block in requests.blocks_of(piece):
                requests.forget(piece, block)
            self.released((piece,))

    def released(self, pieces: Iterable[OpenPiece]) -> None:
        """Blocks of these pieces are free again; memory that nobody needs for them is given back."""
        for piece in pieces:
            if self.open.get(piece.index) is not piece:
                continue
            if piece.free:
                self._dealable[piece.index] = piece
            piece.trim()

    def _put_back(self, piece: OpenPiece) -> None:
        """Open no more: nothing of the piece is here, or it was wrong."""
        self._dealable.pop(piece.index, None)
        for requests in self._requests:
            if requests.working is piece:
                requests.working = None
        self.picker.put_back(piece.index)
        self.open.close(piece)

    def resume(self, masks: Mapping[int, bytes]) -> None:
        """Open the pieces of which some blocks are on disk already."""
        for index, mask in masks.items():
            written = [
                block
                for block in range(self._layout.blocks_in(index))
                if block >> 3 < len(mask) and mask[block >> 3] & (0x80 >> (block & 7))
            ]
            if written and not self._have[index] and self.open.get(index) is None:
                piece = self._opened(index, written)
                if not piece.missing:
                    self._complete(piece)

    def masks(self) -> dict[int, bytes]:
        """The blocks of unfinished pieces that are written."""
        return {piece.index: mask for piece in self.open if any(mask := piece.mask())}

    # --- dealing ---------------------------------------------------------------------------------------

    def fill(self, requests: Requests) -> None:
        """Ask a peer for more blocks, if it has room for a batch."""
        room = requests.room()
        if not room or not self._answers(requests):
            return
        if self._ration.limited:
            self._ration.soon()
            return
        frames = self._ask(requests, room)
        if frames:
            requests.peer.transport.write(frames)

    def fill_all(self) -> None:
        """Ask all peers that have room, those that keep us waiting last."""
        for requests in sorted(self._requests, key=lambda requests: requests.peer.snubbed):
            self.fill(requests)

    def _answers(self, requests: Requests) -> bool:
        """Whether we may ask, and the peer would answer."""
        peer = requests.peer
        if (
            self.stopped
            or peer.bits is None
            or not peer.am_interested
            or not self._may_request()
            or peer.deaf
        ):
            return False
        return not peer.choking or bool(peer.allowed_fast)

    def _ask(self, requests: Requests, count: int) -> bytes:
        """Deal up to ``count`` blocks to a peer; return the frames."""
        frames = []
        while count > 0 and (piece := self._piece_for(requests)) is not None:
            if not piece.has_memory():
                piece.active = self.now  # its 30 s begin with what is asked for now
            blocks = piece.ask(count, self.pool)
            if not blocks:
                self._starved(piece)
                continue
            if not piece.free:
                self._dealable.pop(piece.index, None)
                self._stops_working(requests)
            frames.append(requests.note(piece, blocks))
            count -= len(blocks)
        if count and len(requests.asked) <= 2 and not requests.peer.snubbed:
            frames.append(self._ask_again(requests, min(count, END_GAME_BATCH)))
        return b"".join(frames)

    def _piece_for(self, requests: Requests) -> OpenPiece | None:
        """An open piece with blocks for this peer; opens a new one if need be."""
        working = requests.working
        if working is not None and self._suits(working, requests):
            return working
        shared = None
        for piece in self._dealable.values():
            if self._suits(piece, requests):
                if piece.worker is None:
                    return self._works_on(requests, piece)
                shared = shared or piece
        if not self._waiting_for_room:
            allowed = requests.peer.allowed_fast if requests.peer.choking else None
            bits = requests.peer.bits
            index = None if bits is None else self.picker.next_piece(bits, allowed)
            if index is not None:
                return self._works_on(requests, self._opened(index))
        return shared

    def _suits(self, piece: OpenPiece, requests: Requests) -> bool:
        peer = requests.peer
        return (
            piece.free > 0
            and peer.has(piece.index)
            and (not self._waiting_for_room or piece.has_free_place())
            and (not peer.choking or piece.index in peer.allowed_fast)
            and self.picker.wanted(piece.index)
        )

    def _opened(self, index: int, written: Iterable[int] = ()) -> OpenPiece:
        piece = self.open.open(index, self.now, list(written))
        self.picker.opened(index)
        self._dealable[index] = piece
        return piece

    @staticmethod
    def _works_on(requests: Requests, piece: OpenPiece) -> OpenPiece:
        Downloads._stops_working(requests)
        requests.working, piece.worker = piece, requests
        return piece

    @staticmethod
    def _stops_working(requests: Requests) -> None:
        working, requests.working = requests.working, None
        if working is not None and working.worker is requests:
            working.worker = None

    def _ask_again(self, requests: Requests, count: int) -> bytes:
        """
        End game: ask for blocks that others owe us, when everything left is under way or a piece hangs.

        Without memory as well: then a fast peer takes over what slow ones hold the memory for.
        """
        peer = requests.peer
        every = self._waiting_for_room or self.picker.left <= len(self.open)
        frames = []
        for piece in self.open:
            if count <= 0:
                break
            if not piece.missing or not peer.has(piece.index) or not self.picker.wanted(piece.index):
                continue
            if peer.choking and piece.index not in peer.allowed_fast:
                continue
            if every or self.now - piece.active > IDLE_PIECE:
                blocks = piece.ask_again(count, requests.blocks_of(piece))
                frames.append(requests.note(piece, blocks))
                count -= len(blocks)
        return b"".join(frames)

    def _starved(self, piece: OpenPiece) -> None:
        """No memory for ``piece``: deal only what has its place until some comes back."""
        if not self._waiting_for_room:
            self._waiting_for_room = True
            self.pool.when_room(self._room)
        if piece.untouched:
            self._put_back(piece)

    def _room(self) -> None:
        self._waiting_for_room = False
        self.fill_all()

    def _ask_for_one(self, requests: Requests) -> bool:
        """Under a rate limit: ask for a block."""
        self.now = self._clock.seconds()
        frames = self._ask(requests, 1)
        if frames:
            requests.peer.transport.write(frames)
        return bool(frames)

    # --- blocks and pieces -----------------------------------------------------------------------------

    def open_piece(self, index: int) -> OpenPiece | None:
        """The piece, while it is open."""
        return self.open.get(index)

    def block_came(
        self, requests: Requests, piece: OpenPiece | None, block: int, length: int, *, new: bool
    ) -> None:
        """A block is complete."""
        peer = requests.peer
        peer.last_block = self.now
        peer.snubbed = False
        if piece is None or not new:
            self.redundant += length
            if piece is not None:
                self.released((piece,))
            return
        self.downloaded += length
        if piece.asked[block]:
            self._cancel_others(piece, block)
        if not piece.missing:
            self._complete(piece)
        elif piece.size > SEGMENT_LENGTH:
            segment = piece.full_segment(block)
            if segment is not None:
                self._finishing.segment(piece, segment)

    def _cancel_others(self, piece: OpenPiece, block: int) -> None:
        for requests in self._requests:
            if frame := requests.cancel(piece, block):
                requests.peer.transport.write(frame)

    def _complete(self, piece: OpenPiece) -> None:
        self._dealable.pop(piece.index, None)
        piece.worker = None
        piece.revoke_claims()
        self._finishing.piece(piece)

    def passed(self, piece: OpenPiece, liars: Iterable[str]) -> None:
        """A piece is verified and written."""
        self._have.set(piece.index)
        self.picker.got(piece.index)
        self.open.close(piece)
        self._watcher.hosts_lied(liars)
        self._watcher.piece_passed(piece.index)

    def failed(self, piece: OpenPiece, liars: Iterable[str]) -> None:
        """A piece is not what its hash says: once more from the beginning."""
        self.failed_bytes += piece.size
        self._put_back(piece)
        self._watcher.hosts_lied(liars)
        self.fill_all()

    def blocks_written(self, length: int) -> None:
        """So many bytes of an unfinished piece are written."""
        self._watcher.blocks_written(length)

    def storage_failed(self, failure: Failure) -> None:
        """The disk refused."""
        self.stopped = True
        self._watcher.storage_failed(failure)

    # --- time ------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Once a second: snubs, depths of pipelines, what lies in memory for too long."""
        self.now = now
        for requests in list(self._requests):
            requests.refused = False
            requests.adapt(requests.peer.download.value(now))
            if requests.asked and now - requests.peer.last_block > SNUB_AFTER:
                self._snub(requests)
        self.fill_all()
        for piece in list(self.open):
            if piece.missing and now - piece.active > SPILL_AFTER and piece.has_memory():
                self._give_up(piece)
                self._finishing.spill(piece)
            elif piece.untouched and now - piece.active > SPILL_AFTER:
                self._put_back(piece)
            elif piece.missing and piece.unsaved_since is not None and now - piece.unsaved_since > SAVE_AFTER:
                self._finishing.spill(piece)

    def _snub(self, requests: Requests) -> None:
        """A peer owes us blocks and sends none: ask others; it may still surprise us."""
        requests.peer.snubbed = True
        self._stops_working(requests)
        pieces = list(dict.fromkeys(requests.asked.values()))
        frames = [
            requests.cancel(piece, block) for piece in pieces for block in sorted(requests.blocks_of(piece))
        ]
        requests.peer.transport.write(b"".join(frames))
        self.released(pieces)

    def _give_up(self, piece: OpenPiece) -> None:
        """No longer wait for any block of a piece that hangs."""
        piece.active = self.now  # whoever is asked now has as much time again
        for requests in self._requests:
            frames = b"".join(requests.cancel(piece, block) for block in sorted(requests.blocks_of(piece)))
            if frames:
                requests.peer.transport.write(frames)
        piece.revoke_claims()
        self.released((piece,))

    def stop(self) -> Deferred[None]:
        """Ask for nothing more; fires when what came is written and all memory given back."""
        self.stopped = True
        self._ration.stop()
        for piece in self.open:
            piece.revoke_claims()
        return self._finishing.stop(self.open).addCallback(lambda _: self.open.free_memory())
