"""The allowed fast set, BEP 6."""

from __future__ import annotations

from hashlib import sha1

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.wire.allowed_fast import allowed_fast_set

INFOHASH = b"\xaa" * 20


class AllowedFastTests(SynchronousTestCase):
    def test_vectors_of_the_bep(self) -> None:
        seven = [1059, 431, 808, 1217, 287, 376, 1188]
        self.assertEqual(allowed_fast_set(INFOHASH, "80.4.4.200", 1313, 7), seven)
        self.assertEqual(allowed_fast_set(INFOHASH, "80.4.4.200", 1313, 9), [*seven, 353, 508])

    def test_ten_unless_told(self) -> None:
        ten = allowed_fast_set(INFOHASH, "80.4.4.200", 1313)
        self.assertEqual((len(ten), ten[:9]), (10, allowed_fast_set(INFOHASH, "80.4.4.200", 1313, 9)))

    def test_same_for_a_whole_network(self) -> None:
        """A peer that owns many addresses gets no more by using them."""
        for one, other in (
            ("80.4.4.200", "80.4.4.1"),
            ("80.4.4.200", "::ffff:80.4.4.1"),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::"),
        ):
            self.assertEqual(allowed_fast_set(INFOHASH, one, 1313), allowed_fast_set(INFOHASH, other, 1313))

    def test_differs_between_networks(self) -> None:
        for one, other in (("80.4.4.200", "80.4.5.200"), ("2001:db8:1:2::1", "2001:db8:1:3::1")):
            self.assertNotEqual(
                allowed_fast_set(INFOHASH, one, 1313), allowed_fast_set(INFOHASH, other, 1313)
            )

    @given(st.integers(0, 30), st.integers(0, 15), st.integers(0, 2**32 - 1))
    def test_different_pieces_that_exist(self, pieces: int, count: int, seed: int) -> None:
        found = allowed_fast_set(sha1(b"%d" % seed).digest(), "192.0.2.7", pieces, count)
        self.assertEqual(len(found), min(pieces, count))
        self.assertEqual(len(set(found)), len(found))
        self.assertTrue(all(0 <= piece < pieces for piece in found))
