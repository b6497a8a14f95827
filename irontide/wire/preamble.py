"""
The first 48 bytes of a connection: they say which torrent it is for, and what the speaker can (BEP 3, 6, 10).

With the 20 bytes of the peer id behind them they are the handshake.  They are apart because they are all
that is needed to know who serves a connection.
"""

from __future__ import annotations

from attrs import frozen

from irontide.errors import ProtocolViolation

PREFIX = b"\x13BitTorrent protocol"
INFOHASH_LENGTH = 20
RESERVED_LENGTH = 8
PREAMBLE_LENGTH = len(PREFIX) + RESERVED_LENGTH + INFOHASH_LENGTH
PEER_ID_LENGTH = 20
HANDSHAKE_LENGTH = PREAMBLE_LENGTH + PEER_ID_LENGTH

# Byte of the reserved ones, and bit in it.
_EXTENSIONS = (5, 0x10)
_FAST = (7, 0x04)
_DHT = (7, 0x01)


def _reserved(*abilities: tuple[int, int]) -> bytes:
    reserved = bytearray(RESERVED_LENGTH)
    for byte, bit in abilities:
        reserved[byte] |= bit
    return bytes(reserved)


OUR_RESERVED = _reserved(_EXTENSIONS, _FAST)
"""What we can: the extension protocol and the fast extension."""


@frozen
class Preamble:
    """
    What a connection begins with.

    :ivar reserved: 8 bytes, a bit for each thing that the speaker can.
    :ivar infohash: 20 bytes.
    """

    reserved: bytes
    infohash: bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> Preamble:
        """
        Return what ``data``, 48 bytes, says.

        :raises ProtocolViolation: that is no BitTorrent.
        """
        if len(data) != PREAMBLE_LENGTH or not data.startswith(PREFIX):
            raise ProtocolViolation("not the BitTorrent protocol")
        infohash_at = len(PREFIX) + RESERVED_LENGTH
        return cls(data[len(PREFIX) : infohash_at], data[infohash_at:])

    def to_bytes(self) -> bytes:
        """Return the 48 bytes."""
        return PREFIX + self.reserved + self.infohash

    @property
    def fast(self) -> bool:
        """Whether the fast extension is understood (BEP 6)."""
        return self._can(_FAST)

    @property
    def extensions(self) -> bool:
        """Whether the extension protocol is understood (BEP 10)."""
        return self._can(_EXTENSIONS)

    @property
    def dht(self) -> bool:
        """Whether there is a DHT node (BEP 5)."""
        return self._can(_DHT)

    def _can(self, ability: tuple[int, int]) -> bool:
        byte, bit = ability
        return self.reserved[byte] & bit != 0
