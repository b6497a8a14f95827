"""
Who is an accepted connection for?  Reads the 48 bytes of the preamble, asks the router, and hands over.

A stranger gets 5 seconds in total, 48 bytes and one of the slots for the unidentified; the first byte that
no BitTorrent client would send ends it.  The protocol that takes over sees the whole stream, preamble
included, on the real transport: it may register producers and pause as if it had been there from the start.

The deadlines of all connections are one queue with one timed call, because they all have the same length:
a call for each would be a third of the cost of accepting.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol as Structural
from typing import cast

from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.errors import Closed
from irontide.interfaces import IConnectionRouter, IPeerTransport, IReadiness, ISlot
from irontide.transport.slots import Refusal, Slots
from irontide.transport.vectored import RECEIVE_SIZE, IReadsAhead
from irontide.values import PeerAddress
from irontide.wire.preamble import PREAMBLE_LENGTH, PREFIX, Preamble

IDENTIFY_TIMEOUT = 5.0
"""Seconds from accept to the last byte of the preamble; dripping buys no time."""

STRANGERS_RECEIVE_SIZE = 4096
"""The most that is read of a connection at a time, and so kept of it, before it is handed over."""

WAITING_ROOM = 64
"""So many identified connections wait for a router that is not ready before accepting pauses."""


class Acceptor(Structural):
    """What accepts connections for a factory and can be told to hold it."""

    def hold(self, who: str) -> None:
        """Accept nothing until ``who`` lets go."""

    def release(self, who: str) -> None:
        """``who`` has nothing against accepting any more."""

    def stopListening(self) -> object:
        """Accept nothing for ever."""


class Newcomer(Structural):
    """A connection that is accepted and has no transport yet."""

    def abortConnection(self) -> None:
        """Close at once."""


class _State(Enum):
    COLLECTING = auto()
    """Not all of the preamble is here."""
    WAITING = auto()
    """Identified, and the router is not ready; the transport is paused."""
    SERVED = auto()
    """Somebody else's: bytes are handed on."""
    CLOSED = auto()
    """Refused, or lost before it was served."""


