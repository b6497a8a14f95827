"""Bitfields against a plain set of indexes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import ProtocolViolation
from irontide.metainfo.bitfield import Bitfield


class BitfieldTests(SynchronousTestCase):
    """Known bits."""

    def test_first_piece_is_the_highest_bit(self) -> None:
        bits = Bitfield(10)
        bits.set(0)
        bits.set(9)
        self.assertEqual(bits.to_bytes(), b"\x80\x40")
        self.assertEqual(bits.as_int(), 0x8040)
        self.assertEqual((bits[0], bits[1], bits[9], bits.count), (True, False, True, 2))

    def test_wrong_size_is_refused(self) -> None:
        for length in (0, 1, 7, 8, 9, 16, 17):
            right = (length + 7) // 8
            for size in {0, right - 1, right + 1, right + 100} - {right, -1}:
                self.assertRaises(ProtocolViolation, Bitfield.from_bytes, bytes(size), length)

    def test_spare_bits_are_refused(self) -> None:
        for length in range(1, 17):
            spare = -length % 8
            for bit in range(spare):
                data = (1 << bit).to_bytes((length + 7) // 8, "big")
                self.assertRaises(ProtocolViolation, Bitfield.from_bytes, data, length)
            lowest = (1 << spare).to_bytes((length + 7) // 8, "big")
            self.assertEqual(list(Bitfield.from_bytes(lowest, length).ones()), [length - 1])

    def test_full(self) -> None:
        for length in range(20):
            full = Bitfield.full(length)
            self.assertEqual(list(full.ones()), list(range(length)))
            self.assertEqual(list(full.zeros()), [])
            self.assertEqual(full.count, length)
            self.assertTrue(full.complete)
            self.assertEqual(Bitfield.from_bytes(full.to_bytes(), length), full)

    def test_repeated_changes_count_once(self) -> None:
        bits = Bitfield(3)
        for _ in range(2):
            bits.set(1)
            self.assertEqual(bits.count, 1)
        for _ in range(2):
            bits.clear(1)
            self.assertEqual(bits.count, 0)

    def test_index_beyond_the_end(self) -> None:
        """The spare bits of the last byte are no pieces."""
        bits = Bitfield(9)
        for index in (-1, 9, 15, 16, 1000):
            for use in (bits.__getitem__, bits.set, bits.clear):
                self.assertRaises(IndexError, use, index)
        self.assertEqual(bits.to_bytes(), b"\0\0")

    def test_copy_is_independent(self) -> None:
        bits = Bitfield(5)
        twin = bits.copy()
        twin.set(3)
        self.assertEqual((bits.count, twin.count, bits.as_int(), twin.as_int()), (0, 1, 0, 0x10))
        self.assertNotEqual(bits, twin)

    def test_walking_while_changing(self) -> None:
        """An iterator tells of the bits as they were."""
        bits = Bitfield.full(20)
        for index in bits.ones():
            bits.clear(index)
        self.assertEqual(bits.count, 0)

    def test_is_no_key(self) -> None:
        self.assertRaises(TypeError, hash, Bitfield(1))

    def test_other_lengths_differ(self) -> None:
        self.assertNotEqual(Bitfield(8), Bitfield(7))
        self.assertNotEqual(Bitfield(8), b"\0")

    def test_repr(self) -> None:
        self.assertEqual(repr(Bitfield.full(7)), "<Bitfield 7 of 7>")


class PropertyTests(SynchronousTestCase):
    """Any bits."""

    @given(st.integers(1, 70), st.lists(st.tuples(st.booleans(), st.integers(0, 69)), max_size=60))
    def test_like_a_set(self, length: int, changes: list[tuple[bool, int]]) -> None:
        bits = Bitfield(length)
        model: set[int] = set()
        for add, index in changes:
            if index >= length:
                continue
            if add:
                bits.set(index)
                model.add(index)
            else:
                bits.clear(index)
                model.discard(index)
            self.assertEqual(bits.as_int(), int.from_bytes(bits.to_bytes(), "big"))
        self.assertEqual(list(bits.ones()), sorted(model))
        self.assertEqual(list(bits.zeros()), sorted(set(range(length)) - model))
        self.assertEqual(list(bits), [index in model for index in range(length)])
        self.assertEqual(bits.count, len(model))
        self.assertEqual(bits.complete, len(model) == length)
        self.assertEqual(Bitfield.from_bytes(bits.to_bytes(), length), bits)

    @given(st.binary(max_size=6), st.integers(0, 48))
    def test_strangers_bytes(self, data: bytes, length: int) -> None:
        try:
            bits = Bitfield.from_bytes(data, length)
        except ProtocolViolation:
            return
        self.assertEqual(bits.to_bytes(), data)
        self.assertEqual(bits.count, sum(byte.bit_count() for byte in data))

    @given(st.sets(st.integers(0, 49)), st.sets(st.integers(0, 49)))
    def test_algebra(self, mine: set[int], theirs: set[int]) -> None:
        a, b = Bitfield(50), Bitfield(50)
        for index in mine:
            a.set(index)
        for index in theirs:
            b.set(index)
        both = (a.as_int() & b.as_int()).to_bytes(7, "big")
        self.assertEqual(set(Bitfield.from_bytes(both, 50).ones()), mine & theirs)
        rest = (a.as_int() & ~b.as_int()).to_bytes(7, "big")
        self.assertEqual(set(Bitfield.from_bytes(rest, 50).ones()), mine - theirs)
