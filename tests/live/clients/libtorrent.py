"""libtorrent, in a process of its own that speaks JSON lines (``libtorrent_process.py``)."""

from __future__ import annotations

import importlib.util
import json
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.live.clients.base import Address, Client, TookTooLong

SCRIPT = Path(__file__).with_name("libtorrent_process.py")
ANSWER = 10.0
"""Seconds within which the process answers a line."""


class Libtorrent(Client):
    """
    A session of libtorrent's Python wheel.

    ``upload_limit`` is in bytes a second, ``settings`` go over our defaults.
    """

    name = "libtorrent"

    @classmethod
    def missing(cls) -> str | None:
        """The wheel is among the requirements of the tests."""
        return None if importlib.util.find_spec("libtorrent") else "pip install libtorrent"

    def __init__(
        self, workdir: Path, host: str = "127.0.0.1", *, upload_limit: int = -1, **settings: Any
    ) -> None:
        super().__init__(workdir, host)
        self.upload_limit = upload_limit
        self.settings = settings
        self._child: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._port = 0

    @property
    def address(self) -> Address:
        """Chosen by the system."""
        return self.host, self._port

    def seed(self, torrent: Path, folder: Path, peers: Sequence[Address] = ()) -> None:
        """Start without a check: the content is known to be right."""
        self._start(torrent, folder, peers, seed=True)

    def download(self, torrent: Path, folder: Path, peers: Sequence[Address]) -> None:
        """Peers are told to it directly."""
        self._start(torrent, folder, peers, seed=False)

    def progress(self) -> float:
        """As a fraction of what it wants."""
        return float(self.status()["progress"])

    def status(self) -> dict[str, Any]:
        """Return ``progress``, ``state``, ``error``, ``peers``, ``downloaded``, ``uploaded``, ``failed``."""
        return self._ask(do="status")

    def connect(self, peer: Address) -> None:
        """Dial one more peer."""
        self._ask(do="connect", host=peer[0], port=peer[1])

    def _alive_and(self, answer: bool) -> bool:
        return answer

    def _start(self, torrent: Path, folder: Path, peers: Sequence[Address], seed: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._child = subprocess.Popen(
            [sys.executable, "-P", str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.workdir / "stderr").open("ab"),
            bufsize=0,
        )
        answer = self._ask(
            do="start",
            torrent=str(torrent),
            folder=str(folder),
            peers=[list(peer) for peer in peers],
            seed=seed,
            listen=f"{self.host}:0",
            settings=self.settings,
            upload_limit=self.upload_limit,
        )
        self._port = answer["port"]

    def _ask(self, **line: Any) -> dict[str, Any]:
        assert self._child is not None and self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(json.dumps(line).encode() + b"\n")
        deadline = time.monotonic() + ANSWER
        while b"\n" not in self._rest:
            readable, _, _ = select.select([self._child.stdout], [], [], max(0, deadline - time.monotonic()))
            if not readable:
                raise TookTooLong(f"libtorrent's answer to {line['do']}")
            got = self._child.stdout.read(65536)
            if not got:
                errors = (self.workdir / "stderr").read_text()[-3000:]
                raise AssertionError(f"libtorrent's process ended with {self._child.wait(5)}\n{errors}")
            self._rest += got
        answer, _, self._rest = self._rest.partition(b"\n")
        decoded: dict[str, Any] = json.loads(answer)
        return decoded

    def stop(self) -> None:
        """Closing its input ends it."""
        if self._child is None:
            return
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.close()
        try:
            self._child.wait(15)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(15)
        self._child.stdout.close()
