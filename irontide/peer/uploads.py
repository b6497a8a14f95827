"""
What one peer has asked for, on its way out.

Requests wait in a queue; adjacent ones are read together into one pooled buffer, and leave as header and
slice of that buffer through ``writeVec``.  The transport, being the consumer, pauses this producer above
its high-water mark; memory (``when_room``) and the rate limit hold it as well.  So a peer that never reads
costs its read-ahead and nothing more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.interfaces import IBuffer, IPieceStorage
from irontide.metainfo.layout import BLOCK_LENGTH, Block
from irontide.peer.peer import Peer
from irontide.wire.codec import piece_header

# BEP 3 clients queue a few hundred; libtorrent's default for what it accepts is 500.
MAX_QUEUED = 500
MAX_READ_AHEAD = 1 << 20
READ_AHEAD_SECONDS = 0.5


class Source(Protocol):
    """What the uploads of a torrent share."""

    storage: IPieceStorage

    def may_send(self, length: int, wake: Callable[[], None]) -> bool:
        """Ask the limits for ``length`` bytes; False: they are kept for ``wake``, which is called in turn."""

    def when_room(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` once when the pool for uploads has room again."""

    def read_failed(self, failure: Failure) -> None:
        """The disk did not give the bytes."""

    def sent(self, peer: Peer, length: int) -> None:
        """So many bytes of payload are on their way."""


@implementer(IPushProducer)
class Uploads:
    """The queue of one peer."""

    __slots__ = (
        "_allowed",
        "_closed",
        "_owed",
        "_paused",
        "_peer",
        "_pumping",
        "_reading",
        "_source",
        "_transport",
        "_waiting",
        "queue",
    )

    def __init__(self, peer: Peer, source: Source) -> None:
        self.queue: deque[Block] = deque()
        self._peer = peer
        self._source = source
        self._transport = transport = peer.transport
        self._paused = self._reading = self._waiting = self._closed = self._pumping = False
        self._allowed = 0  # bytes that the limits have let us have and that are not sent yet
        self._owed = 0  # bytes that they will let us have when it is our turn
        transport.registerProducer(self, True)

    def add(self, block: Block) -> bool:
        """Queue a block; False if the queue is full.  The caller has seen to choking and validity."""
        if len(self.queue) >= MAX_QUEUED:
            return False
        self.queue.append(block)
        return True

    def cancel(self, block: Block) -> bool:
        """Take a block out again; False if it is not there (any more)."""
        try:
            self.queue.remove(block)
        except ValueError:
            return False
        return True

    def clear(self, keep: frozenset[int] = frozenset()) -> list[Block]:
        """Take all blocks out but those of the pieces ``keep``."""
        gone = [block for block in self.queue if block.piece not in keep]
        self.queue = deque(block for block in self.queue if block.piece in keep)
        return gone

    def pump(self) -> None:
        """Send as much as the transport, the limits and the memory allow."""
        if self._pumping:  # what we called has called us back: the loop below goes on by itself
            return
        self._pumping = True
        try:
            while self.queue and not (self._paused or self._reading or self._waiting or self._closed):
                self._send_next()
        finally:
            self._pumping = False

    def _send_next(self) -> None:
        """Send what can be read at once of the queue, or wait for what it needs."""
        batch = self._next_batch()
        length = sum(block.length for block in batch)
        missing = length - self._allowed
        if missing > 0:
            if not self._source.may_send(missing, self.allowed):
                self._owed, self._waiting = missing, True
                return
            self._allowed = length
        answer = self._source.storage.read(batch[0].piece, batch[0].begin, length)
        if answer is None:
            self._waiting = True
            self._source.when_room(self._resume)
            return
        self._allowed -= length
        for _ in batch:
            self.queue.popleft()
        if isinstance(answer, Deferred):
            self._reading = True
            answer.addCallbacks(self._read, self._failed, callbackArgs=(batch,))
        else:
            self._send(answer, batch)

    def _next_batch(self) -> list[Block]:
        """The first blocks of the queue, as far as they are adjacent and no more than the read-ahead."""
        ahead = min(MAX_READ_AHEAD, max(BLOCK_LENGTH, int(self._peer.upload_rate * READ_AHEAD_SECONDS)))
        queue = iter(self.queue)
        first = next(queue)
        batch, end, room = [first], first.begin + first.length, ahead - first.length
        for block in queue:
            if block.piece != first.piece or block.begin != end or block.length > room:
                break
            batch.append(block)
            end += block.length
            room -= block.length
        return batch

    def _send(self, buffer: IBuffer, batch: list[Block]) -> None:
        view = buffer.view
        vector: list[bytes | memoryview] = []
        at = 0
        for block in batch:
            length = block.length
            vector += (piece_header(block.piece, block.begin, length), view[at : at + length])
            at += length
        self._source.sent(self._peer, at)
        self._transport.writeVec(vector, buffer.release)

    def _read(self, buffer: IBuffer, batch: list[Block]) -> None:
        self._reading = False
        if self._closed:
            buffer.release()
            return
        self._send(buffer, batch)
        self.pump()

    def _failed(self, failure: Failure) -> None:
        self._reading = False
        if not self._closed:
            self.close()  # the torrent will stop: nothing more is read, and it is told once
            self._source.read_failed(failure)

    def allowed(self) -> None:
        """The limits let us have what they owed us."""
        self._allowed += self._owed
        self._owed = 0
        self._resume()

    def _resume(self) -> None:
        self._waiting = False
        self.pump()

    def pauseProducing(self) -> None:
        """The transport has enough."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The transport wants more."""
        self._paused = False
        self.pump()

    def stopProducing(self) -> None:
        """The connection is gone: forget everything."""
        self._closed = True
        self.queue.clear()

    close = stopProducing
