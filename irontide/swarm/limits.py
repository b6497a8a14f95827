"""Rate limits that add up: a torrent's own bucket and those above it, asked as one."""

from __future__ import annotations

from collections.abc import Sequence

from irontide.flow import TokenBucket


class Limits:
    """Several token buckets, of which all must agree."""

    __slots__ = ("_buckets",)

    def __init__(self, buckets: Sequence[TokenBucket]) -> None:
        self._buckets = tuple(buckets)

    @property
    def limited(self) -> bool:
        """Whether there is any limit at all."""
        return any(bucket.rate for bucket in self._buckets)

    def take(self, count: int, now: float) -> bool:
        """Take ``count`` bytes from every bucket, or nothing from any."""
        if self.wait(count, now) > 0:
            return False
        for bucket in self._buckets:
            bucket.take(count, now)
        return True

    def wait(self, count: int, now: float) -> float:
        """Seconds until ``count`` bytes may be taken; 0 if now."""
        return max((bucket.wait(count, now) for bucket in self._buckets), default=0.0)
