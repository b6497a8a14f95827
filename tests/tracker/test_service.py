"""Announces in time: events in order, tiers, goodbyes; everything on one Clock."""

from __future__ import annotations

from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from irontide.errors import Closed, FetchError, TrackerError
from irontide.interfaces import IAnnouncement, IFetcher, IPeerSource
from irontide.metainfo.bencode import encode
from irontide.tracker.service import GOODBYE_DEADLINE, REQUEST_DEADLINE, SURPRISE, TrackerService
from irontide.tracker.tiers import FIRST_RETRY
from irontide.values import PeerAddress
from tests.tracker.fakes import GOOD, Announced, Fetches

HASH = b"h" * 20
ONE, TWO = "http://one.example/announce", "http://two.example/announce"
REFUSED = FetchError("connection refused")


class ServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.fetches = Fetches(self.clock)
        self.external: list[str] = []
        self.service = TrackerService(
            self.clock,
            self.fetches,
            peer_id=b"-IT0100-abcdefghijkl",
            port=lambda: 6881,
            key="k",
            random=Random(1),
            external=self.external.append,
        )

    def start(self, *tiers: list[str], infohash: bytes = HASH, **options: object) -> Announced:
        torrent = Announced(infohash, *(tiers or ([ONE],)))
        self.service.start(torrent, torrent.peers_found, **options)
        self.clock.advance(0)
        return torrent

    def answer(self, reply: dict[bytes, object] | bytes | Exception = GOOD) -> None:
        """Answer the only request under way, and let the service go on."""
        self.fetches.finish(self.fetches.next(), encode(reply) if isinstance(reply, dict) else reply)
        self.clock.advance(0)

    def running(self, *tiers: list[str], **options: object) -> Announced:
        """Start a torrent whose tracker has answered."""
        torrent = self.start(*tiers, **options)
        self.answer()
        return torrent

    def states(self) -> list[str]:
        return [status.state for status in self.service.status(HASH)]


class FakesTests(SynchronousTestCase):
    def test_faithful(self) -> None:
        self.assertTrue(verifyObject(IAnnouncement, Announced(HASH)))
        self.assertTrue(verifyObject(IFetcher, Fetches(Clock())))
        self.assertTrue(verifyClass(IPeerSource, TrackerService))


