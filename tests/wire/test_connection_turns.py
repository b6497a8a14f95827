"""Who may say what, and when: the table of rules, for both directions."""

from __future__ import annotations

from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import ProtocolViolation
from irontide.wire import messages as m
from irontide.wire.codec import encode
from irontide.wire.connection import RULES, Needs, SpokeOutOfTurn, When
from tests.wire.fakes import Conversation, block_frame

BITFIELD = m.BitfieldMessage(b"\xf0\x0f\x10")
HANDSHAKE = m.Extended(0, b"de")

FIRST = [BITFIELD, m.HaveAll(), m.HaveNone()]
ANY_TIME = [
    m.Choke(),
    m.Unchoke(),
    m.Interested(),
    m.NotInterested(),
    m.Have(1),
    m.Request(1, 2, 3),
    m.Cancel(1, 2, 3),
]
FAST = [m.HaveAll(), m.HaveNone(), m.SuggestPiece(1), m.RejectRequest(1, 2, 3), m.AllowedFast(1)]
IN_PASSING = [m.KeepAlive(), m.Port(6881), HANDSHAKE]


class TheirTurnTests(SynchronousTestCase):
    def hear(self, *messages: m.Message, **named: bool) -> list[object]:
        return Conversation(**named).hear(*map(encode, messages))

    def assert_refused(self, *messages: m.Message, **named: bool) -> None:
        """The last of them is a violation, those before it are not; in one read or in many."""
        talk = Conversation(**named)
        talk.hear(*map(encode, messages[:-1]))
        with self.assertRaises(ProtocolViolation):
            talk.hear(encode(messages[-1]))
        self.assertEqual(talk.heard, list(messages[:-1]))
        with self.assertRaises(ProtocolViolation):
            Conversation(**named).hear(b"".join(map(encode, messages)) + bytes(40))

    def test_table_is_complete(self) -> None:
        self.assertEqual(set(RULES), {*m.MESSAGES, m.PIECE_ID})

    def test_anything_may_come_first(self) -> None:
        for message in (*FIRST, *ANY_TIME, *FAST, *IN_PASSING):
            self.assertEqual(self.hear(message), [message])

    def test_have_none_is_first_or_never(self) -> None:
        for before in (*FIRST, *ANY_TIME, m.AllowedFast(1), m.SuggestPiece(1), m.RejectRequest(1, 2, 3)):
            self.assert_refused(before, m.HaveNone())

    def test_have_none_behind_a_block(self) -> None:
        for cut in (17, 5):
            talk = Conversation()
            frame = block_frame(1, 0, b"1234")
            talk.hear(frame[:cut], frame[cut:])
            with self.assertRaises(ProtocolViolation):
                talk.hear(encode(m.HaveNone()))

    def test_many_new_pieces_may_be_told_at_once(self) -> None:
        """aria2 sends another bitfield, or have_all, where others send many haves."""
        for before, late in product((*FIRST, *ANY_TIME), (BITFIELD, m.HaveAll())):
            self.assertEqual(self.hear(before, late), [before, late])

    def test_greetings_differ_between_clients(self) -> None:
        """The extension handshake, the DHT's port and keep-alives may precede the bitfield."""
        for first in FIRST:
            self.assertEqual(self.hear(*IN_PASSING, first, *IN_PASSING), [*IN_PASSING, first, *IN_PASSING])

    def test_unknown_messages_may_precede_the_bitfield(self) -> None:
        self.assertEqual(Conversation().hear(b"\0\0\0\x03\x63ab" + encode(BITFIELD)), [BITFIELD])

    def test_after_the_greeting(self) -> None:
        """As libtorrent does: bitfield, extension handshake, allowed fast, port, then the rest."""
        talk = [BITFIELD, HANDSHAKE, m.AllowedFast(1), m.Port(1), m.Unchoke(), m.Extended(3, b"x"), m.Have(1)]
        self.assertEqual(self.hear(*talk), talk)

    def test_fast_only_if_both_have_it(self) -> None:
        for message in FAST:
            self.assert_refused(message, fast=False)
            self.assert_refused(HANDSHAKE, message, fast=False)

    def test_extended_only_if_both_have_it(self) -> None:
        self.assert_refused(HANDSHAKE, extended=False)
        self.assert_refused(m.Choke(), m.Extended(1, b""), extended=False)

    def test_without_any_extension(self) -> None:
        talk = [BITFIELD, *ANY_TIME, m.Port(1)]
        self.assertEqual(self.hear(*talk, fast=False, extended=False), talk)


class OurTurnTests(SynchronousTestCase):
    """The same rules, for us: breaking them is a bug, not a violation."""

    def test_anything_once(self) -> None:
        for message in (*FIRST, *ANY_TIME, *FAST, *IN_PASSING):
            Conversation().connection.about_to_send(message)

    def test_late(self) -> None:
        for before, late in product((*FIRST, *ANY_TIME), FIRST):
            connection = Conversation().connection
            connection.about_to_send(before)
            with self.assertRaises(SpokeOutOfTurn):
                connection.about_to_send(late)

    def test_in_passing(self) -> None:
        connection = Conversation().connection
        for message in (*IN_PASSING, BITFIELD):
            connection.about_to_send(message)

    def test_not_negotiated(self) -> None:
        for message in FAST:
            with self.assertRaises(SpokeOutOfTurn):
                Conversation(fast=False).connection.about_to_send(message)
        with self.assertRaises(SpokeOutOfTurn):
            Conversation(extended=False).connection.about_to_send(HANDSHAKE)

    def test_sides_are_apart(self) -> None:
        talk = Conversation()
        talk.connection.about_to_send(m.Choke())
        self.assertEqual(talk.hear(encode(BITFIELD)), [BITFIELD])
        talk = Conversation()
        talk.hear(encode(m.Choke()))
        talk.connection.about_to_send(BITFIELD)

    def test_is_no_violation(self) -> None:
        self.assertFalse(issubclass(SpokeOutOfTurn, ProtocolViolation))

    def test_needs_and_when_are_used(self) -> None:
        self.assertEqual({rule.needs for rule in RULES.values()}, set(Needs))
        self.assertEqual({rule.when for rule in RULES.values()}, set(When))
