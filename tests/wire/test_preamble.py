"""The 48 bytes that a connection begins with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import ProtocolViolation
from irontide.wire.preamble import HANDSHAKE_LENGTH, OUR_RESERVED, PREAMBLE_LENGTH, PREFIX, Preamble

INFOHASH = bytes(range(20))


class PreambleTests(SynchronousTestCase):
    def test_bytes(self) -> None:
        data = Preamble(b"reserved", INFOHASH).to_bytes()
        self.assertEqual(data, b"\x13BitTorrent protocolreserved" + INFOHASH)
        self.assertEqual(len(data), PREAMBLE_LENGTH)
        self.assertEqual((PREAMBLE_LENGTH, HANDSHAKE_LENGTH, len(PREFIX)), (48, 68, 20))

    @given(st.binary(min_size=8, max_size=8), st.binary(min_size=20, max_size=20))
    def test_there_and_back(self, reserved: bytes, infohash: bytes) -> None:
        preamble = Preamble(reserved, infohash)
        self.assertEqual(Preamble.from_bytes(preamble.to_bytes()), preamble)

    def test_any_other_length_is_refused(self) -> None:
        data = Preamble(bytes(8), INFOHASH).to_bytes()
        for wrong in (data[:-1], data + b"x", b""):
            with self.assertRaises(ProtocolViolation):
                Preamble.from_bytes(wrong)

    def test_any_other_prefix_is_refused(self) -> None:
        data = Preamble(bytes(8), INFOHASH).to_bytes()
        for at in range(len(PREFIX)):
            wrong = bytearray(data)
            wrong[at] ^= 1
            with self.assertRaises(ProtocolViolation):
                Preamble.from_bytes(bytes(wrong))

    def test_abilities(self) -> None:
        """Each is one bit of the 64, where the BEPs put it."""
        bits = {"extensions": 20, "dht": 0, "fast": 2}  # from the right
        for bit in range(64):
            preamble = Preamble((1 << bit).to_bytes(8, "big"), INFOHASH)
            for name, its in bits.items():
                self.assertEqual(getattr(preamble, name), bit == its, f"{name} with bit {bit}")

    def test_what_we_can(self) -> None:
        ours = Preamble(OUR_RESERVED, INFOHASH)
        self.assertEqual((ours.fast, ours.extensions, ours.dht), (True, True, False))
        self.assertEqual(OUR_RESERVED, bytes.fromhex("0000000000100004"))
