"""
Answers what peers ask of us: who is unchoked, which requests are taken, and the queues of blocks going out.
"""

from __future__ import annotations

from collections import deque
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

MAX_STRIKES = 300
MIN_WAIT = 0.01
# A send buffer that does not move for so long means a peer that never reads.
DRAIN_PATIENCE = 60.0
DEAF = "asks for more and does not read it"


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
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._timer: IDelayedCall | None = None

    def joined(self, peer: Peer) -> None:
        """A peer may ask from now on."""
        self._uploads[peer] = Uploads(peer, self)

    def left(self, peer: Peer) -> None:
        """A peer is gone."""
        uploads = self._uploads.pop(peer, None)
        if uploads is not None:
            uploads.close()
            self._waiting = deque(turn for turn in self._waiting if turn[1] != uploads.allowed)
            if not peer.am_choking:
                self.choke_soon()

    # --- requests --------------------------------------------------------------------------------------

    def requested(self, peer: Peer, request: Request) -> None:
        """A peer asks for a block; it goes out with the others of the same read."""
        try:
            block = self._layout.block(request.piece, request.begin, request.length)
        except ProtocolViolation:
            self.strike(peer)
            return
        if not self._have[block.piece]:
            self.strike(peer)
            self._reject(peer, block)
            return
        choked = peer.am_choking and block.piece not in peer.offered_fast
        if choked or not self._uploads[peer].add(block):
            self._reject(peer, block)

    def read_done(self, peer: Peer, now: float) -> None:
        """All that was in one read is asked for: adjacent blocks are read together."""
        uploads = self._uploads[peer]
        if uploads.queue:
            peer.upload_rate = peer.upload.value(now)  # decides how much is read ahead
            uploads.pump()

    def cancelled(self, peer: Peer, cancel: Cancel) -> None:
        """A peer no longer wants a block; with the fast extension it is told that it will not come."""
        block = self._layout.block(cancel.piece, cancel.begin, cancel.length)
        if self._uploads[peer].cancel(block):
            self._reject(peer, block)

    @staticmethod
    def _reject(peer: Peer, block: Block) -> None:
        if not peer.fast:
            return
        if peer.deaf:
            peer.drop(DEAF)
        else:
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
        # What we add but blocks makes it less, so only more is a sign of life.
        left = peer.upload.total - queued
        moved, peer.drained = left > peer.drained, left
        if not queued or moved:
            peer.drained_at = now
        elif now - peer.drained_at > DRAIN_PATIENCE or peer.deaf:
            peer.drop(DEAF)

    # --- what Uploads ask of their source -----------------------------------------------------------------

    def may_send(self, length: int, wake: Callable[[], None]) -> bool:
        """
        Take ``length`` bytes from the rate limits.

        If they do not have them, the caller queues behind those who wait already; when ``wake`` is called
        they have been taken for it.  So peers have their turns, however fast one asks again.
        """
        if not self._limits.limited:
            return True
        if not self._waiting and self._limits.take(length, self._clock.seconds()):
            return True
        self._waiting.append((length, wake))
        self._wake_in_time()
        return False

    def _wake_in_time(self) -> None:
        """See that whoever is first gets what it waits for as soon as it is there."""
        if self._waiting and self._timer is None:
            wait = self._limits.wait(self._waiting[0][0], self._clock.seconds())
            self._timer = self._clock.callLater(max(MIN_WAIT, wait), self._wake)

    def _wake(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        while self._waiting and self._limits.take(self._waiting[0][0], now):
            _, wake = self._waiting.popleft()
            wake()
        self._wake_in_time()

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
