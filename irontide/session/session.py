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
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from random import Random
from secrets import token_hex
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, fail, gatherResults, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from irontide.errors import Closed, DuplicateTorrent, ListenPortInUse, MetainfoError
from irontide.flow import TokenBucket
from irontide.interfaces import IPeerSource, IService, IStore
from irontide.metainfo.info import Info
from irontide.metainfo.torrent_file import TorrentFile
from irontide.session.commits import Commits
from irontide.session.events import (
    Degraded,
    Events,
    Listening,
    RuntimeFailed,
    TorrentAdded,
    TorrentRemoved,
    TorrentUnreadable,
    of_torrent,
)
from irontide.session.intake import SharedIntake
from irontide.session.machine import boot_id, on_wall_clock
from irontide.session.router import Router
from irontide.session.supervise import Part, Policy, Supervisor, in_time
from irontide.settings import Settings
from irontide.storage.buffers import BufferPool
from irontide.storage.disk import Disk
from irontide.storage.file_storage import FileStorage
from irontide.storage.files import OpenFiles
from irontide.torrent.options import TorrentOptions
from irontide.torrent.shared import Notice, Shared
from irontide.torrent.torrent import Torrent
from irontide.tracker.service import TrackerService
from irontide.transport.dial import Dialer
from irontide.transport.fetch import Fetcher
from irontide.transport.identify import PeerFactory
from irontide.transport.listen import Listener, open_listening_socket
from irontide.transport.slots import UNLIMITED, Slots, within_descriptors
from irontide.values import PeerAddress, Progress, StoredTorrent
from irontide.wire.peer_id import make_peer_id

FILE_SHARE = 8
"""Files of torrents are kept open on one of so many descriptors; what is short-lived needs some, too."""

NEXT_PORTS = 100
"""How many ports are tried where the next free one will do."""


SHARE, TORRENTS_SHARE = 0.125, 0.5
"""Of ``stop_deadline``, for each step of stopping, and for the torrents together."""


class _State(Enum):
    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    CLOSED = "closed"


