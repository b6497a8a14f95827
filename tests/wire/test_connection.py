"""
Framing: however a stream is cut, the same messages come out of it, and what is too long never gets in.

The table of cases is run whole, byte by byte, cut at every place, and with bytes behind.
"""

from __future__ import annotations

import tracemalloc

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from irontide.errors import ProtocolViolation
from irontide.interfaces import IBlockSink, IMessageReceiver
from irontide.wire import messages as m
from irontide.wire.codec import encode
from irontide.wire.connection import MAX_MESSAGE, MAX_PIECE_MESSAGE, MAX_RAW_BITFIELD
from tests.wire.fakes import PIECES, Completed, Conversation, block_frame, one_by_one

BITFIELD = m.BitfieldMessage(b"\xf0\x0f\x10")  # for PIECES pieces

# What is heard, and what was sent: an unknown message is heard as nothing.
CASES: list[tuple[object | None, bytes]] = [
    (m.KeepAlive(), bytes(4)),
    (m.Extended(0, b"de"), encode(m.Extended(0, b"de"))),
    (m.Port(6881), encode(m.Port(6881))),
    (BITFIELD, encode(BITFIELD)),
    (m.AllowedFast(3), encode(m.AllowedFast(3))),
    (m.Unchoke(), encode(m.Unchoke())),
    (m.KeepAlive(), bytes(4)),
    (Completed(1, 16, b"a block"), block_frame(1, 16, b"a block")),
    (Completed(0, 0, b"."), block_frame(0, 0, b".")),
    (m.Have(19), encode(m.Have(19))),
    (None, b"\0\0\0\x05\x63what"),
    (None, b"\0\0\0\x01\x0c"),
    (m.Request(7, 2, 3), encode(m.Request(7, 2, 3))),
    (m.Request(2**32 - 1, 2**32 - 1, 2**32 - 1), encode(m.Request(2**32 - 1, 2**32 - 1, 2**32 - 1))),
    (m.Cancel(1, 2, 3), encode(m.Cancel(1, 2, 3))),
    (m.Interested(), encode(m.Interested())),
    (Completed(2, 5, bytes(range(200))), block_frame(2, 5, bytes(range(200)))),
    (m.RejectRequest(4, 5, 6), encode(m.RejectRequest(4, 5, 6))),
    (m.SuggestPiece(5), encode(m.SuggestPiece(5))),
    (m.NotInterested(), encode(m.NotInterested())),
    (m.Extended(255, b""), encode(m.Extended(255, b""))),
    (m.Choke(), encode(m.Choke())),
    (m.KeepAlive(), bytes(4)),
]
STREAM = b"".join(frame for _, frame in CASES)
HEARD = [heard for heard, _ in CASES if heard is not None]

HUGE = 0xFFFFFFFF


def length_and_id(length: int, number: int) -> bytes:
    """The first five bytes of a message."""
    return length.to_bytes(4, "big") + bytes([number])


