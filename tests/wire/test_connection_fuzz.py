"""What strangers send: any bytes, in any cuts; and another implementation's opinion about the framing."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.testing import StringTransport
from twisted.protocols.basic import Int32StringReceiver
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import ProtocolViolation
from irontide.wire import messages as m
from irontide.wire.codec import encode
from tests.wire.fakes import PIECES, Claimed, Completed, Conversation, Released, block_frame

words = st.integers(0, 2**32 - 1)
payloads = st.binary(max_size=300)
first_messages = st.sampled_from([m.HaveAll(), m.HaveNone()]) | st.binary(min_size=3, max_size=3).map(
    m.BitfieldMessage
)
passing_messages = st.one_of(
    st.just(m.KeepAlive()),
    st.builds(m.Port, st.integers(0, 65535)),
    st.builds(m.Extended, st.integers(0, 255), payloads),
)
later_messages = st.one_of(
    st.sampled_from([m.Choke(), m.Unchoke(), m.Interested(), m.NotInterested()]),
    st.builds(m.Have, words),
    st.builds(m.Request, words, words, words),
    st.builds(m.Cancel, words, words, words),
    st.builds(m.RejectRequest, words, words, words),
    st.builds(m.SuggestPiece, words),
    st.builds(m.AllowedFast, words),
)
blocks = st.builds(
    Completed, st.integers(0, PIECES - 1), st.integers(0, 1000), st.binary(min_size=1, max_size=300)
)
unknown_frames = st.builds(
    lambda number, payload: (1 + len(payload)).to_bytes(4, "big") + bytes([number]) + payload,
    st.sampled_from([10, 11, 12, 18, 19, 21, 22, 23, 100, 255]),
    payloads,
)
talks = st.tuples(
    st.lists(passing_messages | unknown_frames, max_size=3),
    first_messages,
    st.lists(later_messages | passing_messages | blocks | unknown_frames, max_size=20),
).map(lambda parts: [*parts[0], parts[1], *parts[2]])
"""What a well-behaved peer says: messages, blocks, and frames of which we know nothing."""

cuts = st.lists(st.integers(1, 64) | st.integers(1, 2000), min_size=1, max_size=30)
"""Sizes of reads; used round and round."""


def frame_of(said: object) -> bytes:
    """The bytes of what is said."""
    if isinstance(said, bytes):
        return said
    if isinstance(said, Completed):
        return block_frame(said.piece, said.begin, said.data)
    assert isinstance(said, m.Message)
    return encode(said)


def cut(stream: bytes, sizes: Sequence[int]) -> list[bytes]:
    """``stream`` in reads of these sizes."""
    chunks, at, turn = [], 0, 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        chunks.append(stream[at : at + size])
        at, turn = at + size, turn + 1
    return chunks


class Oracle(Int32StringReceiver):
    """Twisted's own receiver of length-prefixed strings."""

    MAX_LENGTH = 1 << 20

    def __init__(self) -> None:
        self.strings: list[bytes] = []

    def stringReceived(self, string: bytes) -> None:
        self.strings.append(string)


def meaning(string: bytes) -> object | None:
    """What a string of the oracle should be heard as."""
    if not string:
        return m.KeepAlive()
    if string[0] == m.PIECE_ID:
        return Completed(int.from_bytes(string[1:5], "big"), int.from_bytes(string[5:9], "big"), string[9:])
    kind = m.MESSAGES.get(string[0])
    return None if kind is None else kind.from_payload(string[1:])


class FuzzTests(SynchronousTestCase):
    @given(talks, cuts)
    def test_what_is_said_is_heard(self, said: list[object], sizes: list[int]) -> None:
        stream = b"".join(map(frame_of, said))
        self.assertEqual(
            Conversation().hear(*cut(stream, sizes)), [each for each in said if not isinstance(each, bytes)]
        )

    @given(talks, cuts)
    def test_framing_agrees_with_twisted(self, said: list[object], sizes: list[int]) -> None:
        oracle = Oracle()
        oracle.makeConnection(StringTransport())
        talk = Conversation()
        for chunk in cut(b"".join(map(frame_of, said)), sizes):
            oracle.dataReceived(chunk)
            talk.hear(chunk)
            heard = [meaning(string) for string in oracle.strings]
            self.assertEqual(talk.heard, [each for each in heard if each is not None])

    @given(st.binary(max_size=600), cuts, st.booleans(), st.booleans(), st.sampled_from([None, 0, 1, PIECES]))
    @example(b"\xff\xff\xff\xff", [1], True, True, PIECES)
    @example(b"\0\0\0\x09\x07\0\0\0\0\0\0\0\0" + bytes(20), [13], True, True, PIECES)
    def test_random_bytes(
        self, stream: bytes, sizes: list[int], fast: bool, extended: bool, pieces: int | None
    ) -> None:
        self.listen(cut(stream, sizes), Conversation(fast=fast, extended=extended, pieces=pieces))

    @given(
        st.lists(
            st.one_of(
                talks.map(lambda said: b"".join(map(frame_of, said))),
                st.builds(
                    lambda length, number, rest: length.to_bytes(4, "big") + bytes([number]) + rest,
                    st.integers(0, 20) | st.integers(0, 2**32 - 1),
                    st.integers(0, 21) | st.integers(0, 255),
                    st.binary(max_size=30),
                ),
            ),
            max_size=4,
        ),
        cuts,
        st.sampled_from([None, PIECES]),
    )
    def test_nearly_right_bytes(self, parts: list[bytes], sizes: list[int], pieces: int | None) -> None:
        self.listen(cut(b"".join(parts), sizes), Conversation(pieces=pieces))

    def listen(self, chunks: Sequence[bytes], talk: Conversation) -> None:
        """A violation is the only thing that may happen, and every claim ends exactly once."""
        talk.blocks.place = lambda piece, begin, length: memoryview(bytearray(length))  # type: ignore[method-assign]
        with contextlib.suppress(ProtocolViolation):
            talk.hear(*chunks)
        talk.connection.close()
        claimed = [event for event in talk.log if isinstance(event, Claimed)]
        ended = [event for event in talk.log if isinstance(event, Completed | Released)]
        self.assertEqual(
            [(each.piece, each.begin) for each in claimed], [(each.piece, each.begin) for each in ended]
        )

    @given(talks, cuts, st.sets(st.integers(0, 40)))
    def test_holding_loses_nothing(self, said: list[object], sizes: list[int], holds: set[int]) -> None:
        """Whoever holds the connection at whatever message: fed again, all is heard in order."""
        talk = Conversation()

        def hold(message: m.Message) -> None:
            talk.connection.held = len(talk.heard) in holds

        talk.receiver.then = hold
        for chunk in cut(b"".join(map(frame_of, said)), sizes):
            at = 0
            while at < len(chunk):
                talk.connection.held = False
                at += talk.connection.receive(chunk, at)
        self.assertEqual(talk.heard, [each for each in said if not isinstance(each, bytes)])
