"""
The system calls that fail when a disk does, in one place, so that a test can have them fail on demand.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence

from irontide.storage import beneath
from irontide.storage.beneath import RelativePath

IOV_MAX = 1024
"""How many buffers Linux takes in one call."""

_MEMORY_FILE_SYSTEMS = frozenset({0x01021994, 0x858458F6})  # tmpfs, ramfs
_STATFS_LENGTH = 256  # more than any architecture's struct statfs, of which only the first word matters
_libc = ctypes.CDLL(None, use_errno=True)


class System:
    """What the storage asks of the operating system; every method raises OSError."""

    def open_root(self, path: str) -> int:
        """A descriptor by which things below the directory ``path`` can be found."""
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def open_file(self, root: int, path: RelativePath, flags: int) -> int:
        """See ``beneath.open_file``."""
        return beneath.open_file(root, path, flags)

    def preadv(self, fd: int, views: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        """Read at ``offset``; returns how much, 0 at the end of the file."""
        return os.preadv(fd, views, offset, flags)

    def pwritev(self, fd: int, views: Sequence[memoryview], offset: int) -> int:
        """Write at ``offset``; returns how much."""
        return os.pwritev(fd, views, offset)

    def fdatasync(self, fd: int) -> None:
        """Have the data of a file, and its size, on the medium."""
        os.fdatasync(fd)

    def sync_directory(self, root: int, path: RelativePath) -> None:
        """Have the names in a directory on the medium."""
        beneath.sync_directory(root, path)

    def allocate(self, fd: int, length: int) -> None:
        """Have space for the first ``length`` bytes; what is in the file stays as it is."""
        os.posix_fallocate(fd, 0, length)

    def rename(self, old_root: int, old: RelativePath, new_root: int, new: RelativePath) -> None:
        """See ``beneath.rename``."""
        beneath.rename(old_root, old, new_root, new)

    def unlink(self, root: int, path: RelativePath) -> None:
        """See ``beneath.unlink``."""
        beneath.unlink(root, path)


SYSTEM = System()


def is_memory(path: str) -> bool:
    """Tell whether the file system of ``path`` keeps its files in memory; raises OSError."""
    answer = ctypes.create_string_buffer(_STATFS_LENGTH)
    if _libc.statfs(os.fsencode(path), answer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    kind = ctypes.c_long.from_buffer(answer).value
    return kind & 0xFFFFFFFF in _MEMORY_FILE_SYSTEMS


def write_all(system: System, fd: int, views: Sequence[memoryview], offset: int) -> None:
    """Write all of ``views``, one after the other, at ``offset``."""
    left = list(views)
    while left:
        written = system.pwritev(fd, left[:IOV_MAX], offset)
        if not written and any(len(view) for view in left):
            raise OSError(errno.EIO, "nothing was written")
        offset += written
        left = _after(left, written)


def read_all(system: System, fd: int, view: memoryview, offset: int, flags: int = 0) -> int:
    """Fill ``view`` from ``offset`` on; return how much there was before the end of the file."""
    done = 0
    while done < len(view):
        count = system.preadv(fd, [view[done:]], offset + done, flags)
        if count == 0:
            break
        done += count
    return done


def _after(views: list[memoryview], count: int) -> list[memoryview]:
    """What is left of ``views`` after their first ``count`` bytes."""
    for index, view in enumerate(views):
        if count < len(view):
            return [view[count:], *views[index + 1 :]]
        count -= len(view)
    return []
