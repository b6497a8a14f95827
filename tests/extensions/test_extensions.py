"""The table of extensions, and the payloads of those that are a number or a flag."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import ProtocolViolation
from irontide.extensions import EXTENSIONS, lt_donthave, upload_only


class TableTests(SynchronousTestCase):
    def test_numbers_are_distinct_and_none_is_the_handshake(self) -> None:
        self.assertEqual(len(set(EXTENSIONS.values())), len(EXTENSIONS))
        self.assertTrue(all(0 < number < 256 for number in EXTENSIONS.values()))

    def test_names_as_others_know_them(self) -> None:
        self.assertEqual(set(EXTENSIONS), {"upload_only", "lt_donthave"})


class DontHaveTests(SynchronousTestCase):
    """BEP 54."""

    def test_vector(self) -> None:
        self.assertEqual(lt_donthave.parse(b"\0\0\1\2"), 258)
        self.assertEqual(lt_donthave.build(258), b"\0\0\1\2")

    @given(st.integers(0, 2**32 - 1))
    def test_there_and_back(self, piece: int) -> None:
        self.assertEqual(lt_donthave.parse(lt_donthave.build(piece)), piece)

    @given(st.binary(max_size=20).filter(lambda payload: len(payload) != 4))
    def test_another_length_is_a_violation(self, payload: bytes) -> None:
        self.assertRaises(ProtocolViolation, lt_donthave.parse, payload)


class UploadOnlyTests(SynchronousTestCase):
    """BEP 21."""

    def test_vectors(self) -> None:
        self.assertEqual([upload_only.parse(bytes([byte])) for byte in (0, 1, 255)], [False, True, True])
        self.assertEqual([upload_only.build(value) for value in (False, True)], [b"\0", b"\1"])

    @given(st.binary(max_size=20).filter(lambda payload: len(payload) != 1))
    def test_another_length_is_a_violation(self, payload: bytes) -> None:
        self.assertRaises(ProtocolViolation, upload_only.parse, payload)
