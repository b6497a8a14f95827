"""
A state directory: its lock, its database with a backup, and the kept .torrent files.

What is damaged is mended from what is left, and said in ``repairs``; nothing is dropped in silence.  Runs
in the writer thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve
from twisted.logger import Logger

from irontide.session.database import Database, Row
from irontide.session.kept import KeptTorrents, belongs, sync_directory
from irontide.session.state_lock import StateLock
from irontide.values import Progress, StoredTorrent

DATABASE = "irontide.sqlite"
BACKUP = "irontide.sqlite.backup"
TORRENTS = "torrents"
BACKUP_SECONDS = 6 * 3600.0
_COMPANIONS = ("", "-wal", "-shm")
_BROKEN_CODES = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class StateDirectory:
    """
    An open state directory.

    :ivar clean: see IStore.
    :ivar repairs: see IStore.
    :raises StateInUse: another process has it.
    :raises NewerStore: a later version wrote it.
    :raises OSError, sqlite3.Error: it cannot be read or written.
    """

    _log = Logger()

    def __init__(self, directory: str) -> None:
        self.repairs: list[str] = []
        self._path = directory
        self._doubts: dict[bytes, str] = {}
        self._backed_up_at = -BACKUP_SECONDS
        self._changed = False
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._lock = StateLock(directory)
        try:
            self._kept = KeptTorrents(self._file(TORRENTS))
            self._database = self._open()
            self.clean = self._database.clean and not self.repairs
        except BaseException:
            self._lock.release()
            raise

    def torrents(self) -> list[StoredTorrent]:
        """All torrents; those whose row is damaged are rebuilt from what is left of them."""
        rows = self._database.rows()
        found = [each for row in rows if (each := self._torrent(row)) is not None]
        kept = dict.fromkeys(self._kept.infohashes())
        listed = {each.infohash for each in found}
        strays = [each for each in kept if each not in listed]
        self._keep_copies([each for each in found if each.infohash not in kept])
        if all(row.sound for row in rows):
            for infohash in strays:  # never acknowledged, or removed already
                self._kept.remove(infohash)
        else:
            found += self._rebuilt(strays, "its row in the database could not be read")
        return found

    def add(self, torrent: StoredTorrent) -> None:
        """See IStore."""
        if self._kept.has(torrent.infohash, torrent.metainfo):
            self._database.add(torrent)
        else:
            self._kept.prepare(torrent.infohash, torrent.metainfo)
            try:
                self._database.add(torrent)
            except BaseException:
                self._kept.discard(torrent.infohash)
                raise
            self._settle(torrent.infohash)
        self._doubts.pop(torrent.infohash, None)
        self._note_change()

    def remove(self, infohash: bytes) -> None:
        """See IStore."""
        self._database.remove(infohash)
        self._kept.remove(infohash)
        self._note_change()

    def progress(self, infohash: bytes) -> Progress | None:
        """See IStore."""
        return self._database.progress(infohash)

    def commit(self, progress: Sequence[Progress]) -> None:
        """See IStore."""
        self._database.commit(progress)
        self._note_change()

    def close(self, *, clean: bool) -> None:
        """See IStore.  Whatever fails, nothing is open and the lock is free in the end."""
        try:
            if clean and self._changed:
                self._back_up()
            self._database.close(clean=clean)
        finally:
            self._lock.release()

    def _file(self, name: str) -> str:
        return os.path.join(self._path, name)

    def _keep_copies(self, torrents: Sequence[StoredTorrent]) -> None:
        """Make up for copies that a crash or a full disk has prevented."""
        for torrent in torrents:
            try:
                self._kept.prepare(torrent.infohash, torrent.metainfo)
            except OSError as error:
                self._log.warn(
                    "no copy kept of {torrent}: {error}", torrent=torrent.infohash.hex(), error=error
                )
            else:
                self._settle(torrent.infohash)

    def _settle(self, infohash: bytes) -> None:
        """After the commit the torrent is kept, whatever happens to the copy of its file."""
        try:
            self._kept.settle(infohash)
        except OSError as error:
            self._log.warn("no copy kept of {torrent}: {error}", torrent=infohash.hex(), error=error)

    # --- opening -------------------------------------------------------------------------------------

    def _open(self) -> Database:
        path = self._file(DATABASE)
        lost = not os.path.exists(path) or os.path.getsize(path) == 0
        if lost and (self._kept.infohashes() or os.path.isfile(self._file(BACKUP))):
            return self._recover("the database is gone")
        try:
            return Database(path)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            return self._recover(f"the database is damaged ({error})")

    def _recover(self, what: str) -> Database:
        """Move the database aside, go on with the backup, and add what only the kept files know."""
        aside = self._move_aside()
        database, source = self._restored()
        self.repairs.append(f"{what}; {source}" + (f"; the old one is now {aside}" if aside else ""))
        rows = database.rows()
        listed = {row.infohash for row in rows}
        for torrent in self._rebuilt([each for each in self._kept.infohashes() if each not in listed], what):
            database.add(torrent)
        kept = set(self._kept.infohashes())
        for infohash in listed - kept:
            self._doubts[infohash] = f"{what}, and it may have been removed since the backup"
        return database

    def _move_aside(self) -> str | None:
        path = self._file(DATABASE)
        if not os.path.exists(path):
            return None
        aside = path + time.strftime(".broken-%Y%m%dT%H%M%S")
        number = 0
        while os.path.exists(unique := aside + (f"-{number}" if number else "")):
            number += 1
        for companion in _COMPANIONS:
            with contextlib.suppress(FileNotFoundError):
                os.rename(path + companion, unique + companion)
        return unique

    def _restored(self) -> tuple[Database, str]:
        path, backup = self._file(DATABASE), self._file(BACKUP)
        if os.path.isfile(backup):
            shutil.copyfile(backup, path)
            try:
                database = Database(path)
                database.rows()
                return database, "the last backup is used"
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._move_aside()
        return Database(path), "there is no backup that can be read"

    # --- rows ----------------------------------------------------------------------------------------

    def _torrent(self, row: Row) -> StoredTorrent | None:
        if row.sound:
            stored = StoredTorrent(
                row.infohash, row.metainfo, row.save_path, row.added, json.loads(row.options)
            )
            doubt = self._doubts.get(row.infohash)
            if doubt is None:
                return stored
            return evolve(stored, options=_paused(stored.options), rebuilt=doubt)
        return self._mended(row)

    def _mended(self, row: Row) -> StoredTorrent | None:
        """Make a torrent of a damaged row; what cannot be proved right is only taken if it is plausible."""
        infohash = row.infohash
        metainfo = row.metainfo if isinstance(infohash, bytes) and belongs(row.metainfo, infohash) else None
        if metainfo is None and isinstance(infohash, bytes):
            metainfo = self._kept.metainfo(infohash)
        if metainfo is None:
            self._say("a row of the database cannot be read, and no kept .torrent file belongs to it")
            return None
        reason = "its row in the database was damaged; rebuilt from its .torrent file, paused"
        self._say(f"torrent {infohash.hex()}: {reason}")
        path = row.save_path if isinstance(row.save_path, str) else ""
        added = row.added if isinstance(row.added, float) else time.time()
        return StoredTorrent(infohash, metainfo, path, added, _paused(_options(row.options)), reason)

    def _rebuilt(self, infohashes: Sequence[bytes], what: str) -> list[StoredTorrent]:
        found = []
        for infohash in infohashes:
            metainfo = self._kept.metainfo(infohash)
            if metainfo is None:
                self._say(f"the kept .torrent file of {infohash.hex()} cannot be read")
                continue
            reason = f"{what}; rebuilt from its .torrent file, paused"
            self._doubts[infohash] = reason
            self._say(f"torrent {infohash.hex()}: {reason}")
            found.append(StoredTorrent(infohash, metainfo, "", time.time(), _paused({}), reason))
        return found

    def _say(self, text: str) -> None:
        if text not in self.repairs:
            self.repairs.append(text)

    # --- the backup ----------------------------------------------------------------------------------

    def _note_change(self) -> None:
        self._changed = True
        if time.monotonic() - self._backed_up_at >= BACKUP_SECONDS:
            self._back_up()

    def _back_up(self) -> None:
        """Replace the backup.  That it fails is no failure of the store."""
        new, backup = self._file(BACKUP + ".new"), self._file(BACKUP)
        self._backed_up_at = time.monotonic()
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
            self._database.copy_to(new)
            os.replace(new, backup)
            sync_directory(self._path)
            self._changed = False
        except (OSError, sqlite3.Error) as error:
            self._log.warn("no backup of the store: {error}", error=error)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Tell a broken database from a full disk, a lock, missing rights."""
    return (getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF) in _BROKEN_CODES


def _paused(options: Mapping[str, Any]) -> dict[str, Any]:
    return {**options, "paused": True}


def _options(text: object) -> dict[str, Any]:
    try:
        value = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
