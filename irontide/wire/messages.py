"""
The messages of the peer wire protocol: a class for each, in the order of their ids (BEP 3, 5, 6, 10).

``piece`` is not among them: its 16 KiB never become an object of their own (see PeerConnection).  A message
is a value; whether it fits the torrent, and whether it may be said now, is judged elsewhere.
"""

from __future__ import annotations

from struct import Struct
from typing import ClassVar, Self

from attrs import frozen

_EMPTY = Struct(">IB")
_ONE = Struct(">IBI")
_THREE = Struct(">IBIII")
_PORT = Struct(">IBH")
_PREFIX_LENGTH = 4

PIECE_ID = 7


@frozen
class Message:
    """
    What one peer says to the other.

    :cvar id: the byte after the length prefix.
    :cvar frame: the whole message, if its size is fixed: length prefix, id, fields.
    """

    id: ClassVar[int]
    frame: ClassVar[Struct | None] = None

    @classmethod
    def payload_length(cls) -> int | None:
        """Return how many bytes follow the id; None if that differs."""
        return None if cls.frame is None else cls.frame.size - _EMPTY.size

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """Return the message that has these bytes behind its id; their number has been checked."""
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """Return it as it goes over the wire."""
        raise NotImplementedError


@frozen
class KeepAlive(Message):
    """Nothing, said so that the connection is not taken for dead.  It has no id."""

    def to_bytes(self) -> bytes:
        """Four bytes that say that nothing follows."""
        return bytes(_PREFIX_LENGTH)


@frozen
class _Bare(Message):
    """A message that is its id."""

    frame: ClassVar[Struct] = _EMPTY

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        return cls()

    def to_bytes(self) -> bytes:
        return _EMPTY.pack(1, self.id)


@frozen
class _OfPiece(Message):
    """A message about a piece."""

    frame: ClassVar[Struct] = _ONE
    piece: int

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        return cls(int.from_bytes(payload, "big"))

    def to_bytes(self) -> bytes:
        return _ONE.pack(5, self.id, self.piece)


@frozen
class _OfBlock(Message):
    """A message about a block."""

    frame: ClassVar[Struct] = _THREE
    _fields: ClassVar[Struct] = Struct(">III")
    piece: int
    begin: int
    length: int

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        return cls(*cls._fields.unpack(payload))

    def to_bytes(self) -> bytes:
        return _THREE.pack(13, self.id, self.piece, self.begin, self.length)


@frozen
class _Long(Message):
    """A message of any length."""

    def _framed(self, payload: bytes) -> bytes:
        return _EMPTY.pack(1 + len(payload), self.id) + payload


@frozen
class Choke(_Bare):
    """Requests will not be answered."""

    id: ClassVar[int] = 0


@frozen
class Unchoke(_Bare):
    """Requests will be answered."""

    id: ClassVar[int] = 1


@frozen
class Interested(_Bare):
    """You have what I want."""

    id: ClassVar[int] = 2


@frozen
class NotInterested(_Bare):
    """You have nothing that I want."""

    id: ClassVar[int] = 3


@frozen
class Have(_OfPiece):
    """I have one piece more."""

    id: ClassVar[int] = 4


@frozen
class BitfieldMessage(_Long):
    """
    All that I have.

    :ivar data: a bit for each piece, as it came: ``Layout.bitfield`` judges the bits.
    """

    id: ClassVar[int] = 5
    data: bytes

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """Take the payload as it is."""
        return cls(payload)

    def to_bytes(self) -> bytes:
        """Return it as it goes over the wire."""
        return self._framed(self.data)


@frozen
class Request(_OfBlock):
    """Send me this block."""

    id: ClassVar[int] = 6


@frozen
class Cancel(_OfBlock):
    """I need this block no more."""

    id: ClassVar[int] = 8


@frozen
class Port(Message):
    """The UDP port of my DHT node (BEP 5)."""

    id: ClassVar[int] = 9
    frame: ClassVar[Struct] = _PORT
    port: int

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """Return the message with these two bytes behind its id."""
        return cls(int.from_bytes(payload, "big"))

    def to_bytes(self) -> bytes:
        """Return it as it goes over the wire."""
        return _PORT.pack(3, self.id, self.port)


@frozen
class SuggestPiece(_OfPiece):
    """This piece would be cheap for me to send (BEP 6)."""

    id: ClassVar[int] = 13


@frozen
class HaveAll(_Bare):
    """I have everything (BEP 6)."""

    id: ClassVar[int] = 14


@frozen
class HaveNone(_Bare):
    """I have nothing (BEP 6)."""

    id: ClassVar[int] = 15


@frozen
class RejectRequest(_OfBlock):
    """This request will not be answered (BEP 6)."""

    id: ClassVar[int] = 16


@frozen
class AllowedFast(_OfPiece):
    """Requests for this piece are answered although you are choked (BEP 6)."""

    id: ClassVar[int] = 17


@frozen
class Extended(_Long):
    """
    A message of an extension (BEP 10).

    :ivar number: 0 for the handshake, else what the receiver's handshake assigned: 0 to 255.
    """

    id: ClassVar[int] = 20
    number: int
    payload: bytes

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """The first byte is the number, and there is one."""
        return cls(payload[0], payload[1:])

    def to_bytes(self) -> bytes:
        """Return it as it goes over the wire."""
        return self._framed(bytes((self.number,)) + self.payload)


MESSAGES: dict[int, type[Message]] = {
    message.id: message
    for message in (
        Choke,
        Unchoke,
        Interested,
        NotInterested,
        Have,
        BitfieldMessage,
        Request,
        Cancel,
        Port,
        SuggestPiece,
        HaveAll,
        HaveNone,
        RejectRequest,
        AllowedFast,
        Extended,
    )
}
"""By id.  When each may be said is a table in ``connection``."""
