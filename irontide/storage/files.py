"""
A cache of open files, shared by all torrents, so that 10,000 files need no 10,000 descriptors.

Least recently used goes first.  A descriptor that a job uses is never closed under it: it is closed by the
last user.  The lock is held for bookkeeping only, never while the system opens or closes something, which
may take as long as the disk likes while the reactor asks for another file.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from itertools import islice
from typing import TypeVar

from irontide.storage.beneath import RelativePath
from irontide.storage.system import SYSTEM, System

LIMIT = 512
_ATTEMPTS = 3
_SCARCE = (errno.EMFILE, errno.ENFILE)


class Reading(Enum):
    """How files of a device may be read without stopping the reactor."""

    DIRECT = "it is memory: just read"
    NOWAIT = "preadv tells by RWF_NOWAIT whether it would have to wait"
    WORKER = "nobody can tell: read in a worker"


class OpenFile:
    """
    An open descriptor; obtained from ``OpenFiles``.

    :ivar fd: valid until it is given back.
    """

    __slots__ = ("cached", "fd", "users", "writable")

    def __init__(self, fd: int, writable: bool) -> None:
        self.fd = fd
        self.writable = writable
        self.users = 1
        self.cached = True


class Tree:
    """
    A root directory as one torrent sees it: the owner of cached descriptors.

    :ivar root: the path of the directory; may be a symbolic link.
    """

    __slots__ = ("root",)

    def __init__(self, root: str) -> None:
        self.root = root


Key = tuple[object, RelativePath]
T = TypeVar("T")


class OpenFiles:
    """
    Descriptors by tree and path; thread-safe.

    :ivar system: the calls by which everything is read and written.
    :ivar reading: what was learned of devices, by st_dev; for the reactor thread.
    """

    def __init__(self, limit: int = LIMIT, system: System = SYSTEM) -> None:
        self.system = system
        self._limit = max(1, limit)
        self._lock = threading.Lock()
        self._files: OrderedDict[Key, OpenFile] = OrderedDict()
        self.reading: dict[int, Reading] = {}

    def __len__(self) -> int:
        return len(self._files)

    @property
    def limit(self) -> int:
        """How many files are kept open; jobs that run may need a few more for a moment."""
        return self._limit

    def set_limit(self, limit: int) -> None:
        """Change the limit at once; those too many are closed."""
        self._limit = max(1, limit)
        self._close(self._evict(self._limit))

    def cached(self, tree: Tree, path: RelativePath) -> OpenFile | None:
        """A file that is open already, or None; never waits.  It has to be given back."""
        with self._lock:
            entry = self._files.get((tree, path))
            if entry is not None:
                entry.users += 1
                self._files.move_to_end((tree, path))
            return entry

    def give_back(self, entry: OpenFile) -> None:
        """Say that ``entry`` is not used any more."""
        with self._lock:
            entry.users -= 1
            last = entry.users == 0 and not entry.cached
        if last:
            os.close(entry.fd)

    def acquire(
        self, tree: Tree, path: RelativePath, *, write: bool = False, create: bool = False
    ) -> OpenFile:
        """
        A file below the root of ``tree``, which has to be given back; in a worker.

        :param create: make the file if it is missing; its directory has to exist.
        :raises OSError: it cannot be opened; nothing is remembered.
        """
        return self._get((tree, path), write) or self._open(tree, path, write, create)

    @contextmanager
    def use(
        self, tree: Tree, path: RelativePath, *, write: bool = False, create: bool = False
    ) -> Iterator[int]:
        """The descriptor of what ``acquire`` gives, for the length of the block."""
        entry = self.acquire(tree, path, write=write, create=create)
        try:
            yield entry.fd
        finally:
            self.give_back(entry)

    @contextmanager
    def root(self, tree: Tree) -> Iterator[int]:
        """A descriptor (O_PATH) of the root directory, shared by all trees that have the same."""
        key: Key = (tree.root, ())
        entry = self._get(key, False)
        if entry is None:
            entry = self._keep(key, self.frugally(lambda: self.system.open_root(tree.root)), False)
        try:
            yield entry.fd
        finally:
            self.give_back(entry)

    def forget(self, tree: Tree, path: RelativePath | None = None) -> None:
        """
        Close what is open of ``tree`` (or of it the file at ``path``), and its root.

        What a job uses at the moment is closed when the job is done.
        """
        with self._lock:
            if path is not None:
                keys: list[Key] = [(tree, path)]
            else:
                keys = [key for key in self._files if key[0] is tree]
                keys.append((tree.root, ()))
            entries = [entry for key in keys if (entry := self._files.pop(key, None)) is not None]
            idle = self._detach(entries)
        self._close(idle)

    def is_writable(self, tree: Tree, path: RelativePath) -> bool:
        """Tell whether the file is open for writing already, so that it exists."""
        entry = self._files.get((tree, path))
        return entry is not None and entry.writable

    def _get(self, key: Key, write: bool) -> OpenFile | None:
        with self._lock:
            entry = self._files.get(key)
            if entry is None or (write and not entry.writable):
                return None
            entry.users += 1
            self._files.move_to_end(key)
            return entry

    def _open(self, tree: Tree, path: RelativePath, write: bool, create: bool) -> OpenFile:
        flags = os.O_RDWR if write else os.O_RDONLY
        if create:
            flags |= os.O_CREAT
        with self.root(tree) as root:
            fd = self.frugally(lambda: self.system.open_file(root, path, flags))
        return self._keep((tree, path), fd, write)

    def _keep(self, key: Key, fd: int, writable: bool) -> OpenFile:
        """Put a new descriptor into the cache; if another thread was faster, take that one's."""
        fresh = OpenFile(fd, writable)
        with self._lock:
            entry = self._files.get(key)
            if entry is not None and (entry.writable or not writable):
                entry.users += 1
                idle = [fresh]
                fresh = entry
            else:
                idle = [] if entry is None else self._detach([entry])
                self._files[key] = fresh
            self._files.move_to_end(key)
        self._close(idle)
        self._close(self._evict(self._limit))
        return fresh

    def frugally(self, call: Callable[[], T]) -> T:
        """Call what opens something; without descriptors left, close half of the idle ones and try again."""
        for attempt in range(_ATTEMPTS):
            try:
                return call()
            except OSError as error:
                if error.errno not in _SCARCE or attempt == _ATTEMPTS - 1:
                    raise
                self._close(self._evict(len(self._files) // 2))
        raise AssertionError("unreachable")

    def _evict(self, limit: int) -> list[OpenFile]:
        """Take the idle files out of the cache that were not used for longest, down to ``limit``."""
        with self._lock:
            surplus = len(self._files) - limit
            if surplus <= 0:
                return []
            idle = islice((key for key, entry in self._files.items() if entry.users == 0), surplus)
            return self._detach([self._files.pop(key) for key in list(idle)])

    @staticmethod
    def _detach(entries: list[OpenFile]) -> list[OpenFile]:
        """Mark ``entries`` as out of the cache; return those that nobody uses."""
        for entry in entries:
            entry.cached = False
        return [entry for entry in entries if entry.users == 0]

    @staticmethod
    def _close(entries: list[OpenFile]) -> None:
        for entry in entries:
            os.close(entry.fd)