class Session:
    """
    A BitTorrent engine.

    :param reactor: should run on the monotonic clock; a step of the wall clock stalls timers otherwise.
    :param store: what outlives the process; the session closes it when it stops.
    :param sources: ways to find peers; by default the trackers that torrents name.
    :param disk: as Disk, which it is by default; the session stops it.
    :ivar torrents: by infohash.
    :ivar unreadable: rows of the store that cannot be used, by infohash, and why; they are kept.
    :ivar events: what happens.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        store: IStore,
        *,
        sources: Sequence[IPeerSource] | None = None,
        disk: Any = None,
        open_socket: Callable[[str, int], Any] = open_listening_socket,
    ) -> None:
        self.settings = settings
        self.torrents: dict[bytes, Torrent] = {}
        self.peer_id = make_peer_id()
        self.unreadable: dict[bytes, str] = {}
        self.events = Events()
        self._supervisor = Supervisor(reactor, self._runtime_failed)
        self.commits = Commits(store, reactor, self._store_changed, partial(self._supervisor.failed, "store"))
        self.slots = Slots(
            within_descriptors(settings.max_connections), per_address=settings.max_unidentified_per_address
        )
        self._reactor = reactor
        self._store = store
        self._state = _State.NEW
        self._lock = DeferredLock()
        self._starting: Deferred[None] | None = None
        self._busy: set[bytes] = set()
        self._fetcher = Fetcher(reactor)
        self.trackers = TrackerService(
            reactor,
            self._fetcher,
            peer_id=self.peer_id,
            port=lambda: self.listener.port or 0,
            key=token_hex(4),
        )
        self._disk = Disk(reactor, settings.disk_threads) if disk is None else disk
        self._open_files = OpenFiles(min(settings.open_files, within_descriptors(UNLIMITED) // FILE_SHARE))
        self._intake = SharedIntake(reactor, lambda: self._disk.pending)
        self.listener = Listener(
            reactor,
            PeerFactory(Router(self.torrents), self.slots, reactor, banned=lambda host: False),
            open_socket=open_socket,
            lost=partial(self._supervisor.failed, "listener"),
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
            boot_id=boot_id(),
            random=Random(),
            keep=self._keep,
            storage=self._open_storage,
            notice=self._noticed,
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
        """
        Listen, then load the torrents of the store; fires when all are added, though not yet checked.

        If it fails, or ``stop`` is called meanwhile (Closed), everything is closed, the store too.
        """

        def begin() -> Deferred[None]:
            self._starting = Deferred.fromCoroutine(self._start())
            return self._starting

        return self._lock.run(begin)

    async def _start(self) -> None:
        if self._state is _State.CLOSED:
            raise Closed("the session was stopped")
        if self._state is not _State.NEW:
            raise RuntimeError("the session runs already")
        self._state = _State.STARTING
        if on_wall_clock(self._reactor):
            self._log.warn("the reactor runs on the wall clock: a step of it stalls or fires every timer")
        try:
            for service, policy in self._services():
                await self._supervisor.start(service, policy)
            self.events.tell(Listening(tuple(self.listening)))
            for row in await self._store.torrents():
                self._load(row, await self._store.progress(row.infohash))
        except CancelledError:
            await self._shut_down(clean=self._store.clean)
            raise Closed("the session was stopped while it started") from None
        except BaseException:
            await self._shut_down(clean=self._store.clean)
            raise
        self._state = _State.RUNNING

    def _services(self) -> list[tuple[IService, Policy]]:
        """The parts, in the order in which they start."""
        nothing = partial(succeed, None)
        goodbye = min(self.settings.tracker_goodbye, TORRENTS_SHARE * self.settings.stop_deadline)
        return [
            (Part("store", nothing, nothing), Policy.REQUIRED),
            (Part("trackers", nothing, partial(self.trackers.stop_all, goodbye)), Policy.RESTART),
            (Part("listener", self._listen, self.listener.stop), Policy.REQUIRED),
        ]

    def _listen(self) -> Deferred[None]:
        settings = self.settings
        if self.listener.port is not None:  # a socket was adopted
            return succeed(None)
        tries = NEXT_PORTS if settings.listen_next_port else 1
        return Deferred.fromCoroutine(self._listen_on(settings.listen_port, tries))

    async def _listen_on(self, port: int, tries: int) -> None:
        last = min(port + tries, 65536) - 1
        for attempt in range(port, last + 1):
            try:
                await self.listener.listen(self.settings.listen_addresses, attempt)
                return
            except ListenPortInUse:
                if attempt == last:
                    raise

    def _load(self, row: StoredTorrent, progress: Progress | None) -> None:
        """A torrent of the store; one that cannot be read is said so, and kept."""
        try:
            torrent_file = TorrentFile.from_bytes(row.metainfo)
            options = TorrentOptions.from_json(row.options)
            if torrent_file.info.infohash != row.infohash:
                raise MetainfoError("the .torrent file is that of another torrent")
        except (MetainfoError, TypeError, ValueError) as error:
            self.unreadable[row.infohash] = str(error)
            self._log.error("cannot read {infohash}: {error}", infohash=row.infohash.hex(), error=error)
            self.events.tell(TorrentUnreadable(row.infohash, str(error)))
            return
        if row.rebuilt:  # held until the user says otherwise
            options = evolve(options, paused=True)
        path = row.save_path or os.path.abspath(self.settings.downloads)
        torrent = Torrent(torrent_file, path, options, self._shared, added=row.added)
        self.torrents[torrent.infohash] = torrent
        torrent.start(progress).addErrback(self._bug, "starting a torrent failed")

    def _bug(self, failure: Failure, what: str) -> None:
        self._log.failure(what, failure)

    def stop(self) -> Deferred[None]:
        """
        Stop in order, within ``stop_deadline``; fires when everything is closed, or given up; never fails.

        First nothing new comes in; then trackers hear goodbye (``tracker_goodbye`` seconds at most) while
        what came is written, synced and committed; then everything is closed.
        """
        if self._state is _State.STARTING and self._starting is not None:
            self._starting.cancel()
        return self._lock.run(lambda: Deferred.fromCoroutine(self._shut_down(clean=True)))

    async def _shut_down(self, *, clean: bool) -> None:
        """:param clean: whether the store may be called clean if all goes well from here on."""
        if self._state is _State.CLOSED:
            return
        self._state = _State.CLOSED
        seconds = self.settings.stop_deadline
        await self._supervisor.stop("listener", seconds * SHARE)
        torrents = list(self.torrents.values())
        closing = [torrent.close("the session stops") for torrent in torrents]
        stopping = gatherResults([each.addErrback(self._bug, "a torrent did not stop") for each in closing])
        goodbye = self._supervisor.stop("trackers", seconds * TORRENTS_SHARE)
        in_order = await self._in_time(stopping, TORRENTS_SHARE, "stopping the torrents")
        in_order &= await self._in_time(self.commits.stop(), SHARE, "committing")
        await goodbye
        await self._supervisor.stop("store", 0)  # from here on it may refuse
        await self._in_time(self._disk.stop(), SHARE, "stopping the disk")
        clean = clean and in_order and self.commits.degraded is None and all(t.kept for t in torrents)
        await self._in_time(self._store.close(clean=clean), SHARE, "closing the store")
        self.events.close()

    def _in_time(self, work: Deferred[Any], share: float, what: str) -> Deferred[bool]:
        return in_time(work, share * self.settings.stop_deadline, self._reactor, what)

    # --- what the parts tell -----------------------------------------------------------------------------

    def _runtime_failed(self, component: str, failure: Failure) -> None:
        self.events.tell(RuntimeFailed(component, failure))
        self.stop().addErrback(self._bug, "stopping failed")

    def _store_changed(self) -> None:
        self.events.tell(Degraded("store", self.commits.degraded))

    def _noticed(self, torrent: Torrent, notice: Notice) -> None:
        self.events.tell(of_torrent(torrent, notice))

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
        if self._state is not _State.RUNNING:
            raise Closed("the session does not run")
        if infohash in self.torrents or infohash in self._busy:
            raise DuplicateTorrent(f"{torrent_file.info.name} was added before")
        path = os.path.abspath(save_path or self.settings.downloads)
        torrent = Torrent(torrent_file, path, options, self._shared, added=time.time())
        self._busy.add(infohash)
        try:
            await self._store_torrent(torrent, path, options)
        finally:
            self._busy.discard(infohash)
        self.unreadable.pop(infohash, None)
        if self._state is not _State.RUNNING:  # it is in the store, and runs with the next session
            await torrent.close("the session stops")
            return torrent
        self.torrents[infohash] = torrent
        self.events.tell(TorrentAdded(infohash, torrent.name))
        torrent.start(None).addErrback(self._bug, "starting a torrent failed")
        if peers:
            torrent.when_checked().addCallbacks(lambda _: torrent.add_peers(peers), lambda _: None)
        return torrent

    def _keep(self, torrent: Torrent, save_path: str, options: TorrentOptions) -> Deferred[None]:
        """Make durable what the user wants now of a torrent; one that is removed does not come back by it."""
        if self.torrents.get(torrent.infohash) is not torrent or torrent.infohash in self._busy:
            return fail(Closed(f"{torrent.name} is removed"))
        return self._store_torrent(torrent, save_path, options)

    def _store_torrent(self, torrent: Torrent, save_path: str, options: TorrentOptions) -> Deferred[None]:
        return self._store.add(
            StoredTorrent(torrent.infohash, torrent.metainfo, save_path, torrent.added, options.to_json())
        )

    def remove(self, infohash: bytes, *, delete_files: bool = False) -> Deferred[None]:
        """
        Forget a torrent; fires after the store did, and the files are closed (and deleted).

        :raises KeyError: there is no such torrent, or it is being removed.
        :raises StoreError: the store refused; the torrent is as it was.
        """
        return Deferred.fromCoroutine(self._remove(infohash, delete_files))

    async def _remove(self, infohash: bytes, delete_files: bool) -> None:
        if infohash in self._busy or not (infohash in self.torrents or infohash in self.unreadable):
            raise KeyError(infohash)
        self._busy.add(infohash)  # until the files are closed, so that nobody opens them again meanwhile
        try:
            await self._store.remove(infohash)
            self.unreadable.pop(infohash, None)
            self.events.tell(TorrentRemoved(infohash))
            torrent = self.torrents.pop(infohash, None)
            if torrent is not None:
                await torrent.close("removed")
                self.commits.drop(infohash)
                if delete_files:
                    await torrent.delete_files()
        finally:
            self._busy.discard(infohash)
