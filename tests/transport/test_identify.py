"""Identification of connections: contract L, on a Clock and transports of our own."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from irontide.errors import Closed
from irontide.interfaces import IConnectionRouter, IReadiness, ISlot
from irontide.transport.identify import IDENTIFY_TIMEOUT, WAITING_ROOM, PeerFactory
from irontide.transport.slots import Refusal, Slots
from irontide.transport.vectored import RECEIVE_SIZE
from irontide.values import PeerAddress
from irontide.wire.preamble import PREAMBLE_LENGTH, PREFIX, Preamble
from tests.transport.fakes import KNOWN, UNKNOWN, Busy, FakeAcceptor, FakeTransport, KnowsOne, Remembers

STREAM = KNOWN.to_bytes() + b"peer id, messages"


class Case(SynchronousTestCase):
    """A factory with a router of one torrent, and newcomers from addresses of their own."""

    def setUp(self) -> None:
        self.use(KnowsOne())

    def use(self, router: KnowsOne, limit: int = 500) -> None:
        self.clock = Clock()
        self.router = router
        self.slots = Slots(limit)
        self.banned: set[str] = set()
        self.factory = PeerFactory(router, self.slots, self.clock, self.banned.__contains__)
        self.ports: Iterator[int] = iter(range(1, 65536))

    def address(self) -> IPv4Address:
        port = next(self.ports)
        return IPv4Address("TCP", f"192.0.{port >> 8}.{port & 255}", port)

    def connect(self, data: bytes = b"") -> FakeTransport:
        """Accept a connection, which then says ``data``."""
        protocol = self.factory.buildProtocol(self.address())
        assert protocol is not None
        transport = FakeTransport(protocol)
        protocol.makeConnection(transport)
        if data:
            protocol.dataReceived(data)
        return transport

    def assert_refused(self, transport: FakeTransport, reason: Refusal) -> None:
        """The connection is closed, said nothing, counted once, and left nothing behind."""
        self.assertTrue(transport.disconnected)
        self.assertEqual(transport.value(), b"")
        self.assertEqual(self.slots.refusals, {reason: 1})
        transport.close()
        self.assert_nothing_left()

    def assert_nothing_left(self) -> None:
        self.assertEqual((self.slots.used, self.slots.unidentified), (0, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class IdentificationTests(Case):
    def test_fakes_are_faithful(self) -> None:
        self.assertTrue(verifyObject(IConnectionRouter, KnowsOne()))
        self.assertTrue(verifyObject(IReadiness, Busy()))

    def test_successor_gets_every_byte_whole(self) -> None:
        """L1"""
        self.connect(STREAM)
        [(_, peer)] = self.router.served
        self.assertEqual(peer.data, STREAM)

    def test_successor_gets_every_byte_one_by_one(self) -> None:
        """L1"""
        transport = self.connect()
        for byte in STREAM:
            transport.protocol.dataReceived(bytes([byte]))
        [(_, peer)] = self.router.served
        self.assertEqual(peer.data, STREAM)

    @given(st.lists(st.integers(0, len(STREAM))))
    def test_successor_gets_every_byte_however_cut(self, cuts: list[int]) -> None:
        """L1"""
        self.use(KnowsOne())
        transport = self.connect()
        ends = sorted({*cuts, len(STREAM)})
        for start, end in zip([0, *ends], ends, strict=False):
            transport.protocol.dataReceived(STREAM[start:end])
        [(_, peer)] = self.router.served
        self.assertEqual(peer.data, STREAM)

    def test_exactly_the_preamble_is_enough(self) -> None:
        """L1, and not a byte less is."""
        transport = self.connect(STREAM[: PREAMBLE_LENGTH - 1])
        self.assertEqual(self.router.served, [])
        transport.protocol.dataReceived(STREAM[PREAMBLE_LENGTH - 1 : PREAMBLE_LENGTH])
        self.assertEqual(self.router.served[0][1].data, STREAM[:PREAMBLE_LENGTH])

    def test_router_is_told_all(self) -> None:
        """L2: address, infohash and the slot, which is held."""
        said = Preamble(bytes(range(8)), KNOWN.infohash)
        self.connect(said.to_bytes())
        [(preamble, address, slot)] = self.router.asked
        self.assertEqual((preamble, address), (said, PeerAddress("192.0.0.1", 1)))
        self.assertTrue(verifyObject(ISlot, slot))
        self.assertEqual(slot.address, address)
        self.assertEqual((self.slots.used, self.slots.unidentified), (1, 0))

    def test_ipv6(self) -> None:
        protocol = self.factory.buildProtocol(IPv6Address("TCP", "2001:db8::1", 6881))
        assert protocol is not None
        self.assertEqual(protocol.address, PeerAddress("2001:db8::1", 6881))

    def test_successor_is_on_the_real_transport(self) -> None:
        """Producers, pausing and closing work as if nobody had been there before."""
        transport = self.connect(STREAM)
        peer = self.router.served[0][1]
        self.assertIs(peer.transport, transport)
        self.assertEqual(transport.bufferSize, RECEIVE_SIZE)

    def test_successor_hears_of_the_end(self) -> None:
        transport = self.connect(STREAM)
        transport.protocol.dataReceived(b"more")
        transport.close()
        peer = self.router.served[0][1]
        self.assertEqual(peer.data, STREAM + b"more")
        self.assertEqual(len(peer.lost), 1)
        self.assert_nothing_left()

    def test_five_good_of_ten(self) -> None:
        """L6: identification is concurrent, and exactly the good arrive."""
        all_ten = [self.connect() for _ in range(10)]
        for byte in range(PREAMBLE_LENGTH):
            for number, transport in enumerate(all_ten):
                said = (KNOWN if number % 2 else UNKNOWN).to_bytes()
                transport.protocol.dataReceived(said[byte : byte + 1])
        self.assertEqual([address.port for address, _ in self.router.served], [2, 4, 6, 8, 10])
        self.assertEqual([transport.disconnected for transport in all_ten], [True, False] * 5)
        self.assertEqual(self.slots.used, 5)

    def test_order_of_completion(self) -> None:
        """L7"""
        first, second = self.connect(STREAM[:40]), self.connect()
        second.protocol.dataReceived(STREAM)
        first.protocol.dataReceived(STREAM[40:])
        self.assertEqual([address.port for address, _ in self.router.served], [2, 1])


class RefusalTests(Case):
    def test_unknown_infohash(self) -> None:
        """L4"""
        self.assert_refused(self.connect(UNKNOWN.to_bytes()), Refusal.UNKNOWN)

    def test_foreign_protocol_at_its_first_byte(self) -> None:
        """L3"""
        self.assert_refused(self.connect(b"G"), Refusal.NOT_BITTORRENT)

    def test_every_wrong_byte_of_the_prefix(self) -> None:
        """L3: refused at the first byte that differs, whole or byte by byte; not one sooner."""
        for wrong in range(len(PREFIX)):
            said = PREFIX[:wrong] + bytes([PREFIX[wrong] ^ 1])
            self.use(KnowsOne())
            transport = self.connect(PREFIX[:wrong])
            self.assertFalse(transport.disconnected)
            transport.protocol.dataReceived(said[wrong:])
            self.assert_refused(transport, Refusal.NOT_BITTORRENT)
            self.use(KnowsOne())
            self.assert_refused(self.connect(said + STREAM), Refusal.NOT_BITTORRENT)

    def test_silence(self) -> None:
        """L5"""
        transport = self.connect()
        self.clock.advance(IDENTIFY_TIMEOUT - 0.01)
        self.assertFalse(transport.disconnected)
        self.clock.advance(0.01)
        self.assert_refused(transport, Refusal.TIMEOUT)

    def test_dripping(self) -> None:
        """L5: the time is a total; a byte now and then buys none."""
        transport = self.connect()
        for byte in STREAM[:40]:
            self.clock.advance(0.1)
            transport.protocol.dataReceived(bytes([byte]))
        self.clock.advance(1.0)
        self.assert_refused(transport, Refusal.TIMEOUT)

    def test_the_clock_stops_at_identification(self) -> None:
        transport = self.connect(STREAM)
        self.clock.advance(100)
        self.assertFalse(transport.disconnected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_everybody_has_a_deadline_of_their_own(self) -> None:
        """One timed call serves all, and no deadline is late for it."""
        transports = []
        for _ in range(20):
            transports.append(self.connect())
            self.clock.advance(0.1)
        transports[3].protocol.dataReceived(STREAM)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(IDENTIFY_TIMEOUT - 2.05)
        for number, transport in enumerate(transports):
            self.assertFalse(transport.disconnected, number)
            self.clock.advance(0.1)
            self.assertEqual(transport.disconnected, number != 3, number)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_banned_before_a_byte_is_read(self) -> None:
        self.banned.add("192.0.0.1")
        self.assertIsNone(self.factory.buildProtocol(self.address()))
        self.assertEqual(self.slots.refusals, {Refusal.BANNED: 1})
        self.assert_nothing_left()

    def test_bytes_after_a_refusal_change_nothing(self) -> None:
        transport = self.connect(b"G")
        transport.protocol.dataReceived(STREAM)
        self.assertEqual(self.router.asked, [])
        self.assert_refused(transport, Refusal.NOT_BITTORRENT)

    def test_many_refusals_stop_nobody(self) -> None:
        """L17"""
        for number in range(5000):
            self.connect((b"G", UNKNOWN.to_bytes(), STREAM[:7])[number % 3])
        self.clock.advance(IDENTIFY_TIMEOUT)
        self.assert_nothing_left()
        self.assertEqual(sum(self.slots.refusals.values()), 5000)
        self.connect(STREAM)
        self.assertEqual(self.router.served[0][1].data, STREAM)


class SlotTests(Case):
    def test_held_until_the_connection_is_lost(self) -> None:
        """L14, on every path."""
        self.use(KnowsOne(), limit=1)
        for data in (b"", STREAM, STREAM[:10]):
            transport = self.connect(data)
            self.assertEqual(self.slots.used, 1)
            transport.close()
            self.assert_nothing_left()
        for data in (b"G", UNKNOWN.to_bytes()):
            self.connect(data).close()
            self.assert_nothing_left()

    def test_cap(self) -> None:
        """L12"""
        self.use(KnowsOne(), limit=1)
        first = self.connect(STREAM)
        self.assertIsNone(self.factory.buildProtocol(self.address()))
        first.close()
        self.connect(STREAM)
        self.assertEqual(len(self.router.served), 2)

    def test_cap_of_two_and_five_clients(self) -> None:
        """L13: whatever they do, no more than two are ever open."""
        self.use(KnowsOne(), limit=2)
        open_now: list[FakeTransport] = []
        for data in (b"", STREAM, b"", STREAM, STREAM):
            protocol = self.factory.buildProtocol(self.address())
            if protocol is None:
                continue
            transport = FakeTransport(protocol)
            open_now.append(transport)
            protocol.makeConnection(transport)
            protocol.dataReceived(data)
            self.assertLessEqual(len([each for each in open_now if not each.disconnected]), 2)
        self.assertEqual(len(self.router.served), 2)

    def test_the_oldest_silent_one_gives_way(self) -> None:
        self.use(KnowsOne(), limit=4)
        silent, newcomer = self.connect(), self.connect()
        self.assertTrue(silent.disconnected)
        self.assertFalse(newcomer.disconnected)
        self.assertEqual(self.slots.refusals, {Refusal.CROWDED: 1})
        silent.close()
        newcomer.close()
        self.assert_nothing_left()

    def test_one_that_has_spoken_does_not_give_way(self) -> None:
        """Its preamble has arrived, and the reactor had no time yet to say so."""
        self.use(KnowsOne(), limit=4)
        spoken = self.connect()
        spoken.arrived = STREAM
        self.connect()
        self.assertFalse(spoken.disconnected)
        self.assertEqual(self.router.served[0][1].data, STREAM)
        self.assertEqual((self.slots.used, self.slots.unidentified), (2, 1))

    def test_a_raising_router_costs_one_connection(self) -> None:
        """L14, exception: a bug of ours is in the log, and ends nothing but this connection."""
        self.router.known = None  # type: ignore[assignment]
        self.assert_refused(self.connect(STREAM), Refusal.ERROR)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_a_raising_successor_costs_one_connection(self) -> None:
        class Raises(Remembers):
            def dataReceived(self, data: bytes) -> None:
                raise ZeroDivisionError

        self.router.make = Raises
        transport = self.connect(STREAM)
        self.assertTrue(transport.disconnected)
        self.assertEqual(self.slots.used, 0)
        transport.close()
        self.assertEqual(len(self.router.served[0][1].lost), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assert_nothing_left()

    def test_a_successor_that_raises_at_the_end_keeps_no_slot(self) -> None:
        class Raises(Remembers):
            def connectionLost(self, reason: object) -> None:
                raise ZeroDivisionError

        self.router.make = Raises
        transport = self.connect(STREAM)
        with self.assertRaises(ZeroDivisionError):
            transport.close()
        self.assert_nothing_left()


class WaitingTests(Case):
    """L8: a router that is not ready."""

    def setUp(self) -> None:
        self.busy = Busy()
        self.use(self.busy)
        self.acceptor = FakeAcceptor()
        self.factory.attach(self.acceptor)

    def test_a_connection_waits_paused_and_loses_nothing(self) -> None:
        transport = self.connect(STREAM)
        self.assertEqual(transport.producerState, "paused")
        self.assertEqual(self.busy.connected(), [])
        self.assertEqual((self.slots.used, self.slots.unidentified), (1, 0))
        self.clock.advance(100)
        self.assertFalse(transport.disconnected)
        self.busy.become_ready()
        self.assertEqual(transport.producerState, "producing")
        self.assertEqual(self.busy.served[-1][1].data, STREAM)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_successor_may_pause_at_once(self) -> None:
        """It is resumed before it is handed over, not after."""

        class Pauses(Remembers):
            def connectionMade(self) -> None:
                self.transport.pauseProducing()  # type: ignore[union-attr]

        self.busy.make = Pauses
        transport = self.connect(STREAM)
        self.busy.become_ready()
        self.assertEqual(transport.producerState, "paused")

    def test_accepting_pauses_at_the_bound_and_resumes(self) -> None:
        for _ in range(WAITING_ROOM - 1):
            self.connect(STREAM)
        self.assertEqual(self.acceptor.holders, [])
        last = self.connect(STREAM)
        self.assertEqual(self.acceptor.holders, ["waiting room"])
        self.connect(STREAM)  # was accepted before the pause
        self.assertEqual(self.acceptor.holders, ["waiting room"])
        last.close()
        self.assertEqual(self.acceptor.holders, ["waiting room"])
        self.busy.become_ready()
        self.assertEqual(self.acceptor.holders, [])
        self.assertEqual(len(self.busy.connected()), WAITING_ROOM)
        self.assertEqual(self.slots.used, WAITING_ROOM)

    def test_accepting_resumes_when_those_who_wait_go(self) -> None:
        waiting = [self.connect(STREAM) for _ in range(WAITING_ROOM)]
        waiting[5].close()
        self.assertEqual(self.acceptor.holders, [])

    def test_a_new_port_is_held_as_the_others_are(self) -> None:
        for _ in range(WAITING_ROOM):
            self.connect(STREAM)
        late = FakeAcceptor()
        self.factory.attach(late)
        self.assertEqual(late.holders, ["waiting room"])
        self.factory.detach(late)
        self.busy.become_ready()
        self.assertEqual(late.holders, ["waiting room"])

    def test_order_is_kept(self) -> None:
        """L7: nobody overtakes those who wait, even if the router is ready meanwhile."""
        self.connect(STREAM)
        self.connect(STREAM)
        self.busy.ready = True
        self.connect(STREAM)
        self.assertEqual(self.busy.connected(), [])
        self.busy.become_ready()
        self.assertEqual([address.port for address in self.busy.connected()], [1, 2, 3])

    def test_a_router_that_fills_up_again(self) -> None:
        """Only as many are handed over as it takes, and it is asked to wake us again."""
        for _ in range(3):
            self.connect(STREAM)

        class Fills(Remembers):
            def connectionMade(peer) -> None:
                self.busy.ready = False

        self.busy.make = Fills
        for handed in (1, 2, 3):
            self.busy.become_ready()
            self.assertEqual(len(self.busy.connected()), handed)
        self.assertEqual(self.busy.wakes, [])

    def test_a_torrent_removed_meanwhile(self) -> None:
        """L10"""
        transport = self.connect(STREAM)
        self.busy.known.clear()
        self.busy.become_ready()
        self.assert_refused(transport, Refusal.REMOVED)

    def test_an_unknown_torrent_does_not_wait(self) -> None:
        """L10: the infohash is checked at identification already."""
        self.assert_refused(self.connect(UNKNOWN.to_bytes()), Refusal.UNKNOWN)

    def test_one_that_goes_while_it_waits(self) -> None:
        self.connect(STREAM).close()
        self.busy.become_ready()
        self.assertEqual(self.busy.connected(), [])
        self.assert_nothing_left()

    def test_a_ready_router_is_never_waited_for(self) -> None:
        self.busy.become_ready()
        transport = self.connect(STREAM)
        self.assertEqual(transport.producerState, "producing")
        self.assertEqual(len(self.busy.asked), 1)


class EndTests(Case):
    def test_stopping_closes_what_is_not_handed_over(self) -> None:
        """L9, L11"""
        busy = Busy(ready=True)
        self.use(busy)
        self.factory.doStart()
        served = self.connect(STREAM)
        busy.ready = False
        waiting, silent = self.connect(STREAM), self.connect(b"\x13")
        self.factory.doStop()
        self.assertFalse(served.disconnected)
        self.assertTrue(waiting.disconnected)
        self.assertTrue(silent.disconnected)
        self.assertEqual(self.slots.refusals, {Refusal.CLOSING: 2})
        self.assertEqual(self.slots.used, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        busy.become_ready()
        self.assertEqual(len(busy.connected()), 1)

    def test_another_port_keeps_them_open(self) -> None:
        """A new port is bound before the old one is closed; nobody loses a connection by that."""
        self.factory.doStart()
        self.factory.doStart()
        silent = self.connect()
        self.factory.doStop()
        self.assertFalse(silent.disconnected)
        self.factory.doStop()
        self.assert_refused(silent, Refusal.CLOSING)

    def test_a_router_that_is_gone_ends_listening(self) -> None:
        """L9"""

        class Gone(KnowsOne):
            def route(self, preamble: Preamble, address: PeerAddress, slot: ISlot) -> Remembers | None:
                raise Closed

        self.use(Gone())
        acceptor = FakeAcceptor()
        self.factory.attach(acceptor)
        transport = self.connect(STREAM)
        self.assertTrue(acceptor.stopped)
        self.assert_refused(transport, Refusal.CLOSING)
