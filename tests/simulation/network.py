"""
A network on one Clock: hosts with addresses, lines with rates, connections that take time and get lost.

``host.connect`` has the shape of ``transport.vectored.connect_vectored``, so that the real Dialer works
on it; ``host.listener`` has the shape of ``transport.listen.Listener``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import TimeoutError as NoAnswer
from twisted.internet.error import UserError
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, Factory
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.errors import ListenPortInUse
from irontide.transport.dial import Dialer
from irontide.transport.slots import Slots
from irontide.values import PeerAddress
from tests.simulation.transport import Address, SimulatedTransport

FIRST_EPHEMERAL = 32768


class SerialLine:
    """A line that carries one thing after the other; rate 0 carries everything at once."""

    def __init__(self, rate: float = 0) -> None:
        self.rate = rate
        self._free_at = 0.0

    def reserve(self, length: int, earliest: float) -> float:
        """Say when ``length`` bytes are through, if they may start at ``earliest``."""
        if not self.rate:
            return earliest
        self._free_at = max(self._free_at, earliest) + length / self.rate
        return self._free_at


class Network:
    """
    Where hosts find each other.

    :ivar mean_lifetime: seconds after which, on average, a connection is lost for no reason; None: never.
    """

    def __init__(
        self,
        clock: Clock,
        random: Random,
        *,
        latency: float = 0.02,
        jitter: float = 0.0,
        mean_lifetime: float | None = None,
    ) -> None:
        """
        :param latency: seconds, one way, of every connection;
        :param jitter: and at most so much more, drawn for each.
        """
        self.clock = clock
        self.random = random
        self.mean_lifetime = mean_lifetime
        self.hosts: dict[str, Host] = {}
        self._latency, self._jitter = latency, jitter

    def host(self, address: str, *, up: float = 0, down: float = 0) -> Host:
        """Make a host whose lines carry so many bytes a second (0: no limit)."""
        if address in self.hosts:
            raise ValueError(f"there is a host {address} already")
        made = self.hosts[address] = Host(self, address, SerialLine(up), SerialLine(down))
        return made

    def latency(self) -> float:
        """Draw the latency of a new connection."""
        return self._latency + self._jitter * self.random.random()

    def join(self, client: SimulatedTransport, server: SimulatedTransport) -> None:
        """Make two transports the ends of one connection, and decide when it is lost."""
        client.other, server.other = server, client
        if self.mean_lifetime is not None:
            lifetime = self.random.expovariate(1 / self.mean_lifetime)
            client.lifetime = self.clock.callLater(lifetime, client.break_off)
            server.lifetime = self.clock.callLater(lifetime, server.break_off)

    def run_until(self, happened: Callable[[], object], *, seconds: float) -> float:
        """
        Let time pass from event to event; return the time passed until ``happened`` said yes.

        :raises AssertionError: it did not within ``seconds``, or nothing more will ever happen.
        """
        begin = self.clock.seconds()
        while not happened():
            calls = self.clock.getDelayedCalls()
            if not calls:
                raise AssertionError("nothing more will happen")
            due = min(call.getTime() for call in calls)
            if due > begin + seconds:
                raise AssertionError(f"not within {seconds} s")
            self.clock.advance(max(0.0, due - self.clock.seconds()))
        return self.clock.seconds() - begin


class Host:
    """
    A machine with one address.

    :ivar online: while False nobody can connect; set by ``unplug`` and ``plug_in``.
    """

    def __init__(self, network: Network, address: str, up: SerialLine, down: SerialLine) -> None:
        self.network = network
        self.address = address
        self.up, self.down = up, down
        self.online = True
        self.ports: dict[int, Factory] = {}
        self.transports: list[SimulatedTransport] = []
        self._ephemeral = FIRST_EPHEMERAL

    def unplug(self) -> None:
        """Lose every connection, both ends of it, and take no more."""
        self.online = False
        for transport in self.transports:
            transport.break_off()
            transport.other.break_off()
        self.transports.clear()

    def plug_in(self) -> None:
        """Be there again; who listens still does."""
        self.online = True

    # --- in the shapes of transport/ --------------------------------------------------------------------

    def listener(self, factory: Factory) -> SimulatedListener:
        """Make what takes connections on this host."""
        return SimulatedListener(self, factory)

    def dialer(self, slots: Slots, *, timeout: float = 10.0) -> Dialer:
        """Make a real Dialer whose connections begin here."""
        return Dialer(self.network.clock, slots, timeout=timeout, connect=self.connect)

    def connect(
        self,
        reactor: Any,
        host: str,
        port: int,
        factory: ClientFactory[Any],
        timeout: float,
        bind_address: tuple[str, int] | None = None,
    ) -> IConnector:
        """As ``connect_vectored``."""
        connector = SimulatedConnector(self, PeerAddress(host, port), factory, timeout)
        connector.connect()
        return connector

    # --- used by the parts below ------------------------------------------------------------------------

    def ephemeral_port(self) -> int:
        """Return a port that no connection from here has had."""
        self._ephemeral += 1
        return self._ephemeral

    def keep(self, transport: SimulatedTransport) -> None:
        """Know a connection, to be able to lose it."""
        self.transports = [each for each in self.transports if each.connected]
        self.transports.append(transport)


class SimulatedListener:
    """Listens on one port of its host; in the shape of ``transport.listen.Listener``."""

    def __init__(self, host: Host, factory: Factory) -> None:
        self._host = host
        self._factory = factory
        self.port: int | None = None

    def listen(self, addresses: Sequence[str], port: int) -> Deferred[None]:
        """Take connections; fails with ListenPortInUse.  The host's address is the only one there is."""
        if port == 0:
            port = self._host.ephemeral_port()
        if port in self._host.ports:
            return fail(ListenPortInUse(port, self.port))
        self._host.ports[port] = self._factory
        self.port = port
        self._factory.doStart()
        return succeed(None)

    def addresses(self) -> list[PeerAddress]:
        """Where connections are taken."""
        return [] if self.port is None else [PeerAddress(self._host.address, self.port)]

    def stop(self) -> Deferred[None]:
        """Take no more; connections live on."""
        if self.port is not None:
            del self._host.ports[self.port]
            self.port = None
            self._factory.doStop()
        return succeed(None)


