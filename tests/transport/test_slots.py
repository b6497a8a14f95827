"""The cap on connections: exact, whatever comes and goes."""

from __future__ import annotations

import resource

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from irontide.interfaces import ISlot
from irontide.transport.slots import MAX_UNIDENTIFIED, Refusal, Slot, Slots, within_descriptors
from irontide.values import PeerAddress


def stranger(number: int) -> PeerAddress:
    """Each number is another address."""
    return PeerAddress(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 40000)


class Crowd:
    """Connections under one Slots, each of which closes when it is told to."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.evicted: list[PeerAddress] = []

    def accept(self, address: PeerAddress) -> Slot | None:
        return self.slots.accept(address, lambda: self.evicted.append(address))

    def identified(self, address: PeerAddress) -> Slot:
        slot = self.accept(address)
        assert slot is not None
        slot.identified()
        return slot


class CapTests(SynchronousTestCase):
    def test_a_slot_keeps_its_interface(self) -> None:
        slot = Slots(1).dial(stranger(1))
        self.assertTrue(verifyObject(ISlot, slot))

    def test_newcomer_is_refused_when_all_are_identified(self) -> None:
        """L12: n >= 1 refuses when live >= n."""
        crowd = Crowd(Slots(2))
        crowd.identified(stranger(1))
        crowd.identified(stranger(2))
        self.assertIsNone(crowd.accept(stranger(3)))
        self.assertIsNone(crowd.slots.dial(stranger(3)))
        self.assertEqual(crowd.slots.used, 2)
        self.assertEqual(crowd.slots.refusals, {Refusal.CAP: 1, Refusal.DIAL: 1})
        self.assertEqual(crowd.evicted, [])

    def test_cap_of_one(self) -> None:
        crowd = Crowd(Slots(1))
        self.assertEqual(crowd.slots.max_unidentified, 1)
        first = crowd.identified(stranger(1))
        self.assertIsNone(crowd.accept(stranger(2)))
        first.release()
        self.assertIsNotNone(crowd.accept(stranger(2)))

    def test_unlimited(self) -> None:
        """L12: -1 is unlimited; only the unidentified are bounded."""
        crowd = Crowd(Slots(-1))
        for number in range(3000):
            crowd.identified(stranger(number))
        for number in range(3000, 4000):
            crowd.accept(stranger(number))
        self.assertEqual(crowd.slots.used, 3000 + MAX_UNIDENTIFIED)
        self.assertEqual(crowd.slots.refusals, {Refusal.CROWDED: 1000 - MAX_UNIDENTIFIED})
        self.assertEqual(crowd.slots.surplus, 0)

    def test_senseless_caps(self) -> None:
        """L12: 0 and < -1 are refused by validation, at the start and later."""
        slots = Slots(5)
        for limit in (0, -2, -100):
            with self.assertRaises(ValueError):
                Slots(limit)
            with self.assertRaises(ValueError):
                slots.set_limit(limit)
        self.assertEqual(slots.limit, 5)
        with self.assertRaises(ValueError):
            Slots(5, per_address=0)
        with self.assertRaises(ValueError):
            Slots(5, per_loopback=0)

    def test_outgoing_and_incoming_share_the_cap(self) -> None:
        crowd = Crowd(Slots(3))
        out = [crowd.slots.dial(stranger(1)), crowd.slots.dial(stranger(1))]
        crowd.identified(stranger(2))
        self.assertIsNone(crowd.slots.dial(stranger(3)))
        self.assertIsNone(crowd.accept(stranger(3)))
        assert out[0] is not None
        out[0].release()
        self.assertIsNotNone(crowd.slots.dial(stranger(3)))

    def test_release_twice_counts_once(self) -> None:
        slots = Slots(3)
        slot, _ = slots.dial(stranger(1)), slots.dial(stranger(2))
        assert slot is not None
        slot.release()
        slot.release()
        slot.identified()
        self.assertEqual((slots.used, slots.unidentified), (1, 0))

    def test_a_changed_cap_is_seen_by_the_next_accept(self) -> None:
        """L15, both ways; lowering closes nothing by itself."""
        crowd = Crowd(Slots(2))
        held = [crowd.identified(stranger(1)), crowd.identified(stranger(2))]
        crowd.slots.set_limit(3)
        held.append(crowd.identified(stranger(3)))
        crowd.slots.set_limit(1)
        self.assertEqual(crowd.slots.surplus, 2)
        self.assertIsNone(crowd.accept(stranger(4)))
        self.assertEqual(crowd.evicted, [])
        for slot in held:
            slot.release()
        self.assertEqual(crowd.slots.surplus, 0)
        self.assertIsNotNone(crowd.accept(stranger(4)))

    def test_shedding_closes_the_unidentified_first(self) -> None:
        """What is left is the number of identified connections that somebody has to choose."""
        crowd = Crowd(Slots(40))
        for number in range(20):
            crowd.identified(stranger(number))
        for number in range(20, 30):
            crowd.accept(stranger(number))
        crowd.slots.set_limit(22)
        self.assertEqual(crowd.slots.shed(), 0)
        self.assertEqual(crowd.evicted, [stranger(number) for number in range(20, 28)])
        crowd.slots.set_limit(15)
        self.assertEqual(crowd.slots.shed(), 5)
        self.assertEqual(crowd.slots.unidentified, 0)


class UnidentifiedTests(SynchronousTestCase):
    def test_a_quarter_may_be_unidentified(self) -> None:
        for limit, most in ((1, 1), (7, 1), (8, 2), (500, 125), (2048, 512), (100_000, 512), (-1, 512)):
            self.assertEqual(Slots(limit).max_unidentified, most, limit)

    def test_the_oldest_gives_way_at_the_bound(self) -> None:
        crowd = Crowd(Slots(8))
        for number in range(5):
            self.assertIsNotNone(crowd.accept(stranger(number)))
        self.assertEqual(crowd.evicted, [stranger(0), stranger(1), stranger(2)])
        self.assertEqual((crowd.slots.used, crowd.slots.unidentified), (2, 2))

    def test_the_oldest_gives_way_at_the_cap(self) -> None:
        crowd = Crowd(Slots(8))
        for number in range(6):
            crowd.identified(stranger(number))
        crowd.accept(stranger(6))
        crowd.accept(stranger(7))
        crowd.identified(stranger(8))
        crowd.identified(stranger(9))
        self.assertEqual(crowd.evicted, [stranger(6), stranger(7)])
        self.assertIsNone(crowd.accept(stranger(10)))
        self.assertEqual(crowd.slots.used, 8)

    def test_the_oldest_gives_way_to_our_own_connection(self) -> None:
        crowd = Crowd(Slots(4))
        for number in range(3):
            crowd.identified(stranger(number))
        crowd.accept(stranger(3))
        self.assertIsNotNone(crowd.slots.dial(stranger(4)))
        self.assertEqual(crowd.evicted, [stranger(3)])

    def test_one_that_is_identified_when_asked_to_go_stays(self) -> None:
        """Its preamble had arrived and was only not read: the next oldest goes instead."""
        slots = Slots(8)
        evicted: list[int] = []
        late: list[Slot] = []
        slot = slots.accept(stranger(0), lambda: late[0].identified())
        assert slot is not None
        late.append(slot)
        slots.accept(stranger(1), lambda: evicted.append(1))
        slots.accept(stranger(2), lambda: evicted.append(2))
        slots.accept(stranger(3), lambda: evicted.append(3))
        self.assertEqual(evicted, [1])
        self.assertEqual((slots.used, slots.unidentified), (3, 2))
        self.assertEqual(slots.refusals, {Refusal.CROWDED: 1})

    def test_per_address(self) -> None:
        """The oldest of that address gives way, nobody else's."""
        crowd = Crowd(Slots(500))
        crowd.accept(stranger(1))
        flood = [PeerAddress("192.0.2.1", port) for port in range(1, 13)]
        for address in flood:
            self.assertIsNotNone(crowd.accept(address))
        self.assertEqual(crowd.evicted, flood[:4])
        self.assertEqual(crowd.slots.unidentified, 9)
        self.assertEqual(crowd.slots.refusals, {Refusal.ADDRESS: 4})

    def test_per_address_counts_the_unidentified_only(self) -> None:
        crowd = Crowd(Slots(500))
        for port in range(1, 31):
            crowd.identified(PeerAddress("192.0.2.1", port))
        self.assertEqual((crowd.slots.used, crowd.evicted), (30, []))

    def test_an_ipv6_stranger_is_a_64(self) -> None:
        crowd = Crowd(Slots(500, per_address=2))
        same = [PeerAddress(f"2001:db8:1:2::{number:x}%eth0", 1) for number in (1, 2, 3)]
        for address in [*same, PeerAddress("2001:db8:1:3::1", 1)]:
            crowd.accept(address)
        self.assertEqual(crowd.evicted, same[:1])

    def test_loopback_may_have_more(self) -> None:
        for host in ("127.0.0.1", "127.8.9.10", "::1"):
            crowd = Crowd(Slots(500))
            for port in range(1, 66):
                crowd.accept(PeerAddress(host, port))
            self.assertEqual(crowd.evicted, [PeerAddress(host, 1)])

    def test_per_address_can_be_changed(self) -> None:
        crowd = Crowd(Slots(500))
        crowd.slots.set_per_address(1, 2)
        for host in ("192.0.2.1", "127.0.0.1"):
            for port in (1, 2, 3):
                crowd.accept(PeerAddress(host, port))
        self.assertEqual(len(crowd.evicted), 2 + 1)

    def test_ten_thousand_strangers(self) -> None:
        """The figures stay exact, and nothing is remembered of those who are gone."""
        crowd = Crowd(Slots(500))
        for number in range(10_000):
            crowd.accept(stranger(number))
            self.assertLessEqual(crowd.slots.used, 500)
        self.assertEqual(crowd.evicted, [stranger(number) for number in range(10_000 - 125)])
        self.assertEqual(len(crowd.slots._by_network), 125)