class FramingTests(SynchronousTestCase):
    def test_fakes_are_faithful(self) -> None:
        talk = Conversation()
        self.assertTrue(verifyObject(IMessageReceiver, talk.receiver))
        self.assertTrue(verifyObject(IBlockSink, talk.blocks))

    def test_whole(self) -> None:
        self.assertEqual(Conversation().hear(STREAM), HEARD)

    def test_byte_by_byte(self) -> None:
        self.assertEqual(Conversation().hear(*one_by_one(STREAM)), HEARD)

    def test_every_cut(self) -> None:
        for at in range(len(STREAM) + 1):
            self.assertEqual(Conversation().hear(STREAM[:at], STREAM[at:]), HEARD, f"cut at {at}")

    def test_every_size_of_reads(self) -> None:
        for size in range(1, 64):
            chunks = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
            self.assertEqual(Conversation().hear(*chunks), HEARD, f"reads of {size}")

    def test_each_is_heard_with_its_last_byte(self) -> None:
        """Not before, and without waiting for more."""
        talk = Conversation()
        for heard, frame in CASES:
            before = talk.heard
            self.assertEqual(talk.hear(frame[:-1]), before)
            self.assertEqual(talk.hear(frame[-1:]), before if heard is None else [*before, heard])

    def test_with_bytes_behind(self) -> None:
        """The beginning of the next message changes nothing, whatever it is."""
        prefix, heard_before = STREAM[: STREAM.index(encode(BITFIELD))] + encode(BITFIELD), HEARD[:4]
        for heard, frame in CASES[4:]:
            for _, following in CASES[4:]:
                for cut in {1, 3, 4, 5, 12, 13, len(following) - 1} & {*range(1, len(following))}:
                    found = Conversation().hear(prefix + frame + following[:cut])
                    self.assertEqual(found, heard_before + ([] if heard is None else [heard]))

    def test_start(self) -> None:
        talk = Conversation()
        self.assertEqual(talk.connection.receive(b"handshake" + STREAM, len(b"handshake")), len(STREAM))
        self.assertEqual(talk.heard, HEARD)

    def test_nothing(self) -> None:
        self.assertEqual(Conversation().hear(b"", b""), [])

    def test_payloads_are_not_tied_to_the_read(self) -> None:
        """What is kept of a message does not keep 256 KiB of others alive."""
        talk = Conversation()
        (message,) = talk.hear(encode(m.Extended(1, b"abc")))
        assert isinstance(message, m.Extended)
        self.assertIs(type(message.payload), bytes)


