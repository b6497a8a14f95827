"""What one peer was asked for, and where its answers go: rules 1 and 4 of the data path."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from irontide.errors import ProtocolViolation
from irontide.interfaces import IBlockSink
from irontide.swarm.open_pieces import OpenPiece
from irontide.swarm.requests import MAX_LATE, MAX_PIPELINE, MIN_PIPELINE
from irontide.wire import messages as m
from irontide.wire.extended import ExtendedHandshake
from tests.swarm.fakes import KIB16, MIB, Remote, World, parse


class RequestsTests(SynchronousTestCase):
    """The last piece has 2 blocks, the last of them 100 bytes; all others have 4."""

    def setUp(self) -> None:
        self.world = World(total=9 * KIB16 + 100, piece_length=4 * KIB16)
        self.remote = Remote(self.world, "10.0.0.1")
        self.remote.shake()
        self.requests = self.remote.requests
        self.piece = self.open(0)

    def tearDown(self) -> None:
        self.world.check()
        self.world.settle()

    def open(self, index: int) -> OpenPiece:
        self.world.picker.opened(index)
        return self.world.downloads.open.open(index, 0.0)

    def ask(self, piece: OpenPiece, count: int) -> bytes:
        return self.requests.note(piece, piece.ask(count, self.world.pool))

    def receive(self, piece: int, begin: int, length: int) -> memoryview | None:
        """As PeerConnection does for a block that is here as a whole."""
        view = self.requests.claim(piece, begin, length)
        if view is not None:
            view[:] = self.world.block(piece, begin, length)
        self.requests.complete(piece, begin, length)
        return view

    def test_is_a_block_sink(self) -> None:
        self.assertTrue(verifyObject(IBlockSink, self.requests))

    def test_frames_ask_for_the_blocks(self) -> None:
        last = self.open(2)
        frames = self.ask(self.piece, 2) + self.ask(last, 9)
        self.assertEqual(
            list(parse(frames)),
            [
                m.Request(0, 0, KIB16),
                m.Request(0, KIB16, KIB16),
                m.Request(2, 0, KIB16),
                m.Request(2, KIB16, 100),
            ],
        )

    def test_what_was_asked_for_has_its_place(self) -> None:
        self.ask(self.piece, 1)
        view = self.receive(0, 0, KIB16)
        assert view is not None
        self.assertEqual(bytes(self.piece.chunks()[0].data), self.world.block(0, 0, KIB16))
        self.assertEqual((self.requests.received, self.requests.redundant), (KIB16, 0))
        self.assertEqual(self.requests.asked, {})

    def test_what_was_never_requested_is_a_violation(self) -> None:
        self.ask(self.piece, 1)
        for place in [
            (0, KIB16, KIB16),  # exists, open, not asked for
            (1, 0, KIB16),  # not open
            (0, 1, KIB16),  # asked for, but from another byte on
            (0, 0, KIB16 - 1),
            (0, 0, KIB16 + 1),
            (3, 0, KIB16),  # no such piece
            (2**32 - 1, 2**32 - 1, KIB16),
        ]:
            with self.assertRaises(ProtocolViolation, msg=str(place)):
                self.requests.claim(*place)

    def test_a_begin_beyond_the_piece_is_not_the_next_piece(self) -> None:
        """Block 4 of piece 0 has the number that block 0 of piece 1 has."""
        other = self.open(1)
        self.ask(other, 1)
        with self.assertRaises(ProtocolViolation):
            self.requests.claim(0, 4 * KIB16, KIB16)
        self.requests.forget(other, 0)
        with self.assertRaises(ProtocolViolation):
            self.requests.claim(0, 4 * KIB16, KIB16)
        with self.assertRaises(ProtocolViolation):
            self.requests.rejected(0, 4 * KIB16, KIB16)
        self.assertIsNone(self.requests.rejected(1, 0, KIB16))

    def test_the_short_block_has_its_own_length(self) -> None:
        last = self.open(2)
        self.ask(last, 2)
        with self.assertRaises(ProtocolViolation):
            self.requests.claim(2, KIB16, KIB16)
        self.assertIsNotNone(self.receive(2, KIB16, 100))

    # --- late

    def test_a_late_block_of_an_open_piece_is_welcome(self) -> None:
        self.ask(self.piece, 1)
        self.requests.forget(self.piece, 0)
        self.assertIsNotNone(self.receive(0, 0, KIB16))
        self.assertEqual(self.piece.missing, 3)
        self.assertEqual(self.requests.received, KIB16)

    def test_a_late_block_comes_once(self) -> None:
        self.ask(self.piece, 1)
        self.requests.forget(self.piece, 0)
        self.receive(0, 0, KIB16)
        with self.assertRaises(ProtocolViolation):
            self.requests.claim(0, 0, KIB16)

    def test_a_late_block_of_another_length_is_a_violation(self) -> None:
        self.ask(self.piece, 1)
        self.requests.forget(self.piece, 0)
        with self.assertRaises(ProtocolViolation):
            self.requests.claim(0, 0, 100)

    def test_a_late_block_of_a_closed_piece_is_thrown_away(self) -> None:
        self.ask(self.piece, 1)
        self.requests.forget(self.piece, 0)
        self.world.downloads.open.close(self.piece)
        self.assertIsNone(self.receive(0, 0, KIB16))
        self.assertEqual(self.requests.redundant, KIB16)

    def test_asked_for_twice_may_come_twice(self) -> None:
        """A cancel crossed with the first answer; both requests are answered, as both were made."""
        self.ask(self.piece, 1)
        self.assertEqual(list(parse(self.requests.cancel(self.piece, 0))), [m.Cancel(0, 0, KIB16)])
        self.ask(self.piece, 1)
        self.assertIsNotNone(self.receive(0, 0, KIB16))
        self.assertIsNone(self.receive(0, 0, KIB16))
        with self.assertRaises(ProtocolViolation):
            self.requests.claim(0, 0, KIB16)

    def test_given_up_twice_may_come_twice(self) -> None:
        for _ in range(2):
            self.ask(self.piece, 1)
            self.requests.cancel(self.piece, 0)
        self.receive(0, 0, KIB16)
        self.assertIsNone(self.requests.rejected(0, 0, KIB16))
        with self.assertRaises(ProtocolViolation):
            self.requests.claim(0, 0, KIB16)

    def test_a_late_block_whose_piece_was_opened_again_meanwhile(self) -> None:
        """It was claimed when nobody wanted it: its bytes are nowhere, so it counts for nothing."""
        self.ask(self.piece, 1)
        self.requests.forget(self.piece, 0)
        self.world.downloads.open.close(self.piece)
        self.assertIsNone(self.requests.claim(0, 0, KIB16))
        again = self.world.downloads.open.open(0, 0.0)
        self.ask(again, 2)
        self.requests.complete(0, 0, KIB16)
        self.assertEqual(again.missing, 4)
        self.assertIsNotNone(self.receive(0, 0, KIB16), "the answer to the second request")
        self.assertEqual(again.missing, 3)

    def test_late_answers_are_remembered_within_bounds(self) -> None:
        world = World(total=(MAX_LATE + 1) * KIB16, piece_length=(MAX_LATE + 1) * KIB16, pool=128 * MIB)
        requests = world.join().requests
        piece = world.downloads.open.open(0, 0.0)
        requests.note(piece, piece.ask(MAX_LATE + 1, world.pool))
        requests.forget_all()
        self.assertIsNone(requests.rejected(0, KIB16, KIB16))
        with self.assertRaises(ProtocolViolation):
            requests.rejected(0, 0, KIB16)
        world.settle()

    # --- rejects

    def test_a_reject_frees_the_block(self) -> None:
        self.ask(self.piece, 2)
        self.assertIs(self.requests.rejected(0, 0, KIB16), self.piece)
        self.assertEqual(self.piece.free, 3)

    def test_a_reject_of_what_we_gave_up_is_fine_once(self) -> None:
        self.ask(self.piece, 1)
        self.requests.cancel(self.piece, 0)
        self.assertIsNone(self.requests.rejected(0, 0, KIB16))
        with self.assertRaises(ProtocolViolation):
            self.requests.rejected(0, 0, KIB16)

    def test_a_reject_of_what_was_not_asked_is_a_violation(self) -> None:
        self.ask(self.piece, 1)
        for place in [(0, 1, KIB16), (0, 0, 5), (0, KIB16, KIB16), (9, 0, KIB16), (0, 5 * KIB16, KIB16)]:
            with self.assertRaises(ProtocolViolation, msg=str(place)):
                self.requests.rejected(*place)

    # --- giving up

    def test_what_is_forgotten_is_free(self) -> None:
        other = self.open(1)
        self.ask(self.piece, 2)
        self.ask(other, 3)
        self.assertEqual(self.requests.blocks_of(other), {0, 1, 2})
        self.assertEqual(self.requests.forget_all(keep=[1]), [self.piece])
        self.assertEqual((self.piece.free, other.free), (4, 1))

    def test_cancelling_what_was_not_asked_says_nothing(self) -> None:
        self.assertEqual(self.requests.cancel(self.piece, 0), b"")

    def test_the_end_in_the_middle_of_a_block(self) -> None:
        self.ask(self.piece, 1)
        self.requests.claim(0, 0, KIB16)
        self.requests.release(0, 0, KIB16)
        self.assertFalse(self.piece.claims)
        self.requests.release(1, 0, KIB16)  # a piece that is not open

    # --- the pipeline

    def rate(self, blocks: float) -> int:
        self.requests.adapt(blocks * KIB16)
        return self.requests.room()

    def test_never_below_the_floor(self) -> None:
        self.assertEqual(self.requests.room(), MIN_PIPELINE)
        self.assertEqual(self.rate(0), MIN_PIPELINE)
        self.assertEqual(self.rate(MIN_PIPELINE / 2), MIN_PIPELINE)

    def test_follows_the_rate_up_and_down(self) -> None:
        self.assertEqual(self.rate(100), 101)
        self.assertEqual(self.rate(50), 51)

    def test_never_above_the_cap(self) -> None:
        self.remote.peer.handshake = ExtendedHandshake(reqq=2000)
        self.assertEqual(self.rate(100_000), MAX_PIPELINE)

    def test_never_more_than_the_peer_queues(self) -> None:
        """What a peer says of itself beats our floor: the rest it would reject, or drop us for."""
        self.assertEqual(self.rate(100_000), 250, "what clients queue that do not say")
        self.remote.peer.handshake = ExtendedHandshake(reqq=40)
        self.assertEqual(self.rate(100_000), 40)
        self.remote.peer.handshake = ExtendedHandshake(reqq=3)
        self.assertEqual(self.rate(0), 3)

    def test_topped_up_in_batches(self) -> None:
        world = World(total=64 * KIB16, piece_length=64 * KIB16)
        requests = world.join().requests
        piece = world.downloads.open.open(0, 0.0)
        requests.note(piece, piece.ask(15, world.pool))
        self.assertEqual(requests.room(), 0, "one block is no batch")
        requests.forget(piece, 0)
        self.assertEqual(requests.room(), 2)
        requests.note(piece, piece.ask(49, world.pool))
        self.assertEqual(requests.room(), 0, "more is under way than the target")
        world.settle()

    def test_a_snubbed_peer_is_asked_for_one_block(self) -> None:
        self.remote.peer.snubbed = True
        self.assertEqual(self.requests.room(), 1)
        self.ask(self.piece, 1)
        self.assertEqual(self.requests.room(), 0)

    def test_the_time_to_answer_begins_with_the_request(self) -> None:
        self.world.clock.advance(500)
        self.world.downloads.now = self.world.clock.seconds()
        self.ask(self.piece, 1)
        self.assertEqual(self.remote.peer.last_block, self.world.clock.seconds())
