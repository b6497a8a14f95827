"""
Pooled memory for blocks: bounded, kept, and never touched by two owners.

Fresh memory costs page faults (0.42-0.64 CPU s/GiB against 0.28 from a pool), and unbounded memory is what a
slow disk turns a fast network into.  So there are segments of 1 MiB, allocated when first needed and kept
from then on.  A buffer smaller than a segment shares one with others of its size class; a segment without
buffers belongs to no class and serves any.  Asking takes constant time and never waits: no room is None.

Everything here is called in the reactor thread; worker threads only see the views.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from zope.interface import implementer

from irontide.interfaces import IBuffer

SEGMENT_LENGTH = 1 << 20
"""The largest buffer, and the unit in which memory is allocated."""

SMALLEST = 16 << 10
"""No buffer takes less than this of a segment: the length of a block."""

UPLOAD_CLASSES = (16 << 10, 128 << 10, 1 << 20)
"""The sizes of a pool for uploads: few, so that a segment left over by one is soon free for another."""


@implementer(IBuffer)
class Buffer:
    """Pooled memory with one owner; made by ``BufferPool.take`` only."""

    __slots__ = ("_pool", "_segment", "_slot", "view")

    def __init__(self, pool: BufferPool, segment: _Segment, slot: int, size: int) -> None:
        self._pool = pool
        self._segment: _Segment | None = segment
        self._slot = slot
        start = slot * segment.slot_length
        self.view = segment.view[start : start + size]

    def release(self) -> None:
        """
        Give the memory back to its pool.

        :raises RuntimeError: it was given back already; another may own it by now.
        """
        segment = self._segment
        if segment is None:
            raise RuntimeError("buffer released twice")
        self._segment = None
        self._pool._give_back(segment, self._slot)


class _Segment:
    """One allocation, cut into slots of the size class that it serves at present."""

    __slots__ = ("free", "length", "slot_length", "slots", "view")

    def __init__(self, length: int) -> None:
        self.length = length
        self.view = memoryview(bytearray(length))
        self.slot_length = length
        self.slots = 1
        self.free = [0]

    def serve(self, slot_length: int) -> None:
        """Cut an unused segment anew."""
        if slot_length != self.slot_length:
            self.slot_length = slot_length
            self.slots = self.length // slot_length
            self.free = list(range(self.slots - 1, -1, -1))


class BufferPool:
    """
    Buffers of up to a segment, no more than ``capacity`` bytes in all.

    :ivar capacity: whole segments, at least one; what was asked for is rounded down to that.
    :ivar in_use: bytes taken, counted by size class: what the takers together keep from others.
    """

    def __init__(
        self, capacity: int, segment: int = SEGMENT_LENGTH, classes: Sequence[int] | None = None
    ) -> None:
        """
        :param classes: the sizes in which memory is handed out; default: every power of two from 16 KiB
            (or ``segment``, if that is less) to ``segment``.
        """
        if segment < 1 or segment & (segment - 1):
            raise ValueError(f"segments of {segment} bytes: not a power of two")
        self._segment_length = segment
        self._smallest = min(SMALLEST, segment)
        self._class_of = self._table(classes)
        self._limit = max(1, capacity // segment)
        self._allocated = 0
        self._unused: list[_Segment] = []
        self._partial: dict[int, dict[_Segment, None]] = {size: {} for size in set(self._class_of)}
        self.in_use = 0
        self._waiting: deque[Callable[[], None]] = deque()
        self._rounds = 0

    def _table(self, classes: Sequence[int] | None) -> list[int]:
        """The class for each power of two, by its exponent above the smallest."""
        segment = self._segment_length
        exponents = (segment // self._smallest).bit_length()
        powers = [self._smallest << exponent for exponent in range(exponents)]
        if classes is None:
            return powers
        if segment not in classes or not set(classes) <= set(powers):
            raise ValueError(f"size classes {classes} do not divide segments of {segment} bytes")
        return [min(size for size in classes if size >= power) for power in powers]

    @property
    def capacity(self) -> int:
        """Bytes that may be in use."""
        return self._limit * self._segment_length

    @property
    def free(self) -> int:
        """
        Bytes not in use; 0 while more is in use than a capacity that was lowered.

        They may lie in segments that are shared: see ``free_segments`` for what a large buffer needs.
        """
        return max(0, self.capacity - self.in_use)

    @property
    def free_segments(self) -> int:
        """How many buffers of a whole segment could be taken now."""
        return max(0, self._limit - self._allocated + len(self._unused))

    @property
    def allocated(self) -> int:
        """Bytes that the pool holds of the machine's memory, in use or not."""
        return self._allocated * self._segment_length

    def take(self, size: int) -> Buffer | None:
        """
        Return a buffer with a view of exactly ``size`` bytes, or None: no room now.

        The bytes are whatever was there before.
        """
        if not 0 < size <= self._segment_length:
            raise ValueError(f"a buffer of {size} bytes; segments have {self._segment_length}")
        length = self._class_of[((size - 1) // self._smallest).bit_length()]
        partial = self._partial[length]
        if partial:
            segment = next(reversed(partial))
        else:
            unused = self._unused_segment()
            if unused is None:
                return None
            segment = unused
            segment.serve(length)
            partial[segment] = None
        slot = segment.free.pop()
        if not segment.free:
            del partial[segment]
        self.in_use += length
        return Buffer(self, segment, slot, size)

    def _unused_segment(self) -> _Segment | None:
        if self._unused:
            return self._unused.pop()
        if self._allocated >= self._limit:
            return None
        self._allocated += 1
        return _Segment(self._segment_length)

    def _give_back(self, segment: _Segment, slot: int) -> None:
        partial = self._partial[segment.slot_length]
        segment.free.append(slot)
        if len(segment.free) == segment.slots:
            partial.pop(segment, None)
            self._unused.append(segment)
            self._trim()
        else:
            partial[segment] = None
        self.in_use -= segment.slot_length
        if self._waiting:
            self._wake()

    def resize(self, capacity: int) -> None:
        """
        Set a new capacity, at once.

        Nobody loses a buffer: while more is in use than allowed, nothing is handed out, and memory goes
        back to the machine as it is released.
        """
        self._limit = max(1, capacity // self._segment_length)
        self._trim()
        if self._waiting:
            self._wake()

    def _trim(self) -> None:
        while self._unused and self._allocated > self._limit:
            self._unused.pop()
            self._allocated -= 1

    def when_room(self, wake: Callable[[], None]) -> None:
        """
        Call ``wake`` once, in turn, when memory was given back.

        There may be too little for the size that one hopes for: then ask again, behind the others.
        """
        self._waiting.append(wake)

    def _wake(self) -> None:
        """
        Wake who waits, first come first served, while there is room.

        Each is woken at most once for one release; a release by one of those woken prolongs the round
        instead of starting another inside it.
        """
        running = self._rounds > 0
        self._rounds = len(self._waiting)
        if running:
            return
        try:
            while self._rounds > 0 and self._waiting and self._has_room():
                self._rounds -= 1
                self._waiting.popleft()()
        finally:
            self._rounds = 0

    def _has_room(self) -> bool:
        return self.free_segments > 0 or any(self._partial.values())
