"""The network itself: what is proved on it is worth as much as it is."""

from __future__ import annotations

from random import Random

from attrs import define, field
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError, TimeoutError
from twisted.internet.interfaces import IConnector, IProtocol
from twisted.internet.interfaces import IPushProducer as PushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from irontide.errors import ListenPortInUse
from irontide.interfaces import IPeerTransport
from irontide.transport.slots import Slots
from irontide.values import PeerAddress
from tests.simulation.network import Network, SimulatedConnector
from tests.simulation.transport import HIGH_WATER, WINDOW, SimulatedTransport


class Remembers(Protocol):
    """Keeps what it hears."""

    transport: SimulatedTransport

    def __init__(self) -> None:
        self.data = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class Accepts(Factory):
    """Keeps the protocols it makes."""

    noisy = False

    def __init__(self) -> None:
        self.protocols: list[Remembers] = []

    def buildProtocol(self, addr: object) -> Remembers:
        self.protocols.append(Remembers())
        return self.protocols[-1]


class Refuses(Factory):
    """Closes every connection unread."""

    noisy = False

    def buildProtocol(self, addr: object) -> None:
        return None


@implementer(PushProducer)
@define
class Producer:
    """Counts what it is told."""

    paused: int = 0
    resumed: int = 0
    stopped: int = 0
    log: list[str] = field(factory=list)

    def pauseProducing(self) -> None:
        self.paused += 1

    def resumeProducing(self) -> None:
        self.resumed += 1

    def stopProducing(self) -> None:
        self.stopped += 1


class NetworkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.network = Network(self.clock, Random(1), latency=0.05)
        self.slots = Slots(10)
        self.server = self.network.host("10.0.0.1")
        self.client = self.network.host("10.0.0.2")
        self.accepts = Accepts()
        self.listener = self.server.listener(self.accepts)
        self.successResultOf(self.listener.listen(["10.0.0.1"], 6881))

    def dial(self, port: int = 6881) -> Remembers:
        connected = self.client.dialer(self.slots).dial(
            PeerAddress("10.0.0.1", port), lambda slot: Remembers()
        )
        self.pass_time(0.11)
        dialled = self.successResultOf(connected)
        assert isinstance(dialled, Remembers)
        return dialled

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.001] * round(seconds / 0.001 + 1))

    def pair(self) -> tuple[Remembers, Remembers]:
        dialled = self.dial()
        return dialled, self.accepts.protocols[-1]


class ConnectTests(NetworkTests):
    def test_faithful(self) -> None:
        here, there = self.pair()
        for end in (here, there):
            self.assertTrue(verifyObject(IPeerTransport, end.transport))
            self.assertTrue(verifyObject(IProtocol, end))
        connector = self.client.connect(
            self.clock, "10.0.0.9", 1, _Failing(), 3
        )  # as connect_vectored is called
        self.assertIsInstance(connector, SimulatedConnector)
        self.assertTrue(verifyObject(IConnector, connector))

    def test_takes_a_round_trip(self) -> None:
        connected = self.client.dialer(self.slots).dial(
            PeerAddress("10.0.0.1", 6881), lambda slot: Remembers()
        )
        self.pass_time(0.09)
        self.assertNoResult(connected)
        self.pass_time(0.02)
        self.successResultOf(connected)

    def test_both_know_who_the_other_is(self) -> None:
        here, there = self.pair()
        self.assertEqual(there.transport.getPeer(), here.transport.getHost())
        self.assertEqual(here.transport.getPeer().host, "10.0.0.1")

    def test_nobody_listens(self) -> None:
        connected = self.client.dialer(self.slots).dial(PeerAddress("10.0.0.1", 1), lambda slot: Remembers())
        self.pass_time(0.2)
        self.failureResultOf(connected, ConnectionRefusedError)
        self.assertEqual(self.slots.used, 0)

    def test_no_such_host(self) -> None:
        connected = self.client.dialer(self.slots, timeout=3).dial(
            PeerAddress("10.9.9.9", 1), lambda slot: Remembers()
        )
        self.pass_time(2.9)
        self.assertNoResult(connected)
        self.pass_time(0.2)
        self.failureResultOf(connected, TimeoutError)
        self.assertEqual(self.slots.used, 0)

    def test_refused_unread(self) -> None:
        refusing = self.server.listener(Refuses())
        self.successResultOf(refusing.listen([], 7000))
        dialled = self.dial(7000)
        self.pass_time(0.1)
        self.assertIsNotNone(dialled.lost)
        self.assertEqual(self.slots.used, 0)

    def test_port_in_use(self) -> None:
        second = self.server.listener(self.accepts)
        self.failureResultOf(second.listen([], 6881), ListenPortInUse)

    def test_stopped_listener(self) -> None:
        here, there = self.pair()
        self.successResultOf(self.listener.stop())
        here.transport.write(b"lives on")
        self.pass_time(0.1)
        self.assertEqual(there.data, b"lives on")
        self.assertEqual(self.listener.addresses(), [])

    def test_giving_up(self) -> None:
        connected = self.client.dialer(self.slots).dial(
            PeerAddress("10.0.0.1", 6881), lambda slot: Remembers()
        )
        connected.cancel()
        self.failureResultOf(connected)
        self.pass_time(1)
        self.assertEqual((self.slots.used, self.accepts.protocols), (0, []))


class _Failing(Factory):
    noisy = False

    def startedConnecting(self, connector: object) -> None: ...

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None: ...


