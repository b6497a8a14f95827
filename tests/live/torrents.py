"""Torrents to transfer: content that is the same each time, and its .torrent file."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from hashlib import sha1
from pathlib import Path

import libtorrent
from attrs import frozen

from tests.conftest import FULL

KiB, MiB = 1 << 10, 1 << 20


@frozen
class Made:
    """
    Content on disk and its torrent.

    :ivar folder: where the content lies, as ``folder/name``.
    """

    torrent: Path
    folder: Path
    name: str
    size: int
    piece_length: int

    @property
    def content(self) -> Path:
        """The file, or the directory of files."""
        return self.folder / self.name


def single(root: Path, *, size: int, piece_length: int, seed: int = 1) -> Made:
    """Make a torrent of one file."""
    folder = root / "content"
    folder.mkdir(parents=True)
    _write(folder / "single.bin", size, random.Random(seed))
    return _torrent(root, "single.bin", size, piece_length, [("single.bin", size)])


def tree(root: Path, *, files: int, largest: int, piece_length: int, seed: int = 2) -> Made:
    """Make a torrent of many files in directories, every tenth of them empty."""
    rng = random.Random(seed)
    folder = root / "content"
    listed = []
    for number in range(files):
        size = 0 if number % 10 == 3 else rng.randrange(1, largest)
        path = f"tree/d{number % 7}/e{number % 3}/file {number:04}.bin"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        _write(folder / path, size, rng)
        listed.append((path, size))
    return _torrent(root, "tree", sum(size for _, size in listed), piece_length, listed)


KINDS: dict[str, Callable[[Path], Made]] = {
    "single": lambda root: single(root, size=(256 if FULL else 4) * MiB + 12345, piece_length=256 * KiB),
    "thousand-files": lambda root: tree(
        root, files=1000, largest=(256 if FULL else 8) * KiB, piece_length=64 * KiB
    ),
    "pieces-of-16KiB": lambda root: single(root, size=(64 if FULL else 2) * MiB + 777, piece_length=16 * KiB),
    "pieces-of-16MiB": lambda root: single(root, size=(256 if FULL else 33) * MiB, piece_length=16 * MiB),
    "last-piece-of-1-byte": lambda root: single(root, size=2 * MiB + 1, piece_length=128 * KiB),
}
"""The torrents that every pair of clients has to manage."""


def differences(made: Made, folder: Path, *, empty_files: bool = True) -> list[str]:
    """Compare what a client has in ``folder`` with the original, byte by byte; say what is wrong."""
    wrong = []
    for original in _files(made.content):
        if not empty_files and original.stat().st_size == 0:
            continue
        copy = folder / original.relative_to(made.folder)
        if not copy.is_file():
            wrong.append(f"missing: {copy}")
        elif copy.read_bytes() != original.read_bytes():
            wrong.append(f"differs: {copy}")
    return wrong


def _files(content: Path) -> Iterable[Path]:
    return [content] if content.is_file() else sorted(p for p in content.rglob("*") if p.is_file())


def _write(path: Path, size: int, rng: random.Random) -> None:
    with path.open("wb") as file:
        for start in range(0, size, MiB):
            file.write(rng.randbytes(min(MiB, size - start)))


def _torrent(root: Path, name: str, size: int, piece_length: int, files: list[tuple[str, int]]) -> Made:
    # Written here, not by irontide: what irontide misunderstands about the format should show.
    info: dict[bytes, object] = {
        b"name": name.encode(),
        b"piece length": piece_length,
        b"pieces": _piece_hashes([root / "content" / path for path, _ in files], piece_length),
    }
    if len(files) == 1:
        info[b"length"] = size
    else:
        info[b"files"] = [
            {b"length": length, b"path": [part.encode() for part in path.split("/")[1:]]}
            for path, length in files
        ]
    torrent = root / f"{name}.torrent"
    torrent.write_bytes(libtorrent.bencode({b"info": info}))
    return Made(torrent, root / "content", name, size, piece_length)


def _piece_hashes(paths: list[Path], piece_length: int) -> bytes:
    hashes, rest = b"", b""
    for path in paths:
        rest += path.read_bytes()
        while len(rest) >= piece_length:
            hashes += sha1(rest[:piece_length]).digest()
            rest = rest[piece_length:]
    return hashes + (sha1(rest).digest() if rest else b"")
