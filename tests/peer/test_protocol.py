"""A connection from its first byte to its end: the handshake, contract B, and everything given back once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from irontide.errors import Closed, ProtocolViolation
from irontide.flow import EVENT_BACKLOG, HELD_PATIENCE, FlowCounters
from irontide.interfaces import IBlockSink, IMessageReceiver, ISwarm
from irontide.peer.peer import Peer
from irontide.peer.protocol import HANDSHAKE_PATIENCE, PeerProtocol
from irontide.values import PeerAddress
from irontide.wire import messages as m
from irontide.wire.codec import encode, piece_header
from irontide.wire.messages import Message
from irontide.wire.preamble import HANDSHAKE_LENGTH, OUR_RESERVED, Preamble
from tests.fakes import FakePeerTransport

INFOHASH = bytes(range(20))
OURS = Preamble(OUR_RESERVED, INFOHASH)
OUR_ID = b"-IT0100-ourselves---"
THEIR_ID = b"-XX0001-the-others--"
GREETING = OURS.to_bytes() + THEIR_ID
PIECES = 16


@implementer(IBlockSink)
class Sink:
    """Takes every block, in order with the messages."""

    def __init__(self, log: list[object]) -> None:
        self.log = log
        self.memory = bytearray(1 << 18)

    def claim(self, piece: int, begin: int, length: int) -> memoryview:
        return memoryview(self.memory)[:length]

    def complete(self, piece: int, begin: int, length: int) -> None:
        self.log.append(("block", piece, begin, bytes(self.memory[:length])))

    def take(self, piece: int, begin: int, data: memoryview) -> None:
        self.log.append(("block", piece, begin, bytes(data)))

    def release(self, piece: int, begin: int, length: int) -> None:
        self.log.append(("released", piece, begin))


@implementer(ISwarm)
class FakeSwarm:
    """Logs; ``on`` is called with each message and may raise."""

    infohash = INFOHASH
    pieces: int | None = PIECES

    def __init__(self) -> None:
        self.log: list[object] = []
        self.joined: list[Peer] = []
        self.left: list[tuple[Peer, str]] = []
        self.reads: list[int] = []
        self.refuse: str | None = None
        self.on: Callable[[Peer, Message], None] = lambda peer, message: None

    def blocks_of(self, peer: Peer) -> Sink:
        return Sink(self.log)

    def peer_joined(self, peer: Peer) -> None:
        if self.refuse is not None:
            raise ProtocolViolation(self.refuse)
        self.joined.append(peer)

    def read_done(self, peer: Peer, received: int) -> None:
        self.reads.append(received)

    def message_received(self, peer: Peer, message: Message) -> None:
        self.log.append(message)
        self.on(peer, message)

    def peer_left(self, peer: Peer, reason: str) -> None:
        self.left.append((peer, reason))

    def peers_found(self, addresses: Any, source: str, *, near: bool = False) -> None:
        raise AssertionError


class FakeIntake:
    """Full when the test says so, or after so many deliveries."""

    def __init__(self, swarm: FakeSwarm) -> None:
        self.counters = FlowCounters()
        self.room: int | None = None  # how many more messages; None: any number
        self.waiting: list[Callable[[], None]] = []
        self._swarm = swarm
        self._before = 0

    def begin(self) -> None:
        """Nothing is timed here."""

    def let(self, count: int | None) -> None:
        """Have room for ``count`` messages from now on."""
        self.room = count
        self._before = self._messages()

    def _messages(self) -> int:
        return sum(isinstance(entry, Message) for entry in self._swarm.log)

    def full(self) -> bool:
        return self.room is not None and self._messages() - self._before >= self.room

    def when_room(self, wake: Callable[[], None]) -> None:
        self.waiting.append(wake)

    def wake(self) -> None:
        waiting, self.waiting = self.waiting, []
        for wake in waiting:
            wake()


class ProtocolTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.swarm = FakeSwarm()
        self.intake = FakeIntake(self.swarm)
        self.ends: list[tuple[Peer | None, str]] = []

    def tearDown(self) -> None:
        """At any end: told once to each, nothing left in the clock, no queue keeps anything."""
        if not self.transport.lost:
            self.transport.lose()
        self.assertEqual(len(self.ends), 1)
        self.assertEqual(len(self.swarm.left), 0 if self.ends[0][0] is None else 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.intake.counters.depth, 0)

    def connect(self, *, incoming: bool = True, greet: bool = True) -> PeerProtocol:
        self.protocol = PeerProtocol(
            self.swarm, OURS, OUR_ID, PeerAddress("10.0.0.1", 50000), incoming=incoming, clock=self.clock,
            intake=self.intake, lost=lambda peer, reason: self.ends.append((peer, reason)),
        )  # fmt: skip
        self.transport = FakePeerTransport(self.protocol, drains=True)
        self.protocol.makeConnection(self.transport)
        if greet:
            self.protocol.dataReceived(GREETING)
        return self.protocol

    def say(self, *messages: Message) -> None:
        self.protocol.dataReceived(b"".join(map(encode, messages)))

    @property
    def why(self) -> str:
        return self.ends[0][1]


class HandshakeTests(ProtocolTestCase):
    def test_is_a_message_receiver(self) -> None:
        self.assertTrue(verifyObject(IMessageReceiver, self.connect()))
        self.assertTrue(verifyObject(ISwarm, self.swarm))
        self.assertTrue(verifyObject(IBlockSink, Sink([])))

    def test_who_was_dialled_answers(self) -> None:
        self.connect(greet=False)
        self.assertEqual(self.transport.value(), b"")
        self.protocol.dataReceived(GREETING)
        self.assertEqual(self.transport.value(), OURS.to_bytes() + OUR_ID)
        self.assertEqual([peer.peer_id for peer in self.swarm.joined], [THEIR_ID])

    def test_who_dials_speaks_first(self) -> None:
        self.connect(incoming=False, greet=False)
        self.assertEqual(self.transport.value(), OURS.to_bytes() + OUR_ID)
        self.protocol.dataReceived(GREETING)
        self.assertEqual(len(self.transport.value()), HANDSHAKE_LENGTH)
        (peer,) = self.swarm.joined
        self.assertEqual(peer.listens, PeerAddress("10.0.0.1", 50000))

    def test_the_whole_stream_however_it_is_cut(self) -> None:
        """L1: also byte by byte, also the handshake and what is behind it in one read."""
        messages = [m.HaveNone(), m.Unchoke(), m.Have(3), m.Extended(0, b"de"), m.KeepAlive()]
        stream = GREETING + b"".join(map(encode, messages)) + piece_header(1, 0, 5) + b"block"
        for size in (1, 2, 3, 67, 68, 69, 71, len(stream)):
            self.setUp()
            self.connect(greet=False)
            for at in range(0, len(stream), size):
                self.protocol.dataReceived(stream[at : at + size])
            self.assertEqual(self.swarm.log, [*messages, ("block", 1, 0, b"block")], size)

    def test_silence_is_refused(self) -> None:
        self.connect(greet=False)
        self.clock.advance(HANDSHAKE_PATIENCE - 0.01)
        self.assertFalse(self.transport.lost)
        self.clock.advance(0.01)
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.ends, [(None, "no handshake in time")])

    def test_a_dripping_handshake_is_refused(self) -> None:
        self.connect(greet=False)
        for byte in GREETING[:-1]:
            self.protocol.dataReceived(bytes([byte]))
            self.clock.advance(HANDSHAKE_PATIENCE / 66.9)
        self.assertTrue(self.transport.aborted)

    def test_a_handshake_ends_the_wait(self) -> None:
        self.connect()
        self.clock.advance(100)
        self.assertFalse(self.transport.lost)

    def test_another_infohash_is_refused_and_told_nothing(self) -> None:
        self.connect(greet=False)
        self.protocol.dataReceived(Preamble(OUR_RESERVED, b"x" * 20).to_bytes() + THEIR_ID)
        self.assertTrue(self.transport.aborted)
        self.assertEqual((self.transport.value(), self.swarm.joined), (b"", []))

    def test_another_protocol_is_refused(self) -> None:
        self.connect(greet=False)
        self.protocol.dataReceived(b"HTTP/1.1 400 Bad Request\r\n\r\n".ljust(68))
        self.assertTrue(self.transport.aborted)

    def test_whom_the_swarm_refuses(self) -> None:
        self.swarm.refuse = "that is ourselves"
        self.connect()
        self.protocol.dataReceived(encode(m.Unchoke()))
        self.assertEqual((self.why, self.swarm.log), ("that is ourselves", []))

    def test_refused_with_messages_behind_the_handshake(self) -> None:
        self.swarm.refuse = "no"
        self.connect(greet=False)
        self.protocol.dataReceived(GREETING + encode(m.Unchoke()))
        self.assertEqual(self.swarm.log, [])

    def test_only_what_both_have_counts(self) -> None:
        self.connect(greet=False)
        self.protocol.dataReceived(Preamble(bytes(8), INFOHASH).to_bytes() + THEIR_ID)
        (peer,) = self.swarm.joined
        self.assertFalse(peer.fast or peer.extended)
        self.say(m.HaveAll())
        self.assertTrue(self.transport.aborted, "without the fast extension")


class MessageTests(ProtocolTestCase):
    def test_reads_are_told(self) -> None:
        self.connect()
        self.say(m.Unchoke(), m.Choke())
        self.assertEqual(self.swarm.reads, [10])

    def test_a_violation_of_the_wire_ends_it(self) -> None:
        self.connect()
        self.protocol.dataReceived(b"\xff\xff\xff\xff")
        self.assertIn("4294967295", self.why)
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.swarm.reads, [])

    def test_a_violation_that_the_swarm_sees_ends_it(self) -> None:
        def on(peer: Peer, message: Message) -> None:
            raise ProtocolViolation("not with me")

        self.connect()
        self.swarm.on = on
        self.say(m.Unchoke(), m.Choke())
        self.assertEqual((self.why, self.swarm.log), ("not with me", [m.Unchoke()]))

    def test_dropped_from_inside_a_message(self) -> None:
        self.connect()
        self.swarm.on = lambda peer, message: peer.drop("enough")
        self.say(m.Unchoke(), m.Choke())
        self.assertEqual((self.why, self.swarm.log, self.swarm.reads), ("enough", [m.Unchoke()], []))

    def test_nothing_is_heard_after_the_end(self) -> None:
        self.connect()
        self.transport.loses = False
        self.protocol.drop("over")
        self.say(m.Unchoke())
        self.assertEqual(self.swarm.log, [])

    def test_the_first_reason_counts(self) -> None:
        self.connect()
        self.protocol.drop("first")
        self.protocol.drop("second")
        self.assertEqual(self.why, "first")
        self.assertEqual([reason for _, reason in self.swarm.left], ["first"])

    def test_the_end_in_the_middle_of_a_block(self) -> None:
        self.connect()
        self.protocol.dataReceived(piece_header(1, 0, 100) + b"half")
        self.transport.lose()
        self.assertEqual(self.swarm.log, [("released", 1, 0)])

    def test_a_revoked_claim_is_not_released(self) -> None:
        self.connect()
        self.protocol.dataReceived(piece_header(1, 0, 100) + b"half")
        self.protocol.revoke_claim()
        self.protocol.dataReceived(bytes(96) + encode(m.Unchoke()))
        self.assertEqual(self.swarm.log, [m.Unchoke()])

    def test_the_end_at_any_byte(self) -> None:
        """peer_left exactly once, whenever it comes."""
        stream = GREETING + encode(m.Unchoke()) + piece_header(1, 0, 9) + b"123456789" + encode(m.Have(1))
        for end in range(len(stream) + 1):
            self.setUp()
            self.connect(greet=False)
            self.protocol.dataReceived(stream[:end])
            self.tearDown()
            self.assertEqual(self.ends[0][0] is not None, end >= HANDSHAKE_LENGTH)


class BackpressureTests(ProtocolTestCase):
    """Contract B."""

    def test_room_means_at_once(self) -> None:
        self.connect()
        self.say(m.Unchoke())
        self.assertEqual((self.swarm.log, self.transport.pauses), ([m.Unchoke()], 0))

    def test_a_full_intake_stops_parsing_and_pauses_the_transport(self) -> None:
        self.connect()
        self.intake.let(1)
        self.say(m.Unchoke(), m.Have(1), m.Have(2), m.Have(3))
        self.assertEqual(self.swarm.log, [m.Unchoke()])
        self.assertTrue(self.transport.paused)
        self.assertEqual(self.intake.counters.depth, 1, "one in the queue, the others not even parsed")
        self.assertLess(self.intake.counters.depth, EVENT_BACKLOG)

    def test_nothing_is_lost_or_overtakes(self) -> None:
        self.connect()
        self.intake.let(1)
        said: list[Message] = [m.Have(number) for number in range(10)]
        self.say(*said[:5])
        self.say(*said[5:])  # read before the pause took effect
        for _ in range(20):
            self.intake.let(1)
            self.intake.wake()
        self.assertEqual(self.swarm.log, said)
        self.assertFalse(self.transport.paused)
        self.assertEqual(self.intake.waiting, [])

    def test_blocks_are_in_order_with_messages(self) -> None:
        self.connect()
        self.intake.let(0)
        stream = encode(m.Have(1)) + piece_header(1, 0, 3) + b"abc" + encode(m.Have(2))
        self.protocol.dataReceived(stream)
        self.assertEqual(self.swarm.log, [])
        self.intake.let(None)
        self.intake.wake()
        self.assertEqual(self.swarm.log, [m.Have(1), ("block", 1, 0, b"abc"), m.Have(2)])

    def test_blocks_alone_never_wait(self) -> None:
        """Their memory was reserved when they were requested."""
        self.connect()
        self.intake.let(0)
        self.protocol.dataReceived(2 * (piece_header(1, 0, 3) + b"abc"))
        self.assertEqual(len(self.swarm.log), 2)
        self.assertFalse(self.transport.paused)

    def test_a_block_that_has_begun_is_completed_while_others_wait(self) -> None:
        self.connect()
        self.protocol.dataReceived(piece_header(1, 0, 6) + b"abc")
        self.intake.let(0)
        self.protocol.dataReceived(b"def" + encode(m.Have(1)))
        self.assertEqual(self.swarm.log, [("block", 1, 0, b"abcdef")])
        self.assertTrue(self.transport.paused)

    def test_one_wake_delivers_all_that_fits(self) -> None:
        self.connect()
        self.intake.let(0)
        self.say(*[m.Have(number) for number in range(10)])
        self.intake.let(7)
        self.intake.wake()
        self.assertEqual(len(self.swarm.log), 7)
        self.assertTrue(self.transport.paused)
        self.assertEqual(len(self.intake.waiting), 1)

    def test_held_for_too_long(self) -> None:
        """B3: also if nobody wakes it, because the disk hangs."""
        self.connect()
        self.intake.let(0)
        self.say(m.Have(1), m.Have(2))
        self.clock.advance(HELD_PATIENCE - 0.1)
        self.intake.wake()
        self.assertFalse(self.transport.lost)
        self.clock.advance(0.1)
        self.assertTrue(self.transport.aborted)
        self.assertIn("intake", self.why)
        self.assertEqual(self.intake.counters.disconnects, 1)
        self.assertEqual(self.intake.counters.depth, 0)
        self.intake.let(None)
        self.intake.wake()
        self.assertEqual(self.swarm.log, [])

    def test_each_time_held_has_its_own_patience(self) -> None:
        self.connect()
        for number in range(5):
            self.intake.let(0)
            self.say(m.Have(number))
            self.clock.advance(HELD_PATIENCE - 1)
            self.intake.let(None)
            self.intake.wake()
        self.assertEqual(len(self.swarm.log), 5)
        self.assertFalse(self.transport.lost)
        self.assertEqual(self.intake.counters.holds, 5)

    def test_a_violation_among_what_waited(self) -> None:
        self.connect()
        self.intake.let(0)
        self.say(m.Have(1))
        self.protocol.dataReceived(b"\xff\xff\xff\xff")
        self.assertFalse(self.transport.lost)
        self.intake.let(None)
        self.intake.wake()
        self.assertEqual(self.swarm.log, [m.Have(1)])
        self.assertTrue(self.transport.aborted)

    def test_dropped_while_what_waited_is_delivered(self) -> None:
        self.connect()
        self.intake.let(0)
        self.say(m.Have(1), m.Have(2))
        self.intake.let(None)
        self.swarm.on = lambda peer, message: peer.drop("enough")
        self.intake.wake()
        self.assertEqual((self.swarm.log, self.why), ([m.Have(1)], "enough"))

    def test_lost_while_held(self) -> None:
        self.connect()
        self.intake.let(0)
        self.say(m.Have(1), m.Have(2))
        self.transport.lose()
        self.intake.let(None)
        self.intake.wake()
        self.assertEqual(self.swarm.log, [])

    def test_a_closed_intake_is_shutdown(self) -> None:
        def on(peer: Peer, message: Message) -> None:
            raise Closed("the session is gone")

        for held in (False, True):
            self.setUp()
            self.connect()
            self.swarm.on = on
            self.intake.let(0 if held else None)
            self.say(m.Have(1))
            self.intake.let(None)
            self.intake.wake()
            self.assertTrue(self.transport.aborted)
            self.tearDown()

    def test_a_bug_of_ours_costs_this_connection_only(self) -> None:
        def on(peer: Peer, message: Message) -> None:
            raise ZeroDivisionError

        for waited in (1, 2):
            self.setUp()
            self.connect()
            self.intake.let(0)
            self.say(m.Have(1), m.Have(2))
            self.swarm.on = lambda peer, message, last=waited: (
                on(peer, message) if message == m.Have(last) else None
            )
            self.intake.let(None)
            self.assertRaises(ZeroDivisionError, self.intake.wake)
            self.assertTrue(self.transport.aborted)
            self.tearDown()

    @settings(deadline=None, max_examples=100)
    @given(
        st.lists(st.one_of(st.integers(0, PIECES - 1), st.binary(min_size=1, max_size=20)), max_size=25),
        st.lists(
            st.tuples(st.integers(1, 40), st.one_of(st.none(), st.integers(0, 3)), st.booleans()), min_size=1
        ),
    )
    def test_whatever_is_cut_and_held(
        self, items: list[int | bytes], reads: list[tuple[int, int | None, bool]]
    ) -> None:
        """Messages and blocks arrive in their order, each once, however they are read and held."""
        self.setUp()
        self.connect()
        expected: list[object] = []
        stream = b""
        for item in items:
            if isinstance(item, int):
                expected.append(m.Have(item))
                stream += encode(m.Have(item))
            else:
                expected.append(("block", 1, 0, item))
                stream += piece_header(1, 0, len(item)) + item
        turn = 0
        while stream:
            size, room, wake = reads[turn % len(reads)]
            turn += 1
            self.intake.let(room)
            if wake:
                self.intake.wake()
            if not self.transport.paused or turn % 5 == 0:
                self.protocol.dataReceived(stream[:size])
                stream = stream[size:]
            elif turn % 7 == 0:
                self.intake.let(None)
                self.intake.wake()
        self.intake.let(None)
        self.intake.wake()
        self.assertEqual(self.swarm.log, expected)
        self.tearDown()
