"""
Jobs that put a torrent's files elsewhere: moving all, renaming one, deleting.  They run alone (see ``gate``).

Moving goes file by file: a rename where the file system is the same, else a copy that keeps holes and times.
Originals of copies are removed when everything is there and synced; until then everything can be undone, and
is if anything fails.  Nothing that exists at the destination is ever overwritten: that is found out before
the first file is touched.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress

from irontide.errors import StorageError
from irontide.storage import beneath
from irontide.storage.beneath import RelativePath
from irontide.storage.disk import storage_error
from irontide.storage.places import Places

STRIDE = 8 << 20
STEP_SECONDS = 0.05
"""How long one job of a move works before others get their turn."""
_NO_RANGE_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


class Move:
    """
    Moving the files of a torrent to another root, step by step; used by one worker at a time.

    :ivar total: bytes in the files that are moved; known after ``begin``.
    :ivar moved: bytes of files that are at the new root.
    """

    def __init__(self, places: Places, new_root: str) -> None:
        self._places = places
        self._new_root = new_root
        self._open = ExitStack()
        self._old = self._new = -1
        self._files: list[tuple[RelativePath, int]] = []
        self._renamed: list[RelativePath] = []
        self._copied: list[RelativePath] = []
        self._made: list[RelativePath] = []
        self._made_root: list[str] = []
        self._steps = self._move_all()
        self.total = 0
        self.moved = 0

    def begin(self) -> int:
        """
        Find out what there is to move; return the ``st_dev`` of the new root.

        :raises StorageError: the new root cannot be made, or something is in the way there.
        """
        with self._errors(self._new_root):
            self._make_root()
            self._new = self._directory(self._new_root)
            new = os.fstat(self._new)
        try:
            self._old = self._directory(self._places.tree.root)
        except FileNotFoundError:
            return new.st_dev
        old = os.fstat(self._old)
        if (old.st_dev, old.st_ino) != (new.st_dev, new.st_ino):
            self._survey()
        return new.st_dev

    def _make_root(self) -> None:
        missing = os.path.abspath(self._new_root)
        while not os.path.isdir(missing):
            self._made_root.append(missing)
            missing = os.path.dirname(missing)
        os.makedirs(self._new_root, exist_ok=True)

    def _directory(self, path: str) -> int:
        fd = self._places.open_files.system.open_root(path)
        self._open.callback(os.close, fd)
        return fd

    def _survey(self) -> None:
        """List the files that exist, and see that nothing is where they will go."""
        places = self._places
        for path in [*(places.paths[file] for file in places.files()), places.part.path]:
            with self._errors(os.path.join(places.tree.root, *path)):
                found = beneath.stat_file(self._old, path)
                if found is None:
                    continue
                if not stat.S_ISREG(found.st_mode):
                    raise OSError(errno.EINVAL, "not a regular file")
            with self._errors(os.path.join(self._new_root, *path)):
                if beneath.stat_file(self._new, path) is not None:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            self._files.append((path, found.st_size))
            self.total += found.st_size

    def step(self) -> bool:
        """Move on for a moment; False when all is moved."""
        until = time.monotonic() + STEP_SECONDS
        for count in self._steps:
            self.moved += count
            if time.monotonic() > until:
                return True
        return False

    def _move_all(self) -> Generator[int, None, None]:
        """Move everything, a file or a few MiB at a time."""
        self._places.open_files.forget(self._places.tree)
        for path, size in self._files:
            with self._errors(os.path.join(self._new_root, *path)):
                self._made += beneath.make_directories(self._new, path[:-1])
                try:
                    self._places.open_files.system.rename(self._old, path, self._new, path)
                    self._renamed.append(path)
                    yield size
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    yield from self._copy(path)

    def _copy(self, path: RelativePath) -> Iterator[int]:
        with ExitStack() as files:
            source = beneath.open_file(self._old, path, os.O_RDONLY)
            files.callback(os.close, source)
            target = beneath.open_file(self._new, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            files.callback(os.close, target)
            self._copied.append(path)  # not before: ``undo`` removes what stands here
            yield from copy_data(source, target)
            was = os.fstat(source)
            os.fchmod(target, stat.S_IMODE(was.st_mode))
            os.utime(target, ns=(was.st_atime_ns, was.st_mtime_ns))

    def sync(self) -> None:
        """Have the copies and all names on the medium; in the thread for syncs."""
        for path in self._copied:
            with self._errors(os.path.join(self._new_root, *path)):
                fd = beneath.open_file(self._new, path, os.O_RDONLY)
                try:
                    self._places.open_files.system.fdatasync(fd)
                finally:
                    os.close(fd)
        moved = self._renamed + self._copied
        parents = {path[:length] for path in moved for length in range(len(path))}
        with self._errors(self._new_root):
            for parent in sorted(parents):
                self._places.open_files.system.sync_directory(self._new, parent)

    def undo(self, cause: Exception) -> None:
        """Put everything back; what cannot be put back is noted on ``cause``."""
        self._steps.close()
        try:
            for path in reversed(self._renamed):
                try:
                    beneath.rename(self._new, path, self._old, path)
                except OSError as error:
                    cause.add_note(f"{'/'.join(path)} is left in {self._new_root}: {error.strerror}")
            for path in self._copied:
                with suppress(OSError):
                    beneath.unlink(self._new, path)
            for directory in reversed(self._made):
                beneath.remove_empty(self._new, directory)
            for made in self._made_root:
                with suppress(OSError):
                    os.rmdir(made)
        finally:
            self._open.close()

    def settle(self) -> None:
        """Everything is there: live at the new root, and clean up at the old one."""
        places = self._places
        old_paths = list(places.paths)
        for path in self._copied:
            with suppress(OSError):  # the copy is good; a leftover is no reason to fail
                beneath.unlink(self._old, path)
        if self._files:
            for path in old_paths:
                beneath.remove_empty(self._old, path[:-1])
        self._open.close()
        places.open_files.forget(places.tree)
        places.tree.root = self._new_root
        places.forget_unsynced_directories()
        places.place()

    def _errors(self, path: str) -> _Naming:
        return _Naming(path)


class _Naming:
    """Turns an OSError into a StorageError about ``path``."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            raise storage_error(error, self._path) from error


