"""Listening: what a port does when accepting fails, and which sockets are opened.  No real sockets."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import ListenPortInUse
from irontide.transport.accept import (
    ACCEPTS_A_TURN,
    BACKOFF_FIRST,
    BACKOFF_MOST,
    DescriptorReserve,
    PeerPort,
)
from irontide.transport.identify import PeerFactory
from irontide.transport.listen import PORT_TRIES, STOP_DEADLINE, CannotListen, Listener
from irontide.transport.slots import Refusal, Slots
from irontide.values import PeerAddress
from tests.transport.fakes import KNOWN, FakeListeningSocket, FakeSocket, KnowsOne


class FakeReserve(DescriptorReserve):
    """Counts, opens nothing."""

    def __init__(self) -> None:
        self.held = True
        self.available = True

    def take(self) -> bool:
        self.held = self.available
        return self.held

    def let_go(self) -> None:
        self.held = False


class PortTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.slots = Slots(500)
        self.factory = PeerFactory(KnowsOne(), self.slots, self.reactor, lambda host: False)
        self.reserve = FakeReserve()
        self.socket = FakeListeningSocket()
        self.port = self.start(self.socket)
        self.warnings: list[LogEvent] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: LogEvent) -> None:
        if event.get("log_level") is LogLevel.warn:
            self.warnings.append(event)

    def start(self, listening: FakeListeningSocket) -> PeerPort:
        port = PeerPort.on(self.reactor, listening, self.factory, self.reserve)  # type: ignore[arg-type]
        self.assertTrue(self.accepting(port))
        return port

    def accepting(self, port: PeerPort | None = None) -> bool:
        return (self.port if port is None else port) in self.reactor.getReaders()

    def test_accepts_all_that_wait(self) -> None:
        self.socket.script = [FakeSocket() for _ in range(5)]
        self.port.doRead()
        self.assertEqual(self.slots.used, 5)

    def test_others_have_their_turn(self) -> None:
        """A queue of thousands is taken in batches."""
        self.socket.script = [FakeSocket() for _ in range(ACCEPTS_A_TURN + 1)]
        self.port.doRead()
        self.assertEqual(len(self.socket.script), 1)

    def test_clients_that_are_gone_are_passed_over(self) -> None:
        gone = [OSError(number, "gone") for number in (errno.ECONNABORTED, errno.EPERM, errno.EPROTO)]
        self.socket.script = [*gone, FakeSocket()]
        self.port.doRead()
        self.assertEqual(self.slots.used, 1)
        self.assertTrue(self.accepting())

    def test_a_refused_client_is_closed(self) -> None:
        self.slots.set_limit(1)
        first = self.slots.dial(PeerAddress("192.0.2.1", 1))
        assert first is not None
        refused = FakeSocket()
        self.socket.script = [refused]
        self.port.doRead()
        self.assertTrue(refused.closed)

    def test_out_of_descriptors(self) -> None:
        """L16: this listener pauses, lets the reserve go, and resumes by itself with the reserve back."""
        for number in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            self.socket.script = [OSError(number, "none left")]
            self.port.doRead()
            self.assertFalse(self.accepting())
            self.assertFalse(self.reserve.held)
            self.reactor.advance(BACKOFF_FIRST)
            self.assertTrue(self.accepting())
            self.assertTrue(self.reserve.held)
            self.socket.script = [FakeSocket()]
            self.port.doRead()

    def test_other_listeners_and_connections_go_on(self) -> None:
        """L16"""
        other_socket = FakeListeningSocket()
        other = self.start(other_socket)
        self.socket.script = [FakeSocket(), OSError(errno.EMFILE, "none left")]
        self.port.doRead()
        self.assertTrue(self.accepting(other))
        other_socket.script = [FakeSocket()]
        other.doRead()
        self.assertEqual(self.slots.used, 2)
        self.reactor.advance(5.0)
        self.assertEqual(self.slots.used, 0)  # identification still has its time limit

    def test_backoff_doubles_to_its_most(self) -> None:
        """L16"""
        delay = BACKOFF_FIRST
        for _ in range(12):
            self.socket.script = [OSError(errno.EMFILE, "none left")]
            self.port.doRead()
            self.reactor.advance(delay * 0.99)
            self.assertFalse(self.accepting())
            self.reactor.advance(delay * 0.01 + 1e-9)
            self.assertTrue(self.accepting())
            delay = min(2 * delay, BACKOFF_MOST)
        self.assertEqual(delay, BACKOFF_MOST)

    def test_backoff_starts_again_after_success(self) -> None:
        for _ in range(4):
            self.socket.script = [OSError(errno.EMFILE, "none left")]
            self.port.doRead()
            self.reactor.advance(BACKOFF_MOST)
        self.socket.script = [FakeSocket(), OSError(errno.EMFILE, "none left")]
        self.port.doRead()
        self.reactor.advance(BACKOFF_FIRST)
        self.assertTrue(self.accepting())

    def test_one_line_a_second(self) -> None:
        """L16, even where success and failure alternate."""
        for _ in range(50):
            self.socket.script = [FakeSocket(), OSError(errno.EMFILE, "none left")]
            self.port.doRead()
            self.reactor.advance(BACKOFF_FIRST)
        self.assertIn(len(self.warnings), (5, 6))

    def test_the_reserve_comes_first(self) -> None:
        """While it cannot be filled up, nobody is accepted."""
        self.reserve.available = False
        self.socket.script = [OSError(errno.EMFILE, "none left")]
        self.port.doRead()
        self.reactor.advance(1.0)
        self.assertFalse(self.accepting())
        self.reserve.available = True
        self.reactor.advance(BACKOFF_MOST)
        self.assertTrue(self.accepting())

    def test_unknown_errors_back_off_too(self) -> None:
        """An error that nobody has thought of must not become a busy loop."""
        self.socket.script = [OSError(errno.EINVAL, "?")]
        self.port.doRead()
        self.assertFalse(self.accepting())

    def test_two_holders(self) -> None:
        """It accepts when the last one lets go."""
        self.port.hold("a")
        self.socket.script = [OSError(errno.EMFILE, "none left")]
        self.port.doRead()
        self.reactor.advance(BACKOFF_FIRST)
        self.assertFalse(self.accepting())
        self.port.release("a")
        self.assertTrue(self.accepting())

    def test_a_batch_ends_when_somebody_holds(self) -> None:
        """The one that made somebody hold is still served."""
        self.slots.set_limit(4)
        self.factory.buildProtocol = self.hold_at_second(self.factory.buildProtocol)  # type: ignore[method-assign]
        self.socket.script = [FakeSocket() for _ in range(3)]
        self.port.doRead()
        self.assertEqual(len(self.socket.script), 1)
        self.assertEqual(self.slots.used, 1)

    def hold_at_second(self, build: Callable[[object], object]) -> Callable[[object], object]:
        """Let the port be held while its second connection is accepted."""
        seen: list[object] = []

        def building(address: object) -> object:
            seen.append(address)
            if len(seen) == 2:
                self.port.hold("a")
            return build(address)

        return building

    def test_most_of_a_flood_gets_no_transport(self) -> None:
        """Those that give way in the batch they came with are closed as they are, and counted."""
        flood = [FakeSocket() for _ in range(300)]
        self.socket.script = [*flood]
        self.slots.set_per_address(400)
        self.port.doRead()
        self.assertEqual([each.closed for each in flood], [True] * 175 + [False] * 125)
        self.assertEqual((self.slots.used, self.slots.unidentified), (125, 125))
        self.assertEqual(self.slots.refusals, {Refusal.CROWDED: 175})
        self.assertEqual(len(self.reactor.getReaders()), 1 + 125)

    def test_one_that_has_spoken_is_not_pushed_out_by_its_own_batch(self) -> None:
        router = KnowsOne()
        self.factory._router = router
        self.slots.set_limit(8)
        spoken = FakeSocket(arrived=KNOWN.to_bytes())
        self.socket.script = [FakeSocket(), spoken, *(FakeSocket() for _ in range(10))]
        self.port.doRead()
        self.assertFalse(spoken.closed)
        self.assertEqual(router.served[0][1].data, KNOWN.to_bytes())
        self.assertEqual((self.slots.used, self.slots.unidentified), (3, 2))

    def test_one_that_has_hung_up_is_pushed_out(self) -> None:
        class HungUp(FakeSocket):
            def recv(self, size: int, flags: int = 0) -> bytes:
                return b""

        class Reset(FakeSocket):
            def recv(self, size: int, flags: int = 0) -> bytes:
                raise ConnectionResetError

        self.slots.set_limit(4)
        gone = [HungUp(), Reset()]
        self.socket.script = [*gone, FakeSocket()]
        self.port.doRead()
        self.assertEqual([each.closed for each in gone], [True, True])
        self.assertEqual(self.slots.used, 1)

    def test_a_bug_in_the_filter_costs_one_connection(self) -> None:
        def raises(host: str) -> bool:
            self.factory._banned = lambda host: False
            raise ZeroDivisionError

        self.factory._banned = raises
        unlucky = FakeSocket()
        self.socket.script = [unlucky, FakeSocket()]
        self.port.doRead()
        self.assertTrue(unlucky.closed)
        self.assertEqual(self.slots.used, 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stopping_while_backing_off(self) -> None:
        """L16: stopping goes on meanwhile; L11: and is done in the next turn."""
        self.socket.script = [OSError(errno.EMFILE, "none left")]
        self.port.doRead()
        stopped = self.port.stopListening()
        self.reactor.advance(0)
        self.assertTrue(self.socket.closed)
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.port.release("errors")
        self.assertFalse(self.accepting())

    def test_a_transport_that_cannot_be_made(self) -> None:
        """The reactor has no room for it (epoll_ctl fails): the slot goes back, the listener goes on."""

        class Unusable(FakeSocket):
            def setblocking(self, blocking: bool) -> None:
                raise OSError(errno.ENOSPC, "no room")

        unusable = Unusable()
        self.socket.script = [unusable, FakeSocket()]
        self.port.doRead()
        self.assertTrue(unusable.closed)
        self.assertEqual(self.slots.used, 1)


class ListenerTests(SynchronousTestCase):
    """Which sockets are opened; the real ones are tried in tests/live."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.opened: list[FakeListeningSocket] = []
        self.picks = iter(range(50_000, 60_000))
        self.taken: set[tuple[str, int]] = set()
        self.absent: set[str] = set()
        factory = PeerFactory(KnowsOne(), Slots(10), self.reactor, lambda host: False)
        self.listener = Listener(self.reactor, factory, open_socket=self.open)  # type: ignore[arg-type]

    def open(self, host: str, port: int) -> FakeListeningSocket | None:
        if host in self.absent:
            return None
        port = port or next(self.picks)
        if (host, port) in self.taken:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        if host == "192.0.2.1":
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        self.opened.append(FakeListeningSocket(host, port))
        return self.opened[-1]

    def listen(self, addresses: Sequence[str] = ("0.0.0.0", "::"), port: int = 6881) -> None:
        self.successResultOf(self.listener.listen(addresses, port))

    def still_open(self) -> list[tuple[object, ...]]:
        return [each.name[:2] for each in self.opened if not each.closed]

    def test_one_port_on_both_families(self) -> None:
        self.listen()
        self.assertEqual(self.still_open(), [("0.0.0.0", 6881), ("::", 6881)])

    def test_a_picked_port_is_free_on_all_addresses(self) -> None:
        self.taken = {("::", 50_000), ("::", 50_001)}
        self.listen(port=0)
        self.assertEqual(self.still_open(), [("0.0.0.0", 50_002), ("::", 50_002)])

    def test_no_port_is_free_on_all_addresses(self) -> None:
        """It gives up, and holds nothing."""
        self.taken = {("::", port) for port in range(50_000, 60_000)}
        self.failureResultOf(self.listener.listen(("0.0.0.0", "::"), 0), ListenPortInUse)
        self.assertEqual(len(self.opened), PORT_TRIES)
        self.assertEqual(self.still_open(), [])

    def test_port_in_use(self) -> None:
        """All or nothing: the socket that could be opened is closed again."""
        self.taken = {("::", 6881)}
        failure = self.failureResultOf(self.listener.listen(("0.0.0.0", "::"), 6881), ListenPortInUse)
        self.assertEqual((failure.value.attempted, failure.value.existing), (6881, None))
        self.assertEqual(self.still_open(), [])
        self.assertIsNone(self.listener.port)
        self.assertEqual(self.listener.addresses(), [])

    def test_no_ipv6_here(self) -> None:
        """L18: simply absent."""
        self.absent = {"::"}
        self.listen()
        self.assertEqual(self.still_open(), [("0.0.0.0", 6881)])

    def test_nothing_at_all_here(self) -> None:
        self.absent = {"::"}
        self.failureResultOf(self.listener.listen(("::",), 6881), CannotListen)
        self.failureResultOf(self.listener.listen((), 6881), CannotListen)

    def test_an_address_that_is_not_ours(self) -> None:
        failure = self.failureResultOf(self.listener.listen(("127.0.0.1", "192.0.2.1"), 6881), CannotListen)
        self.assertIn("192.0.2.1", str(failure.value))
        self.assertEqual(self.still_open(), [])

    def test_stop_closes_all_in_a_turn(self) -> None:
        """L11"""
        self.listen()
        stopped = self.listener.stop()
        self.reactor.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.still_open(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertIsNone(self.listener.port)

    def test_stop_without_a_listener(self) -> None:
        self.successResultOf(self.listener.stop())

    def test_stop_that_takes_too_long_is_told(self) -> None:
        """L11: 5 s, then it fails; it is waited for no longer, and goes on."""
        self.listen()
        self.reactor.callLater = self.lose_it  # type: ignore[method-assign]
        stopped = self.listener.stop()
        del self.reactor.callLater
        self.assertNoResult(stopped)
        self.reactor.advance(STOP_DEADLINE)
        self.failureResultOf(stopped, TimedOut)
        self.assertEqual(len(self.still_open()), 2)
        self.reactor.advance(1000.0)
        self.assertEqual(self.still_open(), [])

    def lose_it(self, delay: float, function: object, *args: object, **named: object) -> object:
        """A callLater for which the next turn is far away."""
        return MemoryReactorClock.callLater(self.reactor, delay or 1000.0, function, *args, **named)


class ReserveTests(SynchronousTestCase):
    def test_taking_twice_takes_once(self) -> None:
        reserve = DescriptorReserve(3)
        self.assertTrue(reserve.take())
        held = list(reserve._held)
        self.assertTrue(reserve.take())
        self.assertEqual(reserve._held, held)
        reserve.let_go()
        reserve.let_go()
        self.assertEqual(reserve._held, [])
