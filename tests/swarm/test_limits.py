"""Limits that add up."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from irontide.flow import TokenBucket
from irontide.swarm.limits import Limits


class LimitsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.own, self.shared = TokenBucket(100), TokenBucket(1000)
        self.limits = Limits([self.own, self.shared])

    def test_no_limit_is_no_limit(self) -> None:
        for limits in (Limits([]), Limits([TokenBucket(0), TokenBucket(0)])):
            self.assertFalse(limits.limited)
            self.assertTrue(limits.take(1 << 40, 0.0))
            self.assertEqual(limits.wait(1 << 40, 0.0), 0.0)

    def test_one_is_enough_to_be_limited(self) -> None:
        self.assertTrue(Limits([TokenBucket(0), TokenBucket(1)]).limited)

    def test_takes_from_all(self) -> None:
        self.assertTrue(self.limits.take(60, 0.0))
        self.assertEqual((self.own.available(0.0), self.shared.available(0.0)), (40, 940))

    def test_takes_from_none_if_one_refuses(self) -> None:
        self.assertTrue(self.limits.take(100, 0.0))
        self.assertFalse(self.limits.take(50, 0.0))
        self.assertEqual(self.shared.available(0.0), 900)

    def test_waits_for_the_slowest(self) -> None:
        self.shared.take(1000, 0.0)
        self.own.take(100, 0.0)
        self.assertEqual(self.limits.wait(1, 0.0), self.own.wait(1, 0.0))
        self.assertGreater(self.limits.wait(1, 0.0), self.shared.wait(1, 0.0))

    def test_is_true_to_its_word(self) -> None:
        """What has waited as long as it was told may take."""
        now = 0.0
        for count in (16384, 1, 50, 99, 131072, 100, 101) * 3:
            now += self.limits.wait(count, now)
            self.assertTrue(self.limits.take(count, now), (count, now))

    def test_limits_that_change(self) -> None:
        self.own.take(100, 0.0)
        self.own.set_rate(0, 0.0)
        self.assertTrue(self.limits.take(500, 0.0))
