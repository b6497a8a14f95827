"""
Answers what peers ask of us: who is unchoked, which requests are taken, and the queues of blocks going out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from irontide.errors import ProtocolViolation
from irontide.interfaces import IPieceStorage
from irontide.metainfo.bitfield import Bitfield
from irontide.metainfo.layout import Block, Layout
from irontide.peer.peer import Peer
from irontide.peer.uploads import Uploads
from irontide.swarm.choker import Choker
from irontide.swarm.limits import Limits
from irontide.wire.messages import Cancel, Choke, RejectRequest, Request, Unchoke

# We take requests of up to 128 KiB, as every client does; we ask for 16 KiB.
MAX_REQUEST = 128 * 1024
MAX_STRIKES = 300
# A send buffer that does not move for so long means a peer that never reads.
DRAIN_PATIENCE = 60.0


class Watcher(Protocol):
    """What the swarm wants to know of what is served."""

    def storage_failed(self, failure: Failure) -> None:
        """The disk did not give what it should have."""


class Serving:
    """
    The uploads of one torrent.

    :ivar uploaded: bytes of payload sent.
    """

    def __init__(
        self,
        layout: Layout,
        have: Bitfield,
        storage: IPieceStorage,
        limits: Limits,
        choker: Choker,
        clock: IReactorTime,
        watcher: Watcher,
    ) -> None:
        self.storage = storage
        self.uploaded = 0
        self._layout = layout
        self._have = have
        self._limits = limits
        self._choker = choker
        self._clock = clock
        self._watcher = watcher
        self._uploads: dict[Peer, Uploads] = {}
        self._waiting: list[Callable[[], None]] = []
        self._timer: IDelayedCall | None = None

    def joined(self, peer: Peer) -> None:
        """A peer may ask from now on."""
        self._uploads[peer] = Uploads(peer, self)

    def left(self, peer: Peer) -> None:
        """A peer is gone."""
        uploads = self._uploads.pop(peer, None)
        if uploads is not None:
            uploads.close()
            if not peer.am_choking:
                self.choke_soon()

    # --- requests --------------------------------------------------------------------------------------

    def requested(self, peer: Peer, request: Request) -> None:
        """A peer asks for a block."""
        try:
            block = self._layout.block(request.piece, request.begin, request.length)
        except ProtocolViolation:
            self.strike(peer)
            return
        if block.length > MAX_REQUEST:
            raise ProtocolViolation(f"a request of {block.length} bytes")
        if not self._have[block.piece]:
            self.strike(peer)
            self._reject(peer, block)
        elif peer.am_choking and block.piece not in peer.offered_fast:
            self._reject(peer, block)
        elif self._uploads[peer].add(block):
            self._uploads[peer].pump()
        else:
            self._reject(peer, block)

    def cancelled(self, peer: Peer, cancel: Cancel) -> None:
        """A peer no longer wants a block; with the fast extension it is told that it will not come."""
        block = self._layout.block(cancel.piece, cancel.begin, cancel.length)
        if self._uploads[peer].cancel(block):
            self._reject(peer, block)

    @staticmethod
    def _reject(peer: Peer, block: Block) -> None:
        if peer.fast:
            peer.send(RejectRequest(block.piece, block.begin, block.length))

    @staticmethod
    def strike(peer: Peer) -> None:
        """Count something that no well-behaved peer does often."""
        peer.strikes += 1
        if peer.strikes > MAX_STRIKES:
            raise ProtocolViolation("too many invalid requests")

    # --- choking ---------------------------------------------------------------------------------------

    def choke_round(self, seeding: bool, now: float) -> None:
        """Decide anew who may ask."""
        unchoked = self._choker.round(list(self._uploads), seeding, now)
        for peer in list(self._uploads):
            if peer in unchoked and peer.am_choking:
                peer.am_choking = False
                peer.unchoked_since = now
                peer.send(Unchoke())
            elif peer not in unchoked and not peer.am_choking:
                self._choke(peer)

    def _choke(self, peer: Peer) -> None:
        peer.am_choking = True
        peer.unchoked_since = None
        peer.send(Choke())
        for block in self._uploads[peer].clear(peer.offered_fast):
            self._reject(peer, block)

    def interested(self, peer: Peer, seeding: bool) -> None:
        """A peer wants something: it need not wait for the next round if a slot is free."""
        self.choke_soon()
        if sum(not other.am_choking for other in self._uploads) < self._choker.slots:
            self.choke_round(seeding, self._clock.seconds())

    def choke_soon(self) -> None:
        """A slot may be free: fill it at the next tick rather than at the next round."""
        self._choker.due_at_once()

    def tick(self, seeding: bool, now: float) -> None:
        """Once a second."""
        if self._choker.due(now):
            self.choke_round(seeding, now)
        for peer in list(self._uploads):
            self._check_drain(peer, now)

    def _check_drain(self, peer: Peer, now: float) -> None:
        queued = peer.transport.queued
        left = peer.upload.total - queued
        if not queued or left != peer.drained:
            peer.drained, peer.drained_at = left, now
        elif now - peer.drained_at > DRAIN_PATIENCE:
            peer.drop("does not read what it asked for")

    # --- what Uploads ask of their source -----------------------------------------------------------------

    def may_send(self, length: int, wake: Callable[[], None]) -> bool:
        """Ask the rate limits; with none, always."""
        if not self._limits.limited:
            return True
        now = self._clock.seconds()
        if not self._waiting and self._limits.take(length, now):
            return True
        self._waiting.append(wake)
        if self._timer is None:
            self._timer = self._clock.callLater(max(0.01, self._limits.wait(length, now)), self._wake)
        return False

    def _wake(self) -> None:
        self._timer = None
        waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()

    def when_room(self, wake: Callable[[], None]) -> None:
        """The pool for uploads has room again."""
        self.storage.when_room(wake)

    def read_failed(self, failure: Failure) -> None:
        """A block that we said to have cannot be read."""
        self._watcher.storage_failed(failure)

    def sent(self, peer: Peer, length: int) -> None:
        """Count what goes out."""
        self.uploaded += length
        peer.upload.add(length, self._clock.seconds())

    def stop(self) -> None:
        """Send nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()
        for uploads in self._uploads.values():
            uploads.close()
