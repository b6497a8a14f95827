"""Transmission's daemon, asked by its RPC, at an address that is not loopback."""

from __future__ import annotations

import base64
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.live.clients.base import Address, Client, Process, accepts, wait_until
from tests.live.lan import Lan
from tests.live.tracker import StaticTracker

PEER_PORT, RPC_PORT = 51413, 9091


class Transmission(Client):
    """Debian's transmission-daemon."""

    name = "transmission"
    makes_empty_files = False

    @classmethod
    def missing(cls) -> str | None:
        """A Debian package."""
        return None if shutil.which("transmission-daemon") else "apt-get install transmission-daemon"

    def __init__(self, workdir: Path, lan: Lan, port: int = PEER_PORT) -> None:
        super().__init__(workdir, lan.inside)
        self._lan = lan
        self._port, self._rpc = port, port - PEER_PORT + RPC_PORT
        self._session = ""
        self._tracker: StaticTracker | None = None

    @property
    def address(self) -> Address:
        """The ports are given: the namespace is its own."""
        return self.host, self._port

    def seed(self, torrent: Path, folder: Path, peers: Sequence[Address] = ()) -> None:
        """It is told to check the content."""
        self._start(torrent, folder, peers)
        self._call("torrent-verify", ids=[1])
        self.wait_complete()
        self._call("torrent-start-now", ids=[1])

    def download(self, torrent: Path, folder: Path, peers: Sequence[Address]) -> None:
        """It asks the tracker as soon as the torrent is added."""
        self._start(torrent, folder, peers)

    def _start(self, torrent: Path, folder: Path, peers: Sequence[Address]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._tracker = StaticTracker(self._lan.outside, peers)
        announced = self._tracker.torrent(torrent, self.workdir / "announced.torrent")
        settings = {
            "bind-address-ipv4": self.host,
            "cache-size-mb": 4,
            "dht-enabled": False,
            "download-dir": str(folder),
            "encryption": 0,
            "incomplete-dir-enabled": False,
            "lpd-enabled": False,
            "peer-port": self._port,
            "pex-enabled": False,
            "port-forwarding-enabled": False,
            "rename-partial-files": False,
            "rpc-bind-address": self.host,
            "rpc-host-whitelist-enabled": False,
            "rpc-port": self._rpc,
            "rpc-whitelist-enabled": False,
            "utp-enabled": False,
            "watch-dir-enabled": False,
        }
        (self.workdir / "settings.json").write_text(json.dumps(settings))
        self.process = Process(
            [*self._lan.prefix, "transmission-daemon", "-f", "-g", str(self.workdir)], self.workdir / "log"
        )
        wait_until(lambda: self._alive_and(accepts((self.host, self._rpc))), "transmission's RPC")
        added = self._call(
            "torrent-add", metainfo=base64.b64encode(announced.read_bytes()).decode(), paused=False
        )
        assert "torrent-added" in added, added

    def progress(self) -> float:
        """Zero while it checks."""
        (found,) = self._call("torrent-get", ids=[1], fields=["percentDone", "status", "leftUntilDone"])[
            "torrents"
        ]
        checking = found["status"] in (1, 2)
        return 0.0 if checking else float(found["percentDone"])

    def _call(self, method: str, **arguments: Any) -> Any:
        body = json.dumps({"method": method, "arguments": arguments}).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(2):
            request = urllib.request.Request(
                f"http://{self.host}:{self._rpc}/transmission/rpc",
                body,
                {"X-Transmission-Session-Id": self._session},
            )
            try:
                with opener.open(request, timeout=10) as answer:
                    decoded = json.load(answer)
            except urllib.error.HTTPError as error:
                with error:
                    if error.code != 409:
                        raise
                    self._session = error.headers["X-Transmission-Session-Id"]
            else:
                assert decoded["result"] == "success", decoded
                return decoded["arguments"]
        raise AssertionError("transmission refuses its own session id")

    def stop(self) -> None:
        """It saves and goes."""
        super().stop()
        if self._tracker is not None:
            self._tracker.stop()
