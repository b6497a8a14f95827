"""What all torrents of a session share; handed to each of them whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from random import Random
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from irontide.flow import TokenBucket
from irontide.interfaces import IDisk, IPeerSource
from irontide.metainfo.info import Info
from irontide.peer.protocol import Intake
from irontide.settings import Settings
from irontide.storage.buffers import BufferPool
from irontide.storage.file_storage import FileStorage
from irontide.storage.files import OpenFiles
from irontide.swarm.connector import Dials
from irontide.torrent.options import TorrentOptions
from irontide.values import Progress


class Notice(Enum):
    """What a torrent tells its session unasked."""

    PHASE = "another phase"
    CHECKED = "it is known what is there"
    COMPLETE = "all wanted pieces are there and synced"
    PIECES_FAILED = "pieces came whose hash was wrong"


def _to_nobody(torrent: Any, notice: Notice) -> None:
    """Where nobody wants to know."""


class Commits(Protocol):
    """Makes progress durable: data first, then the bits that speak of it."""

    def note(self, torrent: Any, written: int) -> None:
        """``torrent`` has ``written`` more bytes to commit; within a second it will be asked to."""

    def commit(self, progress: Progress) -> Deferred[None]:
        """Commit now, with whatever else is ready; the data must be synced already."""

    def forget(self, torrent: Any) -> Deferred[None]:
        """Take ``torrent`` off the list; fires when no sync or commit of it is under way."""

    def progress(self, infohash: bytes) -> Deferred[Progress | None]:
        """The last that was committed."""

    def may_request(self) -> bool:
        """False once too much is uncommitted for too long because the store refuses."""


@frozen
class Shared:
    """
    The session as a torrent sees it.

    :ivar keep: make the save path and the options of a torrent durable; fires after the commit.
    :ivar storage: the files of a torrent.
    :ivar notice: is told what happens to a torrent; must not call back into it.
    """

    clock: IReactorTime
    disk: IDisk
    open_files: OpenFiles
    download_pool: BufferPool
    upload_pool: BufferPool
    download_limit: TokenBucket
    upload_limit: TokenBucket
    dials: TokenBucket
    dialer: Dials
    sources: Sequence[IPeerSource]
    commits: Commits
    intake: Intake
    peer_id: bytes
    port: Callable[[], int | None]
    settings: Callable[[], Settings]
    boot_id: str
    random: Random
    keep: Callable[[Any, str, TorrentOptions], Deferred[None]]
    storage: Callable[[Info, str, TorrentOptions], FileStorage]
    notice: Callable[[Any, Notice], None] = _to_nobody
