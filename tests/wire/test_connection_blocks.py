"""Blocks: claims, what ends them, and stopping at the boundary of messages."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import ProtocolViolation
from irontide.metainfo.layout import BLOCK_LENGTH
from irontide.wire import messages as m
from irontide.wire.codec import PIECE_HEADER_LENGTH, encode
from tests.wire.fakes import (
    UNTOUCHED,
    Claimed,
    Completed,
    Conversation,
    Released,
    block_frame,
    one_by_one,
)

DATA = bytes(range(1, 61))
FRAME = block_frame(3, 100, DATA)
HAVE = encode(m.Have(5))
CHOKE = encode(m.Choke())


class ClaimTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.talk = Conversation()
        self.talk.hear(CHOKE)
        self.talk.log.clear()

    def assert_untouched(self, begin: int, end: int) -> None:
        self.assertEqual(set(self.talk.blocks.memory[3][begin:end]), {UNTOUCHED})

    def test_a_block_cut_at_every_place_lands_right(self) -> None:
        for at in range(len(FRAME) + 1):
            self.setUp()
            self.talk.hear(FRAME[:at], FRAME[at:] + HAVE)
            self.assertEqual(
                self.talk.log, [Claimed(3, 100, 60), Completed(3, 100, DATA), m.Have(5)], f"cut at {at}"
            )
            self.assert_untouched(0, 100)
            self.assert_untouched(160, 200)

    def test_a_block_cut_twice_lands_right(self) -> None:
        for first in range(1, len(FRAME), 3):
            for second in range(first, len(FRAME), 7):
                self.setUp()
                self.talk.hear(FRAME[:first], FRAME[first:second], FRAME[second:])
                self.assertEqual(self.talk.heard, [Completed(3, 100, DATA)])

    def test_whole_blocks_of_full_size(self) -> None:
        blocks = [
            (0, begin, bytes([begin >> 14]) * BLOCK_LENGTH) for begin in range(0, 1 << 18, BLOCK_LENGTH)
        ]
        stream = b"".join(block_frame(*block) for block in blocks)
        for size in (len(stream), 100_000, BLOCK_LENGTH, 1448):
            self.setUp()
            self.talk.hear(*(stream[at : at + size] for at in range(0, len(stream), size)))
            self.assertEqual(self.talk.heard, [Completed(*block) for block in blocks])

    def test_claimed_when_the_header_is_there(self) -> None:
        """Before any byte of the block, so that it has a place."""
        self.talk.hear(FRAME[: PIECE_HEADER_LENGTH - 1])
        self.assertEqual(self.talk.log, [])
        self.talk.hear(FRAME[PIECE_HEADER_LENGTH - 1 : PIECE_HEADER_LENGTH])
        self.assertEqual(self.talk.log, [Claimed(3, 100, 60)])

    def test_bytes_are_in_place_as_they_come(self) -> None:
        self.talk.hear(FRAME[: PIECE_HEADER_LENGTH + 10])
        self.assertEqual(self.talk.blocks.memory[3][100:110], DATA[:10])
        self.assert_untouched(110, 200)

    def test_unwanted_blocks_are_discarded_and_completed(self) -> None:
        self.talk.blocks.unwanted.add(3)
        expected = [Claimed(3, 100, 60), Completed(3, 100, bytes([UNTOUCHED]) * 60), m.Have(5)]
        for at in range(len(FRAME) + 1):
            self.talk.log.clear()
            self.talk.hear(FRAME[:at], FRAME[at:], HAVE)
            self.assertEqual(self.talk.log, expected)

    def test_blocks_that_were_never_asked_for(self) -> None:
        self.talk.blocks.unasked.add(3)
        for chunks in ([FRAME + HAVE], list(one_by_one(FRAME))):
            talk = Conversation()
            talk.blocks.unasked.add(3)
            with self.assertRaises(ProtocolViolation):
                talk.hear(CHOKE, *chunks)
            talk.connection.close()
            self.assertEqual(talk.log, [m.Choke()])


class RevocationTests(SynchronousTestCase):
    """Somebody else completed the block first."""

    def test_the_rest_is_thrown_away(self) -> None:
        for at in range(PIECE_HEADER_LENGTH, len(FRAME)):
            talk = Conversation()
            talk.hear(FRAME[:at])
            talk.connection.discard_claim()
            talk.blocks.place(3, 100, 60)[:] = b"=" * 60  # it is another's from now on
            talk.hear(FRAME[at:] + HAVE)
            self.assertEqual(talk.heard, [m.Have(5)])
            self.assertEqual(talk.blocks.memory[3][100:160], b"=" * 60)

    def test_byte_by_byte(self) -> None:
        talk = Conversation()
        talk.hear(FRAME[:30])
        talk.connection.discard_claim()
        self.assertEqual(talk.hear(*one_by_one(FRAME[30:] + FRAME)), [Completed(3, 100, DATA)])

    def test_of_a_discarded_block(self) -> None:
        talk = Conversation()
        talk.blocks.unwanted.add(3)
        talk.hear(FRAME[:30])
        talk.connection.discard_claim()
        self.assertEqual(talk.hear(FRAME[30:] + HAVE), [m.Have(5)])

    def test_without_a_claim(self) -> None:
        """Between messages, in the middle of a small one, of a header, of one that is skipped."""
        unknown = b"\0\0\0\x09\x63--------"
        for frame in (HAVE, unknown, FRAME):
            for at in range(PIECE_HEADER_LENGTH):
                talk = Conversation()
                talk.hear(frame[:at])
                talk.connection.discard_claim()
                talk.hear(frame[at:], HAVE)
                expected = {HAVE: [m.Have(5)], unknown: [], FRAME: [Completed(3, 100, DATA)]}[frame]
                self.assertEqual(talk.heard, [*expected, m.Have(5)])

    def test_while_another_is_completed(self) -> None:
        """The last block of a piece revokes all claims on it: that of its own peer is over by then."""
        for cut in (len(FRAME), 40):
            talk = Conversation()
            talk.hear(CHOKE)
            talk.blocks.then = lambda event, talk=talk: talk.connection.discard_claim()
            talk.hear(FRAME[:cut], FRAME[cut:] + FRAME)
            self.assertIn(Completed(3, 100, DATA), talk.heard)

    def test_twice(self) -> None:
        talk = Conversation()
        talk.hear(FRAME[:30])
        talk.connection.discard_claim()
        talk.connection.discard_claim()
        self.assertEqual(talk.hear(FRAME[30:] + HAVE), [m.Have(5)])


class CloseTests(SynchronousTestCase):
    def test_releases_the_claim(self) -> None:
        for at in range(len(FRAME) + 1):
            talk = Conversation()
            talk.hear(FRAME[:at])
            before = talk.log.copy()
            talk.connection.close()
            talk.connection.close()
            middle = PIECE_HEADER_LENGTH <= at < len(FRAME)
            self.assertEqual(talk.log, [*before, *([Released(3, 100, 60)] if middle else [])])

    def test_a_revoked_claim_is_not_released(self) -> None:
        talk = Conversation()
        talk.hear(FRAME[:30])
        talk.connection.discard_claim()
        talk.connection.close()
        self.assertEqual(talk.log, [Claimed(3, 100, 60)])

    def test_a_discarded_block_is_released(self) -> None:
        talk = Conversation()
        talk.blocks.unwanted.add(3)
        talk.hear(FRAME[:30])
        talk.connection.close()
        self.assertEqual(talk.log, [Claimed(3, 100, 60), Released(3, 100, 60)])

    def test_nothing_is_heard_after_it(self) -> None:
        talk = Conversation()
        talk.hear(HAVE[:3])
        talk.connection.close()
        talk.hear(HAVE[3:], FRAME)
        talk.connection.held = False
        talk.hear(HAVE)
        self.assertEqual(talk.log, [])

    def test_by_the_receiver(self) -> None:
        """A message after which the peer is dropped is the last one, and the read counts as done with."""
        for stream in (HAVE + HAVE + FRAME, CHOKE + HAVE + FRAME):
            for chunks in ([stream], list(one_by_one(stream))):
                talk = Conversation()
                talk.receiver.then = lambda message, talk=talk: talk.connection.close()
                talk.hear(*chunks)
                self.assertEqual(len(talk.log), 1)

    def test_by_the_sink(self) -> None:
        for chunks in ([FRAME + HAVE], [FRAME[:20], FRAME[20:] + HAVE]):
            talk = Conversation()
            talk.hear(CHOKE)

            def close_when_complete(event: object, talk: Conversation = talk) -> None:
                if isinstance(event, Completed):
                    talk.connection.close()

            talk.blocks.then = close_when_complete
            self.assertEqual(talk.hear(*chunks), [m.Choke(), Completed(3, 100, DATA)])

    def test_a_violation_closes(self) -> None:
        talk = Conversation()
        with self.assertRaises(ProtocolViolation):
            talk.hear(b"\xff" * 20)
        self.assertEqual(talk.hear(HAVE), [])

    def test_a_violation_seen_by_the_receiver_closes(self) -> None:
        def refuse(message: m.Message) -> None:
            raise ProtocolViolation("no such piece")

        talk = Conversation()
        talk.receiver.then = refuse
        with self.assertRaises(ProtocolViolation):
            talk.hear(HAVE + HAVE)
        self.assertEqual(talk.hear(HAVE), [m.Have(5)])


class HeldTests(SynchronousTestCase):
    """Contract B: parsing stops at the boundary of messages, and the rest of the read waits."""

    def hold_at(self, talk: Conversation, wanted: int) -> None:
        """Have the receiver hold the connection at its message number ``wanted``."""

        def hold(message: m.Message) -> None:
            if len(talk.heard) == wanted:
                talk.connection.held = True

        talk.receiver.then = hold

    def test_stops_behind_the_message_and_goes_on(self) -> None:
        messages = [
            m.HaveAll(),
            m.Have(1),
            m.Request(1, 2, 3),
            m.Unchoke(),
            m.Extended(1, b"x"),
            m.KeepAlive(),
        ]
        stream = b"".join(map(encode, messages))
        at = 0
        for count, message in enumerate(messages, 1):
            at += len(encode(message))
            talk = Conversation()
            self.hold_at(talk, count)
            self.assertEqual(talk.connection.receive(stream), at)
            self.assertEqual(talk.heard, messages[:count])
            self.assertEqual(talk.connection.receive(stream, at), 0)
            talk.connection.held = False
            self.assertEqual(talk.connection.receive(stream, at), len(stream) - at)
            self.assertEqual(talk.heard, messages)

    def test_stops_before_a_block(self) -> None:
        stream = HAVE + HAVE + FRAME
        talk = Conversation()
        self.hold_at(talk, 2)
        self.assertEqual(talk.connection.receive(stream), 2 * len(HAVE))
        self.assertEqual(talk.log, [m.Have(5)] * 2)

    def test_stops_behind_a_block(self) -> None:
        for cut in (0, 5, 20):
            talk = Conversation()
            talk.hear(CHOKE, FRAME[:cut])

            def hold(event: object, talk: Conversation = talk) -> None:
                talk.connection.held = isinstance(event, Completed)

            talk.blocks.then = hold
            self.assertEqual(talk.connection.receive(FRAME[cut:] + HAVE), len(FRAME) - cut)
            talk.connection.held = False
            self.assertEqual(talk.hear(HAVE), [m.Choke(), Completed(3, 100, DATA), m.Have(5)])

    def test_the_rest_of_a_block_is_taken_in(self) -> None:
        """Its place is reserved; and the next message is not touched."""
        talk = Conversation()
        talk.hear(FRAME[:20])
        talk.connection.held = True
        self.assertEqual(talk.connection.receive(FRAME[20:] + HAVE), len(FRAME) - 20)
        self.assertEqual(talk.heard, [Completed(3, 100, DATA)])

    def test_the_rest_of_a_small_message_waits(self) -> None:
        for at in range(1, len(HAVE)):
            talk = Conversation()
            talk.hear(HAVE[:at])
            talk.connection.held = True
            self.assertEqual(talk.connection.receive(HAVE[at:]), 0)
            self.assertEqual(talk.log, [])
            talk.connection.held = False
            self.assertEqual(talk.hear(HAVE[at:]), [m.Have(5)])

    def test_nothing_is_lost_whoever_holds_where(self) -> None:
        """Held again and again, with any size of reads, as PeerProtocol would feed it."""
        messages = [m.Have(number) for number in range(20)]
        stream = b"".join(encode(message) for message in messages)
        for size in (1, 5, 9, 13, 40, 1000):
            talk = Conversation()
            talk.receiver.then = lambda message, talk=talk: setattr(talk.connection, "held", True)
            for start in range(0, len(stream), size):
                read, at = stream[start : start + size], 0
                while at < len(read):
                    talk.connection.held = False
                    at += talk.connection.receive(read, at)
            self.assertEqual(talk.heard, messages)
