"""The two that a PeerConnection talks to, and a way to talk to a connection and to see what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import frozen
from zope.interface import implementer

from irontide.errors import ProtocolViolation
from irontide.interfaces import IBlockSink, IMessageReceiver
from irontide.wire.codec import piece_header
from irontide.wire.connection import PeerConnection
from irontide.wire.messages import Message

PIECES = 20
PIECE_LENGTH = 1 << 18
UNTOUCHED = 0xEE


@frozen
class Claimed:
    """The connection asked where a block goes."""

    piece: int
    begin: int
    length: int


@frozen
class Completed:
    """A block is there; ``data`` is what stands at its place."""

    piece: int
    begin: int
    data: bytes


@frozen
class Released:
    """The connection ended in the middle of a block."""

    piece: int
    begin: int
    length: int


@implementer(IMessageReceiver)
class FakeReceiver:
    """Logs the messages; ``then`` is called with each."""

    def __init__(self, log: list[object]) -> None:
        self.log = log
        self.then: Callable[[Message], None] = lambda message: None

    def message_received(self, message: Message) -> None:
        self.log.append(message)
        self.then(message)


@implementer(IBlockSink)
class FakeSink:
    """
    Memory for any block of any piece.

    :ivar unwanted: pieces whose blocks are discarded.
    :ivar unasked: pieces whose blocks were never requested.
    """

    def __init__(self, log: list[object]) -> None:
        self.log = log
        self.memory: dict[int, bytearray] = {}
        self.unwanted: set[int] = set()
        self.unasked: set[int] = set()
        self.then: Callable[[object], None] = lambda event: None

    def _note(self, event: object) -> None:
        self.log.append(event)
        self.then(event)

    def place(self, piece: int, begin: int, length: int) -> memoryview:
        if piece not in self.memory:
            self.memory[piece] = bytearray([UNTOUCHED]) * PIECE_LENGTH
        return memoryview(self.memory[piece])[begin : begin + length]

    def claim(self, piece: int, begin: int, length: int) -> memoryview | None:
        if piece in self.unasked:
            raise ProtocolViolation("never requested")
        self._note(Claimed(piece, begin, length))
        return None if piece in self.unwanted else self.place(piece, begin, length)

    def complete(self, piece: int, begin: int, length: int) -> None:
        self._note(Completed(piece, begin, bytes(self.place(piece, begin, length))))

    def take(self, piece: int, begin: int, data: memoryview) -> None:
        target = self.claim(piece, begin, len(data))
        if target is not None:
            target[:] = data
        self.complete(piece, begin, len(data))

    def release(self, piece: int, begin: int, length: int) -> None:
        self._note(Released(piece, begin, length))


class Conversation:
    """A connection and all that came of it, in order."""

    def __init__(self, *, pieces: int | None = PIECES, fast: bool = True, extended: bool = True) -> None:
        self.log: list[object] = []
        self.receiver = FakeReceiver(self.log)
        self.blocks = FakeSink(self.log)
        self.connection = PeerConnection(
            self.receiver, self.blocks, pieces=pieces, fast=fast, extended=extended
        )

    def hear(self, *chunks: bytes) -> list[object]:
        """Feed the chunks; return what was heard so far, claims left out."""
        for chunk in chunks:
            taken = self.connection.receive(chunk)
            if taken != len(chunk):
                raise AssertionError(f"{taken} of {len(chunk)} bytes were taken")
        return self.heard

    @property
    def heard(self) -> list[object]:
        """The log without claims."""
        return [event for event in self.log if not isinstance(event, Claimed)]


def one_by_one(data: bytes) -> Iterable[bytes]:
    """The bytes of ``data``, each for itself."""
    return (data[at : at + 1] for at in range(len(data)))


def block_frame(piece: int, begin: int, data: bytes) -> bytes:
    """A piece message."""
    return piece_header(piece, begin, len(data)) + data
