"""
Where each byte of a torrent lies: in a file, in the part file, or nowhere (padding).

A file that is not wanted and does not exist lives in the part file; every other file at its path.  A file is
made when its first byte is written and grows from then on, sparse, so that it has its right size when it is
complete and ``stat`` tells how far it came.

This is the state that worker threads share.  It changes only while no other job of the torrent runs (see
``gate``); the notes of what has to be synced are the exception and have a lock.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from attrs import frozen

from irontide.errors import StorageError
from irontide.metainfo.info import Info
from irontide.storage.beneath import RelativePath, make_directories, stat_file
from irontide.storage.disk import storage_error
from irontide.storage.files import OpenFile, OpenFiles, Reading, Tree
from irontide.storage.parts import PartFile
from irontide.storage.system import is_memory, read_all, write_all

PAD = -1
"""In place of a file's index: zeros that are nowhere."""
PART = -2
"""In place of a file's index: the part file."""


class ShortFile(StorageError):
    """A file ends before the bytes that are asked for."""


@frozen
class Extent:
    """
    A part of a piece that lies in one place.

    :ivar file: index of the file, or PAD.
    :ivar offset: where in the file.
    :ivar begin: where in the piece.
    :ivar parted: whether it is to be found in the part file.
    """

    file: int
    offset: int
    begin: int
    length: int
    parted: bool


@frozen
class Unsynced:
    """What was written and may not be on the medium: indexes of files (or PART), and directories."""

    files: frozenset[int]
    directories: frozenset[RelativePath]


