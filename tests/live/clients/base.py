"""
What the real clients have in common: a process of their own, a verb each to seed and to download, and an
end that comes.

A client serves one torrent from one process.  Everything that waits has a limit, and its error carries
the end of the client's log.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

Address = tuple[str, int]

ROOT = Path(__file__).resolve().parent.parent.parent.parent
PATIENCE = 60.0
"""Seconds that anything may take in a test of CI size."""


class TookTooLong(AssertionError):
    """Something did not happen in time."""


def wait_until(
    happened: Callable[[], object], what: str, *, seconds: float = PATIENCE, every: float = 0.05
) -> None:
    """
    Ask ``happened`` again and again until it says yes.

    :raises TookTooLong: it did not within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise TookTooLong(f"not within {seconds} s: {what}")
        time.sleep(every)


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that was free just now; for clients that cannot be told to choose one."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def accepts(address: Address) -> bool:
    """Tell whether somebody listens at ``address``."""
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


class Process:
    """
    A child process with its output in a file; it ends when it is told, or is ended.

    It finds irontide whether that is installed or not; ``environment`` is added to ours.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
                cwd=cwd,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    @property
    def status(self) -> int | None:
        """The exit status (minus the signal's number if by a signal), or None while it runs."""
        return self._child.poll()

    def wait(self, seconds: float = PATIENCE) -> int:
        """Return the exit status; raises TookTooLong with the end of the log."""
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TookTooLong(f"pid {self.pid} runs after {seconds} s\n{self.tail()}") from None

    def signal(self, number: int) -> None:
        """Send a signal, if there is still somebody to get it."""
        self._child.send_signal(number)

    def stop(self, seconds: float = 15.0) -> int:
        """End it, by force after ``seconds``; return its exit status."""
        self._child.terminate()
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            self._child.kill()
            return self._child.wait(seconds)

    def tail(self, length: int = 3000) -> str:
        """Return the end of what it wrote."""
        return self.log.read_bytes()[-length:].decode("utf-8", "replace")


class Client:
    """
    A BitTorrent client in a process of its own.

    ``folder`` is where content lives: that of a torrent named ``x`` is at ``folder/x``.
    """

    name: ClassVar[str]
    makes_empty_files: ClassVar[bool] = True
    """Transmission leaves them out."""

    process: Process

    @classmethod
    def missing(cls) -> str | None:
        """Say why this client cannot run here, or None if it can."""
        raise NotImplementedError

    def __init__(self, workdir: Path, host: str = "127.0.0.1") -> None:
        self.workdir = workdir
        self.host = host
        workdir.mkdir(parents=True, exist_ok=True)

    @property
    def address(self) -> Address:
        """Where it listens for peers."""
        raise NotImplementedError

    def seed(self, torrent: Path, folder: Path, peers: Sequence[Address] = ()) -> None:
        """Offer content that is there already; returns when the client is ready for peers."""
        raise NotImplementedError

    def download(self, torrent: Path, folder: Path, peers: Sequence[Address]) -> None:
        """Begin to fetch from ``peers``."""
        raise NotImplementedError

    def progress(self) -> float:
        """Return how much of the content it has, 0 to 1."""
        raise NotImplementedError

    def wait_complete(self, seconds: float = PATIENCE) -> None:
        """Return when it has everything."""
        wait_until(lambda: self._alive_and(self.progress() >= 1), f"{self.name} complete", seconds=seconds)

    def stop(self) -> None:
        """End it in order; what it has is on disk then.  Never fails."""
        if hasattr(self, "process"):
            self.process.stop()

    def _alive_and(self, answer: bool) -> bool:
        if not answer and self.process.status is not None:
            raise AssertionError(f"{self.name} ended with {self.process.status}\n{self.process.tail()}")
        return answer
