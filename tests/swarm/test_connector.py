"""Who is dialled, when, and what the book hears of it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from irontide.flow import TokenBucket
from irontide.interfaces import ISlot
from irontide.swarm.connector import MAX_PENDING, Connector
from irontide.swarm.peerbook import PeerBook
from irontide.transport.dial import NoSlot
from irontide.values import PeerAddress


class FakeDialer:
    """Dials that are answered by hand."""

    def __init__(self) -> None:
        self.dials: dict[PeerAddress, Deferred[IProtocol]] = {}
        self.factories: dict[PeerAddress, Callable[[ISlot], IProtocol]] = {}
        self.cancelled: list[PeerAddress] = []
        self.full = False

    def dial(
        self, address: PeerAddress, protocol_factory: Callable[[ISlot], IProtocol]
    ) -> Deferred[IProtocol]:
        if self.full:
            self.cancelled.append(address)
            return fail(NoSlot("full"))
        answer = self.dials[address] = Deferred(lambda _: self.cancelled.append(address))
        self.factories[address] = protocol_factory
        return answer


class ConnectorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.dialer = FakeDialer()
        self.book = PeerBook()
        self.most = 1000
        self.built: list[PeerAddress] = []
        self.connector = self.make(rate=0)

    def make(self, rate: float) -> Connector:
        return Connector(
            self.book, self.dialer, TokenBucket(rate, now=0.0), self.build, self.clock, lambda: self.most
        )

    def build(self, address: PeerAddress) -> IProtocol:
        self.built.append(address)
        return Protocol()

    def know(self, count: int) -> list[PeerAddress]:
        addresses = [PeerAddress(f"20.0.{number // 250}.{number % 250 + 1}", 6881) for number in range(count)]
        self.book.found(addresses, "tracker", 0.0)
        return addresses

    def connect(self, peers: int = 0) -> None:
        self.connector.connect(peers, self.clock.seconds())

    def test_dials_whom_the_book_knows(self) -> None:
        addresses = self.know(3)
        self.connect()
        self.assertEqual(set(self.dialer.dials), set(addresses))
        self.dialer.factories[addresses[0]](None)  # type: ignore[arg-type]
        self.assertEqual(self.built, [addresses[0]])

    def test_no_more_than_there_is_room_for(self) -> None:
        """Those under way count, and those that are connected."""
        self.know(20)
        self.most = 10
        self.connect(peers=4)
        self.assertEqual(len(self.dialer.dials), 6)
        self.connect(peers=4)
        self.assertEqual(len(self.dialer.dials), 6)

    def test_not_too_many_at_once(self) -> None:
        self.know(MAX_PENDING + 10)
        self.connect()
        self.assertEqual(len(self.dialer.dials), MAX_PENDING)
        address, answer = self.dialer.dials.popitem()
        answer.callback(Protocol())
        self.connect(peers=1)
        self.assertEqual(len(self.dialer.dials), MAX_PENDING)

    def test_no_faster_than_allowed(self) -> None:
        self.know(30)
        self.connector = self.make(rate=10)
        self.connect()
        self.assertEqual(len(self.dialer.dials), 10)
        self.clock.advance(0.5)
        self.connect()
        self.assertEqual(len(self.dialer.dials), 15)

    def test_failures_and_connections_are_told(self) -> None:
        first, second = self.know(2)
        self.connect()
        self.dialer.dials[first].errback(ConnectionRefusedError())
        self.dialer.dials[second].callback(Protocol())
        self.connect(peers=1)
        self.assertEqual(len(self.dialer.dials), 2)
        due = self.book.next_time(0.0)
        assert due is not None
        self.assertGreater(due, 1.0)
        self.dialer.dials.clear()
        self.clock.advance(due)
        self.connect(peers=1)
        self.assertEqual(list(self.dialer.dials), [first], "the other one is connected")

    def test_our_own_cap_is_no_fault_of_the_peer(self) -> None:
        """At the cap one dial a tick finds out; when there is room it is dialled at once."""
        addresses = self.know(5)
        self.dialer.full = True
        for _ in range(3):
            self.connect()
        self.assertEqual(len(self.dialer.cancelled), 3)
        self.dialer.full = False
        self.connect()
        self.assertEqual(set(self.dialer.dials), set(addresses))

    def test_stop_gives_up_what_is_under_way(self) -> None:
        addresses = self.know(3)
        self.connect()
        self.connector.stop()
        self.assertEqual(set(self.dialer.cancelled), set(addresses))
        self.connect()
        self.assertEqual(len(self.dialer.cancelled), 3)
        self.assertEqual(self.book.next_time(0.0), 0.0, "they may be dialled when the torrent runs again")
