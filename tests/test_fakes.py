"""The shared fakes are what they stand in for."""

from __future__ import annotations

from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from irontide.interfaces import IPeerTransport
from tests.fakes import HIGH_WATER, LOW_WATER, FakePeerTransport


class Notes(Protocol):
    """Remembers why the connection was lost."""

    def __init__(self) -> None:
        self.reasons: list[Failure] = []

    def connectionLost(self, reason: Failure) -> None:
        self.reasons.append(reason)


class Producer:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class FakePeerTransportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.protocol = Notes()
        self.transport = FakePeerTransport(self.protocol)
        self.sent: list[str] = []

    def test_is_faithful(self) -> None:
        self.assertTrue(verifyObject(IPeerTransport, self.transport))

    def test_writes_are_collected(self) -> None:
        self.transport.write(b"one")
        self.transport.writeVec([b"t", memoryview(b"wo")])
        self.transport.writeSequence([b"th", b"ree"])
        self.assertEqual(self.transport.value(), b"onetwothree")
        self.assertEqual(self.transport.writes, [b"one", b"two", b"three"])
        self.assertEqual(self.transport.queued, 11)

    def test_sent_is_called_with_the_last_byte(self) -> None:
        self.transport.write(b"one")
        self.transport.writeVec([b"two"], lambda: self.sent.append("two"))
        self.transport.writeVec([b"three"], lambda: self.sent.append("three"))
        self.transport.drain(5)
        self.assertEqual(self.sent, [])
        self.transport.drain(1)
        self.assertEqual(self.sent, ["two"])
        self.transport.drain()
        self.assertEqual((self.sent, self.transport.queued), (["two", "three"], 0))

    def test_sent_may_write(self) -> None:
        self.transport.writeVec([b"one"], lambda: self.transport.write(b"more"))
        self.transport.drain()
        self.assertEqual((self.transport.value(), self.transport.queued), (b"onemore", 4))

    def test_nothing_is_sent_at_once(self) -> None:
        self.transport.writeVec([], lambda: self.sent.append("nothing"))
        self.assertEqual(self.sent, ["nothing"])

    def test_drains_at_once_if_told(self) -> None:
        self.transport.drains = True
        self.transport.queued = 7
        self.transport.writeVec([b"one"], lambda: self.sent.append("one"))
        self.assertEqual((self.sent, self.transport.queued), (["one"], 7))

    def test_producer_is_paused_and_resumed(self) -> None:
        producer = Producer()
        self.transport.registerProducer(producer, True)
        self.transport.write(bytes(HIGH_WATER))
        self.assertEqual(producer.told, [])
        self.transport.write(b"more")
        self.transport.write(b"more")
        self.assertEqual(producer.told, ["pause"])
        self.transport.drain(HIGH_WATER - LOW_WATER)
        self.assertEqual(producer.told, ["pause"])
        self.transport.drain(8)
        self.assertEqual(producer.told, ["pause", "resume"])

    def test_reading_is_paused(self) -> None:
        self.transport.pauseProducing()
        self.assertTrue(self.transport.paused)
        self.transport.resumeProducing()
        self.assertFalse(self.transport.paused)
        self.assertEqual((self.transport.pauses, self.transport.resumes), (1, 1))

    def test_lose_connection_waits_for_the_queue(self) -> None:
        self.transport.write(b"last words")
        self.transport.loseConnection()
        self.assertEqual(self.protocol.reasons, [])
        self.transport.drain()
        self.assertEqual(len(self.protocol.reasons), 1)

    def test_abort_forgets_the_queue(self) -> None:
        producer = Producer()
        self.transport.registerProducer(producer, True)
        self.transport.writeVec([b"one"], lambda: self.sent.append("one"))
        self.transport.abortConnection()
        self.transport.abortConnection()
        self.assertEqual(self.sent, ["one"])
        self.assertEqual(producer.told, ["stop"])
        self.assertEqual(len(self.protocol.reasons), 1)
        self.assertEqual(self.transport.queued, 0)

    def test_nothing_is_written_after_the_end(self) -> None:
        self.transport.lose()
        self.transport.write(b"x")
        self.transport.writeVec([b"y"], lambda: self.sent.append("y"))
        self.assertEqual((self.transport.writes, self.transport.vectors, self.sent), ([], [], ["y"]))

    def test_the_test_says_when_it_is_lost(self) -> None:
        """As with the real one, where the protocol hears of an abort in a later turn of the reactor."""
        self.transport.loses = False
        self.transport.abortConnection()
        self.assertEqual(self.protocol.reasons, [])
        self.transport.lose()
        self.assertEqual(len(self.protocol.reasons), 1)
