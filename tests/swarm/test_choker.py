from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

from attrs import Factory, define
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.peer.rates import Rate
from irontide.swarm.choker import NEWCOMER, OPTIMISTIC_TURN, ROUND, SEEDING_TURN, Choker

START = 1000.0
LONG_AGO = START - 10 * NEWCOMER


@define(eq=False)
class FakePeer:
    """A peer that takes and gives at constant rates: ``takes`` only while it is unchoked."""

    gives: int = 0
    takes: int = 0
    interested: bool = True
    snubbed: bool = False
    joined: float = LONG_AGO
    unchoked_since: float | None = None
    download: Rate = Factory(Rate)
    upload: Rate = Factory(Rate)

    def live(self, now: float) -> None:
        """Let a second pass."""
        self.download.add(self.gives, now)
        if self.unchoked_since is not None:
            self.upload.add(self.takes, now)


class Torrent:
    """Peers, and a choker that is asked as a swarm asks it: once a second, if it is due."""

    def __init__(
        self, slots: int, peers: Iterable[FakePeer], *, seeding: bool = False, seed: int = 1
    ) -> None:
        self.choker = Choker(slots, Random(seed))
        self.peers = list(peers)
        self.seeding = seeding
        self.now = START
        self.turns: Counter[FakePeer] = Counter()
        self.seconds: Counter[FakePeer] = Counter()
        for second in range(10):
            for peer in self.peers:
                peer.live(START - 10 + second)

    @property
    def unchoked(self) -> set[FakePeer]:
        return {peer for peer in self.peers if peer.unchoked_since is not None}

    def ask(self) -> None:
        chosen = self.choker.round(self.peers, self.seeding, self.now)
        assert chosen <= set(self.peers)
        assert all(peer.interested for peer in chosen)
        assert len(chosen) <= self.choker.slots, "more unchoked than there are slots"
        for peer in self.peers:
            if peer not in chosen:
                peer.unchoked_since = None
            elif peer.unchoked_since is None:
                peer.unchoked_since = self.now
                self.turns[peer] += 1

    def run(self, seconds: float, each: Callable[[], object] = lambda: None) -> None:
        end = self.now + seconds
        while self.now < end:
            each()
            if self.choker.due(self.now):
                self.ask()
            self.seconds.update(self.unchoked)
            self.now += 1.0
            for peer in self.peers:
                peer.live(self.now)


