"""
All torrents of one process, and what they share: the port, the cap on connections, the disk, the memory,
the limits and the store.

::

    session = Session(reactor, settings, store)
    await session.start()
    torrent = await session.add(TorrentFile.from_bytes(data), save_path="/srv/downloads")
    await torrent.when_complete()
    await session.stop()
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from random import SystemRandom
from secrets import token_hex
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredLock, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

from irontide.errors import DuplicateTorrent, IrontideError, ListenPortInUse, MetainfoError
from irontide.flow import TokenBucket
from irontide.interfaces import IPeerSource, IStore, PeerAddress, StoredTorrent
from irontide.metainfo.info import Info
from irontide.metainfo.torrent_file import TorrentFile
from irontide.session.commits import Commits
from irontide.session.intake import SharedIntake
from irontide.session.router import Router
from irontide.settings import Settings
from irontide.storage.buffers import BufferPool
from irontide.storage.disk import Disk
from irontide.storage.file_storage import FileStorage
from irontide.storage.files import OpenFiles
from irontide.torrent.options import TorrentOptions
from irontide.torrent.shared import Shared
from irontide.torrent.torrent import Torrent
from irontide.tracker.service import TrackerService
from irontide.transport.dial import Dialer
from irontide.transport.fetch import Fetcher
from irontide.transport.identify import PeerFactory
from irontide.transport.listen import Listener
from irontide.transport.slots import Slots, within_descriptors
from irontide.wire.peer_id import make_peer_id

NEXT_PORTS = 100
"""How many ports are tried where the next free one will do."""


class Session:
    """
    A BitTorrent engine.

    :param reactor: should run on the monotonic clock; a step of the wall clock stalls timers otherwise.
    :param store: what outlives the process; the session closes it when it stops.
    :param sources: ways to find peers; by default the trackers that torrents name.
    :ivar torrents: by infohash.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, settings: Settings, store: IStore, *, sources: Sequence[IPeerSource] | None = None
    ) -> None:
        self.settings = settings
        self.torrents: dict[bytes, Torrent] = {}
        self.peer_id = make_peer_id()
        self.commits = Commits(store, reactor)
        self.slots = Slots(
            within_descriptors(settings.max_connections), per_address=settings.max_unidentified_per_address
        )
        self._reactor = reactor
        self._store = store
        self._running = False
        self._lock = DeferredLock()
        self._fetcher = Fetcher(reactor)
        self.trackers = TrackerService(
            reactor,
            self._fetcher,
            peer_id=self.peer_id,
            port=lambda: self.listener.port or 0,
            key=token_hex(4),
        )
        self._disk = Disk(reactor, settings.disk_threads)
        self._open_files = OpenFiles(settings.open_files)
        self._intake = SharedIntake(reactor, lambda: self._disk.pending)
        self.listener = Listener(
            reactor, PeerFactory(Router(self.torrents), self.slots, reactor, banned=lambda host: False)
        )
        now = reactor.seconds()
        self._shared = Shared(
            clock=reactor,
            disk=self._disk,
            open_files=self._open_files,
            download_pool=BufferPool(settings.download_buffers),
            upload_pool=BufferPool(settings.upload_buffers),
            download_limit=TokenBucket(settings.download_rate, now=now),
            upload_limit=TokenBucket(settings.upload_rate, now=now),
            dials=TokenBucket(settings.dial_rate, now=now),
            dialer=Dialer(reactor, self.slots),
            sources=[self.trackers] if sources is None else sources,
            commits=self.commits,
            intake=self._intake,
            peer_id=self.peer_id,
            port=lambda: self.listener.port,
            settings=lambda: self.settings,
            boot_id=_boot_id(),
            random=SystemRandom(),
            keep=self._keep,
            storage=self._open_storage,
        )

    @property
    def listening(self) -> list[PeerAddress]:
        """Where peers can reach us."""
        return self.listener.addresses()

    def _open_storage(self, info: Info, save_path: str, options: TorrentOptions) -> FileStorage:
        return FileStorage(
            info,
            save_path,
            disk=self._disk,
            open_files=self._open_files,
            upload_pool=self._shared.upload_pool,
            wanted=options.wanted(info),
            preallocate="full" if self.settings.preallocate == "full" else "sparse",
            paths=options.paths(info),
        )

    # --- life --------------------------------------------------------------------------------------------

    def start(self) -> Deferred[None]:
        """Listen, then load the torrents of the store; fires when all are added, though not yet checked."""
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        try:
            await self._listen()
            stored = await self._store.torrents()
        except BaseException:
            await self._close()
            raise
        self._running = True
        for row in stored:
            await self._load(row)

    async def _listen(self) -> None:
        settings = self.settings
        if self.listener.port is None:  # else a socket was adopted
            await self._listen_on(settings.listen_port, NEXT_PORTS if settings.listen_next_port else 1)

    async def _listen_on(self, port: int, tries: int) -> None:
        for attempt in range(port, min(port + tries, 65536)):
            try:
                await self.listener.listen(self.settings.listen_addresses, attempt)
                return
            except ListenPortInUse:
                if attempt + 1 >= min(port + tries, 65536):
                    raise

    async def _load(self, row: StoredTorrent) -> None:
        """A torrent of the store; one that cannot be read is said so, and kept."""
        try:
            torrent_file = TorrentFile.from_bytes(row.metainfo)
        except MetainfoError as error:
            self._log.error("cannot read {infohash}: {error}", infohash=row.infohash.hex(), error=error)
            return
        options = TorrentOptions.from_json(row.options)
        torrent = Torrent(torrent_file, row.save_path, options, self._shared, added=row.added)
        self.torrents[torrent.infohash] = torrent
        progress = await self._store.progress(torrent.infohash)
        torrent.start(progress).addErrback(self._bug, "starting a torrent failed")

    def _bug(self, failure: Failure, what: str) -> None:
        self._log.failure(what, failure)

    def stop(self) -> Deferred[None]:
        """
        Stop in order, within ``stop_deadline`` as far as that is in our hands.

        First nothing new comes in; then trackers hear goodbye (``tracker_goodbye`` seconds at most) while
        what came is written, synced and committed; then everything is closed.
        """
        return self._lock.run(lambda: Deferred.fromCoroutine(self._stop()))

    async def _stop(self) -> None:
        if not self._running:
            return
        self._running = False
        await self.listener.stop()
        stopping = [torrent.stop("the session stops") for torrent in self.torrents.values()]
        goodbye = self.trackers.stop_all(self.settings.tracker_goodbye)
        clean = await self._all_stopped(stopping)
        await self.commits.stop()
        await goodbye
        await self._close(clean=clean and self.commits.degraded is None)

    async def _all_stopped(self, stopping: Sequence[Deferred[None]]) -> bool:
        """Wait for the torrents, but not for ever: a disk that hangs must not keep the process."""
        everything = DeferredList(stopping, consumeErrors=True)
        everything.addTimeout(self.settings.stop_deadline, self._reactor)
        try:
            results = await everything
        except (TimeoutError, CancelledError):
            self._log.error("some torrents did not stop in time: their last pieces may be fetched again")
            return False
        for good, failure in results:
            if not good:
                self._log.failure("a torrent did not stop in order", failure)
        return all(good for good, _ in results)

    async def _close(self, *, clean: bool = True) -> None:
        await self.listener.stop()
        await self._disk.stop()
        await self._store.close(clean=clean)

    # --- torrents ----------------------------------------------------------------------------------------

    def add(
        self,
        torrent_file: TorrentFile,
        *,
        save_path: str | None = None,
        options: TorrentOptions | None = None,
        peers: Sequence[PeerAddress] = (),
    ) -> Deferred[Torrent]:
        """
        Add a torrent; fires after it is in the store, so that it is never acknowledged and lost.

        :param save_path: the folder in which its file or folder is; by default the one for downloads.
        :raises DuplicateTorrent: the session has it already.
        :raises StoreError: the store refused; nothing was added.
        """
        return Deferred.fromCoroutine(self._add(torrent_file, save_path, options or TorrentOptions(), peers))

    async def _add(
        self,
        torrent_file: TorrentFile,
        save_path: str | None,
        options: TorrentOptions,
        peers: Sequence[PeerAddress],
    ) -> Torrent:
        infohash = torrent_file.info.infohash
        if not self._running:
            raise IrontideError("the session does not run")
        if infohash in self.torrents:
            raise DuplicateTorrent(f"{torrent_file.info.name} was added before")
        path = os.path.abspath(save_path or self.settings.downloads)
        torrent = self.torrents[infohash] = Torrent(
            torrent_file, path, options, self._shared, added=time.time()
        )
        try:
            await self._keep(torrent, path, options)
        except BaseException:
            del self.torrents[infohash]
            raise
        torrent.start(None).addErrback(self._bug, "starting a torrent failed")
        if peers:
            torrent.when_checked().addCallbacks(lambda _: torrent.add_peers(peers), lambda _: None)
        return torrent

    def _keep(self, torrent: Torrent, save_path: str, options: TorrentOptions) -> Deferred[None]:
        """Make what the user wants of a torrent durable."""
        return self._store.add(
            StoredTorrent(torrent.infohash, torrent.metainfo, save_path, torrent.added, options.to_json())
        )

    def remove(self, infohash: bytes, *, delete_files: bool = False) -> Deferred[None]:
        """Forget a torrent; fires after the store did.  KeyError if there is no such torrent."""
        return Deferred.fromCoroutine(self._remove(infohash, delete_files))

    async def _remove(self, infohash: bytes, delete_files: bool) -> None:
        torrent = self.torrents[infohash]
        await self._store.remove(infohash)
        self.torrents.pop(infohash, None)
        await torrent.stop("removed")
        self.commits.drop(infohash)
        if delete_files:
            await torrent.delete_files()


def _boot_id() -> str:
    """What the kernel calls this boot; another one means that the machine went down in between."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
