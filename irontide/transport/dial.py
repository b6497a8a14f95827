"""
Connections that we make: a slot first, then connect().

The slot is held until the connection is closed, or the attempt has failed; so the cap counts connections
that are still being made.  Whom to dial, and how often, is the swarm's to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IAddress, IConnector, IProtocol, ITransport
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.errors import IrontideError
from irontide.interfaces import ISlot
from irontide.transport.slots import Slots
from irontide.transport.vectored import connect_vectored
from irontide.values import PeerAddress

DIAL_TIMEOUT = 10.0


class NoSlot(IrontideError):
    """The cap on connections is reached, by peers that are all identified."""


class Dialer:
    """Connects to peers within the cap."""

    def __init__(
        self,
        reactor: Any,
        slots: Slots,
        *,
        timeout: float = DIAL_TIMEOUT,
        bind_address: str | None = None,
        connect: Callable[..., IConnector] = connect_vectored,
    ) -> None:
        """
        :param timeout: seconds from connect() until the attempt is given up.
        :param bind_address: the numeric local address to connect from, if it is to be a certain one.
        """
        self.timeout = timeout
        self.bind_address = bind_address
        self._reactor = reactor
        self._slots = slots
        self._connect = connect

    def dial(
        self, address: PeerAddress, protocol_factory: Callable[[ISlot], IProtocol]
    ) -> Deferred[IProtocol]:
        """
        Connect to ``address``; fires with the protocol once it is connected.  Cancelling gives up.

        Fails with NoSlot, or with what Twisted says of the attempt (a ConnectError); ValueError is for
        an address that is not numeric.
        """
        if not (isIPAddress(address.host) or isIPv6Address(address.host)):
            return fail(ValueError(f"not a numeric address: {address.host!r}"))
        slot = self._slots.dial(address)
        if slot is None:
            return fail(NoSlot(f"no connection left for {address}"))
        attempt = _Attempt(slot, protocol_factory)
        bind_address = None if self.bind_address is None else (self.bind_address, 0)
        attempt.connector = self._connect(
            self._reactor, address.host, address.port, attempt, self.timeout, bind_address
        )
        return attempt.connected


class _Attempt(ClientFactory[Any]):
    """One connection, from connect() to its close: whoever ends it, the slot is given back."""

    noisy = False
    connector: IConnector

    def __init__(self, slot: ISlot, protocol_factory: Callable[[ISlot], IProtocol]) -> None:
        self._slot = slot
        self._protocol_factory = protocol_factory
        self._pending = True
        self.connected: Deferred[IProtocol] = Deferred(self._cancel)

    def _cancel(self, _: Deferred[IProtocol]) -> None:
        self._pending = False
        self.connector.disconnect()

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        """The connection stands."""
        try:
            return _Handover(self._protocol_factory(self._slot), self._succeeded)
        except Exception:
            self._failed(Failure())
            return None

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """There is no connection."""
        self._slot.release()
        self._failed(reason)

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        """The connection is closed."""
        self._slot.release()

    def _succeeded(self, protocol: IProtocol) -> None:
        if self._pending:
            self._pending = False
            self.connected.callback(protocol)

    def _failed(self, reason: Failure) -> None:
        if self._pending:
            self._pending = False
            self.connected.errback(reason)


@implementer(IProtocol)
class _Handover(Protocol):
    """Puts the real protocol into the transport, connects it, and tells that it is connected."""

    def __init__(self, protocol: IProtocol, connected: Callable[[IProtocol], None]) -> None:
        self._protocol = protocol
        self._connected = connected

    def makeConnection(self, transport: ITransport) -> None:
        transport.protocol = self._protocol  # type: ignore[attr-defined]  # as all of Twisted's have
        self._protocol.makeConnection(transport)
        self._connected(self._protocol)
