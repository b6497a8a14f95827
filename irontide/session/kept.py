"""
The copies of the .torrent files beside the database: what a broken database is rebuilt from.

They change in step with it: written and synced under another name first (a full disk is met here),
renamed after the commit, deleted after the torrent's row is.  Runs in the writer thread.
"""

from __future__ import annotations

import contextlib
import os

from irontide.errors import MetainfoError
from irontide.metainfo.torrent_file import TorrentFile

_SUFFIX = ".torrent"
_NEW = ".new"


class KeptTorrents:
    """A directory of .torrent files, named by infohash."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        os.makedirs(directory, mode=0o700, exist_ok=True)
        for name in os.listdir(directory):
            if name.endswith(_NEW):
                os.unlink(os.path.join(directory, name))

    def infohashes(self) -> list[bytes]:
        """Of all the copies there are, oldest first."""
        if not os.path.isdir(self._directory):
            return []
        found = []
        for entry in os.scandir(self._directory):
            with contextlib.suppress(ValueError):
                infohash = bytes.fromhex(entry.name.removesuffix(_SUFFIX))
                if entry.name == infohash.hex() + _SUFFIX:
                    found.append((entry.stat().st_mtime_ns, infohash))
        return [infohash for _, infohash in sorted(found)]

    def prepare(self, infohash: bytes, metainfo: bytes) -> None:
        """Put a copy on the disk that does not count yet."""
        try:
            with open(self._path(infohash) + _NEW, "wb") as file:
                file.write(metainfo)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self.discard(infohash)
            raise

    def settle(self, infohash: bytes) -> None:
        """Let the prepared copy count."""
        os.replace(self._path(infohash) + _NEW, self._path(infohash))
        sync_directory(self._directory)

    def discard(self, infohash: bytes) -> None:
        """Forget the prepared copy."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(infohash) + _NEW)

    def remove(self, infohash: bytes) -> None:
        """Delete the copy, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(infohash))

    def has(self, infohash: bytes, metainfo: bytes) -> bool:
        """Tell whether the copy is there and says the same."""
        return self._read(infohash) == metainfo

    def metainfo(self, infohash: bytes) -> bytes | None:
        """Return the copy if there is one that is whole."""
        data = self._read(infohash)
        return data if data is not None and belongs(data, infohash) else None

    def _read(self, infohash: bytes) -> bytes | None:
        try:
            with open(self._path(infohash), "rb") as file:
                return file.read()
        except OSError:
            return None

    def _path(self, infohash: bytes) -> str:
        return os.path.join(self._directory, infohash.hex() + _SUFFIX)


def belongs(metainfo: object, infohash: bytes) -> bool:
    """Tell whether ``metainfo`` is a .torrent file of this infohash."""
    if not isinstance(metainfo, bytes):
        return False
    try:
        return TorrentFile.from_bytes(metainfo).info.infohash == infohash
    except MetainfoError:
        return False


def sync_directory(path: str) -> None:
    """Make renames in a directory last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
