"""
What a session tells whoever listens: values, in order, bounded for each listener.

A listener that falls behind loses the oldest events and is told how many, so that it can look at the session
itself; it never holds up the session or its neighbours.
"""

from __future__ import annotations

from collections import deque

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from irontide.errors import Closed
from irontide.torrent.shared import Notice
from irontide.torrent.stopped import Stopped
from irontide.torrent.torrent import Torrent
from irontide.values import PeerAddress

BACKLOG = 256
"""Events that wait for one listener; above, the oldest are lost."""


@frozen
class Event:
    """Something that happened; what, says the class."""


@frozen
class TorrentEvent(Event):
    """Something that happened to one torrent."""

    infohash: bytes


@frozen
class TorrentAdded(TorrentEvent):
    """It is in the session, and in the store."""

    name: str


@frozen
class TorrentRemoved(TorrentEvent):
    """It is in the store no more."""


@frozen
class TorrentUnreadable(TorrentEvent):
    """The store has a row that cannot be used; it is kept."""

    reason: str


@frozen
class PhaseChanged(TorrentEvent):
    """Another phase is in force; ``error`` says why, if the disk refused."""

    phase: str
    error: str | None


@frozen
class TorrentChecked(TorrentEvent):
    """It is known what is there."""


@frozen
class TorrentComplete(TorrentEvent):
    """The last wanted piece came, and all are synced."""


@frozen
class PiecesFailed(TorrentEvent):
    """Pieces came whose hash was wrong."""


@frozen
class Listening(Event):
    """Peers can reach us there."""

    addresses: tuple[PeerAddress, ...]


@frozen
class Degraded(Event):
    """A part does not do all it should, because of ``reason``; None: it does again."""

    part: str
    reason: str | None


@frozen(eq=False)
class RuntimeFailed(Event):
    """A part that the session cannot do without has ended: the session stops.  Told once."""

    component: str
    failure: Failure


@frozen
class Missed(Event):
    """So many events were lost here, because the listener took none for too long."""

    count: int


_EVENTS = {
    Notice.CHECKED: TorrentChecked,
    Notice.COMPLETE: TorrentComplete,
    Notice.PIECES_FAILED: PiecesFailed,
}


def of_torrent(torrent: Torrent, notice: Notice) -> TorrentEvent:
    """The event that follows from what a torrent tells."""
    if notice is not Notice.PHASE:
        return _EVENTS[notice](torrent.infohash)
    phase = torrent.phase
    error = phase.error if isinstance(phase, Stopped) else None
    return PhaseChanged(torrent.infohash, phase.name, None if error is None else str(error))


class Subscription:
    """The events for one listener."""

    def __init__(self, events: Events, backlog: int) -> None:
        self._events = events
        self._backlog: deque[Event] = deque(maxlen=backlog)
        self._missed = 0
        self._waiting: Deferred[Event] | None = None
        self._closed = False

    def next(self) -> Deferred[Event]:
        """
        The oldest event that was not taken yet; fails with Closed behind the last one.

        :raises RuntimeError: the one before is still waited for.
        """
        if self._waiting is not None:
            raise RuntimeError("one event at a time")
        if self._missed:
            missed, self._missed = self._missed, 0
            return succeed(Missed(missed))
        if self._backlog:
            return succeed(self._backlog.popleft())
        if self._closed:
            return fail(Closed("no more events"))
        self._waiting = Deferred(self._cancelled)
        return self._waiting

    def _cancelled(self, _: Deferred[Event]) -> None:
        self._waiting = None

    def tell(self, event: Event) -> None:
        """Have one more."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(event)
            return
        if len(self._backlog) == self._backlog.maxlen:
            self._missed += 1
        self._backlog.append(event)

    def close(self) -> None:
        """Take no more; what waits can still be taken."""
        self._events.forget(self)
        self._closed = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(Closed("no more events"))


class Events:
    """Tells all listeners of a session."""

    def __init__(self) -> None:
        self._listeners: dict[Subscription, None] = {}
        self._closed = False

    def listen(self, backlog: int = BACKLOG) -> Subscription:
        """Have all events from now on."""
        subscription = Subscription(self, backlog)
        self._listeners[subscription] = None
        if self._closed:
            subscription.close()
        return subscription

    def tell(self, event: Event) -> None:
        """Tell everybody; never raises what a listener does with it."""
        for listener in list(self._listeners):
            listener.tell(event)

    def forget(self, subscription: Subscription) -> None:
        """Tell it no more."""
        self._listeners.pop(subscription, None)

    def close(self) -> None:
        """There is nothing more to tell."""
        self._closed = True
        for listener in list(self._listeners):
            listener.close()