class ExactnessTests(SynchronousTestCase):
    @given(
        st.integers(1, 12),
        st.lists(
            st.tuples(st.sampled_from(["accept", "dial", "identify", "release", "cap"]), st.integers(0, 40))
        ),
    )
    def test_whatever_happens_the_count_is_that_of_the_open(
        self, limit: int, steps: list[tuple[str, int]]
    ) -> None:
        """L13, L14: never above the cap while it is not lowered, and 0 when all are closed."""
        slots = Slots(limit, per_address=3)
        opened: list[Slot] = []
        closed: set[Slot] = set()

        def take(address: PeerAddress) -> None:
            mine: list[Slot] = []
            slot = slots.accept(address, lambda: closed.add(mine[0]))
            if slot is not None:
                mine.append(slot)
                opened.append(slot)

        for step, number in steps:
            before = slots.used
            if step == "accept":
                take(PeerAddress(f"192.0.2.{number % 5}", number))
            elif step == "dial":
                opened += filter(None, [slots.dial(stranger(number))])
            elif step == "cap":
                slots.set_limit(number % 12 + 1)
            elif opened:
                slot = opened[number % len(opened)]
                if step == "identify":
                    slot.identified()
                else:
                    slot.release()
                    closed.add(slot)
            self.assertEqual(slots.used, len([slot for slot in opened if slot not in closed]))
            self.assertLessEqual(slots.used, max(before, slots.limit))
        for slot in opened:
            slot.release()
        self.assertEqual((slots.used, slots.unidentified), (0, 0))


class DescriptorTests(SynchronousTestCase):
    def test_peers_get_four_fifths(self) -> None:
        self.assertEqual(within_descriptors(500, 1024), 500)
        self.assertEqual(within_descriptors(5000, 1024), 819)
        self.assertEqual(within_descriptors(-1, 1024), 819)
        self.assertEqual(within_descriptors(500, 1), 1)
        self.assertEqual(within_descriptors(-1, resource.RLIM_INFINITY), -1)

    def test_the_systems_limit_is_the_default(self) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.assertEqual(within_descriptors(10**9), within_descriptors(10**9, soft))
