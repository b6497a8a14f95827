"""
TCP transports that send many buffers without joining them.

Twisted's own transport joins what is written and, when the other side is slow, joins the unsent tail again
and again: 0.5 to 1.9 CPU seconds a GiB.  Here the queue holds the buffers as they were given, and
``socket.sendmsg`` takes up to 128 of them at a time: about 0.3.  Nothing is sent before the reactor says
that the socket is writable, so what is written in one turn of the reactor leaves in one system call.

The server side hooks in by ``Port.transport``, which is public.  The client side overrides
``Connector._makeTransport``, which is not; a live test holds it in place.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from errno import ENOBUFS
from itertools import islice
from typing import Any

from twisted.internet import main, tcp
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IConnector, IProducer
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from irontide.interfaces import IPeerTransport

MAX_BUFFERS = 128
"""How many buffers one sendmsg takes; more is no faster, and IOV_MAX is 1024."""

RECEIVE_SIZE = 256 * 1024
HIGH_WATER = 512 * 1024
LOW_WATER = 128 * 1024

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_ABORTED = Failure(ConnectionAborted())
"""One for all, as with Twisted's own reasons: in a flood, making them is a tenth of the work."""

Buffer = bytes | memoryview


class IReadsAhead(Interface):
    """A transport that need not wait for the reactor to tell it that bytes have arrived."""

    def read_now() -> None:
        """Deliver what has arrived; nothing at all if nothing has, or the connection is lost."""


class _SendQueue(tcp.Connection):
    """
    Mixed into Twisted's Server and Client: replaces their way of sending, keeps all else.

    ``queued`` is what was written and has not left; every call of ``writeVec`` with a ``sent`` is an entry
    in ``_receipts``, under the position in the stream of its last byte.

    :ivar high_water: a streaming producer is paused when more bytes than this are queued,
    :ivar low_water: and resumed when no more than this are.
    """

    _log = Logger()

    bufferSize = RECEIVE_SIZE
    high_water = HIGH_WATER
    low_water = LOW_WATER

    reactor: Any
    producer: Any
    _aborted = False

    def __init__(self, *args: Any, **named: Any) -> None:
        self._buffers: deque[Buffer] = deque()
        self._receipts: deque[tuple[int, Callable[[], None]]] = deque()
        self._written = 0
        self._left = 0
        super().__init__(*args, **named)

    @property
    def queued(self) -> int:
        """How many bytes are written and have not yet left for the kernel."""
        return self._written - self._left

    # --- writing ---------------------------------------------------------------------------------------

    def writeVec(self, buffers: Sequence[Buffer], sent: Callable[[], None] | None = None) -> None:
        """See IPeerTransport; memoryviews must be of single bytes."""
        if self._closed_for_writing():
            if sent is not None:
                sent()
            return
        idle = not self._buffers
        self._buffers.extend(filter(len, buffers))
        self._written += sum(map(len, buffers))
        if sent is not None:
            if self._written == self._left:
                sent()
                return
            self._receipts.append((self._written, sent))
        if self._buffers:
            if idle:
                self.startWriting()
            if self.producer is not None:
                self._pause_if_full()

    def write(self, data: bytes) -> None:
        """Queue ``data``, behind all that is queued."""
        self.writeVec((data,))

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Queue many."""
        self.writeVec(tuple(iovec))

    def _closed_for_writing(self) -> bool:
        return not self.connected or self._aborted or self._writeDisconnected

    def doWrite(self) -> BaseException | None:  # type: ignore[override]  # Twisted swaps it by assignment
        """The reactor says that the socket takes bytes: send, tell of what has left, ask for more."""
        if self._buffers:
            try:
                sent = self.socket.sendmsg(islice(self._buffers, MAX_BUFFERS))
            except BlockingIOError:
                return None
            except OSError as error:
                return None if error.errno == ENOBUFS else main.CONNECTION_LOST
            self._drop(sent)
        self._resume_if_low()
        if self._buffers or self._aborted or not self.connected:
            return None
        return self._drained()

    def _drop(self, sent: int) -> None:
        """Take ``sent`` bytes off the front of the queue, and call whoever waited for them."""
        buffers = self._buffers
        self._left += sent
        while sent:
            size = len(buffers[0])
            if sent < size:
                buffers[0] = memoryview(buffers[0])[sent:]
                break
            sent -= size
            buffers.popleft()
        receipts = self._receipts
        while receipts and receipts[0][0] <= self._left:
            receipts.popleft()[1]()

    def _drained(self) -> BaseException | None:
        """Nothing is queued: stop writing, and go on with closing if that was asked for."""
        self.stopWriting()
        if self.producer is not None:
            return None
        if self.disconnecting:
            return main.CONNECTION_DONE
        if self._writeDisconnecting:
            self._writeDisconnected = True
            self._closeWriteConnection()
        return None

    # --- the producer ----------------------------------------------------------------------------------

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """As Twisted's; a streaming producer is paused at once if the queue is above the mark already."""
        super().registerProducer(producer, streaming)
        self.producerPaused = False
        if self.producer is not None:
            self._pause_if_full()

    def _pause_if_full(self) -> None:
        if self.streamingProducer and not self.producerPaused and self.queued > self.high_water:
            self.producerPaused = True
            self.producer.pauseProducing()

    def _resume_if_low(self) -> None:
        if self.producer is None:
            return
        if self.streamingProducer:
            if self.producerPaused and self.queued <= self.low_water:
                self.producerPaused = False
                self.producer.resumeProducing()
        elif not self._buffers:
            self.producer.resumeProducing()

    # --- closing ---------------------------------------------------------------------------------------

    def abortConnection(self) -> None:
        """
        Close at once, with a reset: when this returns, the descriptor is free and ``sent`` was called.

        (Twisted closes the descriptor in the next turn of the reactor, which would let the number of open
        sockets exceed the cap for as long.)  The protocol hears of it in the next turn.
        """
        if not self.connected:
            super().abortConnection()
            return
        if self._aborted:
            return
        self.stopReading()
        self.stopWriting()
        self._aborted = True
        self.doRead = self.doWrite = _do_nothing  # type: ignore[method-assign]  # as Twisted does
        reset(self.socket)
        self._forget_queue()
        self.reactor.callLater(0, self.connectionLost, _ABORTED)

    def connectionLost(self, reason: Failure) -> None:
        """What is queued is dropped, and whoever waits for it told, before the protocol hears."""
        self._forget_queue()
        super().connectionLost(reason)

    def _forget_queue(self) -> None:
        self._buffers.clear()
        self._left = self._written
        while self._receipts:
            _, sent = self._receipts.popleft()
            try:
                sent()
            except Exception:
                self._log.failure("a callback of writeVec failed while its connection was closed")

    def _closeSocket(self, orderly: bool) -> None:
        """Called by Twisted's connectionLost; abortConnection has done it already."""
        if not self._aborted:
            super()._closeSocket(orderly)

    def startReading(self) -> None:
        """Not once the descriptor is closed: its number may be another connection's by now."""
        if not self._aborted:
            super().startReading()

    def stopReading(self) -> None:
        """See startReading."""
        if not self._aborted:
            super().stopReading()

    def startWriting(self) -> None:
        """See startReading."""
        if not self._aborted:
            super().startWriting()

    def stopWriting(self) -> None:
        """See startReading."""
        if not self._aborted:
            super().stopWriting()


