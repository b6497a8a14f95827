"""
Connects a torrent to the peers in its book: within the cap, and no faster than dials are allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from irontide.flow import TokenBucket
from irontide.interfaces import ISlot
from irontide.swarm.peerbook import PeerBook
from irontide.transport.dial import NoSlot
from irontide.values import PeerAddress

# Half-open connections of one torrent; the rest of the dials wait for their outcome.
MAX_PENDING = 32


class Dials(Protocol):
    """What a connector asks of the session's Dialer."""

    def dial(
        self, address: PeerAddress, protocol_factory: Callable[[ISlot], IProtocol]
    ) -> Deferred[IProtocol]:
        """Connect; fails with NoSlot at the cap."""


class Connector:
    """
    Dials for one torrent.

    :ivar max_peers: no more connections than this, incoming ones counted by the caller.
    """

    _log = Logger()

    def __init__(
        self,
        book: PeerBook,
        dialer: Dials,
        rate: TokenBucket,
        build: Callable[[PeerAddress], IProtocol],
        clock: IReactorTime,
        max_peers: Callable[[], int],
    ) -> None:
        self._book = book
        self._dialer = dialer
        self._rate = rate
        self._build = build
        self._clock = clock
        self._max_peers = max_peers
        self._pending: dict[PeerAddress, Deferred[IProtocol]] = {}
        self._stopped = self._full = False

    def connect(self, peers: int, now: float) -> None:
        """Dial as many as there is room for; called at each tick, ``peers`` are connected."""
        self._full = False
        while (
            not (self._stopped or self._full)
            and len(self._pending) < MAX_PENDING
            and peers + len(self._pending) < self._max_peers()
            and self._rate.wait(1, now) <= 0
        ):
            address = self._book.next(now)
            if address is None:
                return
            self._rate.take(1, now)
            self._dial(address)

    def _dial(self, address: PeerAddress) -> None:
        dialled = self._dialer.dial(address, lambda slot: self._build(address))
        self._pending[address] = dialled
        dialled.addBoth(self._done, address)

    def _done(self, outcome: object, address: PeerAddress) -> None:
        self._pending.pop(address, None)
        now = self._clock.seconds()
        if isinstance(outcome, Failure) and outcome.check(NoSlot, CancelledError):
            self._full = True  # the session's cap, not this peer's fault; the next tick may find room
            self._book.untried(address, now)
        elif isinstance(outcome, Failure):
            self._log.debug("no connection to {address}: {reason}", address=address, reason=outcome.value)
            self._book.failed(address, now)
        else:
            self._book.connected(address)

    def stop(self) -> None:
        """Give up what is under way."""
        self._stopped = True
        for dialled in list(self._pending.values()):
            dialled.cancel()
