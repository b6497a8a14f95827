"""
One connection to a peer behind its handshake, sans-I/O: bytes in; messages and blocks out.

This is the hot path of a download, hence its shape.  Messages are parsed where they lie in the received
bytes, and those of a block are copied once, to where ``IBlockSink.claim`` says: nothing is ever
concatenated but a small message that a read has cut.  What is kept from one read to the next is one of

- the rest of a block (or of a message nobody knows): where it goes and how many bytes are still to come;
- the beginning of a small message, at most as long as that message may be.

A length is judged as soon as its four bytes are here, before anything is kept for it; then once more with
the id, the fifth byte, which says what is allowed and when: that is the table RULES.  It goes for both
directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from struct import Struct

from attrs import frozen

from irontide.errors import ProtocolViolation
from irontide.interfaces import IBlockSink, IMessageReceiver
from irontide.metainfo.layout import MAX_REQUEST
from irontide.wire import messages as m
from irontide.wire.codec import PIECE_HEADER_LENGTH
from irontide.wire.messages import MESSAGES, PIECE_ID, Message

MAX_MESSAGE = 256 * 1024
"""The longest message, id included; but for a bitfield,"""
MAX_RAW_BITFIELD = 1024 * 1024
"""which may be as long as this while nobody knows how long it ought to be."""
MAX_PIECE_MESSAGE = 9 + MAX_REQUEST
"""Id, piece, begin and the longest block that can be asked for."""


class When(Enum):
    """The place of a message in what a side says."""

    FIRST = auto()
    """Before all else, but for what is IN_PASSING."""
    OPENING = auto()
    """
    We say it before all else.  A peer may say it later as well: aria2 tells of many new pieces at once by
    another bitfield, or by have_all.  Whoever knows the pieces judges whether that is any news.
    """
    LATER = auto()
    """Any time; from then on nothing is first any more."""
    IN_PASSING = auto()
    """Any time, even before what has to be first: clients differ in the order of their greetings."""


class Needs(Enum):
    """What both sides must have said in their preambles."""

    NOTHING = "nothing"
    FAST = "the fast extension"
    EXTENSIONS = "the extension protocol"


@frozen
class Rule:
    """When a message may be said."""

    when: When = When.LATER
    needs: Needs = Needs.NOTHING


RULES: Mapping[int, Rule] = {
    m.Choke.id: Rule(),
    m.Unchoke.id: Rule(),
    m.Interested.id: Rule(),
    m.NotInterested.id: Rule(),
    m.Have.id: Rule(),
    m.BitfieldMessage.id: Rule(When.OPENING),
    m.Request.id: Rule(),
    PIECE_ID: Rule(),
    m.Cancel.id: Rule(),
    m.Port.id: Rule(When.IN_PASSING),
    m.SuggestPiece.id: Rule(needs=Needs.FAST),
    m.HaveAll.id: Rule(When.OPENING, Needs.FAST),
    m.HaveNone.id: Rule(When.FIRST, Needs.FAST),
    m.RejectRequest.id: Rule(needs=Needs.FAST),
    m.AllowedFast.id: Rule(needs=Needs.FAST),
    m.Extended.id: Rule(When.IN_PASSING, Needs.EXTENSIONS),
}
"""
Keep-alives have no id and are IN_PASSING.  Ids that are not here are skipped, at any time.
"""


class SpokeOutOfTurn(RuntimeError):
    """We were about to say what the protocol does not allow us to say now: a bug of ours."""


_PREFIX = Struct(">I")
_HEADER = Struct(">IBII")  # of a piece message; shorter ones only use the front of it
_BLOCK = Struct(">III")
_ID_END = _PREFIX.size + 1
_BLOCK_OVERHEAD = 9  # of what the length prefix counts
_KEEP_ALIVE = m.KeepAlive()


class PeerConnection:
    """
    Reads what one peer says.

    Calls come in the order of the bytes.  The receiver and the sink may call ``discard_claim`` and
    ``close``, and set ``held``, from inside their methods, but must not call ``receive``; and a ``claim``
    that wants the connection to end raises ProtocolViolation, it does not call ``close``.

    :ivar held: set it to stop at the next boundary of messages; whoever sets it to False again feeds the
        rest once more.  The rest of a block that has begun is taken in nevertheless: its place is reserved.
    """

    __slots__ = (
        "_bitfield_length", "_block", "_blocks", "_can", "_closed", "_is_first", "_left", "_longest", "_need",
        "_partial", "_receiver", "_target", "_we_are_first", "held",
    )  # fmt: skip

    def __init__(
        self,
        receiver: IMessageReceiver,
        blocks: IBlockSink,
        *,
        pieces: int | None,
        fast: bool,
        extended: bool,
    ) -> None:
        """
        :param pieces: how many pieces there are; None while the Info is not known.
        :param fast: both sides have the fast extension (BEP 6).
        :param extended: both sides have the extension protocol (BEP 10).
        """
        self.held = False
        self._receiver = receiver
        self._blocks = blocks
        self._bitfield_length: int | None = None
        self._longest = max(MAX_MESSAGE, MAX_RAW_BITFIELD)
        if pieces is not None:
            self.info_known(pieces)
        self._can = {Needs.NOTHING}
        if fast:
            self._can.add(Needs.FAST)
        if extended:
            self._can.add(Needs.EXTENSIONS)
        self._closed = False
        self._is_first = self._we_are_first = True
        # The beginning of a small message, and how many bytes of it are needed to go on.
        self._partial = bytearray()
        self._need = 0
        # The rest of a long one: how many bytes; of which block, and where they go (None: nowhere).
        self._left = 0
        self._block: tuple[int, int, int] | None = None
        self._target: memoryview | None = None

    # --- told from outside -----------------------------------------------------------------------------

    def info_known(self, pieces: int) -> None:
        """From now on a bitfield has the size that ``pieces`` pieces need."""
        self._bitfield_length = 1 + (pieces + 7) // 8
        self._longest = max(MAX_MESSAGE, self._bitfield_length)

    def discard_claim(self) -> None:
        """
        The claim on the block that is being received is revoked: the rest of it is thrown away.

        Neither ``complete`` nor ``release`` is called for it.  Without such a block nothing happens.
        """
        self._block = self._target = None

    def close(self) -> None:
        """The connection has ended: the claim, if there is one, too.  Further bytes are ignored."""
        self._closed = self.held = True
        self._partial = bytearray()
        self._left = 0
        block, self._block, self._target = self._block, None, None
        if block is not None:
            self._blocks.release(*block)

    def about_to_send(self, message: Message) -> None:
        """
        Note that we say ``message`` now.

        :raises SpokeOutOfTurn: we must not.
        """
        if isinstance(message, m.KeepAlive):
            return
        rule = RULES[message.id]
        fault = self._fault(rule, self._we_are_first)
        if fault is None and rule.when is When.OPENING and not self._we_are_first:
            fault = "is not our first message"
        if fault is not None:
            raise SpokeOutOfTurn(f"{type(message).__name__} {fault}")
        if rule.when is not When.IN_PASSING:
            self._we_are_first = False

    def _fault(self, rule: Rule, first: bool) -> str | None:
        """Say what is wrong with a message now, None if nothing is."""
        if rule.needs not in self._can:
            return f"without {rule.needs.value}"
        if rule.when is When.FIRST and not first:
            return "is not the first message"
        return None

    # --- receiving -------------------------------------------------------------------------------------

    def receive(self, data: bytes, start: int = 0) -> int:
        """
        Parse ``data`` from ``start`` on; return how many bytes of it are done with: all, unless ``held``.

        :raises ProtocolViolation: here, or by the receiver or the sink; the connection is closed then.
        """
        if self._closed:
            return len(data) - start
        try:
            at = self._parse(data, start)
        except ProtocolViolation:
            self.close()
            raise
        return (len(data) if self._closed else at) - start

    def _parse(self, data: bytes, at: int) -> int:
        end = len(data)
        view = memoryview(data)
        while at < end:
            if self._left:
                at = self._take_rest(view, at)
            elif self.held:
                break
            elif self._partial:
                at = self._take_more(view, at)
            elif self._is_first or end - at < PIECE_HEADER_LENGTH:
                at = self._take_message(data, at)
            else:
                at = self._take_whole_messages(data, view, at)
        return at

    def _take_whole_messages(self, data: bytes, view: memoryview, at: int) -> int:
        """The hot loop: whole blocks, requests and haves; returns where there is something else."""
        end = len(data)
        last = end - PIECE_HEADER_LENGTH
        unpack, take = _HEADER.unpack_from, self._blocks.take
        message_received = self._receiver.message_received
        while at <= last and not self.held:
            length, number, piece, begin = unpack(data, at)
            following = at + 4 + length
            if number == PIECE_ID and 9 < length <= MAX_PIECE_MESSAGE:
                if following > end:
                    length -= 9
                    self._begin_block(piece, begin, length, self._blocks.claim(piece, begin, length))
                    return at + 13
                take(piece, begin, view[at + 13 : following])
            elif number == 6 and length == 13 and following <= end:
                message_received(m.Request(*_BLOCK.unpack_from(data, at + 5)))
            elif number == 4 and length == 5:
                message_received(m.Have(piece))
            else:
                return self._take_message(data, at)
            at = following
        return at

    def _take_rest(self, view: memoryview, at: int) -> int:
        """More of the block, or of the unknown message, that is being received."""
        left = self._left
        part = min(left, len(view) - at)
        target = self._target
        if target is not None:
            target[:part] = view[at : at + part]
            self._target = target[part:]
        self._left = left - part
        if part == left and self._block is not None:
            block, self._block, self._target = self._block, None, None
            self._blocks.complete(*block)
        return at + part

    def _take_more(self, view: memoryview, at: int) -> int:
        """More of the small message whose beginning is kept."""
        part = min(self._need - len(self._partial), len(view) - at)
        self._partial += view[at : at + part]
        if len(self._partial) == self._need:
            message, self._partial = bytes(self._partial), bytearray()
            self._take_message(message, 0)
        return at + part

    def _take_message(self, data: bytes, at: int) -> int:
        """
        Take any message: as much of it as is here, with everything judged that can be judged by that.

        Returns behind it.  What is too short is kept, with the number of bytes that lead on.
        """
        here = len(data) - at
        if here < _PREFIX.size:
            return self._keep(data, at, _PREFIX.size)
        length: int = _PREFIX.unpack_from(data, at)[0]
        if not length:
            self._receiver.message_received(_KEEP_ALIVE)
            return at + _PREFIX.size
        if length > self._longest:
            raise ProtocolViolation(f"a message of {length} bytes")
        if here < _ID_END:
            return self._keep(data, at, _ID_END)
        number = data[at + _PREFIX.size]
        self._judge(number, length)
        following = at + _PREFIX.size + length
        if number == PIECE_ID:
            if here < PIECE_HEADER_LENGTH:
                return self._keep(data, at, PIECE_HEADER_LENGTH)
            self._is_first = False
            _, _, piece, begin = _HEADER.unpack_from(data, at)
            length -= _BLOCK_OVERHEAD
            self._begin_block(piece, begin, length, self._blocks.claim(piece, begin, length))
            return at + PIECE_HEADER_LENGTH
        if number not in MESSAGES:
            self._left = length - 1
            return at + _ID_END
        if following > len(data):
            return self._keep(data, at, following - at)
        if RULES[number].when is not When.IN_PASSING:
            self._is_first = False
        self._receiver.message_received(MESSAGES[number].from_payload(data[at + _ID_END : following]))
        return following

    def _keep(self, data: bytes, at: int, need: int) -> int:
        self._partial = bytearray(memoryview(data)[at:])
        self._need = need
        return len(data)

    def _begin_block(self, piece: int, begin: int, length: int, target: memoryview | None) -> None:
        self._target = target
        self._block = (piece, begin, length)
        self._left = length

    # --- judging ---------------------------------------------------------------------------------------

    def _judge(self, number: int, length: int) -> None:
        """Whether a message of this id may be as long as this, and be said now."""
        if number == PIECE_ID:
            if not _BLOCK_OVERHEAD < length <= MAX_PIECE_MESSAGE:
                raise ProtocolViolation(f"a piece message of {length} bytes")
            return
        kind = MESSAGES.get(number)
        if kind is None:
            if length > MAX_MESSAGE:
                raise ProtocolViolation(f"message {number} of {length} bytes")
            return
        if not self._fits(kind, length):
            raise ProtocolViolation(f"{kind.__name__} of {length} bytes")
        fault = self._fault(RULES[number], self._is_first)
        if fault is not None:
            raise ProtocolViolation(f"{kind.__name__} {fault}")

    def _fits(self, kind: type[Message], length: int) -> bool:
        payload = kind.payload_length()
        if payload is not None:
            return length == 1 + payload
        if kind is m.BitfieldMessage:
            expected = self._bitfield_length
            return length <= MAX_RAW_BITFIELD if expected is None else length == expected
        return 1 < length <= MAX_MESSAGE
