"""
A directory in which .torrent files can be put to be added to the session (contract S2: best effort).

What was added is renamed to ``*.added``, what cannot be used to ``*.bad``.  It is polled: a rename at the
end of a copy over the network, which inotify would miss, is seen all the same.  A file is taken when it has
not changed between two looks, so that nobody's half-written file is called bad.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.errors import DuplicateTorrent, IrontideError, MetainfoError
from irontide.interfaces import IService
from irontide.metainfo.torrent_file import TorrentFile

INTERVAL = 2.0
MAX_LISTED = 10_000
MAX_AT_ONCE = 16
"""Files read in one look: they are in memory together."""
_SUFFIX = ".torrent"


@frozen
class Seen:
    """A file at one look; two equal ones in a row mean that nobody is writing to it."""

    inode: int
    size: int
    mtime_ns: int


class Run(Protocol):
    """Runs blocking work elsewhere."""

    def __call__(self, work: Callable[[], None], /) -> Deferred[None]:
        """Fires when it is done."""
        ...


@implementer(IService)
class WatchedDirectory:
    """
    Watches one directory, until stopped.

    :param add: adds a torrent; fires when that is durable.
    :param run: runs what touches the file system; in a thread, for a disk may be slow.
    """

    name = "watch"
    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        directory: str,
        add: Callable[[TorrentFile], Deferred[object]],
        run: Run,
        max_torrent_file: int,
    ) -> None:
        self._directory = directory
        self._add = add
        self._run = run
        self._max_torrent_file = max_torrent_file
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock
        self._looking: Deferred[object] = succeed(None)
        self._seen: dict[str, Seen] = {}
        self._ready: list[tuple[str, bytes]] = []
        self._complained: set[str] = set()
        self._stuck: set[str] = set()  # done with, but not to be renamed

    def start(self) -> Deferred[None]:
        """See IService."""
        self._looking = self._loop.start(INTERVAL).addErrback(self._ended)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """See IService: a look that is under way is waited for."""
        if self._loop.running:
            self._loop.stop()
        stopped: Deferred[None] = Deferred()
        self._looking.addBoth(lambda _: stopped.callback(None))
        return stopped

    def _ended(self, failure: Failure) -> None:
        """A bug of ours ends the watching, and nothing else (contract S3)."""
        self._log.failure("watching ended", failure)

    def _look(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._add_what_came())

    async def _add_what_came(self) -> None:
        try:
            await self._run(self._scan)
            self._complained.discard("")
        except OSError as error:
            self._complain("", str(error))
            return
        taken, self._ready = self._ready, []
        for path, data in taken:
            suffix = await self._take(path, data)
            if suffix is not None:
                await self._mark(path, suffix)

    async def _take(self, path: str, data: bytes) -> str | None:
        """Add one file; return how it is to be marked, or None to try it again later."""
        try:
            if len(data) > self._max_torrent_file:
                raise MetainfoError(f"larger than {self._max_torrent_file} bytes")
            await self._add(TorrentFile.from_bytes(data))
        except MetainfoError as error:
            self._log.warn("{path} is not added: {error}", path=path, error=error)
            return ".bad"
        except DuplicateTorrent:
            self._log.info("{path} is there already", path=path)
        except IrontideError as error:
            self._complain(path, str(error))
            return None
        else:
            self._log.info("{path} is added", path=path)
        self._complained.discard(path)
        return ".added"

    async def _mark(self, path: str, suffix: str) -> None:
        try:
            await self._run(lambda: os.replace(path, path + suffix))
        except OSError as error:
            self._stuck.add(path)
            self._complain(path, str(error))

    def _complain(self, path: str, text: str) -> None:
        """Say once what does not work; it is tried again at every look."""
        if path not in self._complained:
            self._complained.add(path)
            self._log.warn("watching {path}: {text}", path=path or self._directory, text=text)

    def _scan(self) -> None:
        """List and read, in a thread; the reactor looks at the result only when this is done."""
        before, self._seen = self._seen, {}
        names = sorted(name for name in os.listdir(self._directory) if name.endswith(_SUFFIX))
        for name in names[:MAX_LISTED]:
            path = os.path.join(self._directory, name)
            with contextlib.suppress(FileNotFoundError):
                self._look_at(path, before.get(path))

    def _look_at(self, path: str, before: Seen | None) -> None:
        found = os.lstat(path)
        if path in self._stuck or not stat.S_ISREG(found.st_mode):
            return
        self._seen[path] = now = Seen(found.st_ino, found.st_size, found.st_mtime_ns)
        if now == before and len(self._ready) < MAX_AT_ONCE:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                self._ready.append((path, file.read(self._max_torrent_file + 1)))
