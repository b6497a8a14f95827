"""Stand-ins for a session and for systemd."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from irontide.metainfo.torrent_file import TorrentFile
from irontide.session.events import Events
from irontide.values import PeerAddress


class FakeSession:
    """What a Daemon needs of a Session; it starts and stops when the test says so."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.events = Events()
        self.listening = [PeerAddress("0.0.0.0", 6881), PeerAddress("::", 6881)]
        self.torrents: dict[bytes, Any] = {}
        self.starting: Deferred[None] = succeed(None)
        self.stopping: Deferred[None] = succeed(None)
        self.adding: Deferred[Any] = succeed(None)

    def start(self) -> Deferred[None]:
        """See Session."""
        self.calls.append("start")
        return self.starting

    def stop(self) -> Deferred[None]:
        """See Session."""
        self.calls.append("stop")
        return self.stopping

    def add(self, torrent_file: TorrentFile) -> Deferred[Any]:
        """See Session."""
        self.calls.append(f"add {torrent_file.info.name}")
        return self.adding


class FakeNotifier:
    """Keeps what a Notifier would tell."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def tell(self, **facts: Any) -> None:
        """See Notifier."""
        self.told.append(facts)