class AnyTests(SynchronousTestCase):
    """What holds while we download and while we seed."""

    def test_nobody_there(self) -> None:
        for seeding in (False, True):
            self.assertEqual(Choker(4, Random(1)).round([], seeding, START), set())

    def test_who_wants_nothing_gets_nothing(self) -> None:
        for seeding in (False, True):
            torrent = Torrent(4, [FakePeer(gives=9, interested=False), FakePeer()], seeding=seeding)
            torrent.run(1)
            self.assertEqual(torrent.unchoked, {torrent.peers[1]})

    def test_with_room_for_all_all_are_unchoked(self) -> None:
        for seeding in (False, True):
            torrent = Torrent(4, [FakePeer(gives=gives) for gives in range(4)], seeding=seeding)
            torrent.run(100)
            self.assertEqual(torrent.unchoked, set(torrent.peers))
            self.assertEqual(set(torrent.turns.values()), {1})

    def test_rounds_are_ten_seconds_apart(self) -> None:
        choker = Choker(4, Random(1))
        self.assertTrue(choker.due(START))
        choker.round([], False, START)
        self.assertFalse(choker.due(START + ROUND - 0.1))
        self.assertTrue(choker.due(START + ROUND))

    def test_free_slot_is_given_away_before_the_next_round(self) -> None:
        for seeding in (False, True):
            torrent = Torrent(3, [FakePeer(gives=5), FakePeer(gives=4)], seeding=seeding)
            torrent.run(2)
            late = FakePeer(joined=torrent.now)
            torrent.peers.append(late)
            torrent.run(1)
            self.assertNotIn(late, torrent.unchoked)
            torrent.choker.due_at_once()
            torrent.run(1)
            self.assertIn(late, torrent.unchoked)

    def test_between_rounds_nobody_loses_a_slot(self) -> None:
        """However often peers change their mind, they cannot have others choked."""
        for seeding in (False, True):
            torrent = Torrent(4, [FakePeer(gives=1, takes=1) for _ in range(10)], seeding=seeding)
            torrent.run(1)
            before = torrent.unchoked
            for peer in torrent.peers:
                if peer not in before:
                    peer.gives = 1000
            for _ in range(8):
                torrent.choker.due_at_once()
                torrent.run(1)
                self.assertEqual(torrent.unchoked, before)

    def test_turn_that_ends_between_rounds_lasts_until_the_next(self) -> None:
        torrent = Torrent(4, [], seeding=True)
        torrent.run(4)
        torrent.peers = [FakePeer(takes=1) for _ in range(10)]
        torrent.choker.due_at_once()
        torrent.run(SEEDING_TURN - 2)
        before = torrent.unchoked
        for _ in range(8):
            torrent.choker.due_at_once()
            torrent.run(1)
            self.assertEqual(torrent.unchoked, before)
        torrent.run(1)
        self.assertNotEqual(torrent.unchoked, before)

    def test_leaving_peer_frees_its_slot(self) -> None:
        for seeding in (False, True):
            torrent = Torrent(3, [FakePeer(gives=1) for _ in range(5)], seeding=seeding)
            torrent.run(1)
            gone = next(peer for peer in torrent.peers if peer in torrent.unchoked)
            torrent.peers.remove(gone)
            torrent.choker.due_at_once()
            torrent.run(1)
            self.assertEqual(len(torrent.unchoked), 3)

    def test_slots_are_settable_live(self) -> None:
        for seeding in (False, True):
            torrent = Torrent(10, [FakePeer(gives=gives) for gives in range(20)], seeding=seeding)
            for slots in (10, 2, 7, 1, 0, 12, 40):
                torrent.choker.slots = slots
                torrent.run(1)
                self.assertEqual(len(torrent.unchoked), min(slots, 20), f"{slots} slots, seeding {seeding}")

    def test_negative_slots_are_refused(self) -> None:
        self.assertRaises(ValueError, Choker, -1, Random(1))

    def test_download_that_completes_keeps_its_peers(self) -> None:
        torrent = Torrent(4, [FakePeer(gives=gives) for gives in range(10)])
        torrent.run(20)
        before = torrent.unchoked
        torrent.seeding = True
        torrent.choker.due_at_once()
        torrent.run(1)
        self.assertEqual(torrent.unchoked, before)

    @given(st.data())
    def test_slots_are_never_exceeded_nor_left_unused(self, data: st.DataObject) -> None:
        peers = [
            FakePeer(gives=data.draw(st.integers(0, 3)), takes=data.draw(st.integers(0, 3)))
            for _ in range(data.draw(st.integers(0, 12)))
        ]
        torrent = Torrent(data.draw(st.integers(0, 8)), peers, seeding=data.draw(st.booleans()))
        for _ in range(12):
            for peer in data.draw(st.sets(st.sampled_from(peers))) if peers else ():
                peer.interested = not peer.interested
            if data.draw(st.booleans()):
                torrent.seeding = not torrent.seeding
            if data.draw(st.booleans()):
                torrent.choker.slots = data.draw(st.integers(0, 8))
            torrent.now += data.draw(st.sampled_from([1.0, ROUND]))
            torrent.ask()
            waiting = sum(peer.interested for peer in torrent.peers)
            self.assertEqual(len(torrent.unchoked), min(waiting, torrent.choker.slots))