class LengthTests(SynchronousTestCase):
    """Each length field at its ends; a violation comes with the first byte that shows it."""

    def assert_refused(self, data: bytes, after: int, **named: bool | int | None) -> None:
        """``data`` is a violation as soon as ``after`` of its bytes are here, and no sooner."""
        talk = Conversation(**named)  # type: ignore[arg-type]
        talk.hear(*one_by_one(data[: after - 1]))
        with self.assertRaises(ProtocolViolation):
            talk.hear(data[after - 1 : after])
        self.assertEqual(talk.heard, [])
        with self.assertRaises(ProtocolViolation):
            Conversation(**named).hear(data[:after])  # type: ignore[arg-type]

    def assert_accepted(self, length: int, number: int, **named: bool | int | None) -> None:
        """Its prefix and id are no violation, and all of it is heard as one or, if unknown, as nothing."""
        talk = Conversation(**named)  # type: ignore[arg-type]
        talk.hear(length_and_id(length, number), bytes(length - 1), bytes(4))
        self.assertEqual(talk.heard[-1], m.KeepAlive())
        self.assertEqual(len(talk.heard), 2 if number in m.MESSAGES or number == m.PIECE_ID else 1)

    def test_all_ones_is_refused_on_the_prefix(self) -> None:
        for pieces in (PIECES, None):
            self.assert_refused(HUGE.to_bytes(4, "big") + b"\0", after=4, pieces=pieces)

    def test_longest_prefix(self) -> None:
        """Judged before the id is known: what no message may be."""
        for pieces, most in (
            (PIECES, MAX_MESSAGE),
            (None, MAX_RAW_BITFIELD),
            (8 * MAX_MESSAGE, MAX_MESSAGE + 1),
        ):
            Conversation(pieces=pieces).hear(most.to_bytes(4, "big"))
            self.assert_refused((most + 1).to_bytes(4, "big"), after=4, pieces=pieces)

    def test_fixed_sizes(self) -> None:
        for number, kind in m.MESSAGES.items():
            payload = kind.payload_length()
            if payload is None:
                continue
            self.assert_accepted(1 + payload, number)
            for wrong in {1, payload, payload + 2, MAX_MESSAGE} - {1 + payload, 0}:
                self.assert_refused(length_and_id(wrong, number), after=5)

    def test_bitfield(self) -> None:
        """Hardening: a short or long one is refused on its first five bytes."""
        for pieces in (1, 7, 8, 9, PIECES):
            right = 1 + -(-pieces // 8)
            self.assert_accepted(right, 5, pieces=pieces)
            for wrong in (right - 1, right + 1):
                self.assert_refused(length_and_id(wrong, 5), after=5, pieces=pieces)

    def test_bitfield_while_the_info_is_not_known(self) -> None:
        for length in (1, 2, MAX_MESSAGE + 1, MAX_RAW_BITFIELD):
            self.assert_accepted(length, 5, pieces=None)
        self.assert_refused(length_and_id(MAX_RAW_BITFIELD + 1, 5), after=4, pieces=None)

    def test_bitfield_of_the_largest_torrent(self) -> None:
        self.assert_accepted(1 + 2_097_152 // 8, 5, pieces=2_097_152)

    def test_info_becomes_known(self) -> None:
        talk = Conversation(pieces=None)
        talk.connection.info_known(PIECES)
        with self.assertRaises(ProtocolViolation):
            talk.hear(length_and_id(5, 5))

    def test_info_becomes_known_in_the_middle_of_a_bitfield(self) -> None:
        talk = Conversation(pieces=None)
        talk.hear(length_and_id(5, 5) + b"12")
        talk.connection.info_known(PIECES)
        with self.assertRaises(ProtocolViolation):
            talk.hear(b"34")

    def test_piece(self) -> None:
        for wrong in (1, 8, 9, MAX_PIECE_MESSAGE + 1, MAX_MESSAGE):
            self.assert_refused(length_and_id(wrong, 7), after=5)
            with self.assertRaises(ProtocolViolation):  # in the hot loop, too
                Conversation().hear(encode(m.Choke()) + length_and_id(wrong, 7) + bytes(40))
        for right in (10, MAX_PIECE_MESSAGE):
            self.assert_accepted(right, 7)

    def test_extended(self) -> None:
        for right in (2, MAX_MESSAGE):
            self.assert_accepted(right, 20)
        self.assert_refused(length_and_id(1, 20), after=5)
        self.assert_refused(length_and_id(MAX_MESSAGE + 1, 20), after=5, pieces=None)

    def test_unknown(self) -> None:
        for number in (10, 12, 18, 19, 21, 99, 255):
            self.assert_accepted(1, number)
            self.assert_accepted(MAX_MESSAGE, number)
            self.assert_refused(length_and_id(MAX_MESSAGE + 1, number), after=5, pieces=None)

    def test_hot_loop_judges_as_well(self) -> None:
        """Requests and haves of wrong size, behind the first message and with bytes behind."""
        for wrong in (length_and_id(14, 6), length_and_id(12, 6), length_and_id(4, 4), length_and_id(6, 4)):
            with self.assertRaises(ProtocolViolation):
                Conversation().hear(encode(m.Choke()) + wrong + bytes(40))


class MemoryTests(SynchronousTestCase):
    """What a stranger can make us keep."""

    def peak(self, talk: Conversation, *chunks: bytes) -> int:
        tracemalloc.start()
        try:
            talk.hear(*chunks)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def test_nothing_is_allocated_for_what_is_only_announced(self) -> None:
        for number in (5, 20, 99):
            talk = Conversation(pieces=None)
            self.assertLess(self.peak(talk, length_and_id(MAX_MESSAGE, number), b"x"), 10_000)

    def test_unknown_messages_are_not_kept(self) -> None:
        chunk = bytes(1000)
        talk = Conversation()
        peak = self.peak(talk, length_and_id(MAX_MESSAGE, 99), *[chunk] * (MAX_MESSAGE // 1000))
        self.assertLess(peak, 10_000)

    def test_blocks_are_copied_to_their_place_and_nowhere_else(self) -> None:
        talk = Conversation()
        talk.blocks.unwanted.add(1)
        talk.blocks.complete = lambda piece, begin, length: None  # type: ignore[method-assign]
        for piece in (0, 1):
            talk.blocks.place(piece, 0, 1)
            stream = b"".join(block_frame(piece, begin, bytes(16384)) for begin in range(0, 1 << 18, 16384))
            talk.hear(stream)
            reads = [stream[:100_000], stream[100_000:]]
            self.assertLess(self.peak(talk, stream, *reads), 10_000)
