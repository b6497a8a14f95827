"""Disks that fill up, and calls to the kernel that fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path


class SmallDisk:
    """A tmpfs of a certain size, mounted at ``path``; needs root."""

    def __init__(self, path: Path, size: int) -> None:
        """
        :raises subprocess.CalledProcessError: this may not be done here.
        """
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={size}", "irontide-test", str(path))

    def resize(self, size: int) -> None:
        """Make it larger or smaller."""
        _run("mount", "-o", f"remount,size={size}", str(self.path))

    def fill(self) -> Path:
        """Take all the room that is left; return the file that takes it."""
        ballast = self.path / "ballast"
        descriptor = os.open(ballast, os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            for length in (1 << 20, 1 << 12):
                while True:
                    try:
                        os.write(descriptor, bytes(length))
                    except OSError:
                        break
        finally:
            os.close(descriptor)
        return ballast

    def remove(self) -> None:
        """Unmount it."""
        _run("umount", "--lazy", str(self.path))


def failing(call: str, path: Path, *, error: str = "EIO", when: str = "1+") -> Sequence[str]:
    """
    Return the command prefix under which system calls on files fail.

    :param call: the names of the calls, as strace has them: ``pwrite64,pwritev``.
    :param path: only those on this file.
    :param when: which of them: ``3+`` from the third on, ``2..4`` the second to the fourth.
    """
    inject = f"inject={call}:error={error}:when={when}"
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(path), "-e", f"trace={call}", "-e", inject]


def no_strace() -> str | None:
    """Say why strace cannot be used here, or None if it can."""
    if shutil.which("strace") is None:
        return "apt-get install strace"
    tried = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "may not trace processes here"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=10)
