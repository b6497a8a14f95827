"""
A whole irontide on a simulated host: router, slots, dialer, torrent and swarm are the real ones.

Only the socket, the disk and the trackers are others: a Network, memory with a disk that takes its time, and
the addresses of everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from irontide.flow import TokenBucket
from irontide.interfaces import IBuffer
from irontide.metainfo.torrent_file import TorrentFile
from irontide.session.commits import Commits
from irontide.session.intake import SharedIntake
from irontide.session.memory_store import MemoryStore
from irontide.session.router import Router
from irontide.settings import Settings, defaults
from irontide.storage.buffers import BufferPool
from irontide.storage.memory import MemoryStorage
from irontide.torrent.options import TorrentOptions
from irontide.torrent.running import Running
from irontide.torrent.shared import Shared
from irontide.torrent.torrent import Torrent
from irontide.transport.identify import PeerFactory
from irontide.transport.slots import Slots
from irontide.values import Chunk, FileStat, PeerAddress, Verdict
from irontide.wire.peer_id import make_peer_id
from tests.simulation.network import Host

PORT = 6881


class SimulatedDisk(MemoryStorage):
    """Memory behind a disk: each job takes its time, and jobs of different pieces overtake each other."""

    def __init__(
        self, info: Any, data: bytes | None, clock: Clock, random: Random, seconds: float, lies: float = 0
    ) -> None:
        """
        :param seconds: at most so long takes a job.
        :param lies: the share of reads whose bytes are wrong: the host does not know it.
        """
        super().__init__(info, data)
        self._clock, self._random, self._seconds, self._lies = clock, random, seconds, lies

    def _later(self, job: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        """The bytes are looked at when the job runs, not when it is asked for."""
        done: Deferred[Any] = Deferred()
        self._clock.callLater(self._random.random() * self._seconds, lambda: job().chainDeferred(done))
        return done

    def write(self, piece: int, chunks: Sequence[Chunk], hasher: Any = None) -> Deferred[None]:
        write = super().write
        return self._later(lambda: write(piece, chunks, hasher))

    def verify_and_write(
        self,
        piece: int,
        chunks: Sequence[Chunk],
        *,
        hasher: Any = None,
        hashed: int = 0,
        digests: bool = False,
    ) -> Deferred[Verdict]:
        verify = super().verify_and_write
        return self._later(lambda: verify(piece, chunks, hasher=hasher, hashed=hashed, digests=digests))

    def read(self, piece: int, begin: int, length: int) -> IBuffer | Deferred[IBuffer] | None:
        buffer = super().read(piece, begin, length)
        assert isinstance(buffer, object) and not isinstance(buffer, Deferred) and buffer is not None
        if self._random.random() < self._lies:
            buffer.view[self._random.randrange(length)] ^= 1
        return self._later(lambda: succeed(buffer)) if self._random.random() < 0.5 else buffer

    def sync(self) -> Deferred[None]:
        return self._later(super().sync)

    def stats(self) -> Deferred[dict[int, FileStat]]:
        """Files are there once something is."""
        if not any(self.data):
            return succeed({})
        files = self.info.files
        return succeed({index: FileStat(file.length, 0) for index, file in enumerate(files) if file.length})

    def check(self, pieces: Iterable[int], found: Callable[[int, bool], None]) -> Any:
        return _Check(self, list(pieces), found)


class _Check:
    """Hashes at once."""

    def __init__(self, disk: SimulatedDisk, pieces: list[int], found: Callable[[int, bool], None]) -> None:
        for piece in pieces:
            MemoryStorage.hash(disk, piece).addCallback(lambda good, piece=piece: found(piece, good))
        self.done: Deferred[bool] = succeed(True)

    def cancel(self) -> None:
        """There is nothing to stop."""


class Node:
    """One irontide with one torrent."""

    def __init__(
        self, host: Host, torrent_file: TorrentFile, random: Random, *, data: bytes | None = None,
        disk_seconds: float = 0.0, lies: float = 0, settings: Settings | None = None, store: Any = None,
        options: TorrentOptions | None = None, pool: int = 8 << 20,
    ) -> None:  # fmt: skip
        self.host = host
        self.clock = clock = host.network.clock
        self.address = PeerAddress(host.address, PORT)
        self.disk = SimulatedDisk(torrent_file.info, data, clock, random, disk_seconds, lies)
        self.store = MemoryStore() if store is None else store
        self.slots = Slots(50, per_address=50)
        self.commits = Commits(self.store, clock)
        self.pool = BufferPool(pool)
        self.torrents: dict[bytes, Torrent] = {}
        chosen = settings or evolve(defaults(), max_connections_per_torrent=30)
        self.shared = Shared(
            clock=clock, disk=None, open_files=None, download_pool=self.pool, upload_pool=BufferPool(8 << 20),
            download_limit=TokenBucket(chosen.download_rate), upload_limit=TokenBucket(chosen.upload_rate),
            dials=TokenBucket(chosen.dial_rate), dialer=host.dialer(self.slots), sources=[],
            commits=self.commits, intake=SharedIntake(clock, lambda: 0),
            peer_id=make_peer_id(random.randbytes(12)),
            port=lambda: PORT, settings=lambda: chosen, boot_id="boot", random=random,
            keep=lambda torrent, path, options: succeed(None), storage=lambda info, path, options: self.disk,
        )  # fmt: skip
        self.torrent = Torrent(torrent_file, "/nowhere", options or TorrentOptions(), self.shared, added=0.0)
        self.torrents[self.torrent.infohash] = self.torrent
        factory = PeerFactory(Router(self.torrents), self.slots, clock, banned=lambda host: False)
        self.listener = host.listener(factory)
        self.listener.listen([host.address], PORT)
        self.torrent.start(None)

    def meets(self, addresses: Sequence[PeerAddress]) -> None:
        """Know these, as from a user."""
        self.torrent.add_peers([address for address in addresses if address != self.address])

    @property
    def complete(self) -> bool:
        """Whether everything is there and verified."""
        return self.torrent.have.complete

    @property
    def running(self) -> Running:
        """The phase, which must be that."""
        assert isinstance(self.torrent.phase, Running)
        return self.torrent.phase

    def stop(self) -> None:
        """Close everything; the clock has to go on for it to end."""
        self.listener.stop()
        self.torrent.stop()
