"""Fakes that the tests of several packages share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from attrs import define
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IAddress, IProducer, IProtocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.interfaces import IPeerTransport

HIGH_WATER = 512 * 1024
LOW_WATER = 128 * 1024


@define
class _Written:
    """A write that has not left: how many bytes of it are still here, and who wants to know."""

    left: int
    sent: Callable[[], None] | None


@implementer(IPeerTransport)
class FakePeerTransport(StringTransport):
    """
    A transport whose kernel takes bytes only when the test says so.

    What is written is remembered for ever (``value``, ``writes``) and *queued* until it is drained: with
    ``drain``, or at once if ``drains`` is set.  ``queued`` may be set, to look fuller than it is.

    As the real one it pauses a streaming producer above its high-water mark and resumes it at its low one,
    calls each ``sent`` once, those of a lost connection included, and writes nothing after the end.

    :ivar protocol: is told of the loss of the connection, if there is one.
    :ivar drains: whatever is written leaves at once.
    :ivar loses: closing loses the connection at once; if False, when the test calls ``lose``.
    :ivar writes: each call of write and writeVec, as one bytes.
    :ivar vectors: the buffers of each writeVec, as they were given.
    :ivar closing: ``loseConnection`` was called.  The connection is lost when all is drained.
    :ivar aborted: ``abortConnection`` was called.
    :ivar lost: the connection is closed.
    :ivar pauses: and ``resumes``: how often *reading* was paused and resumed.
    """

    def __init__(
        self,
        protocol: IProtocol | None = None,
        *,
        drains: bool = False,
        loses: bool = True,
        peer: IAddress | None = None,
        host: IAddress | None = None,
    ) -> None:
        super().__init__(hostAddress=host, peerAddress=peer, lenient=True)
        self.protocol = protocol
        self.drains = drains
        self.loses = loses
        self.queued = 0
        self.writes: list[bytes] = []
        self.vectors: list[list[bytes | memoryview]] = []
        self.closing = False
        self.aborted = False
        self.lost = False
        self.pauses = 0
        self.resumes = 0
        self._waiting: deque[_Written] = deque()
        self._producer_paused = False

    @property
    def paused(self) -> bool:
        """Whether reading is paused."""
        return self.producerState == "paused"

    # --- writing ---------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Queue ``data``."""
        if not isinstance(data, bytes):
            raise TypeError(f"write takes bytes, not {type(data).__name__}")
        self._queue(data, None)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Queue many."""
        self._queue(b"".join(iovec), None)

    def writeVec(self, buffers: Sequence[bytes | memoryview], sent: Callable[[], None] | None = None) -> None:
        """Queue ``buffers``; see IPeerTransport."""
        if not self.lost:
            self.vectors.append(list(buffers))
        self._queue(b"".join(buffers), sent)

    def _queue(self, data: bytes, sent: Callable[[], None] | None) -> None:
        if self.lost or self.aborted:
            if sent is not None:
                sent()
            return
        self.writes.append(data)
        self.io.write(data)
        self.queued += len(data)
        self._waiting.append(_Written(len(data), sent))
        if self.drains or not self.queued:
            self.drain(len(data))
        elif self.producer is not None and self.streaming and self.queued > HIGH_WATER:
            self._pause_producer()

    def drain(self, count: int | None = None) -> None:
        """The kernel takes ``count`` bytes, or all: whoever waited for them is told, and may write more."""
        left = self.queued if count is None else min(count, self.queued)
        self.queued -= left
        waiting = self._waiting
        while waiting and waiting[0].left <= left:
            first = waiting.popleft()
            left -= first.left
            if first.sent is not None:
                first.sent()
        if waiting:
            waiting[0].left -= left
        self._resume_producer()
        if self.closing and not self.queued and self.producer is None:
            self._lose_if_told(ConnectionDone())

    # --- the producer ----------------------------------------------------------------------------------

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Remember the producer; one that comes to a lost connection is stopped, as Twisted does."""
        super().registerProducer(producer, streaming)
        self._producer_paused = False
        if self.lost:
            self.unregisterProducer()
            producer.stopProducing()

    def unregisterProducer(self) -> None:
        """Forget it; a connection that waited for its end is closed."""
        super().unregisterProducer()
        if self.closing and not self.queued:
            self._lose_if_told(ConnectionDone())

    def _pause_producer(self) -> None:
        if not self._producer_paused:
            self._producer_paused = True
            self.producer.pauseProducing()

    def _resume_producer(self) -> None:
        if self.producer is not None and self._producer_paused and self.queued <= LOW_WATER:
            self._producer_paused = False
            self.producer.resumeProducing()

    # --- reading ---------------------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """Reading is paused; again is fine."""
        self.pauses += 1
        if self.producerState == "producing":
            self.producerState = "paused"

    def resumeProducing(self) -> None:
        """Reading goes on."""
        self.resumes += 1
        if self.producerState == "paused":
            self.producerState = "producing"

    # --- closing ---------------------------------------------------------------------------------------

    def loseConnection(self) -> None:
        """Close when all is drained."""
        self.closing = self.disconnecting = True
        if not self.queued and self.producer is None:
            self._lose_if_told(ConnectionDone())

    def abortConnection(self) -> None:
        """Close at once."""
        if self.aborted or self.lost:
            return
        self.aborted = self.disconnected = True
        self._forget_queue()
        self._lose_if_told(ConnectionAborted())

    def _lose_if_told(self, reason: Exception) -> None:
        if self.loses:
            self.lose(reason)

    def lose(self, reason: Exception | None = None) -> None:
        """The connection is closed, by default by the other side: all are told, once."""
        if self.lost:
            return
        self.lost = self.disconnected = True
        self.connected = False
        self.producerState = "stopped"
        self._forget_queue()
        producer = self.producer
        if producer is not None:
            super().unregisterProducer()
            producer.stopProducing()
        if self.protocol is not None:
            self.protocol.connectionLost(Failure(ConnectionDone() if reason is None else reason))

    def _forget_queue(self) -> None:
        self.queued = 0
        while self._waiting:
            written = self._waiting.popleft()
            if written.sent is not None:
                written.sent()
