"""Where a command gets its .torrent from: a file or an http(s) URL, both bounded in size and time."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

from irontide.errors import MetainfoError
from irontide.metainfo.torrent_file import TorrentFile

FETCH_DEADLINE = 60.0
"""Seconds for all of a download of a .torrent file."""


class Fetches(Protocol):
    """What is needed of a Fetcher."""

    def fetch(self, url: str, *, deadline: float, limit: int) -> Deferred[bytes]:
        """See Fetcher."""
        ...


async def load(fetcher: Fetches, source: str, max_size: int) -> TorrentFile:
    """
    Return the .torrent that ``source`` names.

    :raises OSError: the file cannot be read.
    :raises FetchError: the server did not give it.
    :raises MetainfoError: it is no .torrent that can be used.
    """
    scheme = source.partition(":")[0].lower()
    if scheme == "magnet":
        raise MetainfoError("magnet links are not supported yet; give a .torrent file or its URL")
    name = source
    if scheme in ("http", "https"):
        name = "what the server sent"  # URLs of private trackers hold a secret
        data = await fetcher.fetch(source, deadline=FETCH_DEADLINE, limit=max_size)
    else:
        with open(source, "rb") as file:
            data = file.read(max_size + 1)
    if len(data) > max_size:
        raise MetainfoError(f"{name}: larger than {max_size} bytes")
    try:
        return TorrentFile.from_bytes(data)
    except MetainfoError as error:
        raise MetainfoError(f"{name}: not a usable .torrent file: {error}") from error
