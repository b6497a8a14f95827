from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.peer.rates import WINDOW, Rate

steps = st.lists(st.tuples(st.floats(0, 20), st.integers(0, 1 << 30)), max_size=60)


class RateTests(SynchronousTestCase):
    def assertNear(self, value: float, expected: float, tolerance: float) -> None:
        self.assertLessEqual(abs(value - expected), tolerance, f"{value}, not about {expected}")

    def test_new_stream_has_no_rate(self) -> None:
        rate = Rate()
        self.assertEqual(rate.value(0.0), 0.0)
        self.assertEqual(rate.value(1e6), 0.0)
        self.assertEqual(rate.total, 0)

    def test_steady_stream_is_measured_from_its_first_second_on(self) -> None:
        rate = Rate()
        now = 12345.6
        for tick in range(3000):
            rate.add(100, now)
            if tick >= 100:
                self.assertNear(rate.value(now), 10_000, 400)
            now += 0.01
        self.assertEqual(rate.total, 300_000)

    def test_first_burst_is_not_taken_for_a_rate(self) -> None:
        """A millisecond at wire speed must not ask for a pipeline of a gigabyte."""
        rate = Rate()
        rate.add(50_000, 7.0)
        rate.add(50_000, 7.001)
        self.assertEqual(rate.value(7.001), 100_000)

    def test_change_of_speed_is_followed_within_the_window(self) -> None:
        rate = Rate()
        for tick in range(200):
            rate.add(1000 if tick < 100 else 5000, tick / 10)
        self.assertNear(rate.value(20.0), 50_000, 1000)

    def test_silence_brings_it_to_exactly_zero(self) -> None:
        rate = Rate()
        for tick in range(100):
            rate.add(1000, tick / 10)
        values = [rate.value(10 + tick / 4) for tick in range(4 * (WINDOW + 2))]
        self.assertEqual(values, sorted(values, reverse=True))
        self.assertEqual(values[-1], 0.0)
        self.assertEqual(rate.total, 100_000)

    def test_fall_is_smooth(self) -> None:
        """No step larger than what flowed in the time between two looks."""
        rate = Rate()
        for tick in range(100):
            rate.add(1000, tick / 10)
        values = [rate.value(10 + tick / 10) for tick in range(10 * (WINDOW + 1))]
        for before, after in zip(values, values[1:], strict=False):
            self.assertLess(before - after, 10_000 / WINDOW / 10 * 1.5)

    def test_stream_that_begins_again_is_measured_from_there(self) -> None:
        rate = Rate()
        rate.add(1, 0.0)
        for tick in range(20):
            rate.add(1000, 500 + tick / 10)
        self.assertNear(rate.value(502.0), 10_000, 100)

    def test_clock_that_steps_back_does_no_harm(self) -> None:
        rate = Rate()
        rate.add(1000, 100.0)
        rate.add(1000, 90.0)
        self.assertEqual(rate.total, 2000)
        self.assertGreaterEqual(rate.value(80.0), 0.0)
        self.assertEqual(rate.value(200.0), 0.0)

    @given(steps)
    def test_rate_is_bounded_by_what_came_in_the_window(self, steps: list[tuple[float, int]]) -> None:
        rate = Rate()
        now = 1000.0
        seen: list[tuple[float, int]] = []
        for pause, count in steps:
            now += pause
            rate.add(count, now)
            seen.append((now, count))
            lately = sum(count for when, count in seen if now - when <= WINDOW + 1)
            self.assertGreaterEqual(rate.value(now), 0.0)
            self.assertLessEqual(rate.value(now), lately)
        self.assertEqual(rate.total, sum(count for _, count in seen))
        self.assertEqual(rate.value(now + WINDOW + 1), 0.0)
