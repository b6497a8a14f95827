"""What irontide has committed, read from a copy: looking must not change what is looked at."""

from __future__ import annotations

import shutil
from hashlib import sha1
from pathlib import Path

import libtorrent
from attrs import frozen
from twisted.internet import reactor

from irontide.session.store import SQLiteStore
from irontide.values import Progress
from tests.live.torrents import Made

BLOCK = 16384


@frozen
class Committed:
    """
    The committed progress of one torrent.

    :ivar clean: whether the last process closed the store in order.
    """

    pieces: frozenset[int]
    blocks: frozenset[tuple[int, int]]
    clean: bool

    def covers(self, piece: int, begin: int) -> bool:
        """Tell whether a block is committed, as part of its piece or by itself."""
        return piece in self.pieces or (piece, begin) in self.blocks


async def committed(state: Path, copy: Path) -> Committed | None:
    """Read what is kept in ``state`` (a folder with one torrent's store); None if no torrent is there."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(state, copy)
    store = await SQLiteStore.open(reactor, str(copy))
    clean = store.clean
    try:
        rows = await store.torrents()
        if not rows:
            return None
        progress = await store.progress(rows[0].infohash)
    finally:
        await store.close(clean=False)
    if progress is None:
        return Committed(frozenset(), frozenset(), clean)
    return Committed(frozenset(_ones(progress.bits)), _blocks(progress), clean)


def _ones(bits: bytes) -> list[int]:
    return [8 * at + bit for at, byte in enumerate(bits) for bit in range(8) if byte & 0x80 >> bit]


def _blocks(progress: Progress) -> frozenset[tuple[int, int]]:
    return frozenset((piece, BLOCK * at) for piece, mask in progress.masks.items() for at in _ones(mask))


def wrong_pieces(made: Made, folder: Path, pieces: frozenset[int]) -> list[int]:
    """Return which of ``pieces`` are not what their hash says, of a torrent of one file in ``folder``."""
    info = libtorrent.bdecode(made.torrent.read_bytes())[b"info"]
    wrong = []
    if not pieces:
        return wrong
    with (folder / made.name).open("rb") as file:
        for piece in sorted(pieces):
            file.seek(piece * made.piece_length)
            data = file.read(made.piece_length)
            if sha1(data).digest() != info[b"pieces"][20 * piece : 20 * piece + 20]:
                wrong.append(piece)
    return wrong
