"""
Making .torrent files (v1).

Pure: whoever calls has read and hashed the files.  The same input gives the same bytes, so that the same
data published twice is one torrent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irontide.errors import MetainfoError
from irontide.metainfo.bencode import encode
from irontide.metainfo.info import MAX_FILES
from irontide.metainfo.torrent_file import TorrentFile
from irontide.metainfo.urls import MAX_TRACKERS, TRACKER_SCHEMES, WEB_SEED_SCHEMES, tracker_tiers, usable_url

SMALLEST_CHOICE = 16 * 1024
LARGEST_CHOICE = 16 * 1024 * 1024
MOST_PIECES = 2000
"""Pieces are chosen to be at most this many, and more than half of it, while their length may vary: small
enough to check and share soon, large enough to keep the file small."""

FileEntry = tuple[Sequence[str], int]
"""Path, as in ``Info``: ``(name,)`` for a single file, else beginning with the torrent's name; and length."""


def choose_piece_length(total: int) -> int:
    """Return the piece length that suits ``total`` bytes: a power of two from 16 KiB to 16 MiB."""
    length = SMALLEST_CHOICE
    while length < LARGEST_CHOICE and total > MOST_PIECES * length:
        length *= 2
    return length


def build(
    name: str,
    files: Sequence[FileEntry],
    piece_length: int,
    piece_hashes: bytes,
    *,
    tiers: Sequence[Sequence[str]] = (),
    private: bool = False,
    comment: str = "",
    web_seeds: Sequence[str] = (),
    source: str = "",
    created_by: str = "",
    creation_date: int | None = None,
) -> bytes:
    """
    Return the bytes of a .torrent file.

    :param files: in the order in which they were hashed, one after the other without gaps.
    :param piece_hashes: the SHA-1 of each piece, joined.
    :param source: goes into the Info, so that the infohash differs from tracker to tracker.
    :raises MetainfoError: irontide itself would refuse the result, or read another name or URL in it.
    """
    top: dict[bytes, Any] = {b"info": _info(name, files, piece_length, piece_hashes, private, source)}
    trackers = [[_bytes(url) for url in tier] for tier in _checked_tiers(tiers)]
    if trackers:
        top[b"announce"] = trackers[0][0]
    if sum(map(len, trackers)) > 1:
        top[b"announce-list"] = trackers
    if web_seeds:
        seeds = [_bytes(check_web_seed(url)) for url in dict.fromkeys(web_seeds)]
        top[b"url-list"] = seeds if len(seeds) > 1 else seeds[0]
    for key, text in ((b"comment", comment), (b"created by", created_by)):
        if text:
            top[key] = _bytes(text)
    if creation_date is not None:
        top[b"creation date"] = creation_date
    data = encode(top)
    _check_names(TorrentFile.from_bytes(data), files)
    return data


def check_tracker(url: str) -> str:
    """
    Return ``url`` if it can be a tracker.

    :raises MetainfoError: it cannot.
    """
    return _checked(url, TRACKER_SCHEMES, "a tracker")


def check_web_seed(url: str) -> str:
    """
    Return ``url`` if it can be a web seed.

    :raises MetainfoError: it cannot.
    """
    return _checked(url, WEB_SEED_SCHEMES, "a web seed")


def _checked(url: str, schemes: frozenset[str], what: str) -> str:
    found = usable_url(url, schemes)
    if found is None:
        raise MetainfoError(f"{url!r} is not {what}: {' or '.join(sorted(schemes))} URLs are")
    return found


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise MetainfoError(f"{text!r} is not text that can be written in UTF-8") from None


def _info(
    name: str, files: Sequence[FileEntry], piece_length: int, piece_hashes: bytes, private: bool, source: str
) -> dict[bytes, Any]:
    if not files:
        raise MetainfoError("there are no files")
    if len(files) > MAX_FILES:
        raise MetainfoError(f"{len(files)} files; the most are {MAX_FILES}")
    info: dict[bytes, Any] = {
        b"name": _bytes(name),
        b"piece length": piece_length,
        b"pieces": piece_hashes,
    }
    if len(files) == 1 and len(files[0][0]) == 1:
        info[b"length"] = files[0][1]
    else:
        info[b"files"] = [
            {b"length": length, b"path": [_bytes(part) for part in path[1:]]} for path, length in files
        ]
    if private:
        info[b"private"] = 1
    if source:
        info[b"source"] = _bytes(source)
    return info


def _checked_tiers(tiers: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    """Return ``tiers`` with each URL once."""
    urls = {check_tracker(url) for tier in tiers for url in tier}
    if len(urls) > MAX_TRACKERS:
        raise MetainfoError(f"{len(urls)} trackers; the most are {MAX_TRACKERS}")
    return tracker_tiers(tiers)


def _check_names(made: TorrentFile, files: Sequence[FileEntry]) -> None:
    """Check that others will read the names that were meant: seeding would not find the files otherwise."""
    for file, (path, _) in zip(made.info.files, files, strict=True):
        if file.path != tuple(path):
            raise MetainfoError(f"the name {'/'.join(path)!r} would become {'/'.join(file.path)!r} elsewhere")
