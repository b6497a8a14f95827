"""Infos for tests, as values that bencode can write."""

from __future__ import annotations

from typing import Any

from irontide.metainfo.bencode import encode

PIECE = 16 * 1024


def single(length: int = 100_000, /, **changes: Any) -> dict[bytes, Any]:
    """The values of an Info of one file; ``changes`` by key with ``_`` for a space, None to leave it out."""
    values = {
        b"name": b"file.bin",
        b"piece length": PIECE,
        b"length": length,
        b"pieces": bytes(20) * -(-length // PIECE),
    }
    return _changed(values, changes)


def multi(*files: tuple[str, int] | dict[bytes, Any], **changes: Any) -> dict[bytes, Any]:
    """The values of an Info of ``files``: path and length, or as they stand in the Info."""
    entries = [
        file if isinstance(file, dict) else {b"path": file[0].encode().split(b"/"), b"length": file[1]}
        for file in files
    ]
    total = sum(entry[b"length"] for entry in entries)
    values = {
        b"name": b"folder",
        b"piece length": PIECE,
        b"files": entries,
        b"pieces": bytes(20) * -(-total // PIECE),
    }
    return _changed(values, changes)


def torrent(info: dict[bytes, Any] | None = None, **changes: Any) -> bytes:
    """The bytes of a .torrent file."""
    return encode(_changed({b"info": single() if info is None else info}, changes))


def _changed(values: dict[bytes, Any], changes: dict[str, Any]) -> dict[bytes, Any]:
    new = values | {key.replace("_", " ").encode(): value for key, value in changes.items()}
    return {key: value for key, value in new.items() if value is not None}
