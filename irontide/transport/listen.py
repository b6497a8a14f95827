"""
The sockets that a session listens on: one port number, several addresses.

reactor.listenTCP cannot listen on 0.0.0.0 and :: with one port number; so the sockets are opened here, and
each gets a PeerPort.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from errno import EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EPROTONOSUPPORT
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.python.failure import Failure

from irontide.errors import ListenPortInUse, SettingsError
from irontide.transport.accept import DescriptorReserve, PeerPort
from irontide.transport.identify import PeerFactory
from irontide.values import PeerAddress

BACKLOG = 4096
"""Connections that may wait in the kernel; it cuts this to net.core.somaxconn."""

STOP_DEADLINE = 5.0
PORT_TRIES = 16
"""How many ports the system may pick before one is free on all addresses."""

_NO_SUCH_FAMILY = frozenset({EAFNOSUPPORT, EPROTONOSUPPORT})


class CannotListen(SettingsError):
    """An address that cannot be listened on; the text says why."""


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
    """Takes connections on any number of sockets, and hands them to one factory."""

    def __init__(
        self,
        reactor: Any,
        factory: PeerFactory,
        *,
        open_socket: Callable[[str, int], socket.socket | None] = open_listening_socket,
        lost: Callable[[Failure], None] | None = None,
    ) -> None:
        """:param lost: is told if a socket is lost, other than by ``stop``."""
        self._reactor = reactor
        self._factory = factory
        self._open_socket = open_socket
        self._lost = lost
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
        port.lost = self._lost
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
