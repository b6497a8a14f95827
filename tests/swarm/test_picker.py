from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)
from twisted.trial.unittest import SynchronousTestCase

from irontide.metainfo.bitfield import Bitfield
from irontide.metainfo.layout import File, Layout
from irontide.swarm.picker import RANDOM_FIRST, Picker, piece_priorities

PIECE = 16384


def layout_of(pieces: int) -> Layout:
    total = pieces * PIECE
    return Layout(total, PIECE, (File(("all",), total, 0),))


def bits_of(pieces: int, *ones: int) -> Bitfield:
    bits = Bitfield(pieces)
    for piece in ones:
        bits.set(piece)
    return bits


class PickerTests(SynchronousTestCase):
    def picker(
        self,
        pieces: int,
        *had: int,
        priorities: list[int] | None = None,
        sequential: bool = False,
        seed: int = 1,
    ) -> Picker:
        return Picker(
            layout_of(pieces),
            bits_of(pieces, *had),
            priorities=priorities or [1] * pieces,
            random=Random(seed),
            sequential=sequential,
        )

    def old(self, pieces: int, **options: object) -> tuple[Picker, range]:
        """A picker past its random first pieces, and the pieces that it lacks."""
        return self.picker(pieces, *range(RANDOM_FIRST), **options), range(RANDOM_FIRST, pieces)  # type: ignore[arg-type]  # the same options

    def taken(self, picker: Picker, bits: Bitfield) -> list[int]:
        """Open all that there is and return it in order."""
        found = []
        while (piece := picker.next_piece(bits)) is not None:
            picker.opened(piece)
            found.append(piece)
        return found

    def test_rarest_come_first(self) -> None:
        picker, lacked = self.old(10)
        for piece in lacked:
            for _ in range(20 - piece):
                picker.peer_joined(bits_of(10, piece))
        self.assertEqual(self.taken(picker, Bitfield.full(10)), list(reversed(lacked)))

    def test_of_each_peer_its_own_rarest(self) -> None:
        picker, _ = self.old(10)
        common, rare = bits_of(10, 4, 5), bits_of(10, 6, 5)
        picker.peer_joined(common)
        picker.peer_joined(rare)
        picker.peer_joined(bits_of(10, 4))
        self.assertEqual(
            picker.next_piece(common), 4 if picker.availability(4) < picker.availability(5) else 5
        )
        self.assertEqual(picker.next_piece(rare), 6)
        self.assertEqual(picker.next_piece(bits_of(10, 4)), 4)
        self.assertIsNone(picker.next_piece(bits_of(10, 0, 1)))

    def test_have_makes_a_piece_less_rare(self) -> None:
        picker, _ = self.old(6)
        seed = Bitfield.full(6)
        first = picker.next_piece(seed)
        assert first is not None
        picker.peer_joined(Bitfield(6))
        picker.peer_has(first)
        self.assertEqual(picker.availability(first), 1)
        self.assertEqual(picker.next_piece(seed), 9 - first)

    def test_who_leaves_makes_pieces_rarer(self) -> None:
        picker, _ = self.old(6)
        with_4, with_5 = bits_of(6, 4), bits_of(6, 5)
        for _ in range(2):
            picker.peer_joined(with_4)
        picker.peer_joined(with_5)
        self.assertEqual(picker.next_piece(Bitfield.full(6)), 5)
        picker.peer_left(with_4)
        picker.peer_left(with_4)
        self.assertEqual(picker.next_piece(Bitfield.full(6)), 4)

    def test_equally_rare_ones_are_taken_at_random(self) -> None:
        """Two clients in one swarm do not go for the same pieces."""
        orders = {tuple(self.taken(self.old(60, seed=seed)[0], Bitfield.full(60))) for seed in range(10)}
        self.assertEqual(len(orders), 10)
        firsts = Counter(self.old(20, seed=seed)[0].next_piece(Bitfield.full(20)) for seed in range(1000))
        self.assertEqual(len(firsts), 16)
        self.assertLess(max(firsts.values()), 200)

    def test_first_pieces_are_random_however_rare(self) -> None:
        def first(seed: int) -> int | None:
            picker = self.picker(50, seed=seed)
            picker.peer_joined(bits_of(50, *range(1, 50)))
            return picker.next_piece(Bitfield.full(50))

        self.assertGreater(len({first(seed) for seed in range(40)}), 10)

    def test_rarity_counts_as_soon_as_a_few_are_complete(self) -> None:
        for seed in range(10):
            picker = self.picker(50, seed=seed)
            picker.peer_joined(bits_of(50, *range(49)))
            for piece in range(RANDOM_FIRST):
                picker.next_piece(Bitfield.full(50))
                picker.got(piece)
            self.assertEqual(picker.next_piece(Bitfield.full(50)), 49)

    def test_sequential_takes_them_in_order(self) -> None:
        picker = self.picker(9, sequential=True)
        picker.peer_joined(bits_of(9, 0))
        self.assertEqual(picker.next_piece(bits_of(9, 7, 3)), 3)
        self.assertEqual(self.taken(picker, Bitfield.full(9)), list(range(9)))

    def test_sequential_can_be_switched_live(self) -> None:
        picker, _ = self.old(100)
        picker.next_piece(Bitfield.full(100))
        picker.sequential = True
        self.assertTrue(picker.sequential)
        self.assertEqual(picker.next_piece(Bitfield.full(100)), RANDOM_FIRST)

    def test_higher_priority_comes_before_rarity_and_order(self) -> None:
        for sequential in (False, True):
            picker, _ = self.old(8, priorities=[1, 1, 1, 1, 1, 2, 7, 0], sequential=sequential)
            picker.peer_joined(bits_of(8, 6))
            self.assertEqual(self.taken(picker, Bitfield.full(8)), [6, 5, 4])

    def test_unwanted_pieces_are_left_alone(self) -> None:
        picker, _ = self.old(6, priorities=[1, 1, 1, 1, 0, 0])
        self.assertEqual(picker.left, 0)
        self.assertIsNone(picker.next_piece(Bitfield.full(6)))
        self.assertFalse(picker.interesting(Bitfield.full(6)))
        self.assertFalse(picker.wanted(4))
        picker.set_priorities([0, 0, 0, 0, 3, 0])
        self.assertEqual(picker.left, 1)
        self.assertTrue(picker.wanted(4))
        self.assertEqual(self.taken(picker, Bitfield.full(6)), [4])

    def test_new_priorities_leave_open_pieces_open(self) -> None:
        picker, _ = self.old(6)
        picker.opened(4)
        picker.set_priorities([7] * 6)
        self.assertEqual(self.taken(picker, Bitfield.full(6)), [5])

    def test_bad_priorities_are_refused(self) -> None:
        picker = self.picker(3)
        for wrong in ([1, 1], [1, 1, 8], [1, -1, 1]):
            self.assertRaises(ValueError, picker.set_priorities, wrong)

    def test_what_was_put_back_comes_first(self) -> None:
        picker, lacked = self.old(40)
        common = bits_of(40, 17)
        picker.peer_joined(common)
        picker.opened(17)
        picker.put_back(17)
        self.assertEqual(picker.next_piece(Bitfield.full(40)), 17)
        picker.opened(17)
        self.assertNotEqual(picker.next_piece(Bitfield.full(40)), 17)
        self.assertEqual(len(self.taken(picker, Bitfield.full(40))), len(lacked) - 1)

    def test_put_back_yields_to_higher_priority(self) -> None:
        picker, _ = self.old(6, priorities=[1, 1, 1, 1, 1, 2])
        picker.opened(4)
        picker.put_back(4)
        self.assertEqual(self.taken(picker, Bitfield.full(6)), [5, 4])

    def test_piece_that_was_completed_is_no_longer_one_put_back(self) -> None:
        picker, _ = self.old(40)
        picker.opened(17)
        picker.put_back(17)
        picker.got(17)
        picker.lost(17)
        picker.peer_joined(bits_of(40, 17))
        self.assertNotEqual(picker.next_piece(Bitfield.full(40)), 17)

    def test_allowed_fast_is_all_that_is_asked_for(self) -> None:
        picker, _ = self.old(20)
        seed = Bitfield.full(20)
        self.assertIsNone(picker.next_piece(seed, set()))
        self.assertIsNone(picker.next_piece(seed, {0, 1}))
        self.assertIsNone(picker.next_piece(bits_of(20, 9), {8}))
        picker.peer_joined(bits_of(20, 8))
        self.assertEqual(picker.next_piece(seed, {0, 8, 9}), 9)
        picker.opened(9)
        self.assertEqual(picker.next_piece(seed, {0, 8, 9}), 8)

    def test_seeds_are_counted_apart(self) -> None:
        picker = self.picker(4)
        seed = Bitfield.full(4)
        picker.peer_joined(seed)
        self.assertEqual((picker.seeds, picker.availability(2)), (1, 1))
        picker.peer_left(seed)
        self.assertEqual((picker.seeds, picker.availability(2)), (0, 0))

    def test_peer_that_completes_leaves_as_a_seed(self) -> None:
        picker = self.picker(4)
        bits = bits_of(4, 0, 1, 2)
        picker.peer_joined(bits)
        bits.set(3)
        picker.peer_has(3)
        picker.peer_became_seed(bits)
        self.assertEqual(picker.seeds, 1)
        self.assertEqual([picker.availability(piece) for piece in range(4)], [1] * 4)
        picker.peer_left(bits)
        self.assertEqual([picker.availability(piece) for piece in range(4)], [0] * 4)

    def test_distributed_copies(self) -> None:
        picker = self.picker(4)
        self.assertEqual(picker.distributed_copies(), 0.0)
        picker.peer_joined(bits_of(4, 0, 1, 2))
        self.assertEqual(picker.distributed_copies(), 0.75)
        picker.peer_joined(bits_of(4, 3))
        self.assertEqual(picker.distributed_copies(), 1.0)
        picker.peer_joined(Bitfield.full(4))
        picker.peer_joined(bits_of(4, 3))
        self.assertEqual(picker.distributed_copies(), 2.25)

    def test_interest_ends_with_what_is_lacked(self) -> None:
        picker, _ = self.old(6)
        peer = bits_of(6, 0, 4)
        self.assertTrue(picker.interesting(peer))
        picker.opened(4)
        self.assertTrue(picker.interesting(peer))
        picker.got(4)
        self.assertFalse(picker.interesting(peer))
        self.assertTrue(picker.interesting(Bitfield.full(6)))
        picker.got(5)
        self.assertFalse(picker.interesting(Bitfield.full(6)))
        self.assertEqual(picker.left, 0)
        picker.lost(4)
        self.assertEqual(picker.left, 1)
        self.assertTrue(picker.interesting(peer))
        self.assertEqual(picker.next_piece(peer), 4)

    def test_told_twice_counts_once(self) -> None:
        picker, _ = self.old(6)
        picker.got(4)
        picker.got(4)
        self.assertEqual(picker.left, 1)
        picker.lost(5)
        self.assertEqual(picker.left, 1)

    def test_large_torrent_is_taken_to_its_last_piece(self) -> None:
        """Peers with much, with little and with everything, between them, get every piece exactly once."""
        pieces = 3000
        random = Random(5)
        picker = self.picker(pieces)
        peers = [bits_of(pieces, *random.sample(range(pieces), count)) for count in (3, 40, 1500, 2990)]
        peers.append(Bitfield.full(pieces))
        for peer in peers:
            picker.peer_joined(peer)
        seen: set[int] = set()
        while len(seen) < pieces:
            peer = random.choice(peers)
            piece = picker.next_piece(peer)
            if piece is None:
                self.assertFalse(picker.interesting(peer))
                continue
            self.assertTrue(peer[piece])
            self.assertNotIn(piece, seen)
            seen.add(piece)
            picker.opened(piece)
            picker.got(piece)
        self.assertEqual(picker.left, 0)


