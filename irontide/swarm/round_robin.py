"""
Asking under a rate limit: each peer for a block in turn, while the bucket allows.

Nobody is read slower; everybody is asked for less.  Whose turn it was when the bucket ran dry is first the
next time, so that no peer is starved by those before it.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from irontide.metainfo.layout import BLOCK_LENGTH
from irontide.swarm.limits import Limits
from irontide.swarm.requests import Requests

MIN_WAIT = 0.01
"""Seconds: no timer is shorter, however little is missing in the bucket."""


class RoundRobin:
    """
    Deals what the limits allow.

    :param peers: those of the torrent, in turn: who comes first may change.
    :param may_ask: whether a peer answers at all just now.
    :param ask: ask one peer for one block; False if there is none for it.
    """

    def __init__(
        self,
        peers: dict[Requests, None],
        limits: Limits,
        clock: IReactorTime,
        may_ask: Callable[[Requests], bool],
        ask: Callable[[Requests], bool],
    ) -> None:
        self._peers = peers
        self._limits = limits
        self._clock = clock
        self._may_ask = may_ask
        self._ask = ask
        self._timer: IDelayedCall | None = None

    @property
    def limited(self) -> bool:
        """Whether there is a limit to be kept."""
        return self._limits.limited

    def soon(self, delay: float = 0.0) -> None:
        """Deal after ``delay`` seconds, unless that is to happen already."""
        if self._timer is None:
            self._timer = self._clock.callLater(delay, self._deal)

    def stop(self) -> None:
        """Deal no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _deal(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        eager = [requests for requests in self._peers if self._may_ask(requests)]
        while eager:
            again = []
            for requests in eager:
                if not requests.room():
                    continue
                if wait := self._limits.wait(BLOCK_LENGTH, now):
                    self._begin_with(requests)
                    self.soon(max(MIN_WAIT, wait))
                    return
                if self._ask(requests):
                    self._limits.take(BLOCK_LENGTH, now)
                    again.append(requests)
            eager = again

    def _begin_with(self, first: Requests) -> None:
        """Turn the ring: it was the turn of ``first`` when the bucket ran dry."""
        for requests in list(self._peers):
            if requests is first:
                break
            del self._peers[requests]
            self._peers[requests] = None
