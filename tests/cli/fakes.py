"""A session with one torrent that does as the test says."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.task import Clock

from irontide.cli.progress import Reporter
from irontide.cli.transfer import Parts
from irontide.metainfo.torrent_file import TorrentFile
from irontide.torrent.options import TorrentOptions
from irontide.torrent.status import TorrentStatus
from irontide.values import PeerAddress

RUNNING = TorrentStatus(
    phase="running", error=None, have_bytes=512, wanted_bytes=1024, total=1024, download_rate=2048.0,
    upload_rate=0.0, downloaded=512, uploaded=0, peers=2, seeds=1, checked=1.0, complete=False, eta=65.0,
)  # fmt: skip
COMPLETE = attrs.evolve(RUNNING, have_bytes=1024, complete=True, eta=0.0)
CHECKING = attrs.evolve(RUNNING, phase="checking", checked=0.5)


class FakeTorrent:
    """What a command needs of a Torrent."""

    def __init__(self, torrent_file: TorrentFile, save_path: str, options: TorrentOptions) -> None:
        self.info = torrent_file.info
        self.name = self.info.name
        self.save_path = save_path
        self.options = options
        self.now = RUNNING
        self.completing: Deferred[None] = Deferred()
        self.checking: Deferred[None] = Deferred()
        self.peers: list[PeerAddress] = []

    @property
    def complete(self) -> bool:
        """See Torrent."""
        return self.now.complete

    def status(self) -> TorrentStatus:
        """See Torrent."""
        return self.now

    def when_complete(self) -> Deferred[None]:
        """See Torrent."""
        return self.completing

    def when_checked(self) -> Deferred[None]:
        """See Torrent."""
        return self.checking

    def resume(self) -> Deferred[None]:
        """See Torrent."""
        self.options = attrs.evolve(self.options, paused=False)
        return succeed(None)

    def add_peers(self, addresses: list[PeerAddress]) -> None:
        """See Torrent."""
        self.peers += addresses

    def finish(self) -> None:
        """Let the download be complete."""
        self.now = COMPLETE
        self.completing.callback(None)


class FakeSession:
    """What a command needs of a Session."""

    def __init__(self) -> None:
        self.torrents: dict[bytes, FakeTorrent] = {}
        self.listening = [PeerAddress("0.0.0.0", 6881)]
        self.events: list[str] = []
        self.starting: Deferred[None] = succeed(None)
        self.settings: Any = None

    @property
    def only(self) -> FakeTorrent:
        """The one torrent."""
        (torrent,) = self.torrents.values()
        return torrent

    def start(self) -> Deferred[None]:
        """See Session."""
        self.events.append("start")
        return self.starting

    def stop(self) -> Deferred[None]:
        """See Session."""
        self.events.append("stop")
        return succeed(None)

    def add(self, torrent_file: TorrentFile, *, save_path: str, peers: Any = ()) -> Deferred[FakeTorrent]:
        """See Session."""
        self.events.append("add")
        torrent = FakeTorrent(torrent_file, save_path, TorrentOptions())
        torrent.add_peers(list(peers))
        self.torrents[torrent_file.info.infohash] = torrent
        return succeed(torrent)

    def remove(self, infohash: bytes) -> Deferred[None]:
        """See Session."""
        self.events.append("remove")
        del self.torrents[infohash]
        return succeed(None)

    def parts(self, open_store: Callable[[Any, str], Deferred[Any]] | None = None) -> Parts:
        """What makes a command use this session."""

        def make(reactor: Any, settings: Any, store: Any) -> FakeSession:
            self.settings = settings
            return self

        return Parts(
            open_store or (lambda reactor, directory: succeed(None)),
            make,
            lambda reactor, work: execute(work),
        )


class Remembers(Reporter):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def started(self, **facts: Any) -> None:
        """See Reporter."""
        self.told.append(("started", facts))

    def progress(self, status: TorrentStatus) -> None:
        """See Reporter."""
        self.told.append(("progress", status))

    def complete(self, status: TorrentStatus) -> None:
        """See Reporter."""
        self.told.append(("complete", status))

    def note(self, text: str) -> None:
        """See Reporter."""
        self.told.append(("note", text))

    def interrupted(self, again: str) -> None:
        """See Reporter."""
        self.told.append(("interrupted", again))

    def error(self, text: str) -> None:
        """See Reporter."""
        self.told.append(("error", text))

    @property
    def kinds(self) -> list[str]:
        """What was told, in order, without the details."""
        return [kind for kind, _ in self.told]


class Resolver:
    """A name resolver that knows some hosts; a Clock with it is reactor enough."""

    def __init__(self, hosts: dict[str, list[Any]]) -> None:
        self._hosts = hosts

    def resolveHostName(self, receiver: Any, host: str, port: int = 0) -> None:
        """See IHostnameResolver."""
        receiver.resolutionBegan(None)
        for address in self._hosts.get(host, []):
            receiver.addressResolved(attrs.evolve(address, port=port))
        receiver.resolutionComplete()


class FakeReactor(Clock):
    """A Clock with a resolver."""

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = Resolver({})


def write(path: str, data: bytes) -> str:
    """Write a file, and its folder if need be; return its path."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    return path
