"""The vectored transport on real sockets: every byte in order, every receipt once."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from zope.interface import implementer
from zope.interface.verify import verifyObject

from irontide.interfaces import IPeerTransport
from irontide.transport.vectored import VectoredClient, VectoredServer, connect_vectored

BLOCK = 16384


class Peer(Protocol):
    """Tells when it is connected and when it is not any more."""

    def __init__(self) -> None:
        self.connected_now: Deferred[Peer] = Deferred()
        self.lost: Deferred[object] = Deferred()
        self.received = b""

    def connectionMade(self) -> None:
        self.connected_now.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason) -> None:
        self.lost.callback(None)


class Serve(Factory):
    noisy = False

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def buildProtocol(self, addr):
        return self.peer


class Connect(ClientFactory):
    noisy = False

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def buildProtocol(self, addr):
        return self.peer


class Pair:
    """A Peer on a vectored transport, and the plain socket at the other end."""

    def __init__(self, peer: Peer, other: socket.socket) -> None:
        self.peer = peer
        self.transport = peer.transport
        self.other = other


async def server_pair() -> Pair:
    peer = Peer()
    port = reactor.listenTCP(0, Serve(peer), interface="127.0.0.1")
    port.transport = VectoredServer
    other = socket.create_connection(("127.0.0.1", port.getHost().port))
    await peer.connected_now
    await port.stopListening()
    return Pair(peer, other)


async def client_pair() -> Pair:
    listening = socket.create_server(("127.0.0.1", 0))
    peer = Peer()
    connect_vectored(reactor, *listening.getsockname(), Connect(peer), 5.0)
    await peer.connected_now
    other, _ = listening.accept()
    listening.close()
    return Pair(peer, other)


@pytest.fixture(params=[server_pair, client_pair], ids=["server", "client"])
def make_pair(request: pytest.FixtureRequest) -> Iterator[Callable[[], object]]:
    """Connects a transport of either kind; what is still open at the end of the test is closed."""
    made = []

    async def make() -> Pair:
        pair = await request.param()
        made.append(pair)
        return pair

    yield make
    for pair in made:
        pair.other.close()
        if pair.transport.connected:
            pair.transport.abortConnection()


def read_all(other: socket.socket, seed: int = 0, pause: float = 0.0) -> bytes:
    """Read until the end, in pieces of random size."""
    rng = random.Random(seed)
    other.settimeout(20)
    chunks = []
    while chunk := other.recv(rng.randrange(1, 1 << 17)):
        chunks.append(chunk)
        if pause and rng.random() < 0.1:
            time.sleep(pause)
    return b"".join(chunks)


@pytest_twisted.ensureDeferred
async def test_transports_are_what_they_say(make_pair):
    """The classes are ours, on the client side by a private method of Twisted, and keep the interface."""
    pair = await make_pair()
    assert type(pair.transport) in (VectoredServer, VectoredClient)
    assert verifyObject(IPeerTransport, pair.transport)
    assert pair.transport.bufferSize == 256 * 1024


@pytest.mark.parametrize("seed", range(3))
@pytest_twisted.ensureDeferred
async def test_every_byte_arrives_in_order(make_pair, seed):
    """Random sizes, all three ways of writing, a reader that is slow at times."""
    pair = await make_pair()
    pair.other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    rng = random.Random(seed)
    reading = deferToThread(read_all, pair.other, seed, 0.001)
    receipts: list[int] = []
    expected = []
    written = 0
    for number in range(300):
        buffers = [
            rng.randbytes(rng.choice((0, 1, 13, 4096, BLOCK, 100_000))) for _ in range(rng.randrange(5))
        ]
        expected.extend(buffers)
        written += sum(map(len, buffers))
        match number % 3:
            case 0:
                pair.transport.writeVec([memoryview(b) for b in buffers], lambda n=number: receipts.append(n))
            case 1:
                pair.transport.writeSequence(buffers)
            case 2:
                pair.transport.write(b"".join(buffers))
        assert 0 <= pair.transport.queued <= written
        if rng.random() < 0.2:
            await deferLater(reactor, rng.random() / 500)
    pair.transport.loseConnection()
    got = await reading
    await pair.peer.lost
    assert got == b"".join(expected)
    assert receipts == list(range(0, 300, 3))
    assert pair.transport.queued == 0


@pytest_twisted.ensureDeferred
async def test_buffers_are_not_touched_before_the_receipt(make_pair):
    """A pooled buffer may be filled again as soon as ``sent`` is called."""
    pair = await make_pair()
    pool = [bytearray(BLOCK) for _ in range(4)]
    free = list(pool)
    reading = deferToThread(read_all, pair.other, 1, 0.002)
    for number in range(400):
        while not free:
            await deferLater(reactor, 0.001)
        buffer = free.pop()
        buffer[:] = bytes([number % 251]) * BLOCK
        pair.transport.writeVec([memoryview(buffer)], lambda b=buffer: free.append(b))
    pair.transport.loseConnection()
    got = await reading
    await pair.peer.lost
    assert got == b"".join(bytes([number % 251]) * BLOCK for number in range(400))
    assert len(free) == 4


@pytest.mark.parametrize("how", ["abort", "reset"])
@pytest_twisted.ensureDeferred
async def test_the_end_in_the_middle_gives_every_receipt_once(make_pair, how):
    pair = await make_pair()
    receipts: list[int] = []
    for number in range(500):
        pair.transport.writeVec([bytes(BLOCK)] * 2, lambda n=number: receipts.append(n))
    await deferLater(reactor, 0.05)
    assert 0 < len(receipts) < 500
    if how == "abort":
        pair.transport.abortConnection()
        assert receipts == list(range(500))
        pair.transport.abortConnection()
    else:
        pair.other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        pair.other.close()
    await pair.peer.lost
    assert receipts == list(range(500))
    assert pair.transport.queued == 0
    pair.transport.writeVec([b"too late"], lambda: receipts.append(500))
    assert receipts[-1] == 500


@pytest_twisted.ensureDeferred
async def test_abort_frees_the_descriptor_at_once(make_pair):
    pair = await make_pair()
    handle = pair.transport.getHandle()
    pair.transport.abortConnection()
    assert handle.fileno() == -1
    await pair.peer.lost
    with pytest.raises(ConnectionResetError):
        pair.other.recv(1)


@implementer(IPushProducer)
class Producer:
    """Writes 64 KiB as often as it can while it is not paused."""

    def __init__(self, transport, total: int) -> None:
        self.transport = transport
        self.left = total
        self.calls: list[str] = []
        self.paused = False
        self.highest = 0

    def produce(self) -> None:
        while self.left and not self.paused:
            self.left -= 65536
            self.transport.writeVec([bytes(65536)])
            self.highest = max(self.highest, self.transport.queued)
        if not self.left:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def pauseProducing(self) -> None:
        self.calls.append("pause")
        self.paused = True

    def resumeProducing(self) -> None:
        self.calls.append("resume")
        assert self.transport.queued <= self.transport.low_water
        self.paused = False
        self.produce()

    def stopProducing(self) -> None:
        self.calls.append("stop")


@pytest_twisted.ensureDeferred
async def test_a_streaming_producer_is_held_between_the_marks(make_pair):
    pair = await make_pair()
    producer = Producer(pair.transport, 32 << 20)
    pair.transport.registerProducer(producer, True)
    reading = deferToThread(read_all, pair.other, 1, 0.001)
    producer.produce()
    got = await reading
    await pair.peer.lost
    assert len(got) == 32 << 20
    assert producer.highest <= pair.transport.high_water + 65536
    assert producer.calls == ["pause", "resume"] * (len(producer.calls) // 2)
    assert len(producer.calls) >= 10


@pytest_twisted.ensureDeferred
async def test_marks_can_be_set_for_one_transport(make_pair):
    pair = await make_pair()
    pair.transport.high_water, pair.transport.low_water = 1000, 0
    producer = Producer(pair.transport, 0)
    pair.transport.write(bytes(1001))
    pair.transport.registerProducer(producer, True)
    assert producer.calls == ["pause"]
    while producer.paused:
        await deferLater(reactor, 0.005)
    await pair.peer.lost


@implementer(IPullProducer)
class Pulled:
    """Gives one block each time it is asked, ten in all."""

    def __init__(self, transport) -> None:
        self.transport = transport
        self.blocks = 10

    def resumeProducing(self) -> None:
        self.blocks -= 1
        self.transport.write(bytes(BLOCK))
        if not self.blocks:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def stopProducing(self) -> None:
        raise AssertionError("it had been unregistered")


@pytest_twisted.ensureDeferred
async def test_a_pull_producer_is_asked_until_it_is_done(make_pair):
    pair = await make_pair()
    reading = deferToThread(read_all, pair.other)
    pair.transport.registerProducer(Pulled(pair.transport), False)
    assert len(await reading) == 10 * BLOCK
    await pair.peer.lost


@pytest_twisted.ensureDeferred
async def test_lose_connection_waits_for_the_producer(make_pair):
    """As with any Twisted transport: the end comes when the producer is unregistered."""
    pair = await make_pair()
    producer = Producer(pair.transport, 65536)
    pair.transport.registerProducer(producer, True)
    pair.transport.loseConnection()
    await deferLater(reactor, 0.02)
    assert not pair.peer.lost.called
    reading = deferToThread(read_all, pair.other)
    producer.produce()
    assert len(await reading) == 65536
    await pair.peer.lost


@pytest_twisted.ensureDeferred
async def test_half_close_after_the_queue(make_pair):
    pair = await make_pair()
    reading = deferToThread(read_all, pair.other)
    pair.transport.write(bytes(3_000_000))
    pair.transport.loseWriteConnection()
    assert len(await reading) == 3_000_000
    assert not pair.peer.lost.called
    pair.other.sendall(b"and you?")
    while not pair.peer.received:
        await deferLater(reactor, 0.005)
    pair.other.close()
    await pair.peer.lost


@pytest_twisted.ensureDeferred
async def test_what_is_written_in_one_turn_leaves_in_one_call(make_pair):
    pair = await make_pair()
    calls: list[int] = []
    real = pair.transport.getHandle()

    class Counting:
        def sendmsg(self, buffers):
            taken = list(buffers)
            calls.append(len(taken))
            return real.sendmsg(taken)

        def __getattr__(self, name: str):
            return getattr(real, name)

    pair.transport.socket = Counting()
    for _ in range(100):
        pair.transport.write(b"have!")
    await deferLater(reactor, 0.05)
    assert calls == [100]
    assert pair.other.recv(4096) == b"have!" * 100


@pytest_twisted.ensureDeferred
async def test_two_transports_talk_to_each_other_both_ways():
    """Reading and writing at once, with a client and a server of ours."""
    one, other = Peer(), Peer()
    port = reactor.listenTCP(0, Serve(one), interface="127.0.0.1")
    port.transport = VectoredServer
    connect_vectored(reactor, "127.0.0.1", port.getHost().port, Connect(other), 5.0, ("127.0.0.9", 0))
    await one.connected_now
    await other.connected_now
    assert one.transport.getPeer().host == "127.0.0.9"
    there, back = random.Random(1).randbytes(5_000_000), random.Random(2).randbytes(5_000_000)
    one.transport.write(there)
    other.transport.write(back)
    while len(one.received) < len(back) or len(other.received) < len(there):
        await deferLater(reactor, 0.005)
    assert (one.received, other.received) == (back, there)
    one.transport.loseConnection()
    await one.lost
    await other.lost
    await port.stopListening()
