"""
The SQLite database of a session: its schema and its rows.  All of it runs in the writer thread.

WAL with ``synchronous=FULL``: a transaction that was acknowledged survives a power cut.  (NORMAL loses
acknowledged ones; a rename without fsync nearly always does.)  SQLite does not check what it reads back, so
rows that must not be wrong carry a checksum.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

from attrs import frozen

from irontide.errors import NewerStore
from irontide.values import FileStat, Progress, StoredTorrent

SCHEMA_VERSION = 1
APPLICATION_ID = 0x49525449  # "IRTI"
_BUSY_SECONDS = 5.0

_SCHEMA = """
CREATE TABLE torrents (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    infohash BLOB NOT NULL UNIQUE,
    metainfo BLOB NOT NULL,
    save_path TEXT NOT NULL,
    added REAL NOT NULL,
    options TEXT NOT NULL,
    checksum BLOB NOT NULL
);
CREATE TABLE progress (
    infohash BLOB PRIMARY KEY REFERENCES torrents (infohash) ON DELETE CASCADE,
    bits BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    uploaded INTEGER NOT NULL,
    downloaded INTEGER NOT NULL
);
CREATE TABLE masks (
    infohash BLOB NOT NULL REFERENCES torrents (infohash) ON DELETE CASCADE,
    piece INTEGER NOT NULL,
    mask BLOB NOT NULL,
    PRIMARY KEY (infohash, piece)
) WITHOUT ROWID;
CREATE TABLE stats (
    infohash BLOB NOT NULL REFERENCES torrents (infohash) ON DELETE CASCADE,
    file INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    PRIMARY KEY (infohash, file)
) WITHOUT ROWID;
CREATE TABLE dirty (
    infohash BLOB NOT NULL REFERENCES torrents (infohash) ON DELETE CASCADE,
    file INTEGER NOT NULL,
    PRIMARY KEY (infohash, file)
) WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT INTO facts VALUES ('clean', 1);
"""

_ADD = """
INSERT INTO torrents (infohash, metainfo, save_path, added, options, checksum) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (infohash) DO UPDATE SET metainfo = excluded.metainfo, save_path = excluded.save_path,
    added = excluded.added, options = excluded.options, checksum = excluded.checksum
"""
# The WHERE of each keeps rows that have not changed from being written again.
_SET_PROGRESS = """
INSERT INTO progress (infohash, bits, checksum, boot_id, uploaded, downloaded) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (infohash) DO UPDATE SET bits = excluded.bits, checksum = excluded.checksum,
    boot_id = excluded.boot_id, uploaded = excluded.uploaded, downloaded = excluded.downloaded
WHERE bits IS NOT excluded.bits OR checksum IS NOT excluded.checksum OR boot_id IS NOT excluded.boot_id
    OR uploaded IS NOT excluded.uploaded OR downloaded IS NOT excluded.downloaded