@implementer(IConnector)
class SimulatedConnector:
    """One attempt to connect, then the connection."""

    def __init__(self, host: Host, remote: PeerAddress, factory: ClientFactory[Any], timeout: float) -> None:
        self._host = host
        self._remote = remote
        self._factory = factory
        self._timeout = timeout
        self._call: Any = None
        self._transport: SimulatedTransport | None = None
        self.state = "disconnected"

    def connect(self) -> None:
        """Begin: an answer takes one round trip, no answer takes the timeout."""
        self.state = "connecting"
        self._factory.doStart()
        self._factory.startedConnecting(self)
        latency = self._host.network.latency()
        self._call = self._host.network.clock.callLater(latency, self._knock, latency)

    def disconnect(self) -> None:
        """Give up the attempt, or close the connection."""
        if self.state == "connecting":
            self.stopConnecting()
        elif self._transport is not None:
            self._transport.loseConnection()

    def stopConnecting(self) -> None:
        """Give up the attempt."""
        if self._call is not None:
            self._call.cancel()
        self._fail(Failure(UserError()))

    def getDestination(self) -> IAddress:
        """Where this connects to."""
        return _address(self._remote.host, self._remote.port)

    def _knock(self, latency: float) -> None:
        """Arrive at the other host."""
        clock = self._host.network.clock
        remote = self._host.network.hosts.get(self._remote.host)
        if remote is None or not remote.online or not self._host.online:
            self._call = clock.callLater(self._timeout - latency, self._fail, Failure(NoAnswer()))
            return
        factory = remote.ports.get(self._remote.port)
        if factory is None:
            self._call = clock.callLater(latency, self._fail, Failure(Refused()))
            return
        here = _address(self._host.address, self._host.ephemeral_port())
        there = _address(self._remote.host, self._remote.port)
        client = SimulatedTransport(clock, here, there, self._host.up, remote.down, latency)
        server = SimulatedTransport(clock, there, here, remote.up, self._host.down, latency)
        self._host.network.join(client, server)
        self._host.keep(client)
        self._call = clock.callLater(latency, self._succeed, client)
        protocol = factory.buildProtocol(here)
        if protocol is None:
            server.abortConnection()
        else:
            server.start(protocol)
            remote.keep(server)

    def _succeed(self, transport: SimulatedTransport) -> None:
        self._call = None
        protocol = self._factory.buildProtocol(self.getDestination())
        if protocol is None:
            transport.abortConnection()
            self._end(Failure(UserError()))
            return
        self.state = "connected"
        self._transport = transport
        transport.closed = self._end
        transport.start(protocol)

    def _fail(self, reason: Failure) -> None:
        self._call = None
        self.state = "disconnected"
        self._factory.clientConnectionFailed(self, reason)
        self._factory.doStop()

    def _end(self, reason: Failure) -> None:
        self.state = "disconnected"
        self._factory.clientConnectionLost(self, reason)
        self._factory.doStop()


def _address(host: str, port: int) -> Address:
    return IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)