class PiecePrioritiesTests(SynchronousTestCase):
    def test_shared_piece_has_the_highest(self) -> None:
        files = (
            File(("t", "a"), 3 * PIECE // 2, 0),
            File(("t", "pad"), PIECE // 2, 3 * PIECE // 2, pad=True),
            File(("t", "empty"), 0, 2 * PIECE),
            File(("t", "b"), PIECE // 2, 2 * PIECE),
            File(("t", "c"), PIECE, 5 * PIECE // 2),
        )
        layout = Layout(7 * PIECE // 2, PIECE, files)
        self.assertEqual(piece_priorities(layout, [1, 7, 7, 2, 5]), [1, 1, 5, 5])
        self.assertEqual(piece_priorities(layout, [0, 7, 7, 2, 0]), [0, 0, 2, 0])


class AgainstNaiveModel(RuleBasedStateMachine):
    """
    Whatever happens in whatever order, the piece picked is one that a picker without any cleverness, which
    looks at everything each time, could have picked.
    """

    PIECES = 21
    pieces = st.integers(0, PIECES - 1)
    # Mostly equal ones: what depends on rarity shows among equals only.
    levels = st.just([1] * PIECES) | st.lists(
        st.sampled_from([1, 1, 1, 0, 2]), min_size=PIECES, max_size=PIECES
    )
    some = st.sets(pieces) | st.sets(pieces, min_size=PIECES - 3)
    peers: Bundle[Bitfield] = Bundle("peers")

    def __init__(self) -> None:
        super().__init__()
        self.had: set[int] = set()
        self.open: set[int] = set()
        self.back: set[int] = set()
        self.priorities = [1] * self.PIECES
        self.present: list[Bitfield] = []
        self.picker = Picker(
            layout_of(self.PIECES), Bitfield(self.PIECES), priorities=self.priorities, random=Random(7)
        )

    @initialize(begun=st.booleans())
    def begin(self, begun: bool) -> None:
        """Half of the time rarity counts from the start."""
        for piece in range(RANDOM_FIRST if begun else 0):
            self.find(piece)

    @rule(target=peers, ones=some)
    def join(self, ones: set[int]) -> Bitfield:
        bits = bits_of(self.PIECES, *ones)
        self.present.append(bits)
        self.picker.peer_joined(bits)
        return bits

    @rule(bits=consumes(peers))
    def leave(self, bits: Bitfield) -> None:
        self.present = [peer for peer in self.present if peer is not bits]
        self.picker.peer_left(bits)

    @rule(bits=peers, piece=pieces)
    def have(self, bits: Bitfield, piece: int) -> None:
        if bits[piece]:
            return
        bits.set(piece)
        self.picker.peer_has(piece)
        if bits.complete:
            self.picker.peer_became_seed(bits)

    @rule(levels=levels)
    def prioritise(self, levels: list[int]) -> None:
        self.priorities = levels
        self.picker.set_priorities(levels)

    @rule(sequential=st.sampled_from([False, False, True]))
    def order(self, sequential: bool) -> None:
        self.picker.sequential = sequential

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def get(self, data: st.DataObject) -> None:
        self.find(data.draw(st.sampled_from(sorted(self.open))))

    def find(self, piece: int) -> None:
        self.picker.got(piece)
        self.had.add(piece)
        self.open.discard(piece)
        self.back.discard(piece)

    @precondition(lambda self: self.had)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        piece = data.draw(st.sampled_from(sorted(self.had)))
        self.picker.lost(piece)
        self.had.discard(piece)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        piece = data.draw(st.sampled_from(sorted(self.open)))
        self.picker.put_back(piece)
        self.open.discard(piece)
        self.back.add(piece)

    @rule(bits=peers, opens=st.booleans())
    def pick(self, bits: Bitfield, opens: bool) -> None:
        self.check(bits, set(range(self.PIECES)), self.picker.next_piece(bits), opens)

    @rule()
    def pick_from_seed(self) -> None:
        bits = Bitfield.full(self.PIECES)
        self.check(bits, set(range(self.PIECES)), self.picker.next_piece(bits), opens=True)

    @invariant()
    def whatever_was_told_the_answer_is_right(self) -> None:
        for bits in (Bitfield.full(self.PIECES), *self.present):
            self.check(bits, set(range(self.PIECES)), self.picker.next_piece(bits), opens=False)

    @rule(bits=peers, allowed=st.sets(pieces))
    def pick_allowed(self, bits: Bitfield, allowed: set[int]) -> None:
        self.check(bits, allowed, self.picker.next_piece(bits, allowed), opens=True)

    def count(self, piece: int) -> int:
        return sum(peer[piece] for peer in self.present)

    def best(self, bits: Bitfield, among: set[int]) -> set[int]:
        wanted = {piece for piece in among - self.had - self.open if bits[piece] and self.priorities[piece]}
        if not wanted:
            return set()
        highest = max(self.priorities[piece] for piece in wanted)
        wanted = {piece for piece in wanted if self.priorities[piece] == highest}
        if self.picker.sequential:
            return {min(wanted)}
        wanted = wanted & self.back or wanted
        if len(self.had) < RANDOM_FIRST:
            return wanted
        least = min(self.count(piece) for piece in wanted)
        return {piece for piece in wanted if self.count(piece) == least}

    def check(self, bits: Bitfield, among: set[int], piece: int | None, opens: bool) -> None:
        best = self.best(bits, among)
        if piece is None:
            assert not best, f"nothing picked, but {best} could be"
            return
        assert piece in best, f"{piece} picked instead of {best}"
        if opens:
            self.picker.opened(piece)
            self.open.add(piece)
            self.back.discard(piece)

    @invariant()
    def counters_agree(self) -> None:
        lacked = {piece for piece in range(self.PIECES) if self.priorities[piece] and piece not in self.had}
        assert self.picker.left == len(lacked)
        counts = [self.count(piece) for piece in range(self.PIECES)]
        assert [self.picker.availability(piece) for piece in range(self.PIECES)] == counts
        more = sum(count > min(counts) for count in counts)
        assert abs(self.picker.distributed_copies() - min(counts) - more / self.PIECES) < 1e-9
        for bits in self.present:
            assert self.picker.interesting(bits) == any(bits[piece] for piece in lacked)


AgainstNaiveModelTests = AgainstNaiveModel.TestCase
AgainstNaiveModelTests.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
