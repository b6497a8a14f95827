"""
One connection to a peer, from its handshake on: bytes in, messages up; and the one place that catches
ProtocolViolation.

Between this protocol and the swarm stands the intake of the session.  While it is full (too many disk jobs,
or this turn of the reactor has taken long enough) parsing stops at the message boundary, the transport is
paused, and the unparsed rest of the read waits; so the reader of a peer never waits for anybody, and nothing
is ever dropped.  Blocks need no place in a queue: their memory was reserved when they were requested.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol as TypingProtocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.errors import Closed, ProtocolViolation, QueueFull
from irontide.flow import EVENT_BACKLOG, HELD_PATIENCE, BackpressureQueue, FlowCounters, Valve
from irontide.interfaces import IMessageReceiver, IPeerTransport, ISwarm
from irontide.peer.peer import Peer
from irontide.values import PeerAddress
from irontide.wire.connection import PeerConnection
from irontide.wire.messages import Message
from irontide.wire.preamble import HANDSHAKE_LENGTH, PREAMBLE_LENGTH, Preamble

HANDSHAKE_PATIENCE = 10.0
"""Seconds from the connection to the last of the 68 bytes."""


class Intake(TypingProtocol):
    """
    The consumer that all peers of a session share: it says when it has had enough for now.

    :ivar counters: what all queues before it have been through.
    """

    counters: FlowCounters

    def begin(self) -> None:
        """A peer begins to parse what it received."""

    def full(self) -> bool:
        """Whether nothing more should be delivered now."""

    def when_room(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` once when there is room again."""


