from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from irontide.interfaces import IBuffer
from irontide.storage.buffers import SEGMENT_LENGTH, SMALLEST, UPLOAD_CLASSES, Buffer, BufferPool

MIB = 1 << 20


class BufferPoolTests(SynchronousTestCase):
    def take(self, pool: BufferPool, size: int) -> Buffer:
        buffer = pool.take(size)
        assert buffer is not None
        return buffer

    def test_a_buffer_is_as_long_as_was_asked(self) -> None:
        pool = BufferPool(4 * MIB)
        for size in (1, SMALLEST, SMALLEST + 1, MIB - 1, MIB):
            buffer = self.take(pool, size)
            self.assertTrue(verifyObject(IBuffer, buffer))
            self.assertEqual(len(buffer.view), size)
            self.assertFalse(buffer.view.readonly)
            buffer.release()

    def test_no_room_is_none(self) -> None:
        pool = BufferPool(2 * MIB)
        held = [self.take(pool, MIB), self.take(pool, MIB)]
        self.assertIsNone(pool.take(1))
        held.pop().release()
        self.assertIsNotNone(pool.take(MIB))

    def test_impossible_sizes_are_refused(self) -> None:
        pool = BufferPool(2 * MIB)
        for size in (0, -1, MIB + 1):
            self.assertRaises(ValueError, pool.take, size)

    def test_a_second_release_is_an_error(self) -> None:
        pool = BufferPool(MIB)
        buffer = self.take(pool, MIB)
        buffer.release()
        again = self.take(pool, MIB)
        self.assertRaises(RuntimeError, buffer.release)
        self.assertEqual(pool.in_use, MIB)
        again.release()

    def test_memory_is_allocated_when_needed_and_kept(self) -> None:
        pool = BufferPool(64 * MIB)
        self.assertEqual(pool.allocated, 0)
        first = self.take(pool, MIB)
        memory = first.view.obj
        first.release()
        second = self.take(pool, MIB)
        self.assertIs(second.view.obj, memory)
        self.assertEqual(pool.allocated, MIB)

    def test_small_buffers_share_a_segment(self) -> None:
        pool = BufferPool(MIB)
        buffers = [self.take(pool, SMALLEST) for _ in range(MIB // SMALLEST)]
        self.assertIsNone(pool.take(1))
        self.assertEqual(pool.free, 0)
        for number, buffer in enumerate(buffers):
            buffer.view[:] = bytes([number]) * SMALLEST
        for number, buffer in enumerate(buffers):
            self.assertEqual(bytes(buffer.view), bytes([number]) * SMALLEST)

    def test_an_empty_segment_serves_any_size_again(self) -> None:
        pool = BufferPool(MIB)
        small = [self.take(pool, SMALLEST), self.take(pool, SMALLEST)]
        self.assertIsNone(pool.take(MIB))
        for buffer in small:
            buffer.release()
        self.assertIsNotNone(pool.take(MIB))

    def test_free_segments_say_what_a_large_buffer_can_have(self) -> None:
        pool = BufferPool(2 * MIB)
        self.assertEqual(pool.free_segments, 2)
        small = self.take(pool, SMALLEST)
        self.assertEqual((pool.free, pool.free_segments), (2 * MIB - SMALLEST, 1))
        small.release()
        self.assertEqual(pool.free_segments, 2)

    def test_upload_classes(self) -> None:
        pool = BufferPool(4 * MIB, classes=UPLOAD_CLASSES)
        for size, taken in ((1, 16 << 10), (16385, 128 << 10), (64 << 10, 128 << 10), (129 << 10, MIB)):
            buffer = self.take(pool, size)
            self.assertEqual(pool.in_use, taken)
            buffer.release()
        self.assertRaises(ValueError, BufferPool, MIB, classes=(SMALLEST,))

    def test_capacity_is_whole_segments(self) -> None:
        self.assertEqual(BufferPool(MIB * 5 // 2).capacity, 2 * MIB)
        self.assertEqual(BufferPool(1).capacity, SEGMENT_LENGTH)
        self.assertEqual(BufferPool(64 << 10, 32 << 10).capacity, 64 << 10)
        self.assertRaises(ValueError, BufferPool, MIB, 1000)

    def test_growing_makes_room_at_once(self) -> None:
        pool = BufferPool(MIB)
        self.take(pool, MIB)
        woken: list[int] = []
        pool.when_room(lambda: woken.append(1))
        pool.resize(2 * MIB)
        self.assertEqual(woken, [1])
        self.assertIsNotNone(pool.take(MIB))

    def test_shrinking_takes_no_buffer_away(self) -> None:
        pool = BufferPool(3 * MIB)
        held = [self.take(pool, MIB) for _ in range(3)]
        pool.resize(MIB)
        self.assertEqual((pool.free, pool.in_use, pool.capacity), (0, 3 * MIB, MIB))
        held.pop().release()
        self.assertIsNone(pool.take(1))
        held.pop().release()
        held.pop().release()
        self.assertEqual((pool.free, pool.allocated), (MIB, MIB))

    def test_shrinking_gives_unused_memory_back(self) -> None:
        pool = BufferPool(3 * MIB)
        for buffer in [self.take(pool, MIB) for _ in range(3)]:
            buffer.release()
        pool.resize(2 * MIB)
        self.assertEqual(pool.allocated, 2 * MIB)


class WhenRoomTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pool = BufferPool(MIB)
        buffer = self.pool.take(MIB)
        assert buffer is not None
        self.buffer = buffer
        self.woken: list[str] = []

    def test_woken_once(self) -> None:
        self.pool.when_room(lambda: self.woken.append("a"))
        self.buffer.release()
        again = self.pool.take(MIB)
        assert again is not None
        again.release()
        self.assertEqual(self.woken, ["a"])

    def test_in_turn_as_long_as_there_is_room(self) -> None:
        """Who waits behind one that takes the room is not woken in vain, and is next."""
        taken: list[Buffer | None] = []

        def take() -> None:
            taken.append(self.pool.take(MIB))

        self.pool.when_room(take)
        self.pool.when_room(lambda: self.woken.append("b"))
        self.buffer.release()
        self.assertEqual((len(taken), self.woken), (1, []))
        assert taken[0] is not None
        taken[0].release()
        self.assertEqual(self.woken, ["b"])

    def test_waiting_again_while_woken_ends(self) -> None:
        """Somebody whom no room is enough cannot keep the pool busy."""

        def again() -> None:
            self.woken.append("again")
            self.pool.when_room(again)

        self.pool.when_room(again)
        self.pool.when_room(lambda: self.woken.append("other"))
        self.buffer.release()
        self.assertEqual(self.woken, ["again", "other"])

    def test_a_release_while_waking_forgets_nobody(self) -> None:
        def take_and_release() -> None:
            buffer = self.pool.take(MIB)
            assert buffer is not None
            buffer.release()
            self.woken.append("a")

        self.pool.when_room(take_and_release)
        self.pool.when_room(lambda: self.woken.append("b"))
        self.buffer.release()
        self.assertEqual(self.woken, ["a", "b"])


class AccountingTests(SynchronousTestCase):
    @given(st.lists(st.one_of(st.integers(1, MIB), st.integers(-20, -1)), max_size=60))
    def test_accounts_are_exact_and_buffers_never_overlap(self, steps: list[int]) -> None:
        pool = BufferPool(3 * MIB)
        held: list[tuple[Buffer, int]] = []
        for number, step in enumerate(steps):
            if step > 0:
                buffer = pool.take(step)
                if buffer is not None:
                    buffer.view[0] = buffer.view[-1] = number
                    held.append((buffer, number))
            elif held:
                held.pop(step % len(held))[0].release()
            in_use = sum(max(SMALLEST, 1 << (len(buffer.view) - 1).bit_length()) for buffer, _ in held)
            self.assertEqual(pool.in_use, in_use)
            self.assertEqual(pool.free, pool.capacity - in_use)
            self.assertLessEqual(pool.allocated, pool.capacity)
            for buffer, mark in held:
                self.assertEqual((buffer.view[0], buffer.view[-1]), (mark, mark))
        for buffer, _ in held:
            buffer.release()
        self.assertEqual((pool.in_use, pool.free_segments), (0, 3))