class TradingTests(SynchronousTestCase):
    """While we download."""

    def test_those_who_give_most_keep_their_slots(self) -> None:
        fast = [FakePeer(gives=100 + number) for number in range(7)]
        torrent = Torrent(8, fast + [FakePeer(gives=number) for number in range(30)])
        torrent.run(600, each=lambda: self.assertLessEqual(len(torrent.unchoked), 8))
        for peer in fast:
            self.assertEqual(torrent.turns[peer], 1)
            self.assertEqual(torrent.seconds[peer], 600)

    def test_who_gives_more_than_another_takes_its_place(self) -> None:
        torrent = Torrent(2, [FakePeer(gives=10), FakePeer(gives=20), FakePeer(gives=1)])
        riser = torrent.peers[2]
        torrent.run(30)
        riser.gives = 1000
        torrent.run(300)
        torrent.seconds.clear()
        torrent.run(300)
        self.assertEqual(torrent.seconds[riser], 300)

    def test_nobody_who_waits_starves(self) -> None:
        """Each of 20 others has a turn in 20 turns of 30 seconds."""
        fast = [FakePeer(gives=1000) for _ in range(3)]
        slow = [FakePeer() for _ in range(20)]
        torrent = Torrent(4, fast + slow)
        torrent.run(20 * OPTIMISTIC_TURN)
        self.assertEqual([torrent.turns[peer] for peer in slow], [1] * 20)
        self.assertEqual({torrent.seconds[peer] for peer in slow}, {OPTIMISTIC_TURN})
        torrent.run(20 * OPTIMISTIC_TURN)
        self.assertEqual({torrent.seconds[peer] for peer in slow}, {2 * OPTIMISTIC_TURN})

    def test_optimist_that_gives_much_waits_for_the_next_round(self) -> None:
        """Or else it would push out a peer between two rounds."""
        torrent = Torrent(3, [FakePeer(gives=10) for _ in range(2)] + [FakePeer() for _ in range(4)])
        torrent.run(1)
        before = torrent.unchoked
        for peer in torrent.peers[2:]:
            peer.gives = 1000
        torrent.run(2)
        torrent.choker.due_at_once()
        torrent.run(1)
        self.assertEqual(torrent.unchoked, before)

    def test_equals_do_not_push_each_other_out(self) -> None:
        torrent = Torrent(5, [FakePeer(joined=LONG_AGO) for _ in range(4)])
        torrent.run(20)
        regular = torrent.unchoked
        torrent.peers[:0] = [FakePeer(joined=LONG_AGO - 1) for _ in range(4)]
        torrent.run(200)
        self.assertEqual({torrent.turns[peer] for peer in regular}, {1})

    def test_single_slot_goes_round(self) -> None:
        torrent = Torrent(1, [FakePeer(gives=gives) for gives in range(5)])
        torrent.run(5 * OPTIMISTIC_TURN)
        self.assertEqual(set(torrent.seconds.values()), {OPTIMISTIC_TURN})

    def test_one_slot_in_five_is_optimistic(self) -> None:
        for slots, optimistic in ((1, 1), (2, 1), (4, 1), (9, 1), (10, 2), (20, 4)):
            fast = [FakePeer(gives=1000) for _ in range(slots - optimistic)]
            fair = [FakePeer(gives=900) for _ in range(20)]
            torrent = Torrent(slots, fair + fast)
            torrent.run(1)
            self.assertLessEqual(set(fast), torrent.unchoked)
            self.assertEqual(len(torrent.unchoked & set(fair)), optimistic)

    def test_newcomers_come_thrice_as_likely(self) -> None:
        chosen = Counter[str]()
        for seed in range(2000):
            choker = Choker(2, Random(seed))
            old, new = FakePeer(), FakePeer(joined=START - 1)
            fast = FakePeer(gives=1000)
            fast.download.add(1000, START)
            unchoked = choker.round([fast, old, new], False, START)
            self.assertIn(fast, unchoked)
            chosen["new"] += new in unchoked
            chosen["old"] += old in unchoked
        self.assertEqual(chosen.total(), 2000)
        self.assertTrue(1400 < chosen["new"] < 1600, chosen)

    def test_snubbed_peer_loses_its_slot(self) -> None:
        """What it gave before does not help; only an optimistic turn does, sooner or later."""
        snubber = FakePeer(gives=1000)
        torrent = Torrent(3, [snubber, *(FakePeer(gives=10) for _ in range(5))])
        torrent.run(60)
        self.assertEqual(torrent.seconds[snubber], 60)
        snubber.snubbed = True
        torrent.seconds.clear()
        torrent.run(240)
        self.assertLessEqual(torrent.seconds[snubber], 3 * OPTIMISTIC_TURN)
        self.assertGreater(torrent.seconds[snubber], 0)

    def test_snubbed_peers_leave_regular_slots_empty_rather_than_have_them(self) -> None:
        torrent = Torrent(8, [FakePeer(snubbed=True) for _ in range(5)])
        torrent.run(5 * OPTIMISTIC_TURN, each=lambda: self.assertLessEqual(len(torrent.unchoked), 1))
        self.assertEqual(set(torrent.seconds.values()), {OPTIMISTIC_TURN})

    def test_who_earns_a_regular_slot_leaves_the_optimistic_one_to_another(self) -> None:
        torrent = Torrent(2, [FakePeer(gives=10), FakePeer(), FakePeer()])
        torrent.run(1)
        (lucky,) = torrent.unchoked - {torrent.peers[0]}
        lucky.gives = 5000
        torrent.run(ROUND)
        torrent.run(1)
        self.assertIn(lucky, torrent.unchoked)
        self.assertEqual(len(torrent.unchoked), 2)
        torrent.run(3 * OPTIMISTIC_TURN)
        self.assertIn(lucky, torrent.unchoked)


