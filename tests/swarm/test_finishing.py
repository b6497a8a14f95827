"""The disk jobs of open pieces: order within a piece, the running hash, spills, and the end."""

from __future__ import annotations

import errno
import gc
from collections.abc import Iterable

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import StorageError
from irontide.storage.buffers import BufferPool
from irontide.storage.memory import MemoryStorage
from irontide.swarm.finishing import Finishing
from irontide.swarm.open_pieces import SEGMENT_BLOCKS, OpenPiece
from irontide.swarm.smart_ban import SmartBan
from tests.storage.fakes import FailingStorage, SlowStorage
from tests.swarm.fakes import KIB16, MIB, torrent


class Peer:
    """Puts blocks where they belong."""

    def __init__(self, host: str) -> None:
        self.host = host

    def revoke_claim(self) -> None:
        """Nothing is arriving."""

    def scratch(self, length: int) -> memoryview:
        return memoryview(bytearray(length))


class Hashed(MemoryStorage):
    """Remembers how much was hashed before the end."""

    hashed = -1
    writes: list[tuple[int, int]]

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.writes = []

    def write(self, piece, chunks, hasher=None):  # type: ignore[no-untyped-def]
        self.writes += [(chunk.begin, len(chunk.data)) for chunk in chunks]
        return super().write(piece, chunks, hasher)

    def verify_and_write(self, piece, chunks, *, hasher=None, hashed=0, digests=False):  # type: ignore[no-untyped-def]
        self.hashed = hashed
        if hasher is not None:
            rest = bytes(self.data[hashed : self.layout.piece_size(piece)])
            for chunk in chunks:
                rest = (
                    rest[: max(0, chunk.begin - hashed)]
                    + bytes(chunk.data)
                    + rest[max(0, chunk.begin - hashed) + len(chunk.data) :]
                )
            copy = hasher.copy()
            copy.update(rest)
            assert copy.digest() == self.info.piece_hash(piece), "what was hashed before is wrong"
        return super().verify_and_write(piece, chunks, hasher=hasher, hashed=hashed, digests=digests)