@implementer(IProtocol)
class PreambleProtocol:
    """Reads the preamble of one connection; later stands between the transport and who took it over."""

    __slots__ = ("_factory", "_received", "_state", "_successor", "address", "slot", "transport")

    transport: IPeerTransport
    slot: ISlot

    def __init__(self, factory: PeerFactory, address: PeerAddress) -> None:
        self.address = address
        self._factory = factory
        self._received = b""
        self._state = _State.COLLECTING
        self._successor: IProtocol

    # --- called by the transport -----------------------------------------------------------------------

    def accepted(self, newcomer: Newcomer) -> None:
        """
        A socket is there, and a transport comes in this turn of the reactor.

        Unless ``newcomer`` has to give way before: IReadsAhead is asked of it as of a transport.
        """
        self.transport = cast(IPeerTransport, newcomer)

    def makeConnection(self, transport: ITransport) -> None:
        """Connected: wait for what comes."""
        self.transport = cast(IPeerTransport, transport)
        self._read_at_most(STRANGERS_RECEIVE_SIZE)
        self.connectionMade()

    def connectionMade(self) -> None:
        """Nothing to say to a stranger."""

    def dataReceived(self, data: bytes) -> None:
        """Collect the preamble; later, hand on."""
        if self._state is _State.SERVED:
            self._successor.dataReceived(data)
        elif self._state is _State.COLLECTING:
            self._received += data
            self._judge()
        elif self._state is _State.WAITING:
            self._received += data

    def connectionLost(self, reason: Failure) -> None:
        """However it ended: the slot goes back, and whoever serves the connection hears of it."""
        served = self._state is _State.SERVED
        self._state = _State.CLOSED
        self._factory._forget(self)
        self.slot.release()
        if served:
            self._successor.connectionLost(reason)

    # --- identification --------------------------------------------------------------------------------

    def _judge(self) -> None:
        received = self._received
        if not received.startswith(PREFIX[: len(received)]):
            self.refuse(Refusal.NOT_BITTORRENT)
        elif len(received) >= PREAMBLE_LENGTH:
            self._factory._identified(self)

    @property
    def preamble(self) -> Preamble:
        """What the other side said; only once all of it is here."""
        return Preamble.from_bytes(self._received[:PREAMBLE_LENGTH])

    def wait(self) -> None:
        """The router is not ready: read no further for now."""
        self._state = _State.WAITING
        self.transport.pauseProducing()

    def serve(self, successor: IProtocol) -> None:
        """Give the connection to ``successor``, with everything that was received."""
        if self._state is _State.WAITING:
            self.transport.resumeProducing()
        self._read_at_most(RECEIVE_SIZE)
        received, self._received = self._received, b""
        self._state = _State.SERVED
        self._successor = successor
        successor.makeConnection(self.transport)
        successor.dataReceived(received)

    def refuse(self, reason: Refusal) -> None:
        """Close at once, saying nothing, and give the slot back; does nothing to one that is closed."""
        if not self.closed:
            self._factory.slots.refusals[reason] += 1
            self._close()
            self.slot.release()

    @property
    def closed(self) -> bool:
        """The connection is gone, by either side."""
        return self._state is _State.CLOSED

    def give_way(self) -> None:
        """
        A newcomer gets the slot: close, unless the preamble is here and was only not read yet.

        Connections that were accepted a moment ago may have spoken since; the flood that pushes them out
        has not.  (Whoever calls this takes the slot, and counts.)
        """
        self.read_now()
        if self._state is _State.COLLECTING:
            self._close()

    def read_now(self) -> None:
        """Take in what has arrived and was not read yet, where the transport can tell."""
        ahead = IReadsAhead(self.transport, None)
        if ahead is not None:
            ahead.read_now()

    def _read_at_most(self, size: int) -> None:
        self.transport.bufferSize = size  # type: ignore[attr-defined]  # as all of Twisted's have

    def _close(self) -> None:
        if self._state is not _State.SERVED:
            self._state = _State.CLOSED
        self._factory._forget(self)
        self.transport.abortConnection()


