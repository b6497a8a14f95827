"""
Jobs that write and sync, run in worker threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from attrs import define

from irontide.storage.places import PAD, PART, Places
from irontide.values import Chunk


@define
class Run:
    """Memory that goes to one place in one call."""

    file: int
    offset: int
    begin: int
    parted: bool
    length: int
    views: list[memoryview]


def runs(places: Places, piece: int, chunks: Sequence[Chunk]) -> Iterator[Run]:
    """Cut ``chunks`` by files, and join what is adjacent in one."""
    last: Run | None = None
    for chunk in chunks:
        for extent in places.extents(piece, chunk.begin, len(chunk.data)):
            if extent.file == PAD:
                continue
            start = extent.begin - chunk.begin
            view = chunk.data[start : start + extent.length]
            if last is not None and last.file == extent.file and last.offset + last.length == extent.offset:
                last.views.append(view)
                last.length += extent.length
                continue
            if last is not None:
                yield last
            last = Run(extent.file, extent.offset, extent.begin, extent.parted, extent.length, [view])
    if last is not None:
        yield last


def write_chunks(places: Places, piece: int, chunks: Sequence[Chunk]) -> None:
    """Write parts of a piece to where they belong; raises StorageError."""
    for run in runs(places, piece, chunks):
        if run.parted:
            try:
                with places.errors(places.part.path):
                    places.part.write(run.file, piece, run.begin, run.views)
            finally:
                places.note_unsynced(PART)
        else:
            places.write(run.file, run.offset, run.views)


def sync(places: Places) -> None:
    """
    Have all that was written on the medium: files first, then the directories of new ones.

    :raises StorageError: at the first failure; nothing of what was to be synced then counts as synced.
    """
    system = places.open_files.system
    unsynced = places.take_unsynced()
    try:
        for file in sorted(unsynced.files):
            path = places.part.path if file == PART else places.paths[file]
            with places.errors(path), places.open_files.use(places.tree, path) as fd:
                system.fdatasync(fd)
        for directory in sorted(unsynced.directories):
            with (
                places.errors(directory),
                suppress(FileNotFoundError),  # then what was in it is missing too, and says so itself
                places.open_files.root(places.tree) as root,
            ):
                system.sync_directory(root, directory)
    except BaseException:
        places.give_back_unsynced(unsynced)
        raise
