"""
What a user can change of a torrent: one change at a time, durable before anybody hears that it is done.

Where files are moved the order is: the files, then the store; if the store refuses, the files go back.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from irontide.errors import StorageError
from irontide.metainfo.paths import sanitise
from irontide.storage.file_storage import FileStorage
from irontide.torrent.running import Running
from irontide.torrent.torrent import Torrent

HIGHEST_PRIORITY = 7


class Changes:
    """The changes of one torrent."""

    def __init__(self, torrent: Torrent) -> None:
        self._torrent = torrent

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
        await torrent.wishes.change(priorities=priorities)
        if torrent.opened is not None:
            try:
                await torrent.opened.set_wanted(torrent.options.wanted(torrent.info))
            except StorageError:
                torrent.storage_failed(Failure())
                raise
        if isinstance(torrent.phase, Running):
            was_complete = torrent.complete
            torrent.phase.set_priorities(torrent.options)
            if torrent.complete and not was_complete:
                await torrent.keep_complete()

    def set_limits(self, download: int, upload: int) -> Deferred[None]:
        """
        Limit this torrent, in bytes/s; 0 for no limit.

        :raises ValueError: a limit below 0.
        """
        if min(download, upload) < 0:
            raise ValueError("a limit is 0 or more")
        return self._torrent.in_turn(partial(self._set_limits, download, upload))

    async def _set_limits(self, download: int, upload: int) -> None:
        await self._torrent.wishes.change(download_rate=download, upload_rate=upload)
        if isinstance(self._torrent.phase, Running):
            self._torrent.phase.set_limits(download, upload)

    def set_sequential(self, sequential: bool) -> Deferred[None]:
        """Download pieces in order, or rarest first."""
        return self._torrent.in_turn(partial(self._set_sequential, sequential))

    async def _set_sequential(self, sequential: bool) -> None:
        await self._torrent.wishes.change(sequential=sequential)
        if isinstance(self._torrent.phase, Running):
            self._torrent.phase.picker.sequential = sequential

    def move(self, save_path: str) -> Deferred[None]:
        """Have the files below ``save_path``; if that fails, everything is where it was."""
        return self._torrent.in_turn(partial(self._move, os.path.abspath(save_path)))

    async def _move(self, save_path: str) -> None:
        torrent = self._torrent
        old = torrent.save_path
        async with _Files(torrent) as storage:
            await storage.move(save_path)
            try:
                await torrent.wishes.change(save_path=save_path)
            except Exception:
                await storage.move(old)
                raise

    def rename(self, file: int, path: Sequence[str]) -> Deferred[None]:
        """
        Give a file another path below the save path; if that fails, everything is as it was.

        :raises MetainfoError: a path that cannot be used.
        :raises ValueError: there is no such file.
        """
        files = self._torrent.info.files
        if not 0 <= file < len(files) or files[file].pad:
            raise ValueError(f"no file has the number {file}")
        return self._torrent.in_turn(partial(self._rename, file, sanitise(path)))

    async def _rename(self, file: int, path: tuple[str, ...]) -> None:
        torrent = self._torrent
        old = torrent.options.paths(torrent.info)[file]
        renamed = {**dict(torrent.options.renamed), file: path}
        async with _Files(torrent) as storage:
            await storage.rename(file, path)
            try:
                await torrent.wishes.change(renamed=tuple(sorted(renamed.items())))
            except Exception:
                await storage.rename(file, old)
                raise


class _Files:
    """The files of a torrent, open for a while if they are not anyway; in turn only."""

    def __init__(self, torrent: Torrent) -> None:
        self._storage = torrent.files()
        self._lent = self._storage is torrent.opened

    async def __aenter__(self) -> FileStorage:
        return self._storage

    async def __aexit__(self, *_: object) -> None:
        if not self._lent:
            await self._storage.close()
