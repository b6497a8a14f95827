"""
What is to be shared: which files there are below a path, and what their pieces hash to.

Symbolic links are not followed, they would bring in what was not meant, and what is neither a file nor a
folder cannot be shared; both are left out and named.  Hidden files are files.  The order is that of the
names, so that the same folder gives the same infohash everywhere.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from hashlib import sha1

from attrs import frozen

from irontide.errors import IrontideError
from irontide.metainfo.layout import File, Layout

THREADS = 2
"""Reading and hashing release the GIL; more of them only make a disk seek."""
AHEAD = 4 * THREADS
"""How many pieces are given to the threads at a time."""
_CHUNK = 1024 * 1024


class ContentError(IrontideError):
    """What was to be shared cannot be, or changed meanwhile."""


@frozen
class Content:
    """
    The files below a path, as they were found.

    :ivar name: of the file or folder; becomes the name of the torrent.
    :ivar real_path: where the file or folder is, symbolic links resolved.
    :ivar files: path, beginning with ``name``, and size, in order.
    :ivar stamps: modification time of each file.
    :ivar skipped: what was left out and why, for the user.
    """

    name: str
    real_path: str
    files: tuple[tuple[tuple[str, ...], int], ...]
    stamps: tuple[int, ...]
    skipped: tuple[str, ...]

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(length for _, length in self.files)

    def path_of(self, file: int) -> str:
        """Where a file is on disk."""
        return os.path.join(self.real_path, *self.files[file][0][1:])

    def layout(self, piece_length: int) -> Layout:
        """How the files lie in pieces."""
        made, offset = [], 0
        for path, length in self.files:
            made.append(File(path, length, offset))
            offset += length
        return Layout(offset, piece_length, made)


def find(path: str, leave_out: str | None = None) -> Content:
    """
    Look at all files at or below ``path``, which may itself be a symbolic link.

    :param leave_out: the real path of a file that is no part of it: the .torrent that will be written.
    :raises ContentError: there is nothing to share.
    :raises OSError: something cannot be read.
    """
    name = os.path.basename(os.path.abspath(path))
    if not name:
        raise ContentError(f"{path}: has no name that the torrent could have")
    real_path = os.path.realpath(path, strict=True)
    found: list[tuple[tuple[str, ...], int, int]] = []
    skipped: list[str] = []
    status = os.stat(real_path)
    if stat.S_ISREG(status.st_mode):
        found.append(((name,), status.st_size, status.st_mtime_ns))
    elif stat.S_ISDIR(status.st_mode):
        found.extend(_below(real_path, name, leave_out, skipped))
        found.sort()
    else:
        raise ContentError(f"{path}: neither a file nor a folder")
    if not any(size for _, size, _ in found):
        raise ContentError(f"{path}: there is nothing in it to share")
    return Content(
        name,
        real_path,
        tuple((path, size) for path, size, _ in found),
        tuple(stamp for _, _, stamp in found),
        tuple(sorted(skipped)),
    )


def _below(
    top: str, name: str, leave_out: str | None, skipped: list[str]
) -> Iterator[tuple[tuple[str, ...], int, int]]:
    folders: list[tuple[str, tuple[str, ...]]] = [(top, (name,))]
    while folders:
        folder, path = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    skipped.append(f"{entry.path}: a symbolic link")
                elif entry.path == leave_out:
                    skipped.append(f"{entry.path}: the file that is written")
                elif entry.is_dir():
                    folders.append((entry.path, (*path, entry.name)))
                elif entry.is_file():
                    status = entry.stat()
                    yield (*path, entry.name), status.st_size, status.st_mtime_ns
                else:
                    skipped.append(f"{entry.path}: neither a file nor a folder")


def hash_pieces(content: Content, piece_length: int, progress: Callable[[int], object]) -> bytes:
    """
    Return the SHA-1 of each piece, joined.

    :param progress: told of every few bytes that are hashed, how many; in this thread.
    :raises ContentError: a file changed meanwhile.
    :raises OSError: a file cannot be read.
    """
    layout = content.layout(piece_length)
    hashes = []
    waiting: deque[tuple[int, Future[bytes]]] = deque()
    with ThreadPoolExecutor(THREADS, "hash") as threads:
        try:
            for piece in range(layout.pieces):
                waiting.append((piece, threads.submit(_hash_piece, content, layout, piece)))
                while len(waiting) >= AHEAD:
                    hashes.append(_take(waiting, layout, progress))
            while waiting:
                hashes.append(_take(waiting, layout, progress))
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    _check_unchanged(content)
    return b"".join(hashes)


def _take(
    waiting: deque[tuple[int, Future[bytes]]], layout: Layout, progress: Callable[[int], object]
) -> bytes:
    piece, future = waiting.popleft()
    digest = future.result()
    progress(layout.piece_size(piece))
    return digest


def _hash_piece(content: Content, layout: Layout, piece: int) -> bytes:
    """Runs in a thread."""
    hasher = sha1(usedforsecurity=False)
    buffer = memoryview(bytearray(min(_CHUNK, layout.piece_size(piece))))
    for span in layout.spans(piece, 0, layout.piece_size(piece)):
        path = content.path_of(span.file)
        with closing(_Reader(path, span.offset)) as reader:
            left = span.length
            while left:
                got = reader.read_into(buffer[: min(left, len(buffer))])
                if not got:
                    raise ContentError(f"{path}: became shorter while it was read")
                hasher.update(buffer[:got])
                left -= got
    return hasher.digest()


class _Reader:
    """A file from an offset on; never through a symbolic link that took the file's place."""

    def __init__(self, path: str, offset: int) -> None:
        self._offset = offset
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def read_into(self, buffer: memoryview) -> int:
        got = os.preadv(self._file, [buffer], self._offset)
        self._offset += got
        return got

    def close(self) -> None:
        os.close(self._file)


def _check_unchanged(content: Content) -> None:
    for index, (_, length) in enumerate(content.files):
        status = os.lstat(content.path_of(index))
        if (status.st_size, status.st_mtime_ns) != (length, content.stamps[index]):
            raise ContentError(f"{content.path_of(index)}: changed while it was read")
