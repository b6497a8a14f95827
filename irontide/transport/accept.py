"""
Accepting connections, and what to do when there are no descriptors left.

Twisted's own port closes every waiting client when it is out of descriptors, and cannot be held.  This one
leaves clients in the kernel's queue and tries again after a while, longer each time, while everything else
goes on.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from errno import ECONNABORTED, EPERM, EPROTO, errorcode
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.transport.identify import PeerFactory, PreambleProtocol
from irontide.transport.vectored import IReadsAhead, VectoredServer, reset

ACCEPTS_A_TURN = 512
"""Connections that are accepted before others have their turn."""

BACKOFF_FIRST = 0.1
"""Seconds to wait after the first error of accept(); doubled with each, up to BACKOFF_MOST."""
BACKOFF_MOST = 10.0
LOG_INTERVAL = 1.0

RESERVED_DESCRIPTORS = 4
"""Held back, and let go when there are none left, so that the API and the disk still get some."""

_CLIENT_IS_GONE = frozenset({ECONNABORTED, EPERM, EPROTO})
_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)


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
    lost: Callable[[Failure], None] | None = None
    """Is told if the socket is lost, other than by ``stopListening``."""

    @classmethod
    def on(
        cls, reactor: Any, listening: socket.socket, factory: PeerFactory, reserve: DescriptorReserve
    ) -> PeerPort:
        """
        Accept connections on a socket that listens already, and close it in the end.

        ``_preexistingSocket`` is what ``reactor.adoptStreamPort`` sets as well, on Twisted's own Port.
        """
        host, number = listening.getsockname()[:2]
        port = cls(number, factory, interface=host, reactor=reactor)
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
            protocol = self._build_protocol(client)
            if protocol is None:
                accepted.close()
                continue
            newcomers.append(_Newcomer(self, accepted, client, protocol))
            if self._holders or self.disconnecting:
                break
        for newcomer in newcomers:
            try:
                newcomer.connect()
            except Exception:  # a bug of ours, which costs this connection and none of the batch behind it
                self._log.failure("could not begin a connection")

    def _build_protocol(self, client: tuple[Any, ...]) -> PreambleProtocol | None:
        """Ask the factory; a bug there costs this connection, and not the listener."""
        try:
            return self.factory.buildProtocol(self._buildAddr(_with_scope(client)))
        except Exception:
            self._log.failure("could not take a connection from {client}", client=client[0])
            return None

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
        stopped = self.disconnecting
        super().connectionLost(reason)
        if self.lost is not None and not stopped:
            self.lost(reason)


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
            arrived = self._accepted.recv(1, _PEEK)
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