def reset(connected: socket.socket) -> None:
    """Close so that nothing stays behind, here or in the kernel: the other side gets a reset."""
    with suppress(OSError):  # some systems refuse the option once the other side is gone
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    connected.close()


def _do_nothing() -> None:
    """Stands in for doRead and doWrite of a socket that is closed."""


@implementer(IPeerTransport, IReadsAhead)
class VectoredServer(_SendQueue, tcp.Server):
    """The transport of an accepted connection."""

    def read_now(self) -> None:
        """See IReadsAhead; a lost connection is left for the reactor to find."""
        self.doRead()


@implementer(IPeerTransport)
class VectoredClient(_SendQueue, tcp.Client):
    """The transport of a connection that we made."""

    def createInternetSocket(self) -> socket.socket:
        """As Twisted's, without Nagle's algorithm.  (Accepted sockets have that from the listening one.)"""
        created: socket.socket = super().createInternetSocket()
        created.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return created

    def connectionLost(self, reason: Failure) -> None:
        """As Twisted's, but the connector hears of it even if the protocol raises: it holds a slot."""
        connector = getattr(self, "connector", None)
        try:
            super().connectionLost(reason)
        except Exception:
            if connector is not None:
                connector.connectionLost(reason)
            raise


class VectoredConnector(tcp.Connector):
    """Makes VectoredClients."""

    def _makeTransport(self) -> VectoredClient:
        return VectoredClient(self.host, self.port, self.bindAddress, self, self.reactor)


def connect_vectored(
    reactor: Any,
    host: str,
    port: int,
    factory: ClientFactory[Any],
    timeout: float,
    bind_address: tuple[str, int] | None = None,
) -> IConnector:
    """``reactor.connectTCP`` with a transport that has writeVec; ``host`` is numeric."""
    connector = VectoredConnector(host, port, factory, timeout, bind_address, reactor)
    connector.connect()
    return connector
