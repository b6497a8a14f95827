"""
The two ends of a virtual TCP connection.

What matters of TCP here: bytes arrive in order, late, and no faster than both hosts' lines carry them; a
receiver that pauses stops the sender once a window of bytes is under way; an end is seen after the bytes
before it, a reset at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol as Structural

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IProducer, IProtocol, IPushProducer
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.interfaces import IPeerTransport

WINDOW = 256 * 1024
"""Bytes of a connection that may be under way or unread by the other side."""

SEGMENT = 64 * 1024
"""The most that travels, and is delivered, in one go."""

HIGH_WATER = 512 * 1024
LOW_WATER = 128 * 1024

Buffer = bytes | memoryview
Address = IPv4Address | IPv6Address


class Line(Structural):
    """What a host has to send or to receive by: one thing after the other, at a rate."""

    def reserve(self, length: int, earliest: float) -> float:
        """Say when ``length`` bytes are through, if they may start at ``earliest``."""


@implementer(IPeerTransport)
class SimulatedTransport:
    """
    One end of a connection.

    :ivar other: the other end.
    :ivar closed: called when the protocol has heard that the connection is lost.
    :ivar lifetime: when the network loses the connection, if it does.
    :ivar received: bytes of the other side that the protocol here was given.
    """

    def __init__(self, clock: Clock, here: Address, there: Address, up: Line, down: Line, latency: float):
        """
        :param up: the line by which this end sends,
        :param down: and the one by which the other end receives.
        :param latency: seconds, one way.
        """
        self._clock = clock
        self._here, self._there = here, there
        self._up, self._down, self._latency = up, down, latency
        self.protocol: IProtocol | None = None
        self.other: SimulatedTransport
        self.connected = True
        self.disconnecting = False
        self.queued = 0
        self.received = 0
        self._written = 0
        self._buffers: deque[Buffer] = deque()
        self._receipts: deque[tuple[int, Callable[[], None]]] = deque()
        self._under_way = 0
        self._last_arrival = 0.0
        self._pump_is_due = False
        self._inbox: deque[bytes | None] = deque()  # None is the end of the stream
        self._reading = True
        self._read_is_due = False
        self.producer: IProducer | None = None
        self._streaming = False
        self._producer_paused = False
        self._lost: Failure | None = None
        self.closed: Callable[[Failure], None] | None = None
        self.lifetime: IDelayedCall | None = None

    # --- writing ---------------------------------------------------------------------------------------

    def writeVec(self, buffers: Sequence[Buffer], sent: Callable[[], None] | None = None) -> None:
        """See IPeerTransport.  Nothing leaves before the next turn, as with a socket."""
        if not self.connected:
            if sent is not None:
                sent()
            return
        self._buffers.extend(buffer for buffer in buffers if len(buffer))
        length = sum(map(len, buffers))
        self._written += length
        self.queued += length
        if sent is not None:
            self._receipts.append((self._written, sent))
        if self._streaming and not self._producer_paused and self.queued > HIGH_WATER:
            self._producer_paused = True
            IPushProducer(self.producer).pauseProducing()
        self._pump_soon()

    def write(self, data: bytes) -> None:
        """Queue ``data``, behind all that is queued."""
        if not isinstance(data, bytes):
            raise TypeError(f"a transport takes bytes, not {type(data).__name__}")
        self.writeVec((data,))

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Queue many."""
        self.writeVec(tuple(iovec))

    def _pump_soon(self) -> None:
        if not self._pump_is_due and self.connected:
            self._pump_is_due = True
            self._clock.callLater(0, self._pump)

    def _pump(self) -> None:
        """Put on the line what the window allows; it is copied now, as the kernel would."""
        self._pump_is_due = False
        while self.connected and self._buffers and self._under_way < WINDOW:
            self._depart(self._take(min(SEGMENT, WINDOW - self._under_way)))
        if not self.connected:
            return
        if self.producer is not None:
            self._ask_producer()
        elif self.disconnecting and not self._buffers:
            self._depart(None)
            self._lose(Failure(ConnectionDone()))

    def _take(self, most: int) -> bytes:
        taken = []
        while self._buffers and most:
            buffer = self._buffers.popleft()
            if len(buffer) > most:
                self._buffers.appendleft(memoryview(buffer)[most:])
                buffer = memoryview(buffer)[:most]
            most -= len(buffer)
            taken.append(buffer)
        data = b"".join(taken)
        self.queued -= len(data)
        while self._receipts and self._receipts[0][0] <= self._written - self.queued:
            self._receipts.popleft()[1]()
        return data

    def _depart(self, data: bytes | None) -> None:
        length = 0 if data is None else len(data)
        self._under_way += length
        left = self._up.reserve(length, self._clock.seconds())
        arrival = max(self._down.reserve(length, left + self._latency), self._last_arrival)
        self._last_arrival = arrival
        self._clock.callLater(arrival - self._clock.seconds(), self.other._arrived, data)

    def _acknowledged(self, length: int) -> None:
        self._under_way -= length
        self._pump_soon()

    # --- the producer ----------------------------------------------------------------------------------

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """As Twisted's transports."""
        if self.producer is not None:
            raise RuntimeError(f"{self.producer} is registered already")
        if not self.connected:
            producer.stopProducing()
            return
        self.producer, self._streaming, self._producer_paused = producer, streaming, False
        if streaming and self.queued > HIGH_WATER:
            self._producer_paused = True
            IPushProducer(producer).pauseProducing()
        if not streaming:
            self._pump_soon()

    def unregisterProducer(self) -> None:
        """A close that was asked for may go on."""
        self.producer, self._streaming = None, False
        if self.disconnecting:
            self._pump_soon()

    def _ask_producer(self) -> None:
        ready = self._producer_paused and self.queued <= LOW_WATER if self._streaming else not self._buffers
        if ready:
            self._producer_paused = False
            self.producer.resumeProducing()  # type: ignore[union-attr]  # asked by _pump

    # --- reading ---------------------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """Read no more."""
        self._reading = False

    def resumeProducing(self) -> None:
        """Read again, from the next turn on."""
        if self.connected and not self.disconnecting:
            self._reading = True
            self._read_soon()

    def stopProducing(self) -> None:
        """As Twisted's: close."""
        self.loseConnection()

    def _arrived(self, data: bytes | None) -> None:
        if self.connected:
            self._inbox.append(data)
            if self._reading and not self._read_is_due:
                self._read()

    def _read_soon(self) -> None:
        if self._inbox and not self._read_is_due:
            self._read_is_due = True
            self._clock.callLater(0, self._read)

    def _read(self) -> None:
        """Give the protocol what is here, one segment a turn."""
        self._read_is_due = False
        if not (self._inbox and self._reading and self.connected and self.protocol is not None):
            return
        data = self._inbox.popleft()
        if data is None:
            self._lose(Failure(ConnectionDone()))
            return
        self.received += len(data)
        self._clock.callLater(self._latency, self.other._acknowledged, len(data))
        self.protocol.dataReceived(data)
        self._read_soon()

    def start(self, protocol: IProtocol) -> None:
        """Connect the protocol; what has arrived already, be it the end, comes in the next turn."""
        self.protocol = protocol
        protocol.makeConnection(self)
        if self._lost is not None:
            self._clock.callLater(0, self._lose_protocol, self._lost)
        self._read_soon()

    # --- closing ---------------------------------------------------------------------------------------

    def loseConnection(self) -> None:
        """Close when everything queued has left and the producer is done."""
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._reading = False
            self._pump_soon()

    def abortConnection(self) -> None:
        """Close at once: what is queued is dropped, the other side sees a reset."""
        if self.connected:
            self._clock.callLater(self._latency, self.other._lose, Failure(ConnectionLost()))
            self._clock.callLater(0, self._lose_protocol, Failure(ConnectionAborted()))
            self._forget()

    def break_off(self) -> None:
        """The network loses the connection: this end notices now, the other does so itself."""
        self._lose(Failure(ConnectionLost()))

    def _lose(self, reason: Failure) -> None:
        if self.connected:
            self._forget()
            self._lose_protocol(reason)

    def _forget(self) -> None:
        """The connection is no more; the memory lent to it is given back."""
        self.connected = False
        self.disconnecting = False
        self._buffers.clear()
        self._inbox.clear()
        self.queued = 0
        if self.lifetime is not None and self.lifetime.active():
            self.lifetime.cancel()
        while self._receipts:
            self._receipts.popleft()[1]()

    def _lose_protocol(self, reason: Failure) -> None:
        if self.producer is not None:
            self.producer.stopProducing()
            self.producer = None
        if self.protocol is None:
            self._lost = reason
            return
        protocol, self.protocol = self.protocol, None
        protocol.connectionLost(reason)
        if self.closed is not None:
            self.closed(reason)

    # --- what Twisted's TCP transports have too ---------------------------------------------------------

    def getPeer(self) -> Address:
        """The other end."""
        return self._there

    def getHost(self) -> Address:
        """This end."""
        return self._here

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing is delayed here."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing is kept alive here."""
