"""Dialling: the slot is held from connect() to the close of the connection, on every path."""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, TCPTimedOutError, UserError
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from irontide.interfaces import ISlot
from irontide.transport.dial import Dialer, NoSlot
from irontide.transport.slots import Slots
from irontide.values import PeerAddress
from tests.transport.fakes import Remembers

PEER = PeerAddress("192.0.2.1", 6881)


class FakeConnector:
    """An attempt whose outcome the test decides; calls the factory as Twisted's Connector does."""

    def __init__(self, where: tuple[str, int], factory: ClientFactory, timeout: float, bind: object) -> None:
        self.where = where
        self.factory = factory
        self.timeout = timeout
        self.bind = bind
        self.transport = StringTransport()

    def succeed(self) -> None:
        protocol = self.factory.buildProtocol(IPv4Address("TCP", *self.where))
        if protocol is None:
            self.factory.clientConnectionLost(self, Failure(ConnectionDone()))
        else:
            self.transport.protocol = protocol
            protocol.makeConnection(self.transport)

    def fail(self, error: Exception) -> None:
        self.factory.clientConnectionFailed(self, Failure(error))

    def lose(self) -> None:
        try:
            self.transport.protocol.connectionLost(Failure(ConnectionDone()))
        finally:
            self.factory.clientConnectionLost(self, Failure(ConnectionDone()))

    def disconnect(self) -> None:
        self.fail(UserError())


class DialerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.slots = Slots(2)
        self.connectors: list[FakeConnector] = []
        self.dialer = Dialer(Clock(), self.slots, connect=self.connect)
        self.peer = Remembers()

    def connect(self, reactor, host, port, factory, timeout, bind_address=None) -> FakeConnector:  # type: ignore[no-untyped-def]
        self.connectors.append(FakeConnector((host, port), factory, timeout, bind_address))
        return self.connectors[-1]

    def make(self, slot: ISlot) -> IProtocol:
        self.assertEqual(slot.address, PEER)
        return self.peer

    def dial(self) -> Deferred[IProtocol]:
        return self.dialer.dial(PEER, self.make)

    def test_a_connection_from_beginning_to_end(self) -> None:
        dialled = self.dial()
        [connector] = self.connectors
        self.assertEqual((connector.where, connector.timeout), (("192.0.2.1", 6881), 10.0))
        self.assertNoResult(dialled)
        self.assertEqual((self.slots.used, self.slots.unidentified), (1, 0))
        connector.succeed()
        self.assertIs(self.successResultOf(dialled), self.peer)
        self.assertIs(self.peer.transport, connector.transport)
        self.assertIs(connector.transport.protocol, self.peer)
        self.assertEqual(self.slots.used, 1)
        connector.lose()
        self.assertEqual(len(self.peer.lost), 1)
        self.assertEqual(self.slots.used, 0)

    def test_the_protocol_is_connected_when_it_is_told(self) -> None:
        seen: list[object] = []
        self.dial().addCallback(lambda protocol: seen.append(protocol.transport))
        self.connectors[0].succeed()
        self.assertEqual(seen, [self.connectors[0].transport])

    def test_no_slot_no_connect(self) -> None:
        self.dial()
        self.dial()
        self.failureResultOf(self.dial(), NoSlot)
        self.assertEqual(len(self.connectors), 2)
        self.assertEqual(self.slots.used, 2)

    def test_failure(self) -> None:
        dialled = self.dial()
        self.connectors[0].fail(TCPTimedOutError())
        self.failureResultOf(dialled, TCPTimedOutError)
        self.assertEqual(self.slots.used, 0)

    def test_cancelled(self) -> None:
        dialled = self.dial()
        dialled.cancel()
        self.failureResultOf(dialled, CancelledError)
        self.assertEqual(self.slots.used, 0)

    def test_a_factory_that_raises(self) -> None:
        def raises(slot: ISlot) -> IProtocol:
            raise ZeroDivisionError

        dialled = self.dialer.dial(PEER, raises)
        self.connectors[0].succeed()
        self.failureResultOf(dialled, ZeroDivisionError)
        self.assertEqual(self.slots.used, 0)

    def test_names_are_refused(self) -> None:
        """Resolving is the tracker's business; a name here is somebody's trick or our bug."""
        for host in ("localhost", "example.org", "", "300.1.1.1"):
            self.failureResultOf(self.dialer.dial(PeerAddress(host, 6881), self.make), ValueError)
        self.assertEqual((self.connectors, self.slots.used), ([], 0))

    def test_binding_address(self) -> None:
        self.dialer.bind_address = "192.0.2.99"
        self.dial()
        self.assertEqual(self.connectors[0].bind, ("192.0.2.99", 0))

    def test_a_newcomer_of_ours_takes_a_silent_strangers_slot(self) -> None:
        evicted: list[int] = []
        self.dial()
        self.slots.accept(PeerAddress("192.0.2.2", 1), lambda: evicted.append(1))
        self.dial()
        self.assertEqual((evicted, len(self.connectors), self.slots.used), ([1], 2, 2))
