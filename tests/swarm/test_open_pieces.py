"""Data path, rules 1 and 3: who may write where, and that memory comes back."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.storage.buffers import BufferPool
from irontide.swarm.open_pieces import MAX_ASKERS, SEGMENT_BLOCKS, OpenPiece, OpenPieces
from tests.swarm.fakes import KIB16, MIB, recount, torrent


class Claimer:
    """A peer that has a scratch, and remembers that its claim was revoked."""

    def __init__(self, host: str = "10.0.0.1") -> None:
        self.host = host
        self.revoked = 0
        self.memory = bytearray(KIB16)

    def revoke_claim(self) -> None:
        self.revoked += 1

    def scratch(self, length: int) -> memoryview:
        return memoryview(self.memory)[:length]


class OpenPieceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pool = BufferPool(4 * MIB)
        self.a, self.b = Claimer("10.0.0.1"), Claimer("10.0.0.2")
        self.pieces: list[OpenPiece] = []

    def tearDown(self) -> None:
        for piece in self.pieces:
            piece.close()
        self.assertEqual(self.pool.in_use, 0)

    def piece(self, size: int = 4 * KIB16, written: tuple[int, ...] = ()) -> OpenPiece:
        piece = OpenPiece(0, size, 0.0, written)
        self.pieces.append(piece)
        return piece

    def put(self, piece: OpenPiece, peer: Claimer, block: int, byte: bytes = b"x") -> bool:
        view = piece.claim(peer, block, self.pool)
        if view is not None:
            view[:] = byte * len(view)
        return piece.received(peer, block, 1.0)

    # --- asking

    def test_memory_is_reserved_when_asked(self) -> None:
        piece = self.piece()
        self.assertEqual(self.pool.in_use, 0)
        self.assertEqual(piece.ask(2, self.pool), [0, 1])
        self.assertEqual(self.pool.in_use, 4 * KIB16)
        self.assertEqual(piece.free, 2)

    def test_nothing_is_asked_for_without_memory(self) -> None:
        self.pool = BufferPool(MIB)
        other = self.pool.take(MIB)
        piece = self.piece()
        self.assertEqual(piece.ask(4, self.pool), [])
        self.assertEqual(piece.ask_again(4, []), [])
        self.assertEqual(piece.free, 4)
        assert other is not None
        other.release()

    def test_only_segments_that_are_asked_for_take_memory(self) -> None:
        piece = self.piece(3 * MIB)
        piece.ask(SEGMENT_BLOCKS + 1, self.pool)
        self.assertEqual(self.pool.in_use, 2 * MIB)

    def test_a_segment_without_memory_is_passed_over(self) -> None:
        """The third segment has memory already (a block of it was asked for), the second finds none."""
        self.pool = BufferPool(2 * MIB)
        piece = self.piece(3 * MIB)
        self.assertTrue(piece.reserve(2 * SEGMENT_BLOCKS, self.pool))
        taken = piece.ask(1000, self.pool)
        self.assertEqual(taken, [*range(SEGMENT_BLOCKS), *range(2 * SEGMENT_BLOCKS, 3 * SEGMENT_BLOCKS)])

    def test_has_free_place_is_about_memory_and_freedom(self) -> None:
        piece = self.piece(2 * MIB)
        self.assertFalse(piece.has_free_place())
        piece.ask(1, self.pool)
        self.assertTrue(piece.has_free_place())
        piece.ask(SEGMENT_BLOCKS - 1, self.pool)
        self.assertFalse(piece.has_free_place(), "what is free has no memory")

    def test_asked_again_least_asked_first_and_by_few(self) -> None:
        piece = self.piece()
        piece.ask(4, self.pool)
        piece.ask_again(2, [])
        self.assertEqual(piece.ask_again(2, []), [2, 3])
        for _ in range(MAX_ASKERS):
            piece.ask_again(4, [])
        self.assertEqual(list(piece.asked), [MAX_ASKERS] * 4)
        self.assertEqual(piece.ask_again(4, []), [])

    def test_asked_again_but_not_of_the_same_peer(self) -> None:
        piece = self.piece()
        piece.ask(4, self.pool)
        self.assertEqual(piece.ask_again(4, {0, 1, 2}), [3])

    def test_given_up_blocks_are_free_again(self) -> None:
        piece = self.piece()
        piece.ask(4, self.pool)
        piece.ask_again(1, [])
        piece.give_up(0)
        self.assertEqual(piece.free, 0, "somebody else is asked still")
        piece.give_up(0)
        self.assertEqual(piece.free, 1)
        self.assertEqual(piece.ask(4, self.pool), [0])

    def test_memory_that_nobody_needs_is_trimmed(self) -> None:
        piece = self.piece(2 * MIB)
        piece.ask(2 * SEGMENT_BLOCKS, self.pool)
        for block in range(2 * SEGMENT_BLOCKS):
            if block != SEGMENT_BLOCKS:
                piece.give_up(block)
        piece.trim()
        self.assertEqual(self.pool.in_use, MIB)
        piece.give_up(SEGMENT_BLOCKS)
        piece.trim()
        self.assertEqual(self.pool.in_use, 0)
        self.assertTrue(piece.untouched)

    # --- claims

    def test_a_block_has_one_claim_and_the_others_a_scratch(self) -> None:
        piece = self.piece()
        piece.ask(1, self.pool)
        first = piece.claim(self.a, 0, self.pool)
        second = piece.claim(self.b, 0, self.pool)
        assert first is not None and second is not None
        self.assertIsNot(second.obj, first.obj)
        self.assertIs(second.obj, self.b.memory)

    def test_two_interleave_and_one_lies_in_every_order(self) -> None:
        """Byte by byte, whoever completes first wins, and what the other wrote is nowhere."""
        for order in permutations("ab"):
            for claims in permutations("ab"):
                piece = self.piece(100)
                piece.ask(1, self.pool)
                peers = {"a": self.a, "b": self.b}
                bytes_of = {"a": b"a", "b": b"b"}
                views = {name: piece.claim(peers[name], 0, self.pool) for name in claims}
                for at in range(100):
                    for name in order:
                        view = views[name]
                        assert view is not None
                        view[at : at + 1] = bytes_of[name]
                winner, loser = order
                before = peers[loser].revoked
                self.assertTrue(piece.received(peers[winner], 0, 1.0))
                self.assertEqual(peers[loser].revoked, before + 1)
                self.assertEqual(bytes(piece.chunks()[0].data), bytes_of[winner] * 100)
                self.assertEqual(piece.contributors, [peers[winner].host])
                self.assertFalse(piece.received(peers[loser], 0, 1.0))
                self.assertEqual(piece.missing, 0)

    def test_three_on_one_block(self) -> None:
        piece = self.piece()
        piece.ask(1, self.pool)
        peers = [Claimer(str(number)) for number in range(3)]
        for peer in peers:
            piece.claim(peer, 0, self.pool)
        self.assertTrue(piece.received(peers[1], 0, 1.0))
        self.assertEqual([peer.revoked for peer in peers], [1, 0, 1])
        self.assertFalse(piece.claims or piece.scratches)

    def test_the_first_claim_ends_and_the_scratch_still_counts(self) -> None:
        piece = self.piece()
        piece.ask(1, self.pool)
        piece.ask_again(1, [])
        piece.claim(self.a, 0, self.pool)
        view = piece.claim(self.b, 0, self.pool)
        assert view is not None
        view[:] = b"b" * KIB16
        piece.release_claim(self.a, 0)
        piece.give_up(0)
        self.assertTrue(piece.received(self.b, 0, 1.0))
        self.assertEqual(bytes(piece.chunks()[0].data), b"b" * KIB16)

    def test_what_is_here_is_not_claimed_again(self) -> None:
        piece = self.piece()
        piece.ask(1, self.pool)
        self.assertTrue(self.put(piece, self.a, 0))
        self.assertIsNone(piece.claim(self.b, 0, self.pool))
        self.assertFalse(piece.received(self.b, 0, 1.0))

    def test_a_claim_that_was_never_made_counts_for_nothing(self) -> None:
        piece = self.piece()
        piece.ask(1, self.pool)
        self.assertFalse(piece.received(self.a, 0, 1.0))
        self.assertEqual(piece.missing, 4)

    def test_a_late_block_gets_memory_and_gives_it_back(self) -> None:
        piece = self.piece()
        self.assertIsNotNone(piece.claim(self.a, 0, self.pool))
        self.assertFalse(piece.untouched)
        piece.release_claim(self.a, 0)
        self.assertEqual(self.pool.in_use, 0)

    def test_a_whole_block_is_taken_as_if_it_were_claimed_and_received(self) -> None:
        one, other = self.piece(), self.piece()
        for piece in (one, other):
            piece.ask(3, self.pool)
        self.assertTrue(one.take(1, memoryview(b"x" * KIB16), self.a.host, 1.0))
        self.assertTrue(self.put(other, self.a, 1))
        other.give_up(1)
        for name in (
            "state", "asked", "missing", "free", "contributors", "active", "unsaved_since", "claims"
        ):  # fmt: skip
            self.assertEqual(getattr(one, name), getattr(other, name), name)
        (chunk,) = one.chunks()
        self.assertEqual((chunk.begin, bytes(chunk.data)), (KIB16, b"x" * KIB16))

    def test_a_whole_block_that_concerns_others_is_not_taken(self) -> None:
        data = memoryview(b"x" * KIB16)

        def not_taken(piece: OpenPiece, block: int, data: memoryview = data) -> None:
            before = (bytes(piece.state), bytes(piece.asked), piece.missing, list(piece.contributors))
            self.assertFalse(piece.take(block, data, self.a.host, 1.0))
            self.assertEqual(
                (bytes(piece.state), bytes(piece.asked), piece.missing, list(piece.contributors)), before
            )

        piece = self.piece(4 * KIB16 + 100)
        not_taken(piece, 0)  # no memory, and nobody was asked
        piece.ask(5, self.pool)
        not_taken(piece, 4, data[:100])  # the last one, which is short
        not_taken(piece, 4)
        not_taken(piece, 0, data[:-1])
        piece.ask_again(1, set())
        not_taken(piece, 0)  # two were asked: one of them has to be told
        piece.claim(self.b, 1, self.pool)
        not_taken(piece, 1)  # another one writes there
        piece.claim(self.a, 1, self.pool)
        piece.release_claim(self.b, 1)
        not_taken(piece, 1)  # another one writes to its scratch
        piece.release_claim(self.a, 1)
        self.assertTrue(piece.take(1, data, self.a.host, 1.0))
        not_taken(piece, 1)  # it is here

    def test_close_revokes_and_gives_everything_back(self) -> None:
        piece = self.piece(2 * MIB)
        piece.ask(2 * SEGMENT_BLOCKS, self.pool)
        piece.claim(self.a, 3, self.pool)
        piece.claim(self.b, 3, self.pool)
        piece.close()
        self.assertEqual((self.a.revoked, self.b.revoked, self.pool.in_use), (1, 1, 0))

    # --- writing

    def test_memory_into_which_a_peer_writes_is_not_given_back(self) -> None:
        """A late block, asked of nobody any more, is arriving while the rest of its segment is spilled."""
        piece = self.piece()
        piece.ask(2, self.pool)
        self.put(piece, self.a, 0)
        view = piece.claim(self.b, 1, self.pool)
        piece.give_up(0)
        piece.give_up(1)
        _, blocks = piece.begin_write()
        piece.written(blocks)
        self.assertEqual(self.pool.in_use, 4 * KIB16)
        assert view is not None
        view[:] = b"b" * KIB16
        self.assertTrue(piece.received(self.b, 1, 2.0))
        self.assertEqual(
            [(chunk.begin, bytes(chunk.data)) for chunk in piece.chunks()], [(KIB16, b"b" * KIB16)]
        )

    def test_the_mask_names_what_is_written_and_nothing_else(self) -> None:
        piece = self.piece(9 * KIB16, written=(8,))
        piece.ask(3, self.pool)
        for block in (0, 2):
            self.put(piece, self.a, block)
            piece.give_up(block)
        self.assertEqual(piece.mask(), bytes([0, 0x80]))
        _, blocks = piece.begin_write()
        self.put(piece, self.a, 1)
        piece.give_up(1)
        self.assertEqual(piece.mask(), bytes([0, 0x80]), "not before the write has ended")
        piece.written(blocks)
        self.assertEqual(piece.mask(), bytes([0b10100000, 0x80]))

    def test_chunks_are_joined_and_end_where_the_piece_ends(self) -> None:
        piece = self.piece(MIB + KIB16 + 5)
        for block in (0, 1, 3, SEGMENT_BLOCKS, SEGMENT_BLOCKS + 1):
            self.put(piece, self.a, block)
        self.assertEqual(
            [(chunk.begin, len(chunk.data)) for chunk in piece.chunks()],
            [(0, 2 * KIB16), (3 * KIB16, KIB16), (MIB, KIB16 + 5)],
        )

    def test_a_segment_is_full_once_also_if_parts_of_it_were_written_before(self) -> None:
        piece = self.piece(2 * MIB, written=(1,))
        for block in range(SEGMENT_BLOCKS):
            if block != 1:
                self.assertIsNone(piece.full_segment(block))
                self.put(piece, self.a, block)
        self.assertEqual(piece.full_segment(SEGMENT_BLOCKS - 1), 0)

    def test_hashing_goes_on_with_whole_segments_in_order_only(self) -> None:
        piece = self.piece(3 * MIB)
        whole = range(SEGMENT_BLOCKS)
        self.assertTrue(piece.hashable(0, whole))
        self.assertFalse(piece.hashable(1, range(SEGMENT_BLOCKS, 2 * SEGMENT_BLOCKS)), "out of order")
        self.assertFalse(piece.hashable(0, whole[1:]), "a part was spilled before")

    def test_unsaved_blocks_of_other_segments_stay_unsaved(self) -> None:
        piece = self.piece(2 * MIB)
        self.put(piece, self.a, SEGMENT_BLOCKS)
        self.assertEqual(piece.unsaved_since, 1.0)
        self.put(piece, self.a, 0)
        piece.begin_write([0])
        self.assertEqual(piece.unsaved_since, 1.0)
        piece.begin_write()
        self.assertIsNone(piece.unsaved_since)

    @given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2), st.integers(0, 4)), max_size=60))
    def test_counters_are_what_one_counts(self, steps: list[tuple[int, int, int]]) -> None:
        pool = BufferPool(MIB)
        piece = OpenPiece(0, 4 * KIB16 + 1, 0.0)
        peers = [Claimer(str(number)) for number in range(3)]
        asked: dict[Claimer, set[int]] = {peer: set() for peer in peers}
        arriving: dict[Claimer, int] = {}
        jobs: list[list[int]] = []
        for verb, who, block in steps:
            peer = peers[who]
            if verb == 0:
                asked[peer].update(piece.ask(2, pool))
            elif verb == 1:
                asked[peer].update(piece.ask_again(2, asked[peer]))
            elif verb == 2 and block in asked[peer]:
                asked[peer].remove(block)
                piece.give_up(block)
            elif verb == 3 and peer not in arriving and piece.claim(peer, block, pool) is not None:
                arriving[peer] = block
            elif verb == 4 and peer in arriving:
                revoked = [other.revoked for other in peers]
                piece.received(peer, came := arriving.pop(peer), 1.0)
                if came in asked[peer]:
                    asked[peer].remove(came)
                    piece.give_up(came)
                for other, before in zip(peers, revoked, strict=True):
                    if other.revoked > before:
                        arriving.pop(other, None)
            elif verb == 5 and peer in arriving:
                piece.release_claim(peer, arriving.pop(peer))
            elif verb == 6 and not piece.writing:
                jobs.append(piece.begin_write()[1])
            elif jobs:
                piece.written(jobs.pop())
            recount(piece)
        piece.close()
        assert pool.in_use == 0


class OpenPiecesTests(SynchronousTestCase):
    def test_memory_is_given_back_and_what_is_written_stays_known(self) -> None:
        info, _ = torrent(8 * KIB16, 4 * KIB16)
        pool = BufferPool(MIB)
        pieces = OpenPieces(info.layout, pool)
        piece = pieces.open(1, 0.0, written=[2])
        piece.ask(2, pool)
        pieces.free_memory()
        self.assertEqual(pool.in_use, 0)
        self.assertIs(pieces.get(1), piece)
        self.assertEqual(piece.mask(), bytes([0b00100000]))

    def test_closing_an_old_piece_leaves_the_new_one(self) -> None:
        info, _ = torrent(8 * KIB16, 4 * KIB16)
        pieces = OpenPieces(info.layout, BufferPool(MIB))
        old = pieces.open(0, 0.0)
        pieces.close(old)
        new = pieces.open(0, 1.0)
        pieces.close(old)
        self.assertIs(pieces.get(0), new)
        self.assertEqual(len(pieces), 1)
