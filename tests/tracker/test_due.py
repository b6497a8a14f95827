"""One heap of due times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.tracker.due import DueTimes


class DueTimesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.due: DueTimes[str] = DueTimes()

    def test_in_order_and_not_before(self) -> None:
        for key, time in [("b", 2.0), ("a", 1.0), ("c", 3.0)]:
            self.due.set(key, time)
        self.assertEqual(self.due.next(), 1.0)
        self.assertEqual([self.due.pop(2.0) for _ in range(3)], ["a", "b", None])
        self.assertEqual(self.due.next(), 3.0)

    def test_equal_times_in_order_of_asking(self) -> None:
        for key in "zay":
            self.due.set(key, 1.0)
        self.assertEqual([self.due.pop(1.0) for _ in range(3)], ["z", "a", "y"])

    def test_replaced(self) -> None:
        self.due.set("a", 1.0)
        self.due.set("a", 5.0)
        self.assertIsNone(self.due.pop(1.0))
        self.assertEqual((self.due.at("a"), len(self.due)), (5.0, 1))

    def test_forgotten(self) -> None:
        self.due.set("a", 1.0)
        self.due.discard("a")
        self.due.discard("a")
        self.assertIsNone(self.due.next())

    def test_replacing_does_not_grow(self) -> None:
        for time in range(10_000):
            self.due.set("a", time)
        self.assertLess(len(self.due._heap), 100)
        self.assertEqual(self.due.pop(10_000), "a")

    @given(st.lists(st.tuples(st.sampled_from("abcde"), st.none() | st.integers(0, 20))))
    def test_like_a_dictionary(self, steps: list[tuple[str, int | None]]) -> None:
        due: DueTimes[str] = DueTimes()
        model: dict[str, float] = {}
        for key, time in steps:
            if time is None:
                due.discard(key)
                model.pop(key, None)
            else:
                due.set(key, time)
                model[key] = time
            self.assertEqual(due.next(), min(model.values(), default=None))
        popped = []
        while (key := due.pop(20)) is not None:
            popped.append(model.pop(key))
        self.assertEqual((popped, model), (sorted(popped), {}))
