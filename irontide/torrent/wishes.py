"""What the user wants of a torrent: durable first and in force then, one wish after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredLock

from irontide.torrent.options import TorrentOptions

Keep = Callable[[str, TorrentOptions], Deferred[None]]


class Wishes:
    """
    The save path and the options of one torrent.

    :ivar save_path: the directory below which the files are.
    :ivar options: the rest.
    """

    def __init__(self, save_path: str, options: TorrentOptions, keep: Keep) -> None:
        """:param keep: makes both durable."""
        self.save_path = save_path
        self.options = options
        self._keep = keep
        self._lock = DeferredLock()

    def change(self, *, save_path: str | None = None, **options: Any) -> Deferred[None]:
        """Put another save path, or other options, in force; fails with StoreError, and nothing changes."""
        return self._in_order(lambda: self._change(save_path, options))

    async def _change(self, save_path: str | None, changes: dict[str, Any]) -> None:
        path, options = save_path or self.save_path, evolve(self.options, **changes)
        if (path, options) != (self.save_path, self.options):
            await self._keep(path, options)
            self.save_path, self.options = path, options

    def paused(self, paused: bool, then: Callable[[], Deferred[None]]) -> Deferred[None]:
        """Have the torrent paused or not, and do what follows from it: the last wish counts."""
        following: list[Deferred[None]] = []

        async def in_order() -> None:
            await self._change(None, {"paused": paused})
            following.append(then())

        async def both() -> None:
            await self._in_order(in_order)
            await following[0]

        return Deferred.fromCoroutine(both())

    def _in_order(self, wish: Callable[[], Any]) -> Deferred[None]:
        return self._lock.run(lambda: Deferred.fromCoroutine(wish()))