@implementer(IProtocolFactory)
class PeerFactory(Factory):
    """
    Accepts connections under the cap, identifies them, and hands them to the router's protocols.

    One factory serves any number of listening ports; when the last of them is closed it closes whatever
    is not handed over.
    """

    _log = Logger()
    noisy = False

    def __init__(
        self,
        router: IConnectionRouter,
        slots: Slots,
        clock: IReactorTime,
        banned: Callable[[str], bool],
        *,
        timeout: float = IDENTIFY_TIMEOUT,
    ) -> None:
        """
        :param router: may provide IReadiness too; connections then wait for it.
        :param banned: tells by the numeric address whom not to read a byte from.
        :param timeout: seconds for the whole preamble.
        """
        self.slots = slots
        self.timeout = timeout
        self._router = router
        self._readiness: IReadiness | None = IReadiness(router, None)
        self._clock = clock
        self._banned = banned
        self._deadlines: OrderedDict[PreambleProtocol, float] = OrderedDict()
        self._alarm: IDelayedCall | None = None
        self._waiting: OrderedDict[PreambleProtocol, None] = OrderedDict()
        self._wake_is_due = False
        self._acceptors: list[Acceptor] = []
        self._holding = False

    # --- accepting -------------------------------------------------------------------------------------

    def buildProtocol(  # type: ignore[override]  # Factory wants a Protocol, IProtocolFactory an IProtocol
        self, addr: IAddress | None
    ) -> PreambleProtocol | None:
        """Return the protocol of a newcomer, or None to close it unread."""
        address = PeerAddress(addr.host, addr.port)  # type: ignore[union-attr]
        if self._banned(address.host):
            self.slots.refusals[Refusal.BANNED] += 1
            return None
        protocol = PreambleProtocol(self, address)
        slot = self.slots.accept(address, protocol.give_way)
        if slot is None:
            return None
        protocol.slot = slot
        self._deadlines[protocol] = self._clock.seconds() + self.timeout
        if self._alarm is None:
            self._alarm = self._clock.callLater(self.timeout, self._expire)
        return protocol

    def attach(self, acceptor: Acceptor) -> None:
        """From now on hold ``acceptor`` while the waiting room is full."""
        self._acceptors.append(acceptor)
        if self._holding:
            acceptor.hold("waiting room")

    def detach(self, acceptor: Acceptor) -> None:
        """``acceptor`` is closed."""
        self._acceptors.remove(acceptor)

    def stopFactory(self) -> None:
        """The last port is closed: close what is not handed over."""
        for protocol in [*self._deadlines, *self._waiting]:
            protocol.refuse(Refusal.CLOSING)

    # --- deadlines -------------------------------------------------------------------------------------

    def _expire(self) -> None:
        self._alarm = None
        now = self._clock.seconds()
        while self._deadlines:
            protocol, deadline = next(iter(self._deadlines.items()))
            if deadline > now:
                self._alarm = self._clock.callLater(deadline - now, self._expire)
                return
            protocol.refuse(Refusal.TIMEOUT)

    def _forget(self, protocol: PreambleProtocol) -> None:
        """The connection is identified, refused or lost."""
        if self._deadlines.pop(protocol, None) is not None:
            if not self._deadlines and self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None
        elif protocol in self._waiting:
            del self._waiting[protocol]
            self._hold_or_release()

    # --- handing over ----------------------------------------------------------------------------------

    def _ready(self) -> bool:
        return self._readiness is None or self._readiness.ready

    def _identified(self, protocol: PreambleProtocol) -> None:
        """All of the preamble is here."""
        successor = self._route(protocol, Refusal.UNKNOWN)
        if successor is None or protocol.closed:
            return
        self._forget(protocol)
        protocol.slot.identified()
        if self._ready() and not self._waiting:
            self._serve(protocol, successor)
        else:
            self._waiting[protocol] = None
            protocol.wait()
            self._hold_or_release()
            self._ask_to_be_woken()

    def _route(self, protocol: PreambleProtocol, otherwise: Refusal) -> IProtocol | None:
        """
        Ask the router; None if it refuses the connection, which is closed then.

        A router that raises Closed has gone away: that is the end of listening, too.
        """
        try:
            successor = self._router.route(protocol.preamble, protocol.address, protocol.slot)
        except Closed:
            otherwise, successor = Refusal.CLOSING, None
            for acceptor in self._acceptors:
                acceptor.stopListening()
        except Exception:
            self._log.failure("could not route a connection from {address}", address=protocol.address)
            otherwise, successor = Refusal.ERROR, None
        if successor is None:
            protocol.refuse(otherwise)
        return successor

    def _serve(self, protocol: PreambleProtocol, successor: IProtocol) -> None:
        try:
            protocol.serve(successor)
        except Exception:
            self._log.failure("could not hand over a connection from {address}", address=protocol.address)
            protocol.refuse(Refusal.ERROR)

    # --- the waiting room ------------------------------------------------------------------------------

    def _ask_to_be_woken(self) -> None:
        if self._readiness is not None and not self._wake_is_due:
            self._wake_is_due = True
            self._readiness.when_ready(self._wake)

    def _wake(self) -> None:
        """Hand over who waited, in the order in which they were identified."""
        self._wake_is_due = False
        while self._waiting and self._ready():
            protocol, _ = self._waiting.popitem(last=False)
            successor = self._route(protocol, Refusal.REMOVED)
            if successor is not None and not protocol.closed:
                self._serve(protocol, successor)
        if self._waiting:
            self._ask_to_be_woken()
        self._hold_or_release()

    def _hold_or_release(self) -> None:
        full = len(self._waiting) >= WAITING_ROOM
        if full is self._holding:
            return
        self._holding = full
        for acceptor in self._acceptors:
            if full:
                acceptor.hold("waiting room")
            else:
                acceptor.release("waiting room")
