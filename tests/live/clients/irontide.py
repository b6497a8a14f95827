"""irontide as a user runs it: its command line, in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.live.clients.base import PATIENCE, Address, Client, Process, accepts, free_port, wait_until


class Irontide(Client):
    """
    ``python -m irontide``.

    It may be started again and again; all that it keeps is below ``workdir``.
    """

    name = "irontide"

    @classmethod
    def missing(cls) -> str | None:
        """Never."""
        return None

    def __init__(
        self, workdir: Path, host: str = "127.0.0.1", *, environment: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(workdir, host)
        self._environment = dict(environment or {})
        self._port = 0
        self._runs = 0

    @property
    def address(self) -> Address:
        """A port that was free."""
        return self.host, self._port

    @property
    def state(self) -> Path:
        """Where ``irontide download`` keeps a folder for each torrent."""
        return self.workdir / "state" / "irontide" / "downloads"

    def seed(self, torrent: Path, folder: Path, peers: Sequence[Address] = ()) -> None:
        """Returns when it takes connections, which is after the check of the content."""
        self.run("seed", str(torrent), "--from", str(folder), *_peers(peers))
        wait_until(lambda: self._alive_and(accepts(self.address)), "irontide listens")
        wait_until(lambda: self._alive_and(self.progress() >= 1), "irontide has checked what it seeds")

    def download(self, torrent: Path, folder: Path, peers: Sequence[Address]) -> None:
        """Ends by itself when done."""
        self.run("download", str(torrent), "--to", str(folder), *_peers(peers))

    def run(self, verb: str, *arguments: str, prefix: Sequence[str] = ()) -> Process:
        """Start ``irontide verb arguments``, as JSON and with all that it logs; ``prefix`` starts it all."""
        self._port = free_port(self.host)
        self._runs += 1
        environment = {
            "IRONTIDE_LISTEN_ADDRESSES": self.host,
            "IRONTIDE_LISTEN_PORT": str(self._port),
            "XDG_CONFIG_HOME": str(self.workdir / "config"),
            "XDG_STATE_HOME": str(self.workdir / "state"),
            **self._environment,
        }
        self.process = Process(
            [*prefix, sys.executable, "-m", "irontide", verb, "--json", "--verbose", *arguments],
            self.workdir / f"log-{self._runs}",
            environment=environment,
            cwd=self.workdir,
        )
        return self.process

    def events(self) -> list[dict[str, Any]]:
        """Return the JSON lines that it printed so far."""
        lines = self.process.log.read_text("utf-8", "replace").split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def said(self) -> list[str]:
        """Return what it logged or complained of."""
        return [event["text"] for event in self.events() if "text" in event]

    def progress(self) -> float:
        """By the newest line that tells it; 1 only when all is verified, written and synced."""
        for event in reversed(self.events()):
            if event["event"] in ("progress", "complete"):
                return 1.0 if event["complete"] else event["have_bytes"] / (event["wanted_bytes"] + 1)
        return 0.0

    def wait_complete(self, seconds: float = PATIENCE) -> None:
        """``irontide download`` says it by its exit status."""
        status = self.process.wait(seconds)
        assert status == 0, f"exit status {status}\n{self.process.tail()}"


def _peers(peers: Sequence[Address]) -> list[str]:
    return [word for host, port in peers for word in ("--peer", f"{host}:{port}")]
