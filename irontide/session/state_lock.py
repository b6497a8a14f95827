"""
Keeps two processes from using one state directory.

flock rather than a pid file alone: the kernel lets go of it however the process ends, so that no crash
leaves a directory locked.  The pid inside is only for the error text.
"""

from __future__ import annotations

import fcntl
import os

from irontide.errors import StateInUse

LOCK_NAME = "lock"


class StateLock:
    """
    The right to a state directory, from construction to ``release``.

    :raises StateInUse: another process (or another store in this one) has it.
    :raises OSError: the directory cannot be written to.
    """

    def __init__(self, directory: str) -> None:
        path = os.path.join(directory, LOCK_NAME)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            who = f"process {owner}" if owner.isdigit() else "another process"
            raise StateInUse(f"{directory} is in use by {who}") from None
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            # A full disk: the lock counts, the pid inside it is a courtesy.
            pass

    def release(self) -> None:
        """Let others in; calling it again does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
