"""
Which piece to open next.

The order: higher priority first; in it the pieces that were put back unfinished, because much of them is
here; then the rarest, and equally rare ones at random, so that peers get different pieces and can trade.
Until a few pieces are complete rarity does not count: a newcomer needs anything it can trade, soon.

Sets of pieces are big integers (see ``availability``), so that "which of the pieces this peer has are wanted,
free and rarest" costs a dozen machine loops, for a peer with three pieces as for one with nearly all.  Of the
best pieces in the whole torrent a few are kept in a shortlist; most questions, and all of seeds, are answered
from there.  It always holds pieces of which no better one is free; what could break that empties it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from random import Random

from irontide.metainfo.bitfield import Bitfield
from irontide.metainfo.layout import Layout
from irontide.swarm.availability import Availability

RANDOM_FIRST = 4
HIGHEST_PRIORITY = 7
SHORTLIST = 32
_SPREAD = 256  # equally good pieces are drawn from windows of so many pieces


def piece_priorities(layout: Layout, files: Sequence[int]) -> list[int]:
    """Return the priority of each piece: the highest of the files that share it, padding left aside."""
    priorities = [0] * layout.pieces
    for file, priority in enumerate(files):
        if priority and not layout.files[file].pad:
            for piece in layout.pieces_of(file):
                priorities[piece] = max(priorities[piece], priority)
    return priorities


class Picker:
    """
    Knows which pieces are wanted, had and open, and how many peers have each.

    A piece is *had* (``got``), *open* (``opened``: somebody collects its blocks) or *free*.  The bitfields of
    peers belong to the caller: they are read in the call and not kept.

    :ivar left: how many wanted pieces are not had.
    :ivar seeds: how many peers have everything; they are counted here and nowhere else.
    """

    def __init__(
        self,
        layout: Layout,
        have: Bitfield,
        *,
        priorities: Sequence[int],
        random: Random,
        sequential: bool = False,
    ) -> None:
        self.seeds = 0
        self.left = 0
        self._pieces = layout.pieces
        self._top = 8 * len(have.to_bytes()) - 1  # the place of piece 0 in a set
        self._all = Bitfield.full(layout.pieces).as_int()
        self._random = random
        self._sequential = sequential
        self._availability = Availability()
        self._have = have.copy()
        self._open: set[int] = set()
        self._put_back = 0  # free pieces that were open before
        self._priorities = b""
        self._free: list[int] = []  # by priority
        self._wanted = 0
        self._shortlist: dict[int, None] = {}  # best last
        self.set_priorities(priorities)

    # --- what is wanted

    @property
    def sequential(self) -> bool:
        """Whether pieces are taken in order instead of by rarity; priorities still come first."""
        return self._sequential

    @sequential.setter
    def sequential(self, sequential: bool) -> None:
        self._sequential = sequential
        self._shortlist.clear()

    def set_priorities(self, priorities: Sequence[int]) -> None:
        """Want each piece as much as ``priorities`` says: 1 to HIGHEST_PRIORITY, or 0 for not at all."""
        if len(priorities) != self._pieces:
            raise ValueError(f"{len(priorities)} priorities for {self._pieces} pieces")
        levels = bytes(priorities)
        if max(levels) > HIGHEST_PRIORITY:
            raise ValueError(f"priority {max(levels)}")
        taken = self._have.as_int()
        for piece in self._open:
            taken |= self._bit(piece)
        self._priorities = levels
        self._free = [_without(self._set_of(levels, level), taken) for level in range(HIGHEST_PRIORITY + 1)]
        self._wanted = self._all ^ self._set_of(levels, 0)
        self.left = _without(self._wanted, self._have.as_int()).bit_count()
        self._shortlist.clear()

    def wanted(self, piece: int) -> bool:
        """Tell whether ``piece`` is wanted and not had."""
        return self._priorities[piece] > 0 and not self._have[piece]

    def interesting(self, bits: Bitfield) -> bool:
        """Tell whether a peer with ``bits`` has any piece that is wanted and not had, open or not."""
        if not self.left or bits.complete:
            return self.left > 0
        return bool(_without(self._wanted & bits.as_int(), self._have.as_int()))

    # --- who has what

    def peer_joined(self, bits: Bitfield) -> None:
        """Count the pieces of a new peer."""
        if bits.complete:
            self.seeds += 1
        else:
            self._availability.add(bits.as_int())
            self._shortlist.clear()

    def peer_left(self, bits: Bitfield) -> None:
        """Take back all that was counted for a peer: ``bits`` is what it had in the end."""
        if bits.complete:
            self.seeds -= 1
        else:
            self._availability.subtract(bits.as_int())
            self._shortlist.clear()

    def peer_has(self, piece: int) -> None:
        """Count a piece that a peer did not have before."""
        self._availability.add(self._bit(piece))
        self._shortlist.pop(piece, None)  # the others on it are still as rare as any

    def peer_became_seed(self, bits: Bitfield) -> None:
        """Note that the last ``peer_has`` has made ``bits`` complete."""
        self._availability.subtract(bits.as_int())
        self.seeds += 1

    def availability(self, piece: int) -> int:
        """Return how many peers have ``piece``."""
        return self.seeds + self._availability.count(self._bit(piece))

    def distributed_copies(self) -> float:
        """
        Return how many whole copies the peers have among them.

        The whole part is of the rarest pieces, the fraction tells how many pieces there are more of.
        """
        rarest = self._availability.rarest(self._all)
        copies = self._availability.count(1 << (rarest.bit_length() - 1))
        return self.seeds + copies + 1 - rarest.bit_count() / self._pieces

    # --- what becomes of pieces

    def opened(self, piece: int) -> None:
        """Note that the blocks of ``piece`` are being collected."""
        self._take(piece)
        self._open.add(piece)

    def put_back(self, piece: int) -> None:
        """Note that an open piece was closed unfinished, or failed its hash."""
        self._open.discard(piece)
        if not self._have[piece]:
            bit = self._bit(piece)
            self._free[self._priorities[piece]] |= bit
            self._put_back |= bit
            self._shortlist.clear()

    def got(self, piece: int) -> None:
        """Note that ``piece`` passed its hash."""
        if self._have[piece]:
            return
        self._take(piece)
        self._open.discard(piece)
        self._have.set(piece)
        if self._priorities[piece]:
            self.left -= 1
        if self._have.count == RANDOM_FIRST:
            self._shortlist.clear()

    def lost(self, piece: int) -> None:
        """Note that a piece that was had is not what it was on disk any more."""
        if not self._have[piece]:
            return
        self._have.clear(piece)
        self._free[self._priorities[piece]] |= self._bit(piece)
        if self._priorities[piece]:
            self.left += 1
        self._shortlist.clear()

    # --- the question

    def next_piece(self, bits: Bitfield, allowed: Collection[int] | None = None) -> int | None:
        """
        Return the best free and wanted piece of a peer with ``bits``, or None if it has none.

        Asking changes nothing; ``opened`` does.

        :param allowed: ask for one of these only (the allowed fast set of a peer that chokes us).
        """
        if allowed is not None:
            return self._best_of([piece for piece in allowed if bits[piece]])
        if not self._shortlist:
            self._shortlist = dict.fromkeys(self._draw(self._best(self._all)))
        for piece in reversed(self._shortlist):
            if bits[piece]:
                return piece
        if not self._shortlist or bits.complete:
            return None
        return next(self._draw(self._best(bits.as_int())), None)

    def _best_of(self, pieces: Collection[int]) -> int | None:
        """Return the best of a few pieces."""
        some = 0
        for piece in pieces:
            some |= self._bit(piece)
        return next(self._draw(self._best(some)), None)

    def _best(self, pieces: int) -> int:
        """Return the free and wanted ones among ``pieces`` that no other is to be preferred to."""
        for free in reversed(self._free[1:]):
            best = free & pieces
            if not best:
                continue
            if self._sequential:
                return 1 << (best.bit_length() - 1)
            best = best & self._put_back or best
            return best if self._have.count < RANDOM_FIRST else self._availability.rarest(best)
        return 0

    def _draw(self, pieces: int) -> Iterator[int]:
        """
        Yield up to SHORTLIST of ``pieces`` in random order.

        They are drawn from a window that ends at a random place, because to list all of a large set is slow.
        """
        if not pieces:
            return iter(())
        below = pieces & ((1 << self._random.randint(1, pieces.bit_length())) - 1) or pieces
        start = max(0, below.bit_length() - _SPREAD)
        window = below >> start
        drawn: list[int] = []
        while window:
            place = window.bit_length() - 1
            window ^= 1 << place
            drawn.append(self._top - start - place)
        return iter(self._random.sample(drawn, min(SHORTLIST, len(drawn))))

    def _take(self, piece: int) -> None:
        """Make ``piece`` free no more."""
        bit = self._bit(piece)
        level = self._priorities[piece]
        self._free[level] = _without(self._free[level], bit)
        self._put_back = _without(self._put_back, bit)
        self._shortlist.pop(piece, None)

    def _bit(self, piece: int) -> int:
        return 1 << (self._top - piece)

    def _set_of(self, levels: bytes, level: int) -> int:
        """Return the set of pieces whose priority is ``level``."""
        digits = levels.translate(bytes(49 if value == level else 48 for value in range(256)))
        return int(digits, 2) << (self._top + 1 - self._pieces)


def _without(pieces: int, others: int) -> int:
    """Return ``pieces & ~others``, which is seven times slower because of the negative number."""
    return pieces ^ (pieces & others)