class BytesTests(NetworkTests):
    def test_arrive_in_order_after_the_latency(self) -> None:
        here, there = self.pair()
        here.transport.write(b"one ")
        here.transport.writeVec([b"two ", memoryview(b"three")])
        self.pass_time(0.04)
        self.assertEqual(there.data, b"")
        here.transport.write(b" four")
        self.pass_time(0.06)
        self.assertEqual(there.data, b"one two three four")
        self.pass_time(0.1)

    def test_rate(self) -> None:
        """A line of 100 kB/s takes 10 s for a megabyte, whichever connection it is on."""
        self.server.up.rate = 100_000
        ends = [self.pair() for _ in range(4)]
        for _, there in ends:
            there.transport.write(bytes(250_000))
        passed = self.network.run_until(
            lambda: all(len(here.data) == 250_000 for here, _ in ends), seconds=20
        )
        self.assertApproximates(passed, 10, 0.5)

    def test_receipts(self) -> None:
        """``sent`` is called once, when the bytes have left: until then they are not copied."""
        here, there = self.pair()
        lent = bytearray(b"before")
        sent: list[int] = []
        here.transport.writeVec([memoryview(lent)], lambda: sent.append(1))
        lent[:] = b"after!"
        self.assertEqual(sent, [])
        self.clock.advance(0)
        self.assertEqual(sent, [1])
        lent[:] = b"laterr"
        self.pass_time(0.1)
        self.assertEqual((there.data, sent), (b"after!", [1]))

    def test_paused_reader_stops_the_sender(self) -> None:
        here, there = self.pair()
        there.transport.pauseProducing()
        here.transport.write(bytes(2 * WINDOW))
        self.pass_time(1)
        self.assertEqual((there.data, here.transport.queued), (b"", WINDOW))
        there.transport.resumeProducing()
        self.pass_time(1)
        self.assertEqual((len(there.data), here.transport.queued), (2 * WINDOW, 0))

    def test_producer_is_paused_and_resumed_at_the_marks(self) -> None:
        here, there = self.pair()
        producer = Producer()
        there.transport.pauseProducing()
        here.transport.registerProducer(producer, True)
        here.transport.write(bytes(HIGH_WATER))
        self.assertEqual(producer.paused, 0)
        here.transport.write(b"x")
        self.assertEqual((producer.paused, producer.resumed), (1, 0))
        there.transport.resumeProducing()
        self.pass_time(2)
        self.assertEqual((producer.paused, producer.resumed), (1, 1))

    def test_text_is_refused(self) -> None:
        here, _ = self.pair()
        self.assertRaises(TypeError, here.transport.write, "text")


class CloseTests(NetworkTests):
    def test_everything_queued_arrives_first(self) -> None:
        here, there = self.pair()
        here.transport.write(bytes(3 * WINDOW))
        here.transport.loseConnection()
        self.pass_time(1)
        self.assertEqual(len(there.data), 3 * WINDOW)
        for end in (here, there):
            assert end.lost is not None
            end.lost.trap(ConnectionDone)
        self.assertEqual((self.slots.used, self.clock.getDelayedCalls()), (0, []))

    def test_a_producer_keeps_it_open(self) -> None:
        here, _ = self.pair()
        here.transport.registerProducer(Producer(), True)
        here.transport.loseConnection()
        self.pass_time(1)
        self.assertIsNone(here.lost)
        here.transport.unregisterProducer()
        self.pass_time(0.1)
        self.assertIsNotNone(here.lost)

    def test_abort(self) -> None:
        """What is queued is dropped, and memory that was lent comes back at once."""
        here, there = self.pair()
        producer, sent = Producer(), []
        here.transport.registerProducer(producer, True)
        here.transport.writeVec([bytes(WINDOW)], lambda: sent.append(1))
        here.transport.abortConnection()
        self.assertEqual((sent, here.lost), ([1], None))
        self.pass_time(0.1)
        self.assertEqual((there.data, producer.stopped), (b"", 1))
        assert there.lost is not None
        there.lost.trap(ConnectionLost)
        self.assertIsNotNone(here.lost)
        self.assertEqual((self.slots.used, self.clock.getDelayedCalls()), (0, []))

    def test_written_to_a_lost_connection(self) -> None:
        here, _ = self.pair()
        here.transport.abortConnection()
        sent: list[int] = []
        here.transport.writeVec([b"x"], lambda: sent.append(1))
        self.assertEqual(sent, [1])

    def test_unplugged(self) -> None:
        here, there = self.pair()
        self.server.unplug()
        self.assertTrue(here.lost and there.lost)
        connected = self.client.dialer(self.slots, timeout=1).dial(
            PeerAddress("10.0.0.1", 6881), lambda slot: Remembers()
        )
        self.pass_time(2)
        self.failureResultOf(connected)
        self.server.plug_in()
        self.pair()

    def test_lost_at_random(self) -> None:
        """Both ends notice, if not at the same time, and nothing is left over."""
        self.network.mean_lifetime = 60
        ends = [self.pair() for _ in range(8)]
        self.network.run_until(lambda: all(end.lost for pair in ends for end in pair), seconds=1000)
        self.assertEqual((self.slots.used, self.accepts.protocols[7].lost is None), (0, False))
        self.assertGreater(self.clock.seconds(), 20)
        self.pass_time(0.1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_more_happens(self) -> None:
        self.assertRaises(AssertionError, self.network.run_until, lambda: False, seconds=5)
