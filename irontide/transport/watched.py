"""
Connections to servers that we were sent to by strangers: where they may lead, and how much may come.

The addresses that a name stands for are screened *between* resolving and connecting, so a name cannot mean
one address when it is judged and another when it is dialled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

Allowed = Callable[[str], bool]


@implementer(IResolutionReceiver)
class _ScreenedResults:
    """Passes on the addresses that are allowed."""

    def __init__(self, receiver: IResolutionReceiver, allowed: Allowed) -> None:
        self._receiver = receiver
        self._allowed = allowed

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._receiver.resolutionBegan(resolutionInProgress)

    def addressResolved(self, address: IAddress) -> None:
        if self._allowed(getattr(address, "host", "")):
            self._receiver.addressResolved(address)

    def resolutionComplete(self) -> None:
        self._receiver.resolutionComplete()


@implementer(IHostnameResolver)
class _ScreenedResolver:
    """Resolves names to allowed addresses only."""

    def __init__(self, resolver: IHostnameResolver, allowed: Allowed) -> None:
        self._resolver = resolver
        self._allowed = allowed

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        return self._resolver.resolveHostName(
            _ScreenedResults(resolutionReceiver, self._allowed),
            hostName,
            portNumber,
            addressTypes,
            transportSemantics,
        )


@implementer(IReactorPluggableNameResolver)
class ScreenedReactor:
    """
    A reactor for endpoints that connects only to what ``allowed`` says of each numeric address.

    Names and written-out addresses alike go through its resolver; all else is the reactor's own.
    """

    def __init__(self, reactor: Any, allowed: Allowed) -> None:
        self._reactor = reactor
        self.nameResolver: IHostnameResolver = _ScreenedResolver(reactor.nameResolver, allowed)

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """Use another resolver; here unscreened, so nobody does."""
        previous, self.nameResolver = self.nameResolver, resolver
        return previous

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class Watched(Protocol):
    """Passes a connection on to ``inner``, but no more than ``most`` bytes of it."""

    def __init__(self, inner: IProtocol, most: int) -> None:
        self.inner = inner
        self._left = most

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = transport
        self.inner.makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self.abort()
        else:
            self.inner.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.inner.connectionLost(reason)

    def abort(self) -> None:
        """Close at once."""
        abort = getattr(self.transport, "abortConnection", None)
        if abort is not None:
            abort()


class _WatchedFactory(Factory):
    noisy = False

    def __init__(self, inner: IProtocolFactory, most: int) -> None:
        self._inner = inner
        self._most = most

    def buildProtocol(self, addr: Any) -> Watched | None:
        inner = self._inner.buildProtocol(addr)
        return None if inner is None else Watched(inner, self._most)


def _too_late(result: object, timeout: float) -> Failure:
    """What an endpoint makes of being cancelled differs; this is what it means here."""
    return Failure(TimeoutError())


@implementer(IStreamClientEndpoint)
class WatchedEndpoint:
    """
    Connects by ``endpoint`` within ``timeout`` seconds, name lookup included.

    :param most: bytes that may be received in all, so that endless headers end.
    :param connected: is told the connection.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        *,
        timeout: float,
        most: int,
        connected: Callable[[Watched], None],
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._timeout = timeout
        self._most = most
        self._connected = connected

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; fires with the protocol of ``protocolFactory``."""
        connecting = self._endpoint.connect(_WatchedFactory(protocolFactory, self._most))
        return connecting.addTimeout(self._timeout, self._reactor, _too_late).addCallback(self._watch)

    def _watch(self, watched: Any) -> IProtocol:
        self._connected(watched)
        inner: IProtocol = watched.inner
        return inner
