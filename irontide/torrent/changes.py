"""
What a user can change of a torrent: one change at a time, durable before anybody hears that it is done.

Where files are moved the order is: the files, then the store; if the store refuses, the files go back.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from irontide.errors import StoreError
from irontide.metainfo.paths import sanitise
from irontide.torrent.running import Running
from irontide.torrent.torrent import Torrent

HIGHEST_PRIORITY = 7


class Changes:
    """The changes of one torrent."""

    def __init__(self, torrent: Torrent) -> None:
        self._torrent = torrent

    async def _keep(self, **changes: Any) -> None:
        torrent = self._torrent
        await torrent.keep(torrent.save_path, evolve(torrent.options, **changes))

    def set_priorities(self, priorities: Sequence[int]) -> Deferred[None]:
        """
        Want each file as much as said, 0 (not at all) to 7; fires when storage and picker follow.

        :raises ValueError: another number of files, or a priority out of range.
        """
        if len(priorities) != len(self._torrent.info.files):
            raise ValueError("a priority for each file is needed")
        if not all(0 <= priority <= HIGHEST_PRIORITY for priority in priorities):
            raise ValueError(f"priorities go from 0 to {HIGHEST_PRIORITY}")
        return self._torrent.in_turn(partial(self._set_priorities, tuple(priorities)))

    async def _set_priorities(self, priorities: tuple[int, ...]) -> None:
        torrent = self._torrent
        await self._keep(priorities=priorities)
        if torrent.opened is not None:
            await torrent.opened.set_wanted(torrent.options.wanted(torrent.info))
        if isinstance(torrent.phase, Running):
            torrent.phase.set_priorities(torrent.options)

    def set_limits(self, download: int, upload: int) -> Deferred[None]:
        """Limit this torrent, in bytes/s; 0 for no limit."""
        return self._torrent.in_turn(partial(self._set_limits, download, upload))

    async def _set_limits(self, download: int, upload: int) -> None:
        await self._keep(download_rate=download, upload_rate=upload)
        if isinstance(self._torrent.phase, Running):
            self._torrent.phase.set_limits(download, upload)

    def set_sequential(self, sequential: bool) -> Deferred[None]:
        """Download pieces in order, or rarest first."""
        return self._torrent.in_turn(partial(self._set_sequential, sequential))

    async def _set_sequential(self, sequential: bool) -> None:
        await self._keep(sequential=sequential)
        if isinstance(self._torrent.phase, Running):
            self._torrent.phase.picker.sequential = sequential

    def move(self, save_path: str) -> Deferred[None]:
        """Have the files below ``save_path``; if that fails, everything is where it was."""
        return self._torrent.in_turn(partial(self._move, os.path.abspath(save_path)))

    async def _move(self, save_path: str) -> None:
        torrent = self._torrent
        old, storage = torrent.save_path, torrent.files()
        await storage.move(save_path)
        try:
            await torrent.keep(save_path, torrent.options)
        except StoreError:
            await storage.move(old)
            raise
        finally:
            if storage is not torrent.opened:
                await storage.close()

    def rename(self, file: int, path: Sequence[str]) -> Deferred[None]:
        """
        Give a file another path below the save path; if that fails, everything is as it was.

        :raises MetainfoError: a path that cannot be used.
        """
        return self._torrent.in_turn(partial(self._rename, file, sanitise(path)))

    async def _rename(self, file: int, path: tuple[str, ...]) -> None:
        torrent = self._torrent
        old, storage = torrent.options.paths(torrent.info)[file], torrent.files()
        await storage.rename(file, path)
        try:
            await self._keep(renamed=tuple(sorted({**dict(torrent.options.renamed), file: path}.items())))
        except StoreError:
            await storage.rename(file, old)
            raise
        finally:
            if storage is not torrent.opened:
                await storage.close()
