"""
Which pieces somebody has.

Kept as the bytes that go over the wire (BEP 3: piece 0 is the highest bit of the first byte), because single
bits change and are asked for all the time.  For whole sets there is ``as_int``: Python's integers do a
conjunction of 100,000 bits in a few microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator

from irontide.errors import ProtocolViolation

_MASKS = tuple(0x80 >> place for place in range(8))
_PLACES = tuple(tuple(place for place in range(8) if byte & _MASKS[place]) for byte in range(256))
_INVERTED = bytes(255 - byte for byte in range(256))


class Bitfield:
    """
    A row of bits, one for each piece; the number of those set is always known.

    :ivar count: how many are set.
    """

    __slots__ = ("_bits", "_int", "_length", "count")

    def __init__(self, length: int) -> None:
        self._length = length
        self._bits = bytearray(-(-length // 8))
        self._int: int | None = 0
        self.count = 0

    @classmethod
    def from_bytes(cls, data: bytes, length: int) -> Bitfield:
        """
        Return the bitfield that a peer sent for ``length`` pieces.

        :raises ProtocolViolation: it has another size, or bits that stand for no piece are set.
        """
        if len(data) != -(-length // 8):
            raise ProtocolViolation(f"a bitfield of {len(data)} bytes for {length} pieces")
        if length % 8 and data[-1] & (0xFF >> length % 8):
            raise ProtocolViolation("spare bits of a bitfield are set")
        found = cls(length)
        found._bits[:] = data
        found._int = int.from_bytes(data, "big")
        found.count = found._int.bit_count()
        return found

    @classmethod
    def full(cls, length: int) -> Bitfield:
        """Return a bitfield with all of ``length`` bits set."""
        data = bytearray(b"\xff" * -(-length // 8))
        if length % 8:
            data[-1] &= ~(0xFF >> length % 8) & 0xFF
        return cls.from_bytes(bytes(data), length)

    def to_bytes(self) -> bytes:
        """Return it as it goes over the wire; spare bits at the end are 0."""
        return bytes(self._bits)

    def as_int(self) -> int:
        """
        Return ``to_bytes()`` as a big-endian integer, for the algebra of sets.

        The *highest* bit is that of piece 0, and the spare bits count: bitfields of one torrent match.
        """
        if self._int is None:
            self._int = int.from_bytes(self._bits, "big")
        return self._int

    def copy(self) -> Bitfield:
        """Return a bitfield of its own with the same bits."""
        twin = Bitfield(self._length)
        twin._bits[:] = self._bits
        twin._int = self._int
        twin.count = self.count
        return twin

    @property
    def complete(self) -> bool:
        """Whether all bits are set."""
        return self.count == self._length

    def set(self, index: int) -> None:
        """Set a bit, if it is not set already."""
        if not self[index]:
            self._bits[index >> 3] |= _MASKS[index & 7]
            self._int = None
            self.count += 1

    def clear(self, index: int) -> None:
        """Clear a bit, if it is set."""
        if self[index]:
            self._bits[index >> 3] ^= _MASKS[index & 7]
            self._int = None
            self.count -= 1

    def ones(self) -> Iterator[int]:
        """Yield the indexes of the bits that are set now, in order."""
        return _places(bytes(self._bits))

    def zeros(self) -> Iterator[int]:
        """Yield the indexes of the bits that are not set now, in order."""
        inverted = bytearray(self._bits.translate(_INVERTED))
        if self._length % 8:
            inverted[-1] &= ~(0xFF >> self._length % 8) & 0xFF
        return _places(bytes(inverted))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> bool:
        if not 0 <= index < self._length:
            raise IndexError(f"bit {index} of {self._length}")
        return self._bits[index >> 3] & _MASKS[index & 7] != 0

    def __iter__(self) -> Iterator[bool]:
        return (self[index] for index in range(self._length))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Bitfield):
            return NotImplemented
        return self._length == other._length and self._bits == other._bits

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"<Bitfield {self.count} of {self._length}>"


def _places(data: bytes) -> Iterator[int]:
    for at, byte in enumerate(data):
        if byte:
            base = at << 3
            for place in _PLACES[byte]:
                yield base + place
