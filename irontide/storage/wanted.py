"""
Jobs that decide which files exist: preparing a torrent's files, and changing which of them are wanted.

They run alone (see ``gate``), in the thread for syncs: what is taken out of the part file has to be on the
medium before it is forgotten there, because the torrent's bitfield says that it is on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from irontide.storage.beneath import RelativePath
from irontide.storage.places import PART, Places
from irontide.storage.writes import sync

COPY_LENGTH = 1 << 20


def prepare(places: Places, full: bool) -> None:
    """
    Make the root, the directories and the empty files that are wanted.

    What exists stays as it is, to be checked; an interrupted change of what is wanted is finished.

    :param full: have the space of all wanted files allocated.
    """
    places.open_files.forget(places.tree)  # the root may be another directory by now
    places.make_root()
    places.place()
    for file in sorted(places.part.files):
        if places.wanted[file]:
            take_out(places, file)
    create(places, (file for file in places.files() if places.wanted[file]), full)


def create(places: Places, files: Iterable[int], full: bool) -> None:
    """Make what of ``files`` can be made without their bytes."""
    made: set[RelativePath] = set()
    for file in files:
        length = places.info.files[file].length
        parent = places.paths[file][:-1]
        if parent not in made:
            places.make_directory(parent)
            made.add(parent)
        if full or not length:
            places.allocate(file, length)


def set_wanted(places: Places, wanted: Sequence[bool], full: bool) -> None:
    """
    Change which files are wanted.

    A file that becomes wanted gets its bytes from the part file.  One that is no longer wanted stays if it
    exists: its bytes are good, and deleting is for the user.  After a failure the files that could not be
    made are not wanted as before, nothing is lost, and the same call may be tried again.
    """
    if len(wanted) != len(places.paths):
        raise ValueError(f"{len(wanted)} marks for {len(places.paths)} files")
    for file in places.files():
        if places.wanted[file] and not wanted[file]:
            places.wanted[file] = False
            if places.info.files[file].length and places.stat(file) is None:
                places.parted.add(file)
    for file in places.files():
        if wanted[file] and not places.wanted[file]:
            take_out(places, file)
            create(places, [file], full)
            places.wanted[file] = True


def take_out(places: Places, file: int) -> None:
    """Move what the part file has of ``file`` to its own place, and have it synced there."""
    part = places.part
    if file in part.files:
        held = [piece for piece in places.layout.pieces_of(file) if part.holds(piece)]
        for piece in held:
            _copy(places, file, piece)
        sync(places)
        others = part.files - {file}
        alone = [piece for piece in held if others.isdisjoint(places.layout.files_of(piece))]
        with places.errors(part.path):
            part.taken_out(file, alone)
        if part.files:
            places.note_unsynced(PART)
    places.parted.discard(file)


def _copy(places: Places, file: int, piece: int) -> None:
    """Copy the bytes that ``piece`` has of ``file`` from the part file."""
    entry = places.info.files[file]
    origin = piece * places.layout.piece_length
    start = max(entry.offset, origin)
    end = min(entry.offset + entry.length, origin + places.layout.piece_size(piece))
    scratch = memoryview(bytearray(min(COPY_LENGTH, end - start)))
    while start < end:
        view = scratch[: min(len(scratch), end - start)]
        with places.errors(places.part.path):
            count = places.part.read(piece, start - origin, view)
        if count == 0:  # never written
            return
        places.write(file, start - entry.offset, [view[:count]])
        start += count


def any_file_exists(places: Places) -> bool:
    """Tell whether anything of the torrent is there."""
    places.open_files.forget(places.tree)  # the root may be another directory by now
    if places.exists(places.part.path):
        return True
    return any(places.stat(file) is not None for file in places.files())
