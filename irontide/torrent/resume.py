"""
What may be believed of a torrent's files at start, and what has to be hashed again.

Bits are committed only after their data was synced, so committed bits are trusted as far as the files are
those that were left: after a clean stop size and mtime of each must be the same; after a crash the same goes
for files that were at rest, while those being written (the dirty set) are expected to be newer.  If the
machine itself went down meanwhile (another boot id), a sample of their pieces is hashed as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from attrs import frozen

from irontide.errors import ProtocolViolation
from irontide.interfaces import FileStat, Progress
from irontide.metainfo.bitfield import Bitfield
from irontide.metainfo.info import Info

SAMPLE = 64
"""Pieces hashed of a dirty file after a power cut."""


@frozen
class Plan:
    """
    What to do before a torrent runs.

    :ivar have: the pieces believed to be there; those in ``check`` are not in it.
    :ivar check: the pieces to be hashed: those that pass are had.
    :ivar samples: by file, pieces of it that are believed and hashed all the same; if one fails, every
        piece of the file is to be checked.
    :ivar masks: the blocks that are on disk of pieces that are neither had nor checked.
    """

    have: Bitfield
    check: tuple[int, ...]
    samples: Mapping[int, tuple[int, ...]]
    masks: Mapping[int, bytes]


def plan(
    info: Info, progress: Progress | None, found: Mapping[int, FileStat], *, boot_id: str, random: Random
) -> Plan:
    """
    Say what is believed.

    :param progress: the last commit; None for a torrent that was just added.
    :param found: size and mtime of the files that exist now, by index.
    """
    layout = info.layout
    if progress is None:
        return Plan(Bitfield(layout.pieces), tuple(_pieces_in(info, found)), {}, {})
    try:
        have = layout.bitfield(progress.bits)
    except ProtocolViolation:  # bits of another size: nothing in that row can be believed
        return Plan(Bitfield(layout.pieces), tuple(_pieces_in(info, found)), {}, {})
    doubtful: set[int] = set()
    samples: dict[int, tuple[int, ...]] = {}
    for index, file in enumerate(info.files):
        if file.pad or not file.length:
            continue
        now, before = found.get(index), progress.stats.get(index)
        pieces = layout.pieces_of(index)
        if _too_short(info, index, now, have):
            doubtful.update(pieces)
        elif index in progress.dirty:
            if progress.boot_id != boot_id:
                believed = [piece for piece in pieces if have[piece]]
                if believed:
                    samples[index] = tuple(random.sample(believed, min(SAMPLE, len(believed))))
        elif now != before:
            doubtful.update(pieces)
    for piece in doubtful:
        have.clear(piece)
    masks = {
        piece: mask
        for piece, mask in progress.masks.items()
        if piece < layout.pieces and not have[piece] and piece not in doubtful
    }
    return Plan(have, tuple(sorted(doubtful)), samples, masks)


def _pieces_in(info: Info, found: Mapping[int, FileStat]) -> list[int]:
    """Pieces of which at least a part is in a file that exists."""
    pieces: set[int] = set()
    for index, stat in found.items():
        if stat.size and info.files[index].length:
            pieces.update(info.layout.pieces_of(index))
    return sorted(pieces)


def _too_short(info: Info, index: int, now: FileStat | None, have: Bitfield) -> bool:
    """Whether a file ends before what its pieces need."""
    size = 0 if now is None else now.size
    file = info.files[index]
    if size >= file.length:
        return False
    first_absent = (file.offset + size) // info.piece_length
    return any(have[piece] for piece in range(first_absent, info.layout.pieces_of(index).stop))


def dirty_files(info: Info, have: Bitfield) -> frozenset[int]:
    """The files that may be written to while the pieces that are missing come."""
    dirty: set[int] = set()
    for piece in have.zeros():
        dirty.update(info.layout.files_of(piece))
    return frozenset(index for index in dirty if not info.files[index].pad and info.files[index].length)