class SeedingTests(SynchronousTestCase):
    """While we only give."""

    def test_everybody_has_a_turn(self) -> None:
        peers = [FakePeer(takes=10 * number) for number in range(30)]
        torrent = Torrent(8, peers, seeding=True)
        # Six places go round in turns of 60 seconds among 28 or more.
        torrent.run(6 * SEEDING_TURN)
        self.assertEqual({peer for peer in peers if torrent.turns[peer]}, set(peers))

    def test_turns_are_shared_evenly_by_equals(self) -> None:
        torrent = Torrent(3, [FakePeer() for _ in range(12)], seeding=True)
        torrent.run(20 * SEEDING_TURN)
        self.assertEqual(set(torrent.seconds.values()), {5 * SEEDING_TURN})

    def test_fastest_keep_a_quarter_of_the_slots(self) -> None:
        fast = [FakePeer(takes=1_000_000), FakePeer(takes=900_000)]
        torrent = Torrent(8, fast + [FakePeer(takes=100) for _ in range(30)], seeding=True)
        torrent.run(10 * SEEDING_TURN)
        torrent.seconds.clear()
        torrent.run(10 * SEEDING_TURN)
        self.assertEqual([torrent.seconds[peer] for peer in fast], [10 * SEEDING_TURN] * 2)

    def test_who_does_not_take_is_not_fastest(self) -> None:
        idle = [FakePeer() for _ in range(4)]
        torrent = Torrent(4, idle + [FakePeer() for _ in range(4)], seeding=True)
        torrent.run(10 * SEEDING_TURN)
        self.assertEqual(set(torrent.seconds.values()), {5 * SEEDING_TURN})

    def test_nobody_gives_way_while_nobody_waits(self) -> None:
        torrent = Torrent(4, [FakePeer(takes=number) for number in range(4)], seeding=True)
        torrent.run(5 * SEEDING_TURN)
        self.assertEqual(set(torrent.turns.values()), {1})

    def test_who_waits_longest_comes_next(self) -> None:
        first, second = FakePeer(joined=START - 20), FakePeer(joined=START - 10)
        torrent = Torrent(1, [FakePeer(joined=LONG_AGO), second, first], seeding=True)
        torrent.run(SEEDING_TURN + 1)
        self.assertEqual(torrent.unchoked, {first})
        torrent.run(SEEDING_TURN)
        self.assertEqual(torrent.unchoked, {second})