def copy_data(source: int, target: int) -> Iterator[int]:
    """Copy a file, leaving holes where there are; yields how many bytes it went on."""
    size = os.fstat(source).st_size
    at = 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
            end = os.lseek(source, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole to the end
                break
            if error.errno != errno.EINVAL:
                raise
            start, end = at, size
        yield start - at
        while start < end:
            count = _copy_range(source, target, start, min(STRIDE, end - start))
            if count == 0:
                raise OSError(errno.EIO, "the file became shorter while it was copied")
            start += count
            yield count
        at = end
    os.ftruncate(target, size)
    yield size - at


def _copy_range(source: int, target: int, start: int, length: int) -> int:
    with suppress(_RangeCopyUnknown):
        return _copy_in_kernel(source, target, start, length)
    data = os.pread(source, length, start)
    return os.pwrite(target, data, start)


class _RangeCopyUnknown(Exception):
    """The file systems cannot copy between them by themselves."""


def _copy_in_kernel(source: int, target: int, start: int, length: int) -> int:
    try:
        count = os.copy_file_range(source, target, length, start, start)
    except OSError as error:
        if error.errno in _NO_RANGE_COPY:
            raise _RangeCopyUnknown from None
        raise
    if count == 0:  # some file systems say so when they mean that they cannot
        raise _RangeCopyUnknown
    return count


def rename_file(places: Places, file: int, new: RelativePath) -> None:
    """
    Give a file another path below the root; it need not exist yet.

    :raises StorageError: something is there, or it cannot be done; then everything is as before.
    """
    old = places.paths[file]
    if new == old:
        return
    with places.errors(new):
        beneath.check_path(new)
        if any(_collide(new, path) for index, path in enumerate(places.paths) if index != file):
            raise FileExistsError(errno.EEXIST, "another file of the torrent is there")
        with places.open_files.root(places.tree) as root:
            if beneath.stat_file(root, new) is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            if beneath.stat_file(root, old) is not None:
                places.open_files.forget(places.tree, old)
                _rename_below(places, root, old, new)
            beneath.remove_empty(root, old[:-1])
    places.paths[file] = new


def _collide(one: RelativePath, other: RelativePath) -> bool:
    """Tell whether both cannot be files: they are the same, or one would be a directory."""
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def _rename_below(places: Places, root: int, old: RelativePath, new: RelativePath) -> None:
    system = places.open_files.system
    made = beneath.make_directories(root, new[:-1])
    renamed = False
    try:
        system.rename(root, old, root, new)
        renamed = True
        for length in range(len(new)):
            system.sync_directory(root, new[:length])
        system.sync_directory(root, old[:-1])
    except OSError:
        if renamed:
            beneath.rename(root, new, root, old)
        for directory in reversed(made):
            beneath.remove_empty(root, directory)
        raise


def delete(places: Places) -> None:
    """
    Remove the torrent's own files, and the directories that are empty then; never the root.

    :raises StorageError: something could not be removed; the rest was.
    """
    places.open_files.forget(places.tree)
    failed: StorageError | None = None
    try:
        with places.open_files.root(places.tree) as root:
            for path in [*(places.paths[file] for file in places.files()), places.part.path]:
                try:
                    places.open_files.system.unlink(root, path)
                except OSError as error:
                    failed = failed or storage_error(error, places.full_path(path))
            for path in places.paths:
                beneath.remove_empty(root, path[:-1])
    except FileNotFoundError:  # not even a root
        return
    places.take_unsynced()
    places.placed = False
    if failed is not None:
        raise failed
