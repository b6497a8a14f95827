"""Messages to bytes.  (The other direction, which has to care about what may be said, is PeerConnection.)"""

from __future__ import annotations

from struct import Struct

from irontide.wire.messages import PIECE_ID, Message

_PIECE = Struct(">IBII")
PIECE_HEADER_LENGTH = _PIECE.size
"""Length prefix, id, piece and begin: what stands before the bytes of a block."""


def encode(message: Message) -> bytes:
    """Return ``message`` as it goes over the wire."""
    return message.to_bytes()


def piece_header(piece: int, begin: int, length: int) -> bytes:
    """Return the 13 bytes that go before a block of ``length`` bytes."""
    return _PIECE.pack(9 + length, PIECE_ID, piece, begin)
