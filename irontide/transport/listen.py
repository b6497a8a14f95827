"""
Listening sockets, and what to do when there are no descriptors left.

Twisted's own port closes every waiting client when it is out of descriptors, does not listen on 0.0.0.0
and :: with one port number, and cannot be held.  This one leaves clients in the kernel's queue and tries
again after a while, longer each time, while everything else goes on.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from errno import (
    EADDRINUSE,
    EADDRNOTAVAIL,
    EAFNOSUPPORT,
    ECONNABORTED,
    EMFILE,
    ENFILE,
    ENOBUFS,
    ENOMEM,
    EPERM,
    EPROTO,
    EPROTONOSUPPORT,
    errorcode,
)
from typing import Any

from twisted.internet import tcp
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.errors import ListenPortInUse, SettingsError
from irontide.interfaces import PeerAddress
from irontide.transport.identify import PeerFactory, PreambleProtocol
from irontide.transport.vectored import IReadsAhead, VectoredServer, reset

BACKLOG = 4096
ACCEPTS_A_TURN = 512
"""Connections that are accepted before others have their turn."""

BACKOFF_FIRST = 0.1
BACKOFF_MOST = 10.0
LOG_INTERVAL = 1.0
STOP_DEADLINE = 5.0
PORT_TRIES = 16
"""How many ports the system may pick before one is free on all addresses."""

RESERVED_DESCRIPTORS = 4
"""Held back, and let go when there are none left, so that the API and the disk still get some."""

_OUT_OF_RESOURCES = frozenset({EMFILE, ENFILE, ENOBUFS, ENOMEM})
_CLIENT_IS_GONE = frozenset({ECONNABORTED, EPERM, EPROTO})
_NO_SUCH_FAMILY = frozenset({EAFNOSUPPORT, EPROTONOSUPPORT})


class CannotListen(SettingsError):
    """An address that cannot be listened on; the text says why."""


class DescriptorReserve:
    """Descriptors that nobody uses, for the moment when there are no others."""

    def __init__(self, count: int = RESERVED_DESCRIPTORS) -> None:
        self._count = count
        self._held: list[int] = []

    def take(self) -> bool:
        """Fill the reserve up; False if the system has not enough."""
        try:
            while len(self._held) < self._count:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            self.let_go()
            return False
        return True

    def let_go(self) -> None:
        """Give all back."""
        while self._held:
            os.close(self._held.pop())


class PeerPort(tcp.Port):
    """
    One listening socket; its connections get a VectoredServer as transport.

    Whoever wants it to accept nothing for a while holds it; it accepts while nobody does.
    """

    transport = VectoredServer
    _log = Logger()
    reactor: Any
    factory: PeerFactory
    reserve: DescriptorReserve

    @classmethod
    def on(
        cls, reactor: Any, listening: socket.socket, factory: PeerFactory, reserve: DescriptorReserve
    ) -> PeerPort:
        """
        Accept connections on a socket that listens already, and close it in the end.

        ``_preexistingSocket`` is what ``reactor.adoptStreamPort`` sets as well, on Twisted's own Port.
        """
        host, number = listening.getsockname()[:2]
        port = cls(number, factory, BACKLOG, host, reactor)
        port._preexistingSocket = listening
        port.reserve = reserve
        port.startListening()
        return port

    def startListening(self) -> None:
        """As Twisted's."""
        self._holders: set[str] = set()
        self._backoff = BACKOFF_FIRST
        self._retry: IDelayedCall | None = None
        self._logged = -LOG_INTERVAL
        super().startListening()

    def hold(self, who: str) -> None:
        """Accept nothing until ``who`` lets go."""
        self._holders.add(who)
        self.stopReading()

    def release(self, who: str) -> None:
        """``who`` has nothing against accepting any more."""
        self._holders.discard(who)
        if not self._holders and self.connected and not self.disconnecting:
            self.startReading()

    # --- accepting -------------------------------------------------------------------------------------

    def doRead(self) -> None:
        """Accept a batch of connections, then give transports to those that have not given way already."""
        newcomers: list[_Newcomer] = []
        for _ in range(ACCEPTS_A_TURN):
            try:
                accepted, client = self.socket.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _CLIENT_IS_GONE:
                    continue
                self._pause_accepting(error)
                break
            self._backoff = BACKOFF_FIRST
            protocol = self.factory.buildProtocol(self._buildAddr(_with_scope(client)))
            if protocol is None:
                accepted.close()
                continue
            newcomers.append(_Newcomer(self, accepted, client, protocol))
            if self._holders or self.disconnecting:
                break
        for newcomer in newcomers:
            newcomer.connect()

    # --- out of descriptors ----------------------------------------------------------------------------

    def _pause_accepting(self, error: OSError) -> None:
        """Leave the clients in the kernel's queue, and try again later."""
        self.reserve.let_go()
        self.hold("errors")
        now = self.reactor.seconds()
        if now - self._logged >= LOG_INTERVAL:
            self._logged = now
            self._log.warn(
                "cannot accept on port {port} ({error}); trying again in {delay:.1f} s",
                port=self._realPortNumber,
                error=errorcode.get(error.errno or 0, str(error)),
                delay=self._backoff,
            )
        self._retry = self.reactor.callLater(self._backoff, self._try_again)
        self._backoff = min(2 * self._backoff, BACKOFF_MOST)

    def _try_again(self) -> None:
        self._retry = None
        if self.reserve.take():
            self.release("errors")
        else:
            self._retry = self.reactor.callLater(self._backoff, self._try_again)
            self._backoff = min(2 * self._backoff, BACKOFF_MOST)

    def connectionLost(self, reason: Failure) -> None:
        """The socket is closed, by us or by an error: nothing to try again."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        super().connectionLost(reason)


def _with_scope(client: tuple[Any, ...]) -> tuple[Any, ...]:
    """Name the interface in a link-local IPv6 address, as Twisted does: it is part of where the peer is."""
    if len(client) == 4 and client[3]:
        host, _ = socket.getnameinfo(client, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        return (host, *client[1:])
    return client


@implementer(IReadsAhead)
class _Newcomer:
    """
    A connection in the batch that is being accepted.

    In a flood most of a batch gives way to the rest of it.  Those never get a transport, nor a place in
    the reactor: that is more than half of the work, and decides whether the kernel's queue overflows.
    """

    __slots__ = ("_accepted", "_client", "_port", "_protocol")

    def __init__(
        self, port: PeerPort, accepted: socket.socket, client: tuple[Any, ...], protocol: PreambleProtocol
    ) -> None:
        self._port = port
        self._accepted: socket.socket | None = accepted
        self._client = client
        self._protocol = protocol
        protocol.accepted(self)

    def connect(self) -> None:
        """Become a real connection, unless that is done or there is none any more."""
        accepted, self._accepted = self._accepted, None
        if accepted is None:
            return
        port, protocol = self._port, self._protocol
        port.sessionno += 1
        client = _with_scope(self._client)
        try:
            transport = port.transport(accepted, protocol, client, port, port.sessionno, port.reactor)
        except OSError:
            accepted.close()
            protocol.connectionLost(Failure())
            return
        protocol.makeConnection(transport)

    def read_now(self) -> None:
        """If something has arrived, become a real connection and deliver it."""
        if self._accepted is None:
            return
        try:
            arrived = self._accepted.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:
            return
        if arrived:
            self.connect()
            self._protocol.read_now()

    def abortConnection(self) -> None:
        """Close at once."""
        accepted, self._accepted = self._accepted, None
        if accepted is not None:
            reset(accepted)


def open_listening_socket(host: str, port: int) -> socket.socket | None:
    """
    Listen on a numeric address; None if this machine has no such family of addresses.

    :raises OSError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        opened = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        if error.errno in _NO_SUCH_FAMILY:
            return None
        raise
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Linux hands it on to what it accepts
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(
            socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)[0][4]
        )
        opened.listen(BACKLOG)
        opened.setblocking(False)
    except OSError as error:
        opened.close()
        if error.errno == EADDRNOTAVAIL and host in ("::", "::1"):
            return None
        raise
    return opened


