"""aria2, asked by its JSON-RPC; it learns of peers from a tracker of ours, having no other way."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.live.clients.base import Address, Client, Process, accepts, free_port, wait_until
from tests.live.tracker import StaticTracker


class Aria2(Client):
    """Debian's aria2c."""

    name = "aria2"

    @classmethod
    def missing(cls) -> str | None:
        """A Debian package."""
        return None if shutil.which("aria2c") else "apt-get install aria2"

    def __init__(self, workdir: Path, host: str = "127.0.0.1") -> None:
        super().__init__(workdir, host)
        self._port = 0
        self._rpc = 0
        self._tracker: StaticTracker | None = None

    @property
    def address(self) -> Address:
        """A port that was free."""
        return self.host, self._port

    def seed(self, torrent: Path, folder: Path, peers: Sequence[Address] = ()) -> None:
        """It checks the content first."""
        self._start(torrent, folder, peers, "--check-integrity=true")
        self.wait_complete()
        wait_until(lambda: accepts(self.address), "aria2 listens")

    def download(self, torrent: Path, folder: Path, peers: Sequence[Address]) -> None:
        """Goes on to seed when done."""
        self._start(torrent, folder, peers)

    def _start(self, torrent: Path, folder: Path, peers: Sequence[Address], *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._port, self._rpc = free_port(), free_port()
        self._tracker = StaticTracker(self.host, peers)
        announced = self._tracker.torrent(torrent, self.workdir / "announced.torrent")
        self.process = Process(
            [
                "aria2c",
                "--no-conf",
                "--enable-rpc",
                f"--rpc-listen-port={self._rpc}",
                f"--listen-port={self._port}",
                f"--dir={folder}",
                "--enable-dht=false",
                "--enable-dht6=false",
                "--bt-enable-lpd=false",
                "--enable-peer-exchange=false",
                "--file-allocation=none",
                "--allow-overwrite=true",
                "--seed-ratio=0.0",
                "--bt-request-peer-speed-limit=100M",
                "--summary-interval=0",
                "--console-log-level=notice",
                "--no-proxy=*",
                *options,
                f"--torrent-file={announced}",
            ],
            self.workdir / "log",
            cwd=self.workdir,
        )
        wait_until(lambda: self._alive_and(accepts((self.host, self._rpc))), "aria2's RPC")

    def progress(self) -> float:
        """Counting bytes, as it does."""
        keys = ["totalLength", "completedLength", "status", "verifiedLength", "verifyIntegrityPending"]
        found = self._call("aria2.tellActive", keys) + self._call("aria2.tellStopped", 0, 1, keys)
        if not found or int(found[0]["totalLength"]) == 0 or "verifiedLength" in found[0]:
            return 0.0
        return int(found[0]["completedLength"]) / int(found[0]["totalLength"])

    def _call(self, method: str, *params: Any) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "id": "t", "method": method, "params": params}).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{self.host}:{self._rpc}/jsonrpc", body, timeout=10) as answer:
            return json.load(answer)["result"]

    def stop(self) -> None:
        """SIGTERM makes it save and go."""
        super().stop()
        if self._tracker is not None:
            self._tracker.stop()
