"""Plain values that the layers hand to each other, through what is in interfaces.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen


@frozen
class PeerAddress:
    """Where a peer listens or connects from: a numeric IPv4 or IPv6 address and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen
class Chunk:
    """Bytes of a piece that are in memory: ``data`` belongs at ``begin``."""

    begin: int
    data: memoryview


@frozen
class Verdict:
    """
    What hashing a piece told.

    :ivar passed: whether the piece is what its hash says.
    :ivar digests: one short digest for each 16 KiB block in order; empty unless asked for or failed.
    """

    passed: bool
    digests: tuple[bytes, ...] = ()


@frozen
class Transferred:
    """What an announce tells of a torrent, in bytes."""

    uploaded: int
    downloaded: int
    left: int


@frozen
class StoredTorrent:
    """
    A torrent as the store keeps it (class A facts).

    :ivar metainfo: the bytes of the .torrent file as they were added.
    :ivar options: what the user set for it: JSON-compatible values.
    :ivar rebuilt: why this is not what was stored: empty, or what was found damaged and how it was
        mended.  Such a torrent is held paused until the user says otherwise; ``save_path`` may be empty.
        Not kept: adding the torrent (again) ends it.
    """

    infohash: bytes
    metainfo: bytes
    save_path: str
    added: float
    options: Mapping[str, Any]
    rebuilt: str = ""


@frozen
class FileStat:
    """Size in bytes and mtime in nanoseconds of a file, as committed."""

    size: int
    mtime_ns: int


@frozen
class Progress:
    """
    How far a torrent is (class B facts): a subset of what is on disk and synced.

    :ivar bits: the bitfield, as on the wire.
    :ivar masks: for unfinished pieces, which 16 KiB blocks are on disk (a bit each, as on the wire).
    :ivar stats: of files that are at rest, by index; files not named are unchanged.
    :ivar dirty: indexes of files that may be written to from now on; they have no trusted stat.
    :ivar boot_id: the kernel's boot id at the time of the commit.
    :ivar uploaded: and ``downloaded``: bytes of payload since the torrent was added.
    """

    infohash: bytes
    bits: bytes
    masks: Mapping[int, bytes]
    stats: Mapping[int, FileStat]
    dirty: frozenset[int]
    boot_id: str
    uploaded: int = 0
    downloaded: int = 0