class FinishingTests(SynchronousTestCase):
    """One piece of three segments and a bit."""

    size = 3 * MIB + 5 * KIB16 + 7

    def setUp(self) -> None:
        self.info, self.data = torrent(self.size, 4 * MIB)
        self.disk = Hashed(self.info)
        self.slow = SlowStorage(self.disk)
        self.pool = BufferPool(8 * MIB)
        self.peer = Peer("10.0.0.1")
        self.outcome: list[object] = []
        self.told_written = 0
        self.use(self.slow)
        self.piece = OpenPiece(0, self.size, 0.0)

    def use(self, storage: object) -> None:
        self.finishing = Finishing(storage, SmartBan(), self)  # type: ignore[arg-type]

    def tearDown(self) -> None:
        self.piece.close()
        self.assertEqual(self.pool.in_use, 0)

    # --- the outcome

    def passed(self, piece: OpenPiece, liars: Iterable[str]) -> None:
        self.outcome.append(("passed", set(liars)))
        self.piece.close()

    def failed(self, piece: OpenPiece, liars: Iterable[str]) -> None:
        self.outcome.append(("failed", set(liars)))
        self.piece.close()

    def blocks_written(self, length: int) -> None:
        self.told_written += length

    def storage_failed(self, failure: Failure) -> None:
        self.outcome.append(failure.value)

    # --- blocks

    def put(self, *blocks: int, lie: bool = False, peer: Peer | None = None) -> None:
        """Blocks come; full segments and the last block start jobs, as Downloads does."""
        piece = self.piece
        for block in blocks:
            view = piece.claim(peer or self.peer, block, self.pool)
            assert view is not None
            start = block * KIB16
            data = self.data[start : start + piece.block_length(block)]
            view[:] = bytes(len(data)) if lie else data
            self.assertTrue(piece.received(peer or self.peer, block, 1.0))
            if not piece.missing:
                self.finishing.piece(piece)
            elif (segment := piece.full_segment(block)) is not None:
                self.finishing.segment(piece, segment)

    def segment(self, number: int) -> range:
        return range(number * SEGMENT_BLOCKS, min((number + 1) * SEGMENT_BLOCKS, self.piece.blocks))

    def assertPassed(self) -> None:
        self.slow.turn_all()
        self.assertEqual(self.outcome, [("passed", set())])
        self.assertEqual(bytes(self.disk.data), self.data)

    # --- tests

    def test_in_order_all_but_the_end_is_hashed_on_the_way(self) -> None:
        for number in range(4):
            self.put(*self.segment(number))
            self.slow.turn_all()
            self.assertLessEqual(self.pool.in_use, MIB)
        self.assertPassed()
        self.assertEqual(self.disk.hashed, 3 * MIB)

    def test_out_of_order_the_rest_is_hashed_at_the_end(self) -> None:
        for number in (1, 0, 3, 2):
            self.put(*self.segment(number))
            self.slow.turn_all()
        self.assertPassed()
        self.assertEqual(self.disk.hashed, MIB)

    def test_jobs_of_a_piece_run_one_after_another(self) -> None:
        self.put(*self.segment(0), *self.segment(1), *self.segment(2))
        self.assertEqual(self.slow.pending, 1)
        self.put(*self.segment(3))
        self.assertEqual(self.slow.pending, 1)
        self.slow.turn()
        self.assertEqual(self.slow.pending, 1, "what waited to be written goes with the last step")
        self.assertPassed()

    def test_a_segment_in_part_spilled_before_is_not_hashed_in_part(self) -> None:
        """The spill is under way when the segment becomes full: the write behind it lacks what it wrote."""
        self.put(*self.segment(0)[:10])
        self.finishing.spill(self.piece)
        self.put(*self.segment(0)[10:])
        self.slow.turn_all()
        self.assertEqual(self.disk.writes, [(0, 10 * KIB16), (10 * KIB16, 54 * KIB16)])
        for number in (1, 2, 3):
            self.put(*self.segment(number))
            self.slow.turn_all()
        self.assertPassed()
        self.assertEqual(self.disk.hashed, 0)

    def test_a_segment_that_a_spill_has_taken_whole_does_not_hold_up_the_next(self) -> None:
        self.put(*self.segment(0)[:-1])
        self.put(*self.segment(1)[:-1])
        self.finishing.spill(self.piece)
        self.put(self.segment(0)[-1])
        self.slow.turn()
        self.finishing.spill(self.piece)  # takes the last block of segment 0, or finds it being written
        self.put(self.segment(1)[-1])
        self.slow.turn_all()
        self.assertEqual(self.pool.in_use, 0)
        self.assertEqual(self.piece.mask()[:16], b"\xff" * 16)

    def test_the_running_hash_after_a_wrong_segment(self) -> None:
        """All came from one host: it is clear who lied."""
        self.use(MemoryStorage(self.info))
        self.put(*self.segment(0), lie=True)
        self.put(*range(SEGMENT_BLOCKS, self.piece.blocks))
        self.assertEqual(self.outcome, [("failed", {"10.0.0.1"})])

    def test_a_spill_writes_what_is_there_and_gives_it_back(self) -> None:
        self.put(0, 1, 70)
        self.finishing.spill(self.piece)
        self.finishing.spill(self.piece)
        self.assertEqual(self.slow.pending, 1, "a second one has to wait")
        self.assertFalse(any(self.piece.mask()))
        self.slow.turn_all()
        self.assertEqual(self.pool.in_use, 0)
        self.assertEqual(self.disk.writes, [(0, 2 * KIB16), (70 * KIB16, KIB16)])
        self.assertEqual(self.told_written, 3 * KIB16)

    def test_a_spilled_piece_is_finished_from_the_disk(self) -> None:
        self.put(*range(0, self.piece.blocks - 1, 2))
        self.finishing.spill(self.piece)
        self.put(*range(1, self.piece.blocks - 1, 2))
        self.slow.turn_all()
        self.put(self.piece.blocks - 1)
        self.assertPassed()

    def test_a_spill_of_nothing_is_no_job(self) -> None:
        self.finishing.spill(self.piece)
        self.assertEqual((self.slow.pending, self.piece.writing), (0, 0))

    # --- the end

    def test_stop_writes_all_that_is_in_memory(self) -> None:
        """Also what came while an earlier job was under way."""
        self.put(*self.segment(0), 70)
        done = self.finishing.stop([self.piece])
        self.put(71)
        self.assertNoResult(done)
        self.slow.turn()
        self.assertNoResult(done)
        self.slow.turn_all()
        self.successResultOf(done)
        self.assertEqual(self.disk.writes, [(0, MIB), (70 * KIB16, 2 * KIB16)])

    def test_stop_without_anything_to_do(self) -> None:
        self.successResultOf(self.finishing.stop([self.piece]))

    def test_stopped_means_that_the_outcome_was_told(self) -> None:
        """Whoever waits for the end reads the bits next."""
        self.put(*range(self.piece.blocks))
        self.finishing.stop([self.piece]).addCallback(lambda _: self.outcome.append("stopped"))
        self.slow.turn_all()
        self.assertEqual(self.outcome, [("passed", set()), "stopped"])

    def test_a_bug_in_the_outcome_does_not_hang_the_end(self) -> None:
        def passed(piece: OpenPiece, liars: Iterable[str]) -> None:
            raise ZeroDivisionError

        self.passed = passed  # type: ignore[method-assign]
        self.put(*range(self.piece.blocks))
        done = self.finishing.stop([self.piece])
        self.slow.turn_all()
        self.successResultOf(done)
        self.piece.close()
        self.slow = SlowStorage(self.disk)
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    # --- the disk refuses

    def test_a_refusal_is_told_once_and_ends_all_jobs(self) -> None:
        error = StorageError("full", errno.ENOSPC)
        for method in ("write", "verify_and_write"):
            self.setUp()
            failing = FailingStorage(self.disk, {method: error})
            self.slow = SlowStorage(failing)
            self.use(self.slow)
            self.put(*range(self.piece.blocks))
            self.slow.turn_all()
            self.finishing.spill(self.piece)
            done = self.finishing.stop([self.piece])
            self.slow.turn_all()
            self.successResultOf(done)
            self.assertEqual(self.outcome, [error])
            self.piece.close()

    def test_what_was_not_written_is_not_in_the_mask(self) -> None:
        self.use(FailingStorage(self.disk, {"write": StorageError("full", errno.ENOSPC)}))
        self.put(0, 1)
        self.finishing.spill(self.piece)
        self.assertFalse(any(self.piece.mask()))