class AnnounceTests(ServiceTests):
    def test_first_announce(self) -> None:
        torrent = self.start()
        fetch = self.fetches.next()
        told = {name: fetch.argument(name) for name in ("port", "uploaded", "downloaded", "left", "numwant")}
        self.assertEqual(
            told, {"port": "6881", "uploaded": "1", "downloaded": "2", "left": "10", "numwant": "50"}
        )
        self.assertEqual((fetch.event, fetch.infohash, fetch.argument("key")), ("started", HASH, "k"))
        self.assertEqual(fetch.deadline, REQUEST_DEADLINE)
        self.assertEqual(self.states(), ["updating"])
        self.answer()
        self.assertEqual(torrent.found, [([PeerAddress("1.2.3.4", 6881)], "tracker")])
        self.assertEqual(self.states(), ["working"])

    def test_regular_announces(self) -> None:
        """After the interval, up to a twentieth later, without an event, with the figures of then."""
        torrent = self.running()
        torrent.left, torrent.wanted = 3, 0
        self.clock.advance(1799)
        self.assertEqual(len(self.fetches.all), 1)
        self.clock.advance(1 + 90)
        fetch = self.fetches.next()
        self.assertEqual((fetch.event, fetch.argument("left"), fetch.argument("numwant")), (None, "3", "0"))

    def test_intervals_are_clamped(self) -> None:
        for told, seconds in [({b"interval": 1}, 60), ({b"interval": 10**9}, 86400), ({}, 1800)]:
            self.setUp()
            self.start()
            self.answer(told)
            self.clock.advance(seconds - 1)
            self.assertEqual(len(self.fetches.all), 1, told)
            self.clock.advance(1 + seconds / 20)
            self.assertEqual(len(self.fetches.all), 2, told)

    def test_min_interval_is_kept_though_the_interval_is_shorter(self) -> None:
        self.start()
        self.answer({b"interval": 100, b"min interval": 1000})
        self.clock.advance(999)
        self.assertEqual(len(self.fetches.all), 1)

    def test_tracker_id_is_repeated(self) -> None:
        self.start()
        self.answer({b"tracker id": b"\xff&"})
        self.clock.advance(2000)
        self.assertEqual(self.fetches.next().argument("trackerid"), "\xff&")

    def test_external_address(self) -> None:
        self.start()
        self.answer({b"external ip": b"\x09\x08\x07\x06", b"peers": b"\x09\x08\x07\x06\x1a\xe1"})
        self.assertEqual(self.external, ["9.8.7.6"])

    def test_status(self) -> None:
        self.start()
        self.answer({b"interval": 1000, b"complete": 4, b"incomplete": 5})
        self.clock.advance(100)
        (status,) = self.service.status(HASH)
        self.assertEqual((status.url, status.seeds, status.leechers), ("http://one.example", 4, 5))
        self.assertTrue(900 <= (status.next_announce or 0) <= 950)
        self.assertEqual(self.service.status(b"x" * 20), [])

    def test_no_trackers(self) -> None:
        for tiers in ([], ["udp://u.example:80"]):
            self.setUp()
            self.start(tiers)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_twice_is_a_mistake(self) -> None:
        self.start()
        with self.assertRaises(ValueError):
            self.start()

    def test_who_cannot_take_peers_does_no_harm(self) -> None:
        def broken(addresses: object, source: str, near: bool) -> None:
            raise RuntimeError("no")

        torrent = Announced(HASH, [ONE])
        self.service.start(torrent, broken)
        self.clock.advance(0)
        self.answer()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.states(), ["working"])
        self.clock.advance(2000)
        self.assertEqual(len(self.fetches.all), 2)

    def test_peers_may_stop_the_torrent(self) -> None:
        """Whoever is told of peers may stop or restart the torrent at once."""
        torrent = Announced(HASH, [ONE])
        self.service.start(torrent, lambda *_: self.service.stop(HASH) and None)
        self.clock.advance(0)
        self.answer()
        self.assertEqual(self.fetches.next().event, "stopped")

    def test_surprise(self) -> None:
        """An error of our own costs one announce, not the torrent."""
        torrent = self.running()
        torrent.transferred = lambda: 1 / 0  # type: ignore[assignment, return-value]
        self.clock.advance(2000)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        del torrent.transferred
        self.clock.advance(SURPRISE)
        self.answer()
        self.assertEqual(self.states(), ["working"])

    def test_a_client_that_breaks_its_promise(self) -> None:
        """Anything but a FetchError is a bug of ours: said in the log, and the torrent goes on."""
        self.start()
        self.answer(RuntimeError("no"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.clock.advance(SURPRISE)
        self.answer()
        self.assertEqual(self.states(), ["working"])


class EventTests(ServiceTests):
    def test_completed_is_told_once(self) -> None:
        self.running()
        self.service.completed(HASH)
        self.clock.advance(0)
        self.answer()
        self.clock.advance(2000)
        self.answer()
        self.assertEqual(self.fetches.events(), ["started", "completed", None])

    def test_completed_while_starting(self) -> None:
        """Never before started."""
        self.start()
        self.service.completed(HASH)
        self.clock.advance(0)
        self.answer()
        self.answer()
        self.assertEqual(self.fetches.events(), ["started", "completed"])

    def test_completed_while_announcing(self) -> None:
        self.running()
        self.clock.advance(2000)
        self.service.completed(HASH)
        self.answer()
        self.answer()
        self.assertEqual(self.fetches.events(), ["started", None, "completed"])

    def test_completed_is_told_again_until_it_is_heard(self) -> None:
        self.running()
        self.service.completed(HASH)
        self.clock.advance(0)
        self.answer(REFUSED)
        self.clock.advance(30)
        self.answer()
        self.clock.advance(2000)
        self.assertEqual(self.fetches.events(), ["started", "completed", "completed", None])

    def test_started_is_told_until_it_is_heard(self) -> None:
        self.start()
        self.answer(b"garbage")
        self.clock.advance(2 * FIRST_RETRY)
        self.answer()
        self.clock.advance(2000)
        self.assertEqual(self.fetches.events(), ["started", "started", None])

    def test_every_tracker_is_told_started_first(self) -> None:
        self.running([ONE], [TWO])
        self.service.completed(HASH)
        self.clock.advance(0)
        self.answer(REFUSED)
        self.answer()
        self.answer()
        self.assertEqual(
            [(fetch.host[:3], fetch.event) for fetch in self.fetches.all],
            [("one", "started"), ("one", "completed"), ("two", "started"), ("two", "completed")],
        )

    def test_unknown_torrents_are_ignored(self) -> None:
        self.service.completed(HASH)
        self.service.reannounce(HASH)
        self.successResultOf(self.service.stop(HASH))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TierTests(ServiceTests):
    def test_next_tier_helps_out_at_once(self) -> None:
        self.start([ONE], [TWO])
        self.answer(REFUSED)
        self.assertEqual(self.fetches.next().host, "two.example")
        self.answer()
        self.assertEqual(self.states(), ["not working", "working"])

    def test_each_round_begins_at_the_top(self) -> None:
        self.start([ONE], [TWO])
        self.answer(REFUSED)
        self.answer()
        self.clock.advance(2000)
        self.assertEqual(self.fetches.next().host, "one.example")

    def test_the_one_that_worked_is_first_of_its_tier(self) -> None:
        self.start([ONE, TWO])
        first = self.fetches.next().host
        self.answer(REFUSED)
        second = self.fetches.next().host
        self.assertNotEqual(first, second)
        self.answer()
        self.clock.advance(2000)
        self.assertEqual(self.fetches.next().host, second)

    def test_a_failing_host_is_passed_over_by_other_torrents(self) -> None:
        self.start([ONE])
        self.answer(REFUSED)
        self.start([ONE], [TWO], infohash=b"i" * 20)
        self.assertEqual(self.fetches.next().host, "two.example")

    def test_all_failing(self) -> None:
        """Tried again, less and less often, for ever."""
        self.fetches.answer = lambda fetch: REFUSED
        self.start([ONE], [TWO])
        self.clock.pump([1.0] * 600)
        early = len(self.fetches.all)
        self.assertTrue(8 <= early <= 14, early)
        self.clock.pump([10.0] * 1000)
        late = len(self.fetches.all) - early
        self.assertTrue(8 <= late <= 24, late)

    def test_refused_for_ever(self) -> None:
        """BEP 31: never means never, unless the user wishes otherwise."""
        self.start()
        self.answer({b"failure reason": b"go away", b"retry in": b"never"})
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.service.status(HASH)[0].message, "go away")
        self.service.reannounce(HASH)
        self.clock.advance(0)
        self.answer()
        self.assertEqual(self.states(), ["working"])

    def test_refused_for_a_while(self) -> None:
        self.start()
        self.answer({b"failure reason": b"later", b"retry in": 10})
        self.clock.advance(599)
        self.assertEqual(len(self.fetches.all), 1)
        self.clock.advance(31)
        self.assertEqual(len(self.fetches.all), 2)


class ReannounceTests(ServiceTests):
    def test_not_before_the_min_interval(self) -> None:
        self.start()
        self.answer({b"interval": 1800, b"min interval": 300})
        self.clock.advance(100)
        self.service.reannounce(HASH)
        self.clock.advance(199)
        self.assertEqual(len(self.fetches.all), 1)
        self.clock.advance(1)
        self.assertEqual(len(self.fetches.all), 2)

    def test_never_later_than_planned(self) -> None:
        self.start()
        self.answer({b"interval": 300, b"min interval": 300})
        self.clock.advance(299)
        self.service.reannounce(HASH)
        self.clock.advance(20)
        self.assertEqual(len(self.fetches.all), 2)

    def test_a_failing_host_is_tried_at_once(self) -> None:
        self.start()
        self.answer(REFUSED)
        self.service.reannounce(HASH)
        self.clock.advance(0)
        self.answer()
        self.assertEqual(self.states(), ["working"])

    def test_while_announcing(self) -> None:
        self.start()
        self.service.reannounce(HASH)
        self.clock.advance(0)
        self.assertEqual(len(self.fetches.all), 1)


class StopTests(ServiceTests):
    def test_goodbye(self) -> None:
        self.running()
        stopped = self.service.stop(HASH)
        self.assertNoResult(stopped)
        self.clock.advance(0)
        fetch = self.fetches.next()
        self.assertEqual((fetch.event, fetch.argument("numwant")), ("stopped", "0"))
        self.answer()
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_never_before_started(self) -> None:
        """A tracker that has not answered is told nothing, and what is under way is cancelled."""
        self.start()
        self.successResultOf(self.service.stop(HASH))
        self.assertTrue(self.fetches.all[0].cancelled)
        self.clock.advance(10**5)
        self.assertEqual(self.fetches.events(), ["started"])

    def test_all_that_answered_are_told(self) -> None:
        self.running([ONE], [TWO])
        self.clock.advance(2000)
        self.answer(REFUSED)
        self.answer()
        self.clock.advance(100)
        self.service.stop(HASH)
        self.clock.advance(0)
        told = {fetch.host: fetch.event for fetch in self.fetches.open}
        self.assertEqual(told, {"one.example": "stopped", "two.example": "stopped"})

    def test_failing_goodbye_is_given_up(self) -> None:
        self.running()
        stopped = self.service.stop(HASH)
        self.clock.advance(0)
        self.answer(REFUSED)
        self.successResultOf(stopped)
        self.assertEqual(self.fetches.open, [])

    def test_silent_goodbye_is_given_up(self) -> None:
        self.running()
        stopped = self.service.stop(HASH)
        self.clock.advance(0)
        self.clock.advance(GOODBYE_DEADLINE)
        self.successResultOf(stopped)
        self.assertEqual((self.fetches.open, self.clock.getDelayedCalls()), ([], []))

    def test_no_goodbye_to_a_failing_host(self) -> None:
        self.running()
        self.clock.advance(2000)
        self.answer(REFUSED)
        self.successResultOf(self.service.stop(HASH))

    def test_started_again_after_the_goodbye(self) -> None:
        self.running()
        self.service.stop(HASH)
        self.clock.advance(0)
        self.start()
        self.service.completed(HASH)
        self.service.reannounce(HASH)
        self.clock.advance(0)
        self.assertEqual(self.fetches.events(), ["started", "stopped"])
        self.answer()
        self.assertEqual(self.fetches.events(), ["started", "stopped", "started"])

    def test_stopped_again_before_it_started_again(self) -> None:
        self.running()
        first = self.service.stop(HASH)
        self.clock.advance(0)
        self.start()
        second = self.service.stop(HASH)
        self.assertNoResult(second)
        self.answer()
        self.successResultOf(first)
        self.successResultOf(second)
        self.clock.advance(10**5)
        self.assertEqual(self.fetches.events(), ["started", "stopped"])


class StopAllTests(ServiceTests):
    def test_everyone_says_goodbye(self) -> None:
        """Even those that wait in the queue, without a pause, and never many at once."""
        self.fetches.answer, self.fetches.delay = lambda fetch: GOOD, 0.001
        for n in range(200):
            self.start(infohash=bytes([n]) * 20)
        self.clock.pump([0.05] * 600)
        self.assertEqual(self.fetches.events(), ["started"] * 200)
        done = self.service.stop_all(2.0)
        self.clock.pump([0.001] * 1000)
        self.successResultOf(done)
        self.assertEqual(self.fetches.events()[200:], ["stopped"] * 200)
        self.assertLessEqual(self.fetches.most, 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_given_up_after_the_deadline(self) -> None:
        """One goodbye is answered, two are not, one waits for its turn, one torrent is starting."""
        for n in range(4):
            self.running(infohash=bytes([n]) * 20)
        self.start([TWO])
        done = self.service.stop_all(2.0)
        self.clock.advance(0)
        self.fetches.finish(self.fetches.open[0], GOOD)
        self.clock.advance(1.9)
        self.assertNoResult(done)
        self.clock.advance(0.1)
        self.successResultOf(done)
        self.assertEqual((self.fetches.open, self.clock.getDelayedCalls()), ([], []))

    def test_nothing_to_say(self) -> None:
        self.successResultOf(self.service.stop_all(2.0))
        with self.assertRaises(Closed):
            self.start()

    def test_a_goodbye_on_its_way_is_awaited(self) -> None:
        self.running()
        self.service.stop(HASH)
        self.clock.advance(0)
        self.start()
        done = self.service.stop_all(2.0)
        self.assertNoResult(done)
        self.answer()
        self.successResultOf(done)
        self.assertEqual(self.fetches.events(), ["started", "stopped"])

    def test_scrapes_end_too(self) -> None:
        self.running()
        size = self.service.scrape(HASH)
        self.clock.advance(0)
        done = self.service.stop_all(0.0)
        self.clock.advance(0)
        self.successResultOf(done)
        self.failureResultOf(size)
        self.assertEqual((self.fetches.open, self.clock.getDelayedCalls()), ([], []))


class ScrapeTests(ServiceTests):
    SIZE = encode({b"files": {HASH: {b"complete": 1, b"incomplete": 2, b"downloaded": 3}}})

    def test_scrape(self) -> None:
        self.running()
        size = self.service.scrape(HASH)
        self.clock.advance(0)
        self.assertTrue(self.fetches.next().url.startswith("http://one.example/scrape?info_hash=hhh"))
        self.answer(self.SIZE)
        self.assertEqual(self.successResultOf(size).downloaded, 3)
        self.assertEqual(self.service.status(HASH)[0].seeds, 1)

    def test_next_tracker(self) -> None:
        self.running(["http://one.example/a"], [TWO])
        size = self.service.scrape(HASH)
        self.clock.advance(0)
        self.assertEqual(self.fetches.next().host, "two.example")
        self.answer(self.SIZE)
        self.successResultOf(size)

    def test_nobody_says(self) -> None:
        self.running([ONE], [TWO])
        size = self.service.scrape(HASH)
        self.clock.advance(0)
        self.answer(b"garbage")
        self.answer(REFUSED)
        self.assertEqual(self.failureResultOf(size, TrackerError).getErrorMessage(), "connection refused")
        self.failureResultOf(self.service.scrape(b"x" * 20), TrackerError)


class StormTests(ServiceTests):
    """A thousand torrents and one tracker, in virtual time."""

    COUNT = 1000

    def setUp(self) -> None:
        super().setUp()
        self.fetches.answer, self.fetches.delay = lambda fetch: GOOD, 0.1

    def start_all(self) -> None:
        for n in range(self.COUNT):
            torrent = Announced(n.to_bytes(20, "big"), [ONE])
            self.service.start(torrent, torrent.peers_found)

    def until(self, count: int, step: float = 0.05, most: float = 1000.0) -> float:
        began = self.clock.seconds()
        while len(self.fetches.all) < count:
            self.clock.advance(step)
            self.assertLess(self.clock.seconds() - began, most)
        return self.clock.seconds() - began

    def test_bounded_and_all_served(self) -> None:
        self.start_all()
        seconds = self.until(self.COUNT)
        self.assertLessEqual(self.fetches.most, 2)
        self.assertTrue(80 < seconds < 130, seconds)
        self.assertEqual(len({fetch.infohash for fetch in self.fetches.all}), self.COUNT)

    def test_a_users_torrent_goes_first(self) -> None:
        self.start_all()
        self.clock.pump([0.05] * 100)
        before = len(self.fetches.all)
        self.start(infohash=HASH, urgent=True)
        self.clock.pump([0.05] * 10)
        self.assertIn(HASH, [fetch.infohash for fetch in self.fetches.all[before : before + 3]])

    def test_another_host_does_not_wait(self) -> None:
        self.start_all()
        self.clock.advance(1)
        self.start([TWO], infohash=HASH)
        self.assertEqual(self.fetches.all[-1].host, "two.example")

    def test_dead_host_is_hardly_asked(self) -> None:
        """In an hour a thousand torrents make a dozen or two of attempts; when it is back, all announce."""
        self.fetches.answer, self.fetches.delay = lambda fetch: REFUSED, 5.0
        self.start_all()
        self.clock.pump([1.0] * 3600)
        attempts = len(self.fetches.all)
        self.assertTrue(8 <= attempts <= 30, attempts)
        self.fetches.answer, self.fetches.delay = lambda fetch: GOOD, 0.1
        self.fetches.all.clear()
        self.until(self.COUNT, most=3000.0)
        self.assertEqual(len({fetch.infohash for fetch in self.fetches.all}), self.COUNT)
        self.assertLessEqual(self.fetches.most, 2)

    def test_one_timer_for_all(self) -> None:
        self.start_all()
        self.until(self.COUNT)
        self.clock.pump([0.1] * 10)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_those_started_together_part(self) -> None:
        self.start_all()
        self.until(self.COUNT)
        self.clock.pump([0.1] * 10)
        waits = {
            round(self.service.status(n.to_bytes(20, "big"))[0].next_announce or 0) for n in range(self.COUNT)
        }
        self.assertGreater(len(waits), 100)
