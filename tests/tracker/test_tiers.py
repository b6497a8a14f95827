"""BEP 12: which tracker is next."""

from __future__ import annotations

import math
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import FetchError, TrackerError
from irontide.tracker.announce import AnnounceReply, Scrape, TrackerRefusal
from irontide.tracker.tiers import FIRST_RETRY, LONGEST_RETRY, MAX_TRACKERS, NEVER, Tiers, Tracker
from irontide.values import PeerAddress

GOOD = AnnounceReply(interval=1800)


def url(name: str) -> str:
    return f"http://{name}.example/announce"


def never_blocked(host: str) -> float:
    return -math.inf


def names(tiers: Tiers) -> str:
    return "".join(tracker.host[0] for tracker in tiers)


class TiersTests(SynchronousTestCase):
    def tiers(self, *tiers: str, seed: int = 1) -> Tiers:
        return Tiers([[url(name) for name in tier] for tier in tiers], Random(seed))

    def tracker(self, tiers: Tiers, name: str) -> Tracker:
        return next(tracker for tracker in tiers if tracker.host[0] == name)

    def test_drawn_by_lot_within_a_tier_only(self) -> None:
        orders = {names(self.tiers("abc", "xy", seed=seed)) for seed in range(200)}
        self.assertEqual(len(orders), 6 * 2)
        self.assertEqual({"".join(sorted(o[:3])) + "".join(sorted(o[3:])) for o in orders}, {"abcxy"})

    def test_promoted_within_its_tier_only(self) -> None:
        for order, worked, after in [
            ("abc", "c", "cab"),
            ("abc", "b", "bac"),
            ("abc", "a", "abc"),
        ]:
            tiers = next(
                t for seed in range(100) if names(t := self.tiers("abc", "x", seed=seed))[:3] == order
            )
            tiers.promote(self.tracker(tiers, worked))
            self.assertEqual(names(tiers), after + "x")
            tiers.promote(self.tracker(tiers, "x"))
            self.assertEqual(names(tiers), after + "x")

    def test_one_round_tries_each_once_in_order(self) -> None:
        tiers = self.tiers("ab", "x", "y")
        tried: list[Tracker] = []
        while tracker := tiers.pick(0.0, tried, never_blocked):
            tried.append(tracker)
        self.assertEqual(tried, list(tiers))

    def test_passed_over(self) -> None:
        """A tracker that is to be left alone, and one whose host is."""
        tiers = self.tiers("a", "b", "c")
        self.tracker(tiers, "a").failed(TrackerError("garbage"), 0.0)

        def blocked(host: str) -> float:
            return 100.0 if host[0] == "b" else -math.inf

        for now, name in [(1.0, "c"), (FIRST_RETRY, "a")]:
            picked = tiers.pick(now, (), blocked)
            self.assertEqual(picked and picked.host[0], name)
        self.assertIsNone(tiers.pick(1.0, [self.tracker(tiers, "c")], blocked))

    def test_when_one_is_ready(self) -> None:
        tiers = self.tiers("a", "b")
        self.assertEqual(tiers.ready_at(lambda host: {"a": 50.0, "b": 20.0}[host[0]]), 20.0)
        self.assertEqual(Tiers([], Random(1)).ready_at(never_blocked), NEVER)

    def test_each_url_once(self) -> None:
        self.assertEqual(sorted(names(self.tiers("aab", "bc", ""))), ["a", "b", "c"])

    def test_bounded(self) -> None:
        tiers = Tiers([[url(f"t{n}") for n in range(150)], [url(f"u{n}") for n in range(150)]], Random(1))
        self.assertEqual(len(list(tiers)), MAX_TRACKERS)

    def test_what_cannot_be_asked_is_shown_and_never_tried(self) -> None:
        tiers = Tiers([["udp://u.example:80/announce", "file:///etc/passwd", "http://[x/"]], Random(1))
        self.assertIsNone(tiers.pick(1e9, (), never_blocked))
        self.assertEqual(tiers.ready_at(never_blocked), NEVER)
        messages = {tracker.status(None).message for tracker in tiers}
        self.assertIn("udp: URLs are not supported", messages)
        self.assertEqual({tracker.status(None).state for tracker in tiers}, {"not contacted"})


class TrackerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.tracker = Tracker("http://t.example:80/0123456789abcdef/announce", 2)

    def test_life(self) -> None:
        status = self.tracker.status(None)
        self.assertEqual((status.state, status.tier, status.url), ("not contacted", 2, "http://t.example:80"))
        peers = (PeerAddress("1.2.3.4", 5),)
        self.tracker.answered(
            AnnounceReply(1800, 300, peers=peers, seeds=1, leechers=2, tracker_id=b"i", warning="old"), 10.0
        )
        status = self.tracker.status(9.0)
        self.assertEqual(
            (status.state, status.message, status.seeds, status.leechers, status.peers, status.next_announce),
            ("working", "old", 1, 2, 1, 9.0),
        )
        self.assertEqual(self.tracker.asked_again_at, 310.0)
        self.tracker.answered(GOOD, 20.0)
        status = self.tracker.status(None)
        self.assertEqual((status.message, status.seeds, self.tracker.tracker_id), ("", 1, b"i"))
        self.tracker.swarm_is(Scrape(7, None, None))
        self.assertEqual((self.tracker.seeds, self.tracker.leechers), (7, 2))

    def test_backs_off_longer_and_longer(self) -> None:
        waits = []
        for _ in range(9):
            self.tracker.failed(TrackerError("garbage"), 100.0)
            waits.append(self.tracker.retry_at - 100.0)
        self.assertEqual(waits[:3], [FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY])
        self.assertEqual(waits[-1], LONGEST_RETRY)
        self.assertEqual(self.tracker.status(None).failures, 9)
        self.tracker.answered(GOOD, 100.0)
        self.assertEqual((self.tracker.failures, self.tracker.retry_at), (0, -math.inf))

    def test_retry_in(self) -> None:
        for told, retry_at in [(300.0, 400.0), (math.inf, NEVER), (None, 100.0 + 4 * FIRST_RETRY)]:
            self.tracker.failed(TrackerRefusal("no", told), 100.0)
            self.assertEqual(self.tracker.retry_at, retry_at)

    def test_the_fault_of_the_host_is_left_to_its_queue(self) -> None:
        self.tracker.failed(FetchError("connection refused"), 100.0)
        self.assertEqual((self.tracker.retry_at, self.tracker.failures), (-math.inf, 1))

    def test_repeated_passkey_is_not_shown(self) -> None:
        self.tracker.failed(TrackerRefusal("unknown passkey 0123456789abcdef"), 0.0)
        self.assertEqual(self.tracker.status(None).message, "unknown passkey (secret)")
        self.tracker.answered(AnnounceReply(1800, warning="0123456789abcdef expires"), 0.0)
        self.assertEqual(self.tracker.status(None).message, "(secret) expires")
        self.tracker.passed_over("0123456789abcdef")
        self.assertEqual(self.tracker.status(None).message, "(secret)")
