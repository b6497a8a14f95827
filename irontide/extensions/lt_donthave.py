"""BEP 54: a peer no longer has a piece."""

from __future__ import annotations

import struct

from irontide.errors import ProtocolViolation

NAME = "lt_donthave"

_PIECE = struct.Struct(">I")


def parse(payload: bytes) -> int:
    """Return the piece that the peer lost; whether there is such a piece is the caller's to check."""
    if len(payload) != _PIECE.size:
        raise ProtocolViolation(f"lt_donthave of {len(payload)} bytes")
    piece: int = _PIECE.unpack(payload)[0]
    return piece


def build(piece: int) -> bytes:
    """Return the payload that says that we lost ``piece``."""
    return _PIECE.pack(piece)