@implementer(IMessageReceiver)
class PeerProtocol(Protocol):
    """Speaks with one peer; ``transport`` is an IPeerTransport."""

    _log = Logger()
    transport: IPeerTransport

    def __init__(
        self, swarm: ISwarm, ours: Preamble, peer_id: bytes, address: PeerAddress, *, incoming: bool,
        clock: IReactorTime, intake: Intake, max_held: float = HELD_PATIENCE,
        lost: Callable[[Peer | None, str], None] | None = None,
    ) -> None:  # fmt: skip
        """
        :param max_held: seconds for which the intake may hold this peer before it is disconnected.
        :param lost: told when the connection has ended, with the peer if there was a handshake.
        """
        self.peer: Peer | None = None
        self._swarm = swarm
        self._ours = ours
        self._peer_id = peer_id
        self._address = address
        self._incoming = incoming
        self._clock = clock
        self._intake = intake
        self._max_held = max_held
        self._lost = lost
        self._timer: IDelayedCall | None = None
        self._connection: PeerConnection | None = None
        self._received = b""
        self._rest = b""
        self._reason: str | None = None

    # --- the connection ----------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Wait for the handshake; who dialled speaks first."""
        self._timer = self._clock.callLater(HANDSHAKE_PATIENCE, self.drop, "no handshake in time")
        if not self._incoming:
            self._send_handshake()

    def _send_handshake(self) -> None:
        self.transport.write(self._ours.to_bytes() + self._peer_id)

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the peer, cut anywhere."""
        if self._reason is not None:
            return
        if self._connection is None:
            self._take_handshake(data)
        elif self._connection.held:
            self._rest += data  # read before the pause took effect
        else:
            self._parse(data)

    def _take_handshake(self, data: bytes) -> None:
        self._received += data
        if len(self._received) < HANDSHAKE_LENGTH:
            return
        data, self._received = self._received, b""
        try:
            self._greet(data)
        except ProtocolViolation as violation:
            self._violated(violation)
            return
        if len(data) > HANDSHAKE_LENGTH and self._connection is not None:
            self._parse(data[HANDSHAKE_LENGTH:])

    def _greet(self, data: bytes) -> None:
        """The handshake is complete: from here on there is a peer."""
        theirs = Preamble.from_bytes(data[:PREAMBLE_LENGTH])
        if theirs.infohash != self._swarm.infohash:
            raise ProtocolViolation("another torrent than was agreed on")
        self._stop_timer()
        if self._incoming:
            self._send_handshake()
        common = Preamble(
            bytes(a & b for a, b in zip(theirs.reserved, self._ours.reserved, strict=True)), theirs.infohash
        )
        peer_id = data[PREAMBLE_LENGTH:HANDSHAKE_LENGTH]
        now = self._clock.seconds()
        self.peer = peer = Peer(self, self._address, common, peer_id, incoming=self._incoming, now=now)
        self._connection = PeerConnection(
            self, self._swarm.blocks_of(peer), pieces=self._swarm.pieces, fast=common.fast,
            extended=common.extensions,
        )  # fmt: skip
        self._queue = BackpressureQueue(
            EVENT_BACKLOG,
            partial(self._swarm.message_received, peer),
            full=self._intake.full,
            valve=Valve(self.transport),
            seconds=self._clock.seconds,
            counters=self._intake.counters,
        )
        self._swarm.peer_joined(peer)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    # --- parsing -----------------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        """Parse what was received, as far as the intake takes it."""
        connection, peer = self._connection, self.peer
        assert connection is not None and peer is not None
        self._intake.begin()
        try:
            used = connection.receive(data)
        except ProtocolViolation as violation:
            self._violated(violation)
            return
        except (Closed, QueueFull) as error:
            self.drop(f"intake: {type(error).__name__}")
            return
        if self._reason is not None:
            return
        if connection.held:
            self._hold(data[used:])
        self._swarm.read_done(peer, len(data))

    def message_received(self, message: Message) -> None:
        """A message is parsed; a full intake stops the parsing behind it."""
        self._queue.put(message)
        if self._queue.depth:
            assert self._connection is not None
            self._connection.held = True

    # --- being held --------------------------------------------------------------------------------------

    def _hold(self, rest: bytes) -> None:
        """The intake is full: ``rest`` waits until it is not, or for too long."""
        self._rest = rest
        self._intake.when_room(self._go_on)
        self._timer = self._clock.callLater(self._max_held, self._held_too_long)

    def _held_too_long(self) -> None:
        self._queue.give_up()
        self.drop(f"the intake was full for more than {self._max_held:g} s")

    def _go_on(self) -> None:
        """There may be room again; as when data is received, a bug of ours costs this connection only."""
        if self._reason is not None or self._connection is None:
            return
        try:
            self._drain(self._connection)
        except (ProtocolViolation, Closed) as error:
            self._violated(error)
        except BaseException:
            self.drop("a bug of ours")
            raise

    def _drain(self, connection: PeerConnection) -> None:
        """First what waits in the queue, then the rest of the read."""
        self._queue.drain()
        if self._reason is not None:
            return
        if self._queue.depth:
            self._intake.when_room(self._go_on)
            return
        self._stop_timer()
        connection.held = False
        rest, self._rest = self._rest, b""
        self._parse(rest)

    # --- the end -----------------------------------------------------------------------------------------

    def _violated(self, violation: ProtocolViolation | Closed) -> None:
        self._log.debug("{address}: {reason}", address=self._address, reason=violation)
        self.drop(str(violation))

    def revoke_claim(self) -> None:
        """Throw away the rest of the block that is arriving."""
        if self._connection is not None:
            self._connection.discard_claim()

    def drop(self, reason: str) -> None:
        """Close the connection at once; the first reason is the one that counts."""
        if self._reason is None:
            self._reason = reason
            self._end()
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is closed, by whomever."""
        if self._reason is None:
            self._reason = reason.getErrorMessage()
            self._end()

    def _end(self) -> None:
        """Give everything back, once."""
        self._stop_timer()
        self._rest = b""
        if self._connection is not None:
            self._connection.close()
            self._queue.close()
        if self.peer is not None:
            self._swarm.peer_left(self.peer, self._reason or "")
        if self._lost is not None:
            self._lost(self.peer, self._reason or "")
