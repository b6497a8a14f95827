"""
What may be believed of a torrent's files at start, and what has to be hashed again.

Bits are committed only after their data was synced, so committed bits are trusted as far as the files are
those that were left: after a clean stop size and mtime of each must be the same; after a crash the same goes
for files that were at rest, while those being written (the dirty set) are expected to be newer.  If the
machine itself went down meanwhile (another boot id), a sample of their pieces is hashed as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random

from attrs import frozen

from irontide.errors import ProtocolViolation
from irontide.metainfo.bitfield import Bitfield
from irontide.metainfo.info import Info
from irontide.metainfo.layout import BLOCK_LENGTH, Layout
from irontide.values import FileStat, Progress

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
    info: Info,
    progress: Progress | None,
    found: Mapping[int, FileStat],
    *,
    boot_id: str,
    random: Random,
    wanted: Sequence[bool] | None = None,
) -> Plan:
    """
    Say what is believed.

    :param progress: the last commit; None for a torrent that was just added.
    :param found: size and mtime of the files that exist now, by index.
    :param wanted: by file; what there is of one that is not wanted may lie elsewhere than in ``found``.
    """
    layout = info.layout
    nothing = Plan(Bitfield(layout.pieces), tuple(_pieces_in(info, found)), {}, {})
    if progress is None:
        return nothing
    try:
        have = layout.bitfield(progress.bits)
    except ProtocolViolation:  # bits of another size: nothing in that row can be believed
        return nothing
    doubtful: set[int] = set()
    asleep: list[int] = []
    for index, file in enumerate(info.files):
        if file.pad or not file.length:
            continue
        now, before = found.get(index), progress.stats.get(index)
        pieces = layout.pieces_of(index)
        if now is None:  # gone, or not wanted and in the part file: nothing can be gained but what is had
            doubtful.update(piece for piece in pieces if have[piece])
        elif _too_short(info, index, now, have):
            doubtful.update(pieces)
        elif index in progress.dirty:
            if progress.boot_id != boot_id:
                asleep.append(index)
        elif now != before:
            doubtful.update(pieces)
    for piece in doubtful:
        have.clear(piece)
    masks = {
        piece: mask
        for piece, mask in progress.masks.items()
        if piece not in doubtful and _is_there(info, have, piece, mask, found, wanted)
    }
    samples = {index: some for index in asleep if (some := _sample(layout.pieces_of(index), have, random))}
    return Plan(have, tuple(sorted(doubtful)), samples, masks)


def _sample(pieces: Iterable[int], have: Bitfield, random: Random) -> tuple[int, ...]:
    """Some of the pieces that are believed."""
    believed = [piece for piece in pieces if have[piece]]
    return tuple(random.sample(believed, min(SAMPLE, len(believed))))


def _is_there(
    info: Info,
    have: Bitfield,
    piece: int,
    mask: bytes,
    found: Mapping[int, FileStat],
    wanted: Sequence[bool] | None,
) -> bool:
    """Whether the files are as long as the blocks of an unfinished piece need."""
    layout = info.layout
    if not 0 <= piece < layout.pieces or have[piece]:
        return False
    for block in written_blocks(layout, piece, mask):
        begin = block * BLOCK_LENGTH
        length = min(BLOCK_LENGTH, layout.piece_size(piece) - begin)
        for span in layout.spans(piece, begin, length):
            stat = found.get(span.file)
            if info.files[span.file].pad:
                continue
            if stat is None:
                if wanted is None or wanted[span.file]:
                    return False
            elif stat.size < span.offset + span.length:
                return False
    return True


def _pieces_in(info: Info, found: Mapping[int, FileStat]) -> list[int]:
    """Pieces of which at least a part is in a file that exists."""
    pieces: set[int] = set()
    for index, stat in found.items():
        if stat.size and info.files[index].length:
            pieces.update(info.layout.pieces_of(index))
    return sorted(pieces)


def _too_short(info: Info, index: int, now: FileStat, have: Bitfield) -> bool:
    """Whether a file ends before what its pieces need."""
    file = info.files[index]
    if now.size >= file.length:
        return False
    first_absent = (file.offset + now.size) // info.piece_length
    return any(have[piece] for piece in range(first_absent, info.layout.pieces_of(index).stop))


def written_blocks(layout: Layout, piece: int, mask: bytes) -> list[int]:
    """The blocks that a mask speaks of; bits beyond the piece mean nothing."""
    return [
        block
        for block in range(layout.blocks_in(piece))
        if block >> 3 < len(mask) and mask[block >> 3] & (0x80 >> (block & 7))
    ]


def has_all(info: Info, have: Bitfield, wanted: Sequence[bool]) -> bool:
    """Whether every piece of every wanted file is had; padding aside."""
    if have.complete:
        return True
    return all(
        have[piece]
        for index, file in enumerate(info.files)
        if wanted[index] and not file.pad
        for piece in info.layout.pieces_of(index)
    )


def dirty_files(info: Info, have: Bitfield) -> frozenset[int]:
    """The files that may be written to while the pieces that are missing come."""
    dirty: set[int] = set()
    for piece in have.zeros():
        dirty.update(info.layout.files_of(piece))
    return frozenset(index for index in dirty if not info.files[index].pad and info.files[index].length)