"""
_SET_MASK = """
INSERT INTO masks (infohash, piece, mask) VALUES (?, ?, ?)
ON CONFLICT (infohash, piece) DO UPDATE SET mask = excluded.mask WHERE mask IS NOT excluded.mask
"""
_DROP_MASKS = "DELETE FROM masks WHERE infohash = ? AND piece NOT IN (SELECT value FROM json_each(?))"
_SET_STAT = """
INSERT INTO stats (infohash, file, size, mtime_ns) VALUES (?, ?, ?, ?)
ON CONFLICT (infohash, file) DO UPDATE SET size = excluded.size, mtime_ns = excluded.mtime_ns
WHERE size IS NOT excluded.size OR mtime_ns IS NOT excluded.mtime_ns
"""


@frozen
class Row:
    """A row of ``torrents`` as it was read, whatever is in it; ``sound`` if it is what was written."""

    infohash: Any
    metainfo: Any
    save_path: Any
    added: Any
    options: Any
    sound: bool


class Database:
    """
    An open database.  Every method that changes something is one transaction.

    :ivar clean: whether whoever had it open last closed it in order.
    :raises NewerStore: it was written by a later version; the file is left as it is.
    :raises sqlite3.Error: it cannot be read or written.
    """

    def __init__(self, path: str) -> None:
        _refuse_newer(path)
        self._connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            self._prepare()
            self.clean = self._fact("clean") == 1
            if not self.clean:
                self._check()
            self._set_fact("clean", 0)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        execute = self._connection.execute
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA foreign_keys = ON")
        if execute("PRAGMA user_version").fetchone() == (0,):
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
                f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )

    def _check(self) -> None:
        """Look for damage; after a clean close there is no need."""
        found = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != ("ok",):
            raise sqlite3.DatabaseError(f"quick_check: {found}")

    def _fact(self, name: str) -> int:
        row = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise sqlite3.DatabaseError(f"the fact {name} is missing")
        return int(row[0])

    def _set_fact(self, name: str, value: int) -> None:
        with self._transaction():
            self._connection.execute("UPDATE facts SET value = ? WHERE name = ?", (value, name))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def rows(self) -> list[Row]:
        """All torrents in the order in which they were added, damaged ones too."""
        found = self._connection.execute(
            "SELECT infohash, metainfo, save_path, added, options, checksum FROM torrents ORDER BY position"
        )
        return [_row(*values) for values in found]

    def add(self, torrent: StoredTorrent) -> None:
        """Insert or replace; the position in the list and the progress stay."""
        options = dump_options(torrent.options)
        row = (torrent.infohash, torrent.metainfo, torrent.save_path, float(torrent.added), options)
        with self._transaction():
            self._connection.execute(_ADD, (*row, _checksum(row)))

    def remove(self, infohash: bytes) -> None:
        """Delete the torrent and everything about it."""
        with self._transaction():
            self._connection.execute("DELETE FROM torrents WHERE infohash = ?", (infohash,))

    def progress(self, infohash: bytes) -> Progress | None:
        """What was committed last, or None if that is nothing or not what was written."""
        execute = self._connection.execute
        row = execute(
            "SELECT bits, checksum, boot_id, uploaded, downloaded FROM progress WHERE infohash = ?",
            (infohash,),
        ).fetchone()
        if row is None or not isinstance(row[0], bytes) or zlib.crc32(row[0]) != row[1]:
            return None
        bits, _, boot_id, uploaded, downloaded = row
        masks = execute("SELECT piece, mask FROM masks WHERE infohash = ?", (infohash,))
        stats = execute("SELECT file, size, mtime_ns FROM stats WHERE infohash = ?", (infohash,))
        dirty = execute("SELECT file FROM dirty WHERE infohash = ?", (infohash,))
        return Progress(
            infohash,
            bits,
            dict(masks.fetchall()),
            {file: FileStat(size, mtime_ns) for file, size, mtime_ns in stats},
            frozenset(file for (file,) in dirty),
            boot_id,
            uploaded,
            downloaded,
        )

    def commit(self, progress: Sequence[Progress]) -> None:
        """Keep all of it in one transaction; that of torrents which are gone is left out."""
        with self._transaction():
            for each in progress:
                if self._knows(each.infohash):
                    self._keep(each)

    def _knows(self, infohash: bytes) -> bool:
        found = self._connection.execute("SELECT 1 FROM torrents WHERE infohash = ?", (infohash,))
        return found.fetchone() is not None

    def _keep(self, progress: Progress) -> None:
        infohash = progress.infohash
        execute, executemany = self._connection.execute, self._connection.executemany
        execute(
            _SET_PROGRESS,
            (
                infohash,
                progress.bits,
                zlib.crc32(progress.bits),
                progress.boot_id,
                progress.uploaded,
                progress.downloaded,
            ),
        )
        execute(_DROP_MASKS, (infohash, json.dumps(list(progress.masks))))
        executemany(_SET_MASK, ((infohash, piece, mask) for piece, mask in progress.masks.items()))
        at_rest = {file: stat for file, stat in progress.stats.items() if file not in progress.dirty}
        executemany(_SET_STAT, ((infohash, file, stat.size, stat.mtime_ns) for file, stat in at_rest.items()))
        executemany(
            "DELETE FROM dirty WHERE infohash = ? AND file = ?", ((infohash, file) for file in at_rest)
        )
        dirty = [(infohash, file) for file in progress.dirty]
        executemany("DELETE FROM stats WHERE infohash = ? AND file = ?", dirty)
        executemany("INSERT OR IGNORE INTO dirty (infohash, file) VALUES (?, ?)", dirty)

    def copy_to(self, path: str) -> None:
        """Write a consistent copy of the whole database into a new file."""
        target = sqlite3.connect(path)
        try:
            self._connection.backup(target)
        finally:
            target.close()

    def close(self, *, clean: bool) -> None:
        """Close, however little works: an error is raised when nothing is open any more."""
        try:
            if clean:
                self._set_fact("clean", 1)
        finally:
            self._connection.close()


def _row(infohash: Any, metainfo: Any, save_path: Any, added: Any, options: Any, checksum: Any) -> Row:
    sound = checksum == _checksum((infohash, metainfo, save_path, added, options))
    return Row(infohash, metainfo, save_path, added, options, sound)


def dump_options(options: Mapping[str, Any]) -> str:
    """
    Write options as JSON.

    :raises TypeError, ValueError: they are not what JSON can say.
    """
    return json.dumps(dict(options), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _checksum(row: Sequence[Any]) -> bytes:
    """Sum up a row with its types, so that no two rows look alike."""
    digest = blake2b(digest_size=16)
    for field in row:
        data = field if isinstance(field, bytes) else repr(field).encode("utf-8", "surrogatepass")
        digest.update(b"%s %d " % (type(field).__name__.encode(), len(data)))
        digest.update(data)
    return digest.digest()


def _refuse_newer(path: str) -> None:
    """Look at the version without changing a byte; whatever else is wrong is found later."""
    try:
        reader = sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return  # there is no such file yet
    try:
        (version,) = reader.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error:
        return
    finally:
        reader.close()
    if version > SCHEMA_VERSION:
        raise NewerStore(
            f"{path} was written by a newer irontide: it has schema {version}, "
            f"this version knows up to {SCHEMA_VERSION}"
        )


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