class Listener:
    """The sockets on which a session takes connections: one port number, several addresses."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        factory: PeerFactory,
        *,
        open_socket: Callable[[str, int], socket.socket | None] = open_listening_socket,
    ) -> None:
        self._reactor = reactor
        self._factory = factory
        self._open_socket = open_socket
        self._reserve = DescriptorReserve()
        self._ports: list[PeerPort] = []

    @property
    def port(self) -> int | None:
        """The port that is listened on, or None while there is none."""
        addresses = self.addresses()
        return addresses[0].port if addresses else None

    def addresses(self) -> list[PeerAddress]:
        """Where connections are taken."""
        hosts = (port.getHost() for port in self._ports if port.connected)
        return [PeerAddress(host.host, host.port) for host in hosts]

    def listen(self, addresses: Sequence[str], port: int) -> Deferred[None]:
        """
        Listen on all of the numeric ``addresses``; those of a family that this machine lacks are left out.

        Fails with ListenPortInUse or CannotListen, and then listens on none of them.

        :param port: 0 takes one that is free on all of the addresses.
        """
        return maybeDeferred(self._listen, addresses, port)

    def _listen(self, addresses: Sequence[str], port: int) -> None:
        for tries_left in reversed(range(PORT_TRIES if port == 0 else 1)):
            try:
                opened = self._open_all(addresses, port)
            except ListenPortInUse:
                if not tries_left:
                    raise
            else:
                break
        for each in opened:
            self._start(each)

    def _open_all(self, addresses: Sequence[str], port: int) -> list[socket.socket]:
        opened: list[socket.socket] = []
        try:
            for host in addresses:
                found = self._open_socket(host, port)
                if found is not None:
                    opened.append(found)
                    port = found.getsockname()[1]
        except OSError as error:
            for each in opened:
                each.close()
            if error.errno == EADDRINUSE:
                raise ListenPortInUse(port, self.port) from error
            raise CannotListen(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error
        if not opened:
            raise CannotListen(f"this machine has none of the addresses {', '.join(addresses)}")
        return opened

    def adopt(self, descriptor: int) -> None:
        """
        Take over a listening TCP socket that somebody else has opened (socket activation).

        :raises CannotListen: it is something else.
        """
        try:
            opened = socket.socket(fileno=descriptor)
        except OSError as error:
            raise CannotListen(f"descriptor {descriptor} is no socket: {error.strerror}") from error
        is_tcp = opened.family in (socket.AF_INET, socket.AF_INET6) and opened.type == socket.SOCK_STREAM
        if not (is_tcp and opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)):
            opened.detach()
            raise CannotListen(f"descriptor {descriptor} is no listening TCP socket")
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._start(opened)

    def _start(self, opened: socket.socket) -> None:
        self._reserve.take()
        port = PeerPort.on(self._reactor, opened, self._factory, self._reserve)
        self._ports.append(port)
        self._factory.attach(port)

    def stop(self) -> Deferred[None]:
        """
        Close the sockets; fires when that is done, which takes no longer than a turn of the reactor.

        Connections that were handed over live on.  Should closing take 5 s, it goes on, but this fails
        with Twisted's TimeoutError.
        """
        ports, self._ports = self._ports, []
        for port in ports:
            self._factory.detach(port)
        stopped: Deferred[None] = Deferred()
        closed = gatherResults([maybeDeferred(port.stopListening) for port in ports], consumeErrors=True)
        closed.addBoth(self._closed).chainDeferred(stopped)
        return stopped.addTimeout(STOP_DEADLINE, self._reactor)

    def _closed(self, result: Any) -> Any:
        self._reserve.let_go()
        return result if isinstance(result, Failure) else None
