"""
A disk that forgets what was not synced, a store that refuses, and torrents that live on both.

The disk keeps apart what is in its cache and what is on its medium: a sync that fails loses for good what it
was to write, as the kernel does.  The store looks at every commit whether the medium has what the bits say.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha1
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from irontide.errors import StorageError, StoreError
from irontide.flow import TokenBucket
from irontide.interfaces import IBuffer, IPeerSource, IPieceStorage
from irontide.metainfo.bencode import encode
from irontide.metainfo.bitfield import Bitfield
from irontide.metainfo.info import Info
from irontide.metainfo.torrent_file import TorrentFile
from irontide.session.commits import Commits
from irontide.session.intake import SharedIntake
from irontide.session.memory_store import MemoryStore
from irontide.settings import defaults
from irontide.storage.buffers import BufferPool
from irontide.storage.memory import OwnBuffer
from irontide.torrent.options import TorrentOptions
from irontide.torrent.running import Running
from irontide.torrent.shared import Notice, Shared
from irontide.torrent.torrent import Torrent
from irontide.values import Chunk, FileStat, Progress, StoredTorrent, Verdict
from tests.storage.fakes import KIB16, make_info, noise

NO_SPACE = StorageError("no space", errno.ENOSPC, "/file")
BROKEN = StorageError("input/output error", errno.EIO, "/file")
REFUSED = StoreError("the store: disk full")


def torrent_file(
    files: Sequence[tuple[str, int]] = (("a", 4 * KIB16),), *, seed: int = 0, piece_length: int = KIB16
) -> tuple[TorrentFile, bytes]:
    """A torrent and its bytes; pad files are zeros."""
    data = b"".join(
        bytes(length) if path.startswith(".pad/") else noise(length, seed + index)
        for index, (path, length) in enumerate(files)
    )
    info = make_info(files, data, piece_length)
    return TorrentFile.from_bytes(b"d4:info" + info.raw + b"e"), data


class SlowCalls:
    """Calls that fail or wait, by the name of what is called."""

    def __init__(self) -> None:
        self.failing: dict[str, Exception] = {}
        self.slow: set[str] = set()
        self.waiting: deque[tuple[str, Callable[[], Any], Deferred[Any]]] = deque()

    def call(self, name: str, job: Callable[[], Any]) -> Deferred[Any]:
        if name not in self.slow:
            return self._run(name, job)
        waiting: Deferred[Any] = Deferred()
        self.waiting.append((name, job, waiting))
        return waiting

    def _run(self, name: str, job: Callable[[], Any]) -> Deferred[Any]:
        if name in self.failing:
            self.failed(name)
            return fail(self.failing[name])
        return succeed(job())

    def failed(self, name: str) -> None:
        """A call fails."""

    def forget(self) -> None:
        """Whatever waits never gets an answer; from now on all is well."""
        self.waiting.clear()
        self.failing.clear()
        self.slow.clear()

    def turn(self, count: int = 1) -> None:
        """Let the oldest that wait have their answer."""
        for _ in range(count):
            name, job, waiting = self.waiting.popleft()
            self._run(name, job).chainDeferred(waiting)

    def turn_all(self) -> None:
        while self.waiting:
            self.turn()


class FakeDisk(SlowCalls):
    """
    What there is of one torrent, whoever has it open.

    :ivar cache: the pieces that reading finds; ``medium``: those that a power cut leaves.
    :ivar noted: those that the next sync is to bring there: what this process has written or hashed.
    :ivar log: writes, syncs and commits, in order.
    """

    def __init__(self, info: Info, data: bytes, log: list[Any]) -> None:
        super().__init__()
        self.info = info
        self.data = data
        self.log = log
        self.cache: set[int] = set()
        self.medium: set[int] = set()
        self.unsynced: set[int] = set()
        self.noted: set[int] = set()
        self.lost: set[int] = set()
        self.sizes: dict[int, int] = {}
        self.mtimes: dict[int, int] = {}
        self.mounted = True
        self.made: list[str] = []
        self.root = "/d"
        self.opened: list[FakeStorage] = []
        self.checked: list[int] = []
        self.hold_checks = False
        self.checks: list[FakeCheck] = []
        self.wanted: Sequence[bool] = ()
        self.time = 0

    def failed(self, name: str) -> None:
        if name == "sync":  # the kernel has marked its pages clean
            self.lost |= self.unsynced & self.noted
            self.unsynced -= self.lost

    def put(self, pieces: Iterable[int], *, synced: bool = True) -> None:
        """The bytes of these pieces are there."""
        for piece in pieces:
            self.cache.add(piece)
            if synced:
                self.medium.add(piece)
            else:
                self.unsynced.add(piece)
                self.noted.add(piece)
                self.lost.discard(piece)
            self.grow(piece)

    def grow(self, piece: int) -> None:
        """The files of a piece are as long as it needs."""
        self.time += 1
        for span in self.info.layout.spans(piece, 0, self.info.layout.piece_size(piece)):
            if not self.info.files[span.file].pad:
                end = span.offset + span.length
                self.sizes[span.file] = max(self.sizes.get(span.file, 0), end)
                self.mtimes[span.file] = self.time

    def stats(self) -> dict[int, FileStat]:
        if not self.mounted:
            return {}
        return {file: FileStat(size, self.mtimes[file]) for file, size in self.sizes.items()}

    def forget(self) -> None:
        """Nobody has the files open any more."""
        super().forget()
        self.noted.clear()
        self.hold_checks = False
        for storage in self.opened:
            storage.closed = True

    def lose_power(self) -> None:
        """What was not synced is gone, though the files have their sizes."""
        self.lost.clear()
        self.cache = set(self.medium)
        self.unsynced.clear()

    @property
    def open_storages(self) -> int:
        return sum(not storage.closed for storage in self.opened)


class FakeCheck:
    """Hashes at once, or when told to."""

    def __init__(self, disk: FakeDisk, pieces: Iterable[int], found: Callable[[int, bool], None]) -> None:
        self.done: Deferred[bool] = Deferred()
        self._disk = disk
        self._pieces = deque(pieces)
        self._found = found
        self._cancelled = False
        if not disk.hold_checks:
            self.go_on()

    def go_on(self, count: int | None = None) -> None:
        if "check" in self._disk.failing:
            self.done.errback(self._disk.failing["check"])
            return
        while self._pieces and (count is None or count > 0) and not self._cancelled:
            piece = self._pieces.popleft()
            self._disk.checked.append(piece)
            if piece in self._disk.cache:
                self._disk.noted.add(piece)
            self._found(piece, piece in self._disk.cache)
            count = None if count is None else count - 1
        if not self._pieces or self._cancelled:
            self.done.callback(not self._cancelled)

    def cancel(self) -> None:
        if not self.done.called:
            self._cancelled = True
            self.done.callback(False)


@implementer(IPieceStorage)
class FakeStorage:
    """The files of a torrent on a FakeDisk."""

    def __init__(self, disk: FakeDisk, save_path: str, options: TorrentOptions) -> None:
        self.disk = disk
        self.closed = False
        self.save_path = save_path
        disk.opened.append(self)
        disk.wanted = options.wanted(disk.info)

    def write(self, piece: int, chunks: Sequence[Chunk], hasher: Any = None) -> Deferred[None]:
        return self.disk.call("write", lambda: None)

    def verify_and_write(
        self,
        piece: int,
        chunks: Sequence[Chunk],
        *,
        hasher: Any = None,
        hashed: int = 0,
        digests: bool = False,
    ) -> Deferred[Verdict]:
        def job() -> Verdict:
            self.disk.put([piece], synced=False)
            self.disk.log.append(("write", piece))
            return Verdict(True)

        return self.disk.call("verify_and_write", job)

    def hash(self, piece: int) -> Deferred[bool]:
        return succeed(piece in self.disk.cache)

    def read(self, piece: int, begin: int, length: int) -> IBuffer | Deferred[IBuffer] | None:
        start = piece * self.disk.info.piece_length + begin
        return OwnBuffer(self.disk.data[start : start + length])

    def when_room(self, wake: Callable[[], None]) -> None:
        wake()

    def sync(self) -> Deferred[None]:
        disk = self.disk
        begun = disk.unsynced & disk.noted
        disk.log.append(("sync", frozenset(begun)))

        def job() -> None:
            disk.medium |= begun - disk.lost
            disk.unsynced -= begun
            disk.log.append(("synced", frozenset(begun)))

        return disk.call("sync", job)

    def close(self) -> Deferred[None]:
        def job() -> None:
            self.closed = True

        return self.disk.call("close", job)

    def prepare(self) -> Deferred[None]:
        return self.disk.call("prepare", lambda: self.disk.made.append(self.save_path))

    def stats(self) -> Deferred[dict[int, FileStat]]:
        return self.disk.call("stats", self.disk.stats)

    def missing_root(self) -> Deferred[bool]:
        return self.disk.call("missing_root", lambda: not self.disk.mounted or not self.disk.sizes)

    def check(self, pieces: Iterable[int], found: Callable[[int, bool], None]) -> FakeCheck:
        check = FakeCheck(self.disk, pieces, found)
        self.disk.checks.append(check)
        return check

    def set_wanted(self, wanted: Sequence[bool]) -> Deferred[None]:
        def job() -> None:
            self.disk.wanted = tuple(wanted)
            self.disk.log.append(("wanted", tuple(wanted)))

        return self.disk.call("set_wanted", job)

    def move(self, root: str) -> Deferred[None]:
        def job() -> None:
            self.disk.root = root
            self.disk.log.append(("move", root))

        return self.disk.call("move", job)

    def rename(self, file: int, path: Sequence[str]) -> Deferred[None]:
        return self.disk.call("rename", lambda: self.disk.log.append(("rename", file, tuple(path))))

    def delete(self) -> Deferred[None]:
        def job() -> None:
            self.disk.cache.clear()
            self.disk.sizes.clear()

        return self.disk.call("delete", job)


class FakeStore(MemoryStore):
    """
    A store that can be slow or refuse, and that nobody deceives.

    :ivar commits: what each transaction consisted of.
    :ivar disks: by infohash, what the bits have to be true of.
    """

    def __init__(self, log: list[Any]) -> None:
        super().__init__()
        self.calls = SlowCalls()
        self.log = log
        self.commits: list[Sequence[Progress]] = []
        self.disks: dict[bytes, FakeDisk] = {}
        self.wrong: list[str] = []
        self.closed_clean: bool | None = None

    def _now(self, name: str, job: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        done: Deferred[Any] = self.calls.call(name, lambda: None)
        return done.addCallback(lambda _: job())

    def torrents(self) -> Deferred[Sequence[StoredTorrent]]:
        return self._now("torrents", super().torrents)

    def add(self, torrent: StoredTorrent) -> Deferred[None]:
        add = super().add
        return self._now("add", lambda: add(torrent))

    def remove(self, infohash: bytes) -> Deferred[None]:
        remove = super().remove
        return self._now("remove", lambda: remove(infohash))

    def progress(self, infohash: bytes) -> Deferred[Progress | None]:
        progress = super().progress
        return self._now("progress", lambda: progress(infohash))

    def commit(self, progress: Sequence[Progress]) -> Deferred[None]:
        commit = super().commit

        def job() -> Deferred[None]:
            self.commits.append(progress)
            for each in progress:
                self.log.append(("commit", each.infohash))
                self._look(each)
            return commit(progress)

        return self._now("commit", job)

    def close(self, *, clean: bool) -> Deferred[None]:
        close = super().close

        def job() -> Deferred[None]:
            self.closed_clean = clean
            return close(clean=clean)

        return self._now("close", job)

    def _look(self, progress: Progress) -> None:
        disk = self.disks.get(progress.infohash)
        if disk is None:
            return
        bits = Bitfield.from_bytes(progress.bits, disk.info.layout.pieces)
        for piece in bits.ones():
            if piece not in disk.medium:
                self.wrong.append(f"piece {piece} is committed and not on the medium")


@implementer(IPeerSource)
class FakeSource:
    """Remembers who announces."""

    def __init__(self) -> None:
        self.started: list[bytes] = []
        self.stopped: list[bytes] = []
        self.complete: list[bytes] = []
        self.error: Exception | None = None

    def start(self, announcement: Any, found: Any) -> None:
        if self.error is not None:
            raise self.error
        self.started.append(announcement.infohash)

    def completed(self, infohash: bytes) -> None:
        self.complete.append(infohash)

    def stop(self, infohash: bytes) -> Deferred[None]:
        self.stopped.append(infohash)
        return succeed(None)


class NoDialer:
    """Never reaches anybody."""

    def dial(self, address: Any, protocol_factory: Any) -> Deferred[Any]:
        return Deferred()


class Bench:
    """Torrents on fake disks that share a clock and a store."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.log: list[Any] = []
        self.store = FakeStore(self.log)
        self.commits = Commits(self.store, self.clock)
        self.source = FakeSource()
        self.disks: dict[bytes, FakeDisk] = {}
        self.boot_id = "this boot"
        self.notices: list[Notice] = []
        self.pool = BufferPool(8 << 20)
        self.torrents: list[Torrent] = []

    def restart(self) -> None:
        """Another process on the same disks and the same store."""
        self.commits.stop()
        self.commits = Commits(self.store, self.clock)

    def crash(self) -> None:
        """As ``restart``, but the process before it ends in the middle of whatever it does."""
        for disk in self.disks.values():
            disk.forget()
        self.store.calls.forget()
        self.clock, before = Clock(), self.clock.seconds()
        self.clock.advance(before)
        self.pool = BufferPool(8 << 20)
        self.commits = Commits(self.store, self.clock)
        self.torrents.clear()

    def shared(self) -> Shared:
        settings = defaults()
        return Shared(
            clock=self.clock,
            disk=None,  # type: ignore[arg-type]
            open_files=None,  # type: ignore[arg-type]
            download_pool=self.pool,
            upload_pool=BufferPool(1 << 20),
            download_limit=TokenBucket(0),
            upload_limit=TokenBucket(0),
            dials=TokenBucket(10),
            dialer=NoDialer(),
            sources=[self.source],
            commits=self.commits,
            intake=SharedIntake(self.clock, lambda: 0),
            peer_id=b"-IT0100-............",
            port=lambda: 6881,
            settings=lambda: settings,
            boot_id=self.boot_id,
            random=Random(1),
            keep=self.keep,
            storage=lambda info, path, options: FakeStorage(self.disks[info.infohash], path, options),  # type: ignore[arg-type, return-value]
            notice=lambda torrent, notice: self.notices.append(notice),
        )

    def keep(self, torrent: Torrent, path: str, options: TorrentOptions) -> Deferred[None]:
        return self.store.add(
            StoredTorrent(torrent.infohash, torrent.metainfo, path, torrent.added, options.to_json())
        )

    def torrent(
        self,
        files: Sequence[tuple[str, int]] = (("a", 4 * KIB16),),
        *,
        seed: int = 0,
        options: TorrentOptions | None = None,
        piece_length: int = KIB16,
    ) -> Torrent:
        """A torrent that is in the store and was not started; an earlier one has left its disk."""
        file, data = torrent_file(files, seed=seed, piece_length=piece_length)
        infohash = file.info.infohash
        if infohash not in self.disks:
            self.disks[infohash] = self.store.disks[infohash] = FakeDisk(file.info, data, self.log)
        torrent = Torrent(file, "/d", options or TorrentOptions(), self.shared(), added=1.0)
        self.keep(torrent, "/d", torrent.options)
        self.torrents.append(torrent)
        return torrent

    def disk(self, torrent: Torrent) -> FakeDisk:
        return self.disks[torrent.infohash]

    def running(self, *args: Any, **how: Any) -> Torrent:
        """A torrent that was just added and runs."""
        torrent = self.torrent(*args, **how)
        torrent.start(None)
        assert isinstance(torrent.phase, Running), torrent.phase
        return torrent

    def committed(self, torrent: Torrent) -> set[int]:
        """The bits in the store."""
        progress = self.progress(torrent)
        bits = b"" if progress is None else progress.bits
        return set() if not bits else set(Bitfield.from_bytes(bits, torrent.info.layout.pieces).ones())

    def progress(self, torrent: Torrent) -> Progress | None:
        found: list[Progress | None] = []
        MemoryStore.progress(self.store, torrent.infohash).addCallback(found.append)
        return found[0]


def deliver(torrent: Torrent, *pieces: int) -> None:
    """Have all blocks of these pieces come: the last step, hash and write, is the disk's."""
    phase = torrent.phase
    assert isinstance(phase, Running), phase
    layout = torrent.info.layout
    storage: Any = torrent.opened
    for piece in pieces:
        storage.disk.grow(piece)
        phase.swarm.downloads.resume({piece: b"\xff" * -(-layout.blocks_in(piece) // 8)})


def fired(deferred: Deferred[Any]) -> bool:
    """Whether it has a result; an error in it stays there."""
    return deferred.called and not deferred.paused


def digest(data: bytes) -> bytes:
    return sha1(data).digest()


__all__ = ["BROKEN", "KIB16", "NO_SPACE", "REFUSED", "Bench", "deliver", "encode", "torrent_file"]
