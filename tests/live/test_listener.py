"""Listener and Dialer on real sockets: families, ports, socket activation, descriptors."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import TimeoutError as TimedOut
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from zope.interface import implementer

from irontide.errors import ListenPortInUse
from irontide.interfaces import IConnectionRouter, ISlot
from irontide.transport.dial import Dialer
from irontide.transport.identify import PeerFactory
from irontide.transport.listen import CannotListen, Listener
from irontide.transport.slots import Slots
from irontide.transport.vectored import VectoredClient, VectoredServer
from irontide.values import PeerAddress
from irontide.wire.preamble import Preamble

HELLO = Preamble(bytes(8), b"k" * 20).to_bytes() + b"-LI0000-listenerlist"


class Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


@implementer(IConnectionRouter)
class ServesAll:
    def __init__(self) -> None:
        self.served: list[tuple[PeerAddress, Echo]] = []

    def route(self, preamble: Preamble, address: PeerAddress, slot: ISlot) -> Echo:
        self.served.append((address, Echo()))
        return self.served[-1][1]


class Caller(Protocol):
    """Says hello and waits for the same to come back."""

    def __init__(self) -> None:
        self.answer: Deferred[bytes] = Deferred()
        self.lost: Deferred[None] = Deferred()
        self.received = b""

    def connectionMade(self) -> None:
        self.transport.write(HELLO)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if len(self.received) == len(HELLO):
            self.answer.callback(self.received)

    def connectionLost(self, reason: object) -> None:
        self.lost.callback(None)


class Here:
    """A listener and a dialer under caps of their own."""

    def __init__(self) -> None:
        self.slots = Slots(100)
        self.out = Slots(100)
        self.router = ServesAll()
        self.listener = Listener(reactor, PeerFactory(self.router, self.slots, reactor, lambda host: False))
        self.dialer = Dialer(reactor, self.out)

    @property
    def port(self) -> int:
        assert self.listener.port is not None
        return self.listener.port

    async def call(self, host: str) -> None:
        """Connect, be answered, hang up; both sides are as they were then."""
        caller = await self.dialer.dial(PeerAddress(host, self.port), lambda slot: Caller())
        assert isinstance(caller, Caller)
        assert await caller.answer == HELLO
        assert self.out.used == 1
        assert isinstance(caller.transport, VectoredClient)
        server = self.router.served[-1][1].transport
        assert isinstance(server, VectoredServer)
        assert server.getTcpNoDelay() and caller.transport.getTcpNoDelay()
        assert server.getPeer().port == caller.transport.getHost().port
        caller.transport.loseConnection()
        await caller.lost
        await until(lambda: self.slots.used == 0)
        assert self.out.used == 0


async def until(condition) -> None:
    """Give the reactor turns until ``condition`` holds, 2 s at most."""
    for _ in range(200):
        if condition():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("it never came true")


@asynccontextmanager
async def here() -> AsyncIterator[Here]:
    """Leaves no descriptor behind, and stops within 100 ms."""
    await deferLater(reactor, 0)
    before = len(os.listdir("/proc/self/fd"))
    made = Here()
    try:
        yield made
    finally:
        began = time.monotonic()
        await made.listener.stop()
        assert time.monotonic() - began < 0.1
        await deferLater(reactor, 0.02)
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # Twisted keeps one for itself


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest_twisted.ensureDeferred
async def test_both_families_on_one_port():
    async with here() as site:
        await site.listener.listen(["0.0.0.0", "::"], 0)
        ports = {address.port for address in site.listener.addresses()}
        assert ports == {site.port}
        await site.call("127.0.0.1")
        assert site.router.served[-1][0].host == "127.0.0.1"
        if has_ipv6():
            assert len(site.listener.addresses()) == 2
            await site.call("::1")
            assert site.router.served[-1][0].host == "::1"


@pytest_twisted.ensureDeferred
async def test_a_taken_port_is_refused_by_name():
    async with here() as site:
        other = Here()
        await site.listener.listen(["127.0.0.1"], 0)
        with pytest.raises(ListenPortInUse) as caught:
            await other.listener.listen(["127.0.0.2", "127.0.0.1"], site.port)
        assert caught.value.attempted == site.port
        assert other.listener.port is None
        await site.call("127.0.0.1")


@pytest_twisted.ensureDeferred
async def test_an_address_of_somebody_else_is_refused_by_name():
    async with here() as site:
        with pytest.raises(CannotListen, match="192.0.2.1"):
            await site.listener.listen(["192.0.2.1"], 0)


@pytest_twisted.ensureDeferred
async def test_listening_again_on_the_same_port():
    """Connections of the last time, still in TIME_WAIT, are no obstacle."""
    async with here() as site:
        await site.listener.listen(["127.0.0.1"], 0)
        port = site.port
        await site.call("127.0.0.1")
        await site.listener.stop()
        await site.listener.listen(["127.0.0.1"], port)
        await site.call("127.0.0.1")


@pytest_twisted.ensureDeferred
async def test_socket_activation():
    async with here() as site:
        given = socket.create_server(("127.0.0.1", 0))
        site.listener.adopt(given.detach())
        await site.call("127.0.0.1")


@pytest_twisted.ensureDeferred
async def test_only_listening_tcp_sockets_are_adopted():
    async with here() as site:
        with socket.socket() as silent, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            for each in (silent, datagrams):
                with pytest.raises(CannotListen):
                    site.listener.adopt(each.fileno())
                assert each.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0  # it is still open
        with open(os.devnull) as file, pytest.raises(CannotListen):
            site.listener.adopt(file.fileno())


@pytest_twisted.ensureDeferred
async def test_stop_with_connections_in_every_state():
    """L9, L11: what is not handed over is closed; what is, lives on."""
    async with here() as site:
        await site.listener.listen(["127.0.0.1"], 0)
        caller = await site.dialer.dial(PeerAddress("127.0.0.1", site.port), lambda slot: Caller())
        await caller.answer
        silent = socket.create_connection(("127.0.0.1", site.port))
        await until(lambda: site.slots.used == 2)
        await site.listener.stop()
        assert site.slots.used == 1
        silent.settimeout(1)
        with pytest.raises(ConnectionResetError):
            silent.recv(1)
        silent.close()
        caller.received, caller.answer = b"", Deferred()
        caller.transport.write(HELLO)
        assert await caller.answer == HELLO
        caller.transport.loseConnection()
        await caller.lost
        await until(lambda: site.slots.used == 0)


@pytest_twisted.ensureDeferred
async def test_dials_that_come_to_nothing():
    """Refused, unanswered, cancelled: the slot comes back each time."""
    async with here() as site:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            with pytest.raises(Refused):
                await site.dialer.dial(PeerAddress(*closed.getsockname()), lambda slot: Caller())
        assert site.out.used == 0
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            site.dialer.timeout = 0.2
            with pytest.raises(TimedOut):
                await site.dialer.dial(PeerAddress(*full.getsockname()), lambda slot: Caller())
            assert site.out.used == 0
            dialled = site.dialer.dial(PeerAddress(*full.getsockname()), lambda slot: Caller())
            assert site.out.used == 1
            dialled.cancel()
            assert site.out.used == 0
            with pytest.raises(CancelledError):
                await dialled
            for filler in fillers:
                filler.close()


@pytest_twisted.ensureDeferred
async def test_a_protocol_that_raises_at_the_end_keeps_no_slot(logged_errors):
    """L14, of a connection that we made: Twisted would not tell the connector then."""

    class Raises(Caller):
        def connectionLost(self, reason: object) -> None:
            super().connectionLost(reason)
            raise ZeroDivisionError

    async with here() as site:
        await site.listener.listen(["127.0.0.1"], 0)
        caller = await site.dialer.dial(PeerAddress("127.0.0.1", site.port), lambda slot: Raises())
        await caller.answer
        caller.transport.loseConnection()
        await caller.lost
        await until(lambda: site.slots.used == site.out.used == 0)
    [event] = logged_errors.flush()
    assert event["failure"].check(ZeroDivisionError)


@pytest_twisted.ensureDeferred
async def test_no_descriptors_left():
    """L16: who is connected goes on, others still get descriptors, and later everybody is served."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with here() as site:
        await site.listener.listen(["127.0.0.1"], 0)
        connected = await site.dialer.dial(PeerAddress("127.0.0.1", site.port), lambda slot: Caller())
        await connected.answer
        late = [socket.socket() for _ in range(3)]
        for each in late:
            each.settimeout(3)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
        hoard = []
        try:
            with pytest.raises(OSError, match="Too many open files"):
                while True:
                    hoard.append(os.open(os.devnull, os.O_RDONLY))
            for each in late:
                each.connect(("127.0.0.1", site.port))
                each.sendall(HELLO)
            await deferLater(reactor, 0.15)
            os.close(os.open(os.devnull, os.O_RDONLY))  # the reserve was let go for this
            assert len(site.router.served) == 1
            connected.received, connected.answer = b"", Deferred()
            connected.transport.write(HELLO)
            assert await connected.answer == HELLO
        finally:
            for descriptor in hoard:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await until(lambda: len(site.router.served) == 4)
        for each in late:
            each.close()
        connected.transport.loseConnection()
        await connected.lost
        await until(lambda: site.slots.used == 0)
