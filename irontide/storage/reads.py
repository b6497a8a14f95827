"""
Reading: at once in the reactor thread where that cannot wait, else in a worker.

``preadv`` with RWF_NOWAIT gives what the page cache has and EAGAIN for the rest, which a worker then reads.
tmpfs and ramfs are memory and are simply read.  A file system that knows no RWF_NOWAIT says so once and is
read by workers from then on.  No mmap: a truncated file would be SIGBUS, a cold page stops the reactor.
"""

from __future__ import annotations

import errno
import os

from irontide.storage.disk import storage_error
from irontide.storage.files import Reading
from irontide.storage.places import PAD, Extent, Places, ShortFile
from irontide.storage.system import read_all

_RWF_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)


def read_into(places: Places, piece: int, begin: int, view: memoryview) -> None:
    """
    Fill ``view`` from ``begin`` in ``piece``, waiting for the disk as long as it takes.

    :raises ShortFile: a file ends before.
    :raises StorageError: a file is missing or cannot be read.
    """
    for extent in places.extents(piece, begin, len(view)):
        start = extent.begin - begin
        _read_extent(places, piece, extent, view[start : start + extent.length])


def _read_extent(places: Places, piece: int, extent: Extent, view: memoryview) -> None:
    if extent.file == PAD:
        view[:] = bytes(len(view))
    elif extent.parted:
        path = places.part.path
        with places.errors(path):
            if places.part.read(piece, extent.begin, view) < len(view):
                raise ShortFile(f"{places.full_path(path)}: too short", None, places.full_path(path))
    elif places.read(extent.file, extent.offset, view) < len(view):
        raise _short(places, extent.file)


def _short(places: Places, file: int) -> ShortFile:
    path = places.full_path(places.paths[file])
    return ShortFile(f"{path}: shorter than it was", None, path)


def read_at_once(places: Places, piece: int, begin: int, view: memoryview) -> bool:
    """
    Fill ``view`` without waiting; False if that needs a worker.

    :raises ShortFile: a file ends before.
    :raises StorageError: the disk says that it cannot be read.
    """
    reading = places.open_files.reading.get(places.device, Reading.WORKER)
    if reading is Reading.WORKER or not _RWF_NOWAIT:
        return False
    flags = _RWF_NOWAIT if reading is Reading.NOWAIT else 0
    for extent in places.extents(piece, begin, len(view)):
        start = extent.begin - begin
        part = view[start : start + extent.length]
        if extent.file == PAD:
            part[:] = bytes(len(part))
        elif extent.parted or not _read_file_at_once(places, extent, part, flags):
            return False
    return True


def _read_file_at_once(places: Places, extent: Extent, view: memoryview, flags: int) -> bool:
    path = places.paths[extent.file]
    entry = places.open_files.cached(places.tree, path)
    if entry is None:
        return False
    try:
        count = read_all(places.open_files.system, entry.fd, view, extent.offset, flags)
    except BlockingIOError:  # not in the page cache
        return False
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise storage_error(error, places.full_path(path)) from error
        places.open_files.reading[places.device] = Reading.WORKER
        return False
    finally:
        places.open_files.give_back(entry)
    if count < len(view):
        raise _short(places, extent.file)
    return True
