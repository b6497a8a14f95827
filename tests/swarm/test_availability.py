from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.swarm.availability import Availability

PIECES = 40
sets = st.integers(0, (1 << PIECES) - 1)


def members(pieces: int) -> list[int]:
    return [place for place in range(PIECES) if pieces >> place & 1]


class AvailabilityTests(SynchronousTestCase):
    def test_nobody_has_anything_at_first(self) -> None:
        availability = Availability()
        self.assertEqual(availability.count(1 << 5), 0)
        self.assertEqual(availability.rarest(0b1011), 0b1011)

    def test_of_nothing_nothing_is_rarest(self) -> None:
        availability = Availability()
        availability.add(0b11)
        self.assertEqual(availability.rarest(0), 0)

    def test_what_was_never_counted_cannot_be_taken_back(self) -> None:
        availability = Availability()
        availability.add(0b01)
        self.assertRaises(RuntimeError, availability.subtract, 0b10)

    def test_counts_are_not_bounded(self) -> None:
        availability = Availability()
        for _ in range(1000):
            availability.add(0b1)
        self.assertEqual(availability.count(0b1), 1000)

    @given(st.lists(sets, max_size=40), st.data())
    def test_like_counting_one_by_one(self, peers: list[int], data: st.DataObject) -> None:
        availability = Availability()
        counts: Counter[int] = Counter()
        for pieces in peers:
            availability.add(pieces)
            counts.update(members(pieces))
        for pieces in data.draw(st.sets(st.sampled_from(range(len(peers))))) if peers else ():
            availability.subtract(peers[pieces])
            counts.subtract(members(peers[pieces]))
        self.assertEqual(
            [availability.count(1 << place) for place in range(PIECES)],
            [counts[place] for place in range(PIECES)],
        )
        asked = data.draw(sets)
        least = min((counts[place] for place in members(asked)), default=0)
        self.assertEqual(
            members(availability.rarest(asked)),
            [place for place in members(asked) if counts[place] == least],
        )