class Places:
    """
    The files of one torrent below its root.

    :ivar paths: where each file is, by index; changed by renaming.
    :ivar wanted: whether each file is wanted.
    :ivar parted: the files that live in the part file.
    :ivar device: st_dev of the root (or of the nearest directory above that exists); 0 until placed.
    :ivar placed: whether it is known what lies where.
    """

    def __init__(
        self,
        info: Info,
        root: str,
        open_files: OpenFiles,
        wanted: Sequence[bool] | None,
        paths: Sequence[RelativePath] | None,
    ) -> None:
        self.info = info
        self.layout = info.layout
        self.tree = Tree(root)
        self.open_files = open_files
        self.paths: list[RelativePath] = list(paths or [file.path for file in info.files])
        self.wanted = list(wanted or [True] * len(info.files))
        if len(self.paths) != len(info.files) or len(self.wanted) != len(info.files):
            raise ValueError(f"the torrent has {len(info.files)} files")
        self.parted: set[int] = set()
        self.device = 0
        self.placed = False
        self._placing = threading.Lock()
        self.part = self._part_file()
        self._lock = threading.Lock()
        self._unsynced: set[int] = set()
        self._unsynced_directories: set[RelativePath] = set()

    def _part_file(self) -> PartFile:
        name = f".{self.info.name}"
        suffix = f".{self.info.infohash.hex()}.parts"
        while len(os.fsencode(name + suffix)) > 255:
            name = name[:-1]
        layout = self.layout
        return PartFile(
            self.open_files, self.tree, (name + suffix,), layout.pieces, layout.piece_length, len(self.paths)
        )

    # --- what lies where ---

    def files(self) -> Iterator[int]:
        """The indexes of all files that stand for something on disk."""
        return (index for index, file in enumerate(self.info.files) if not file.pad)

    def ensure_placed(self) -> None:
        """Find out what lies where, unless that is known; the first thing that any job does."""
        if not self.placed:
            with self._placing:
                if not self.placed:
                    self.place()

    def place(self) -> None:
        """Find out from the disk which files live in the part file, and how the device may be read."""
        self.part.load()
        missing = {index for index in self.files() if not self.wanted[index] and self.stat(index) is None}
        self.parted = self.part.files | {index for index in missing if self.info.files[index].length}
        existing = self._nearest_existing()
        with self.errors(()):
            self.device = os.stat(existing).st_dev
            if self.device not in self.open_files.reading:
                reading = Reading.DIRECT if is_memory(existing) else Reading.NOWAIT
                self.open_files.reading[self.device] = reading
        self.placed = True

    def _nearest_existing(self) -> str:
        """The root, or the directory above it in which it could be made."""
        path = os.path.abspath(self.tree.root)
        while not os.path.exists(path) and path != os.path.dirname(path):
            path = os.path.dirname(path)
        return path

    def extents(self, piece: int, begin: int, length: int) -> list[Extent]:
        """What a part of a piece consists of, in order."""
        files, parted = self.info.files, self.parted
        found = []
        for span in self.layout.spans(piece, begin, length):
            file = PAD if files[span.file].pad else span.file
            found.append(Extent(file, span.offset, begin, span.length, file in parted))
            begin += span.length
        return found

    def stat(self, file: int) -> os.stat_result | None:
        """The stat of a file at its path, or None."""
        return self._stat(self.paths[file])

    def exists(self, path: RelativePath) -> bool:
        """Tell whether anything is at ``path``."""
        return self._stat(path) is not None

    def _stat(self, path: RelativePath) -> os.stat_result | None:
        with self.errors(path):
            try:
                with self.open_files.root(self.tree) as root:
                    return stat_file(root, path)
            except FileNotFoundError:
                return None

    def full_path(self, path: RelativePath) -> str:
        """``path`` as the user would write it."""
        return os.path.join(self.tree.root, *path)

    @contextmanager
    def errors(self, path: RelativePath) -> Iterator[None]:
        """Turn an OSError into a StorageError that names the file."""
        try:
            yield
        except OSError as error:
            raise storage_error(error, self.full_path(path)) from error

    # --- opening ---

    @contextmanager
    def reading(self, file: int) -> Iterator[int]:
        """A descriptor to read a file by."""
        path = self.paths[file]
        with self.errors(path), self.open_files.use(self.tree, path) as fd:
            yield fd

    def read(self, file: int, offset: int, view: memoryview) -> int:
        """Fill ``view`` from a file; return how much there was.  No ``with``: this is a hot path."""
        path = self.paths[file]
        try:
            entry = self.open_files.acquire(self.tree, path)
            try:
                return read_all(self.open_files.system, entry.fd, view, offset)
            finally:
                self.open_files.give_back(entry)
        except OSError as error:
            raise storage_error(error, self.full_path(path)) from error

    def write(self, file: int, offset: int, views: Sequence[memoryview]) -> None:
        """Write to a file, which is made if need be, and note that it is not synced; a hot path."""
        path = self.paths[file]
        try:
            entry = self._open_for_writing(path)
            try:
                write_all(self.open_files.system, entry.fd, views, offset)
            finally:
                self.open_files.give_back(entry)
        except OSError as error:
            raise storage_error(error, self.full_path(path)) from error
        finally:  # after the write: a sync that runs meanwhile must not take the note away
            self.note_unsynced(file)

    def allocate(self, file: int, length: int) -> None:
        """Make a file if need be, and have space for its first ``length`` bytes, which may be 0."""
        path = self.paths[file]
        with self.errors(path):
            entry = self._open_for_writing(path)
            try:
                if length:
                    self.open_files.system.allocate(entry.fd, length)
            finally:
                self.open_files.give_back(entry)
                self.note_unsynced(file)

    def _open_for_writing(self, path: RelativePath) -> OpenFile:
        files = self.open_files
        if files.is_writable(self.tree, path) or self.exists(path):
            return files.acquire(self.tree, path, write=True)
        self.make_directory(path[:-1])
        entry = files.acquire(self.tree, path, write=True, create=True)
        self._note_directories([path[:-1]])
        return entry

    def make_directory(self, path: RelativePath) -> None:
        """Make a directory below the root with those above it, and note them as not synced."""
        if path:
            with self.errors(path), self.open_files.root(self.tree) as root:
                made = self.open_files.frugally(lambda: make_directories(root, path))
            self._note_directories([directory[:-1] for directory in made])

    def make_root(self) -> None:
        """Make the root directory if there is none."""
        try:
            os.makedirs(self.tree.root, exist_ok=True)
        except OSError as error:
            raise storage_error(error, self.tree.root) from error

    # --- what is not synced ---

    def note_unsynced(self, file: int) -> None:
        """Note that ``file`` (or PART) was written."""
        if file not in self._unsynced:  # if it is, no sync has taken the note, and the next one will
            with self._lock:
                self._unsynced.add(file)

    def _note_directories(self, paths: Iterable[RelativePath]) -> None:
        with self._lock:
            self._unsynced_directories.update(paths)

    def take_unsynced(self) -> Unsynced:
        """Hand the notes over to who will sync."""
        with self._lock:
            taken = Unsynced(frozenset(self._unsynced), frozenset(self._unsynced_directories))
            self._unsynced.clear()
            self._unsynced_directories.clear()
        return taken

    def forget_unsynced_directories(self) -> None:
        """They are synced, or are not where they were."""
        with self._lock:
            self._unsynced_directories.clear()

    def give_back_unsynced(self, unsynced: Unsynced) -> None:
        """The sync failed: nothing of it counts as clean."""
        with self._lock:
            self._unsynced |= unsynced.files
            self._unsynced_directories |= unsynced.directories


def is_missing(error: StorageError) -> bool:
    """Tell whether ``error`` says that bytes are not there, rather than that they cannot be read."""
    return isinstance(error, ShortFile) or error.errno in (errno.ENOENT, errno.ENOTDIR)
