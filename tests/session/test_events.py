"""Events: in order, bounded for each listener, who is told what was lost."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import Closed
from irontide.session.events import (
    BACKLOG,
    Events,
    Missed,
    PhaseChanged,
    Subscription,
    TorrentRemoved,
    of_torrent,
)
from irontide.torrent.shared import Notice
from irontide.torrent.stopped import Stopped
from tests.torrent.fakes import BROKEN, Bench


def event(number: int) -> TorrentRemoved:
    return TorrentRemoved(bytes([number % 256]) * 20)


class EventsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events = Events()

    def taken(self, listener: Subscription) -> list[object]:
        """All that waits."""
        found: list[object] = []
        while (waiting := listener.next()).called:
            found.append(self.successResultOf(waiting))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        return found

    def test_in_order_to_all(self) -> None:
        first, second = self.events.listen(), self.events.listen()
        for number in range(3):
            self.events.tell(event(number))
        for listener in (first, second):
            self.assertEqual(self.taken(listener), [event(0), event(1), event(2)])

    def test_whoever_waits_is_told_at_once(self) -> None:
        listener = self.events.listen()
        waiting = listener.next()
        self.assertNoResult(waiting)
        self.events.tell(event(0))
        self.assertEqual(self.successResultOf(waiting), event(0))

    def test_from_now_on(self) -> None:
        self.events.tell(event(0))
        self.assertEqual(self.taken(self.events.listen()), [])

    def test_who_falls_behind_is_told_how_many_were_lost(self) -> None:
        slow, quick = self.events.listen(2), self.events.listen()
        for number in range(5):
            self.events.tell(event(number))
        self.assertEqual(self.taken(slow), [Missed(3), event(3), event(4)])
        self.events.tell(event(5))
        self.assertEqual(self.taken(slow), [event(5)])
        self.assertEqual(len(self.taken(quick)), 6)

    def test_bounded(self) -> None:
        listener = self.events.listen()
        for number in range(BACKLOG + 1):
            self.events.tell(event(number))
        self.assertEqual(len(self.taken(listener)), BACKLOG + 1)  # with the one that says what is missing
        self.assertEqual(BACKLOG, 256)

    def test_one_at_a_time(self) -> None:
        listener = self.events.listen()
        listener.next()
        self.assertRaises(RuntimeError, listener.next)

    def test_a_listener_that_gives_up_loses_nothing(self) -> None:
        listener = self.events.listen()
        waiting = listener.next()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.events.tell(event(0))
        self.assertEqual(self.taken(listener), [event(0)])

    def test_a_listener_that_asks_again_when_told(self) -> None:
        listener = self.events.listen()
        found: list[object] = []

        def take(each: object) -> None:
            found.append(each)
            listener.next().addCallbacks(take, lambda failure: failure.trap(Closed) and None)

        listener.next().addCallback(take)
        for number in range(3):
            self.events.tell(event(number))
        self.events.close()
        self.assertEqual(found, [event(0), event(1), event(2)])

    def test_the_end(self) -> None:
        """What was told before can still be taken."""
        listener, waiting = self.events.listen(), self.events.listen().next()
        self.events.tell(event(0))
        self.successResultOf(waiting)
        self.events.close()
        self.assertEqual(self.successResultOf(listener.next()), event(0))
        self.failureResultOf(listener.next(), Closed)
        self.failureResultOf(self.events.listen().next(), Closed)

    def test_closing_ends_waiting(self) -> None:
        listener = self.events.listen()
        waiting = listener.next()
        listener.close()
        listener.close()
        self.failureResultOf(waiting, Closed)
        self.events.tell(event(0))
        self.failureResultOf(listener.next(), Closed)

    def test_events_of_torrents(self) -> None:
        torrent = Bench().torrent()
        for notice in Notice:
            self.assertEqual(of_torrent(torrent, notice).infohash, torrent.infohash)
        self.assertEqual(of_torrent(torrent, Notice.PHASE), PhaseChanged(torrent.infohash, "stopped", None))
        torrent.phase = Stopped(BROKEN)
        self.assertEqual(
            of_torrent(torrent, Notice.PHASE), PhaseChanged(torrent.infohash, "stopped", "input/output error")
        )
