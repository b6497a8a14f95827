"""What is transferred: random bytes in memory, and a torrent of them."""

from __future__ import annotations

import os
from hashlib import sha1
from pathlib import Path

import libtorrent
from attrs import frozen

CHUNK = 1 << 20


@frozen
class Content:
    """A torrent of one file."""

    torrent: Path
    file: Path
    size: int


def make_content(where: Path, size: int, piece_length: int) -> Content:
    """Write ``size`` random bytes below ``where``, and a v1 torrent without trackers."""
    source = where / "source"
    source.mkdir()
    file = source / "content.bin"
    hashes = []
    with file.open("wb") as output:
        for start in range(0, size, piece_length):
            piece = os.urandom(min(piece_length, size - start))
            hashes.append(sha1(piece).digest())
            output.write(piece)
    info = {
        b"length": size,
        b"name": file.name.encode(),
        b"piece length": piece_length,
        b"pieces": b"".join(hashes),
    }
    torrent = where / "content.torrent"
    torrent.write_bytes(libtorrent.bencode({b"info": info}))
    return Content(torrent, file, size)


def warm(where: Path, size: int) -> None:
    """
    Fill and free ``size`` bytes of ``where``.

    On virtual machines the first touch of a page goes through the hypervisor and costs more than the
    transfer of what is in it.
    """
    ballast = where / "ballast"
    zeros = bytes(CHUNK)
    with ballast.open("wb") as output:
        for _ in range(size // CHUNK):
            output.write(zeros)
    ballast.unlink()


def same_bytes(one: Path, other: Path) -> bool:
    """Compare two files."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while chunk := first.read(CHUNK):
            if second.read(CHUNK) != chunk:
                return False
    return True
