"""
How fast bytes flow, and how many did.

A sliding window of whole seconds instead of an exponential average: it costs an addition for each read,
says the mean of a steady stream within 4 % from its first second on, and is exactly zero when a stream has
been silent for as long as the window, so that nobody needs a threshold for "idle".
"""

from __future__ import annotations

WINDOW = 8  # seconds


class Rate:
    """
    Counts the bytes of one stream.

    ``now`` is monotonic, in seconds; a step backwards is taken for no step at all.

    :ivar total: every byte that was ever added.
    """

    __slots__ = ("_counts", "_second", "_since", "_sum", "total")

    def __init__(self) -> None:
        self.total = 0
        self._sum = 0  # of _counts
        # Bytes of the last WINDOW whole seconds and of the running one: second s is at s % (WINDOW + 1).
        self._counts = [0] * (WINDOW + 1)
        self._second = 0  # the running one
        self._since = 0.0  # when the stream began or, after a silence, began again

    def add(self, count: int, now: float) -> None:
        """Note that ``count`` bytes have just flowed."""
        second = int(now)
        if second > self._second:
            self._turn_to(second)
        if not self._sum:
            self._since = now
        self._counts[self._second % (WINDOW + 1)] += count
        self._sum += count
        self.total += count

    def value(self, now: float) -> float:
        """Return bytes a second: the mean of the last WINDOW seconds, or since the stream began."""
        second = int(now)
        if second > self._second:
            self._turn_to(second)
        if not self._sum:
            return 0.0
        # The oldest second has left the window in part.
        gone = min(1.0, max(0.0, now - self._second))
        count = self._sum - gone * self._counts[(self._second + 1) % (WINDOW + 1)]
        # A first burst is no rate yet: never divide by less than a second.
        return count / min(float(WINDOW), max(1.0, now - self._since))

    def _turn_to(self, second: int) -> None:
        """Forget the seconds that have left the window."""
        for passed in range(self._second + 1, min(second, self._second + WINDOW + 1) + 1):
            slot = passed % (WINDOW + 1)
            self._sum -= self._counts[slot]
            self._counts[slot] = 0
        self._second = second
