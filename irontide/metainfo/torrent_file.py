"""
.torrent files: an Info and what stands around it (BEP 3, 5, 12, 19).

The Info has to be right.  Everything else is optional, written by tools of all ages, and read leniently: what
cannot be used is left out, and the torrent is none the worse for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from attrs import field, frozen

from irontide.errors import MetainfoError
from irontide.metainfo.bencode import decode_with_span
from irontide.metainfo.info import Info, text
from irontide.metainfo.urls import tracker_tiers, web_seed_urls

MAX_FILE = 64 * 1024 * 1024
"""The most that is ever looked at.  The limit of the settings, 10 MiB by default, is lower: whoever takes a
file in from outside holds it to that, before all of it is in memory."""
MAX_TEXT = 16 * 1024
MAX_NODES = 100
LAST_SECOND = 253_402_300_799
"""The end of the year 9999, the last that Python's dates know."""


@frozen
class TorrentFile:
    """
    A .torrent file.

    :ivar tiers: announce URLs: those of a tier are equals, a tier is asked when those before it failed.
    :ivar web_seeds: HTTP servers that have the files (BEP 19).
    :ivar nodes: host and port of DHT nodes to begin with (BEP 5).
    :ivar creation_date: seconds since 1970, or None.
    :ivar raw: the file.
    """

    info: Info
    tiers: tuple[tuple[str, ...], ...] = ()
    web_seeds: tuple[str, ...] = ()
    nodes: tuple[tuple[str, int], ...] = ()
    comment: str = ""
    created_by: str = ""
    creation_date: int | None = None
    raw: bytes = field(default=b"", repr=False)

    @classmethod
    def from_bytes(cls, data: bytes, *, max_size: int = MAX_FILE) -> Self:
        """
        Read the bytes of a .torrent file.

        :raises MetainfoError: it cannot be used; the text says why.
        """
        if len(data) > max_size:
            raise MetainfoError(f"a file of {len(data)} bytes; the most are {max_size}")
        raw = data.rstrip(b"\r\n")  # what uploads through forms leave behind
        values, (start, end) = decode_with_span(raw, any_order=True)
        return cls(
            info=Info.from_values(values[b"info"], raw[start:end]),
            tiers=_tiers(values),
            web_seeds=web_seed_urls(values.get(b"url-list")),
            nodes=_nodes(values.get(b"nodes")),
            comment=text(values, b"comment")[:MAX_TEXT],
            created_by=text(values, b"created by")[:MAX_TEXT],
            creation_date=_date(values.get(b"creation date")),
            raw=data,
        )

    def to_bytes(self) -> bytes:
        """Return the file as it was read."""
        return self.raw

    @property
    def trackers(self) -> tuple[str, ...]:
        """All announce URLs, in order."""
        return tuple(url for tier in self.tiers for url in tier)


def _tiers(values: Mapping[bytes, Any]) -> tuple[tuple[str, ...], ...]:
    """Return ``announce-list`` if it is of any use, else ``announce`` (BEP 12)."""
    lists = values.get(b"announce-list")
    return tracker_tiers(lists if isinstance(lists, list) else []) or tracker_tiers([values.get(b"announce")])


def _nodes(values: Any) -> tuple[tuple[str, int], ...]:
    found = []
    for value in values[:MAX_NODES] if isinstance(values, list) else []:
        match value:
            case [bytes(host), int(port)] if 0 < len(host) < 256 and 0 < port < 65536 and host.isascii():
                found.append((host.decode(), port))
    return tuple(found)


def _date(value: Any) -> int | None:
    return value if isinstance(value, int) and 0 <= value <= LAST_SECOND else None
