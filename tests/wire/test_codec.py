"""Messages and their bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.wire import messages as m
from irontide.wire.codec import encode, piece_header

CASES: list[tuple[m.Message, bytes]] = [
    (m.KeepAlive(), b"\0\0\0\0"),
    (m.Choke(), b"\0\0\0\x01\x00"),
    (m.Unchoke(), b"\0\0\0\x01\x01"),
    (m.Interested(), b"\0\0\0\x01\x02"),
    (m.NotInterested(), b"\0\0\0\x01\x03"),
    (m.Have(7), b"\0\0\0\x05\x04\0\0\0\x07"),
    (m.BitfieldMessage(b"\xff\x80\0"), b"\0\0\0\x04\x05\xff\x80\0"),
    (m.Request(1, 2, 3), b"\0\0\0\x0d\x06\0\0\0\x01\0\0\0\x02\0\0\0\x03"),
    (m.Cancel(1, 2, 2**32 - 1), b"\0\0\0\x0d\x08\0\0\0\x01\0\0\0\x02\xff\xff\xff\xff"),
    (m.Port(6881), b"\0\0\0\x03\x09\x1a\xe1"),
    (m.SuggestPiece(8), b"\0\0\0\x05\x0d\0\0\0\x08"),
    (m.HaveAll(), b"\0\0\0\x01\x0e"),
    (m.HaveNone(), b"\0\0\0\x01\x0f"),
    (m.RejectRequest(4, 5, 6), b"\0\0\0\x0d\x10\0\0\0\x04\0\0\0\x05\0\0\0\x06"),
    (m.AllowedFast(2**32 - 1), b"\0\0\0\x05\x11\xff\xff\xff\xff"),
    (m.Extended(0, b"de"), b"\0\0\0\x04\x14\0de"),
    (m.Extended(255, b""), b"\0\0\0\x02\x14\xff"),
]
"""Every message there is, and its bytes."""

words = st.integers(0, 2**32 - 1)


class CodecTests(SynchronousTestCase):
    def test_encode(self) -> None:
        for message, frame in CASES:
            self.assertEqual(encode(message), frame)

    def test_every_message_is_a_case(self) -> None:
        self.assertEqual({type(message) for message, _ in CASES}, {*m.MESSAGES.values(), m.KeepAlive})

    def test_from_payload(self) -> None:
        for message, frame in CASES[1:]:
            self.assertEqual(m.MESSAGES[frame[4]].from_payload(frame[5:]), message)

    def test_fixed_sizes_are_known(self) -> None:
        for message, frame in CASES[1:]:
            length = type(message).payload_length()
            if length is not None:
                self.assertEqual(length, len(frame) - 5)

    def test_messages_are_values(self) -> None:
        self.assertEqual(m.Request(1, 2, 3), m.Request(1, 2, 3))
        self.assertNotEqual(m.Request(1, 2, 3), m.Cancel(1, 2, 3))
        self.assertEqual(len({m.Request(1, 2, 3), m.Request(1, 2, 3)}), 1)
        with self.assertRaises(AttributeError):
            m.Have(1).piece = 2

    def test_piece_header(self) -> None:
        self.assertEqual(piece_header(1, 2, 3) + b"xyz", b"\0\0\0\x0c\x07\0\0\0\x01\0\0\0\x02xyz")

    @given(words, words, words, st.binary(max_size=40), st.integers(0, 255))
    def test_there_and_back(self, one: int, two: int, three: int, data: bytes, number: int) -> None:
        for message in (
            m.Have(one),
            m.Request(one, two, three),
            m.Cancel(three, one, two),
            m.RejectRequest(two, three, one),
            m.Port(one & 0xFFFF),
            m.BitfieldMessage(data),
            m.Extended(number, data),
        ):
            frame = encode(message)
            self.assertEqual(int.from_bytes(frame[:4], "big"), len(frame) - 4)
            self.assertEqual(m.MESSAGES[frame[4]].from_payload(frame[5:]), message)
