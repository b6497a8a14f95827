"""What the tests of the transport package stand on: a torrent's protocol, routers, a transport."""

from __future__ import annotations

from collections.abc import Callable
from errno import EAGAIN

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.interfaces import IConnectionRouter, IReadiness, ISlot
from irontide.transport.vectored import IReadsAhead
from irontide.values import PeerAddress
from irontide.wire.preamble import Preamble

KNOWN = Preamble(bytes(8), b"k" * 20)
UNKNOWN = Preamble(bytes(8), b"u" * 20)


class Remembers(Protocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.data = b""
        self.lost: list[Failure] = []

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure) -> None:
        self.lost.append(reason)


@implementer(IConnectionRouter)
class KnowsOne:
    """A router with one torrent, which may be removed."""

    def __init__(self) -> None:
        self.known: set[bytes] = {KNOWN.infohash}
        self.asked: list[tuple[Preamble, PeerAddress, ISlot]] = []
        self.served: list[tuple[PeerAddress, Remembers]] = []
        self.make: Callable[[], Remembers] = Remembers

    def route(self, preamble: Preamble, address: PeerAddress, slot: ISlot) -> Remembers | None:
        self.asked.append((preamble, address, slot))
        if preamble.infohash not in self.known:
            return None
        self.served.append((address, self.make()))
        return self.served[-1][1]


@implementer(IReadiness)
class Busy(KnowsOne):
    """A router that is ready when the test says so."""

    def __init__(self, ready: bool = False) -> None:
        super().__init__()
        self.ready = ready
        self.wakes: list[Callable[[], None]] = []

    def when_ready(self, wake: Callable[[], None]) -> None:
        self.wakes.append(wake)

    def become_ready(self) -> None:
        self.ready = True
        wakes, self.wakes = self.wakes, []
        for wake in wakes:
            wake()

    def connected(self) -> list[PeerAddress]:
        """Those who were really handed over, in order."""
        return [address for address, peer in self.served if peer.transport is not None]


@implementer(IReadsAhead)
class FakeTransport(StringTransport):
    """A StringTransport with bytes that have arrived and wait to be read."""

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(lenient=True)
        self.protocol = protocol
        self.arrived = b""

    def read_now(self) -> None:
        arrived, self.arrived = self.arrived, b""
        if arrived:
            self.protocol.dataReceived(arrived)

    def close(self) -> None:
        """The other side goes."""
        self.protocol.connectionLost(Failure(ConnectionDone()))


class FakeAcceptor:
    """Says who holds it."""

    def __init__(self) -> None:
        self.holders: list[str] = []
        self.stopped = False

    def hold(self, who: str) -> None:
        self.holders.append(who)

    def release(self, who: str) -> None:
        self.holders.remove(who)

    def stopListening(self) -> None:
        self.stopped = True


class FakeSocket:
    """A connected socket on which nothing more arrives than was there in the beginning."""

    def __init__(self, number: int = 7, arrived: bytes = b"") -> None:
        self.arrived = arrived
        self.number = number
        self.closed = False

    def fileno(self) -> int:
        return -1 if self.closed else self.number

    def setblocking(self, blocking: bool) -> None:
        assert not blocking

    def setsockopt(self, *args: object) -> None:
        pass

    def recv(self, size: int, flags: int = 0) -> bytes:
        if not self.arrived:
            raise BlockingIOError(EAGAIN, "nothing has arrived")
        return self.arrived[:size]

    def shutdown(self, how: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class FakeListeningSocket(FakeSocket):
    """A listening socket with a script: what the next calls of accept return or raise."""

    def __init__(self, host: str = "127.0.0.1", port: int = 6881) -> None:
        super().__init__()
        self.name = (host, port, 0, 0) if ":" in host else (host, port)
        self.script: list[OSError | FakeSocket] = []
        self.accepts = 0

    def getsockname(self) -> tuple[object, ...]:
        return self.name

    def accept(self) -> tuple[FakeSocket, tuple[object, ...]]:
        self.accepts += 1
        if not self.script:
            raise BlockingIOError(EAGAIN, "nobody there")
        result = self.script.pop(0)
        if isinstance(result, OSError):
            raise result
        return result, ("192.0.2.7", 40000 + self.accepts)
