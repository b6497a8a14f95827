"""What the store on disk promises beyond the contract: durability, damage, other processes."""

from __future__ import annotations

import os
import sqlite3
import threading

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock

from irontide.errors import NewerStore, StateInUse, StoreError
from irontide.session.database import SCHEMA_VERSION, Database
from irontide.session.state_directory import BACKUP, DATABASE, TORRENTS
from irontide.session.store import SQLiteStore
from irontide.session.writer_thread import WriterThread
from irontide.values import FileStat, Progress, StoredTorrent
from tests.session.fakes import ImmediateWriter, torrent_file
from tests.temporary import FolderTestCase


def stored(name: bytes, **more: object) -> StoredTorrent:
    metainfo, infohash = torrent_file(name)
    return attrs.evolve(StoredTorrent(infohash, metainfo, "/d", 1.0, {"limit": 1}), **more)


ONE, TWO = stored(b"one"), stored(b"two")
SOME = Progress(ONE.infohash, b"\xf0", {5: b"\x80"}, {0: FileStat(1, 2)}, frozenset({1}), "boot", 1, 2)


class DiskCase(FolderTestCase):
    """Stores in one directory, one after the other."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        self.opened: list[SQLiteStore] = []
        self.addCleanup(lambda: [self.get(store.close(clean=False)) for store in self.opened])

    def get(self, result: Deferred):
        return self.successResultOf(result)

    def open(self) -> SQLiteStore:
        store = self.get(self.opening())
        self.opened.append(store)
        return store

    def opening(self) -> Deferred:
        return SQLiteStore.open(MemoryReactorClock(), self.directory, ImmediateWriter())

    def filled(self, *torrents: StoredTorrent, clean: bool = True) -> None:
        """Leave a store with these torrents behind."""
        store = self.open()
        for torrent in torrents:
            self.get(store.add(torrent))
        self.get(store.commit([SOME]))
        self.get(store.close(clean=clean))

    def path(self, *names: str) -> str:
        return os.path.join(self.directory, *names)

    def execute(self, sql: str, *values: object) -> None:
        """Change the database behind the store's back."""
        connection = sqlite3.connect(self.path(DATABASE))
        connection.execute(sql, values)
        connection.commit()
        connection.close()

    def spoil(self, name: str, data: bytes = b"\xa5" * 4096) -> None:
        with open(self.path(name), "wb") as file:
            file.write(data)


class ReopenTests(DiskCase):
    """What is there after closing and opening again."""

    def test_everything_is_still_there(self) -> None:
        self.filled(ONE, TWO)
        store = self.open()
        self.assertEqual(self.get(store.torrents()), [ONE, TWO])
        self.assertEqual(self.get(store.progress(ONE.infohash)), SOME)
        self.assertEqual(list(store.repairs), [])

    def test_clean_flag(self) -> None:
        """True after a close in order, False after any other end, and only for the next owner."""
        self.filled(ONE, clean=True)
        store = self.open()
        self.assertTrue(store.clean)
        self.get(store.close(clean=False))
        store = self.open()
        self.assertFalse(store.clean)
        self.get(store.close(clean=True))
        self.assertTrue(self.open().clean)

    def test_durable_pragmas(self) -> None:
        """Durability 1."""
        self.filled()
        database = Database(self.path(DATABASE))
        self.addCleanup(database.close, clean=False)
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
            self.assertEqual(database._connection.execute(f"PRAGMA {pragma}").fetchone(), (value,))

    def test_unchanged_rows_are_not_written(self) -> None:
        self.filled(ONE)
        store = self.open()
        wal = self.path(DATABASE + "-wal")
        before = os.path.getsize(wal)
        self.get(store.commit([SOME]))
        self.assertEqual(os.path.getsize(wal), before)

    def test_other_users_cannot_read_it(self) -> None:
        """Trackers' passkeys stand in it."""
        self.filled(ONE)
        self.assertEqual(os.stat(self.directory).st_mode & 0o777, 0o700)

    def test_path_with_everything_in_it(self) -> None:
        self.directory = self.mktemp() + "?mode=memory&a#b%20c \u00fc"
        self.filled(ONE)
        self.assertEqual(self.get(self.open().torrents()), [ONE])


class LockTests(DiskCase):
    """One owner at a time."""

    def test_second_owner_is_refused_by_name(self) -> None:
        self.open()
        error = self.failureResultOf(self.opening(), StateInUse).value
        self.assertIn(str(os.getpid()), str(error))
        self.assertIn(self.directory, str(error))

    def test_refusal_leaves_the_owner_alone(self) -> None:
        store = self.open()
        self.failureResultOf(self.opening(), StateInUse)
        self.get(store.add(ONE))
        self.failureResultOf(self.opening(), StateInUse)

    def test_free_after_close(self) -> None:
        self.get(self.open().close(clean=True))
        self.open()

    def test_free_after_failed_opening(self) -> None:
        self.filled()
        self.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        self.failureResultOf(self.opening(), NewerStore)
        self.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self.open()


class VersionTests(DiskCase):
    """Durability 5: a newer schema is refused by name, the file untouched."""

    def test_newer_is_refused_untouched(self) -> None:
        self.filled(ONE)
        self.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        with open(self.path(DATABASE), "rb") as file:
            before = file.read()
        error = self.failureResultOf(self.opening(), NewerStore).value
        self.assertIn(f"schema {SCHEMA_VERSION + 1}", str(error))
        with open(self.path(DATABASE), "rb") as file:
            self.assertEqual(file.read(), before)
        self.assertEqual([name for name in os.listdir(self.directory) if "broken" in name], [])


class DamageTests(DiskCase):
    """Durability 5: nothing gets lost in silence."""

    def assertRebuilt(self, torrent: StoredTorrent, original: StoredTorrent) -> None:
        self.assertEqual((torrent.infohash, torrent.metainfo), (original.infohash, original.metainfo))
        self.assertTrue(torrent.options["paused"])
        self.assertTrue(torrent.rebuilt)

    def test_damaged_metainfo(self) -> None:
        self.filled(ONE, TWO)
        self.execute("UPDATE torrents SET metainfo = x'00' WHERE infohash = ?", ONE.infohash)
        store = self.open()
        rebuilt, other = self.get(store.torrents())
        self.assertRebuilt(rebuilt, ONE)
        self.assertEqual((rebuilt.save_path, rebuilt.options["limit"]), ("/d", 1))
        self.assertEqual(other, TWO)
        self.assertEqual(len(store.repairs), 1)
        self.assertIn(ONE.infohash.hex(), store.repairs[0])

    def test_damaged_options_and_path(self) -> None:
        for options in ("{", "[1]", b"\xff", None):
            self.directory = self.mktemp()
            self.filled(ONE)
            if options is not None:
                self.execute("UPDATE torrents SET options = ?", options)
            self.execute("UPDATE torrents SET save_path = x'ff'")
            (rebuilt,) = self.get(self.open().torrents())
            self.assertRebuilt(rebuilt, ONE)
            self.assertEqual(rebuilt.save_path, "")

    def test_damaged_infohash(self) -> None:
        self.filled(ONE, TWO)
        self.execute("PRAGMA foreign_keys = OFF")
        self.execute("UPDATE torrents SET infohash = x'0102' WHERE infohash = ?", ONE.infohash)
        store = self.open()
        torrents = self.get(store.torrents())
        self.assertEqual(torrents[0], TWO)
        self.assertRebuilt(torrents[1], ONE)
        self.assertEqual(len(store.repairs), 2)

    def test_damaged_row_without_a_copy_is_said(self) -> None:
        self.filled(ONE, TWO)
        self.execute("UPDATE torrents SET metainfo = x'00' WHERE infohash = ?", ONE.infohash)
        os.unlink(self.path(TORRENTS, ONE.infohash.hex() + ".torrent"))
        store = self.open()
        self.assertEqual(self.get(store.torrents()), [TWO])
        self.assertEqual(len(store.repairs), 1)

    def test_rebuilt_until_added_again(self) -> None:
        self.filled(ONE)
        self.execute("UPDATE torrents SET metainfo = x'00'")
        store = self.open()
        self.get(store.close(clean=True))
        store = self.open()
        (rebuilt,) = self.get(store.torrents())
        self.assertRebuilt(rebuilt, ONE)
        self.get(store.add(rebuilt))
        (kept,) = self.get(store.torrents())
        self.assertEqual(kept.rebuilt, "")

    def test_damaged_bits_are_no_progress(self) -> None:
        self.filled(ONE)
        self.execute("UPDATE progress SET bits = x'ff'")
        self.assertIsNone(self.get(self.open().progress(ONE.infohash)))

    def test_broken_database_is_moved_aside_and_the_backup_used(self) -> None:
        self.filled(ONE, TWO)
        self.spoil(DATABASE)
        store = self.open()
        self.assertFalse(store.clean)
        self.assertEqual(self.get(store.torrents()), [ONE, TWO])
        self.assertEqual(self.get(store.progress(ONE.infohash)), SOME)
        self.assertIn("backup", store.repairs[0])
        (aside,) = [name for name in os.listdir(self.directory) if "broken" in name]
        with open(self.path(aside), "rb") as file:
            self.assertEqual(file.read(), b"\xa5" * 4096)

    def test_lost_and_truncated_databases(self) -> None:
        for ruin in (os.unlink, lambda path: os.truncate(path, 0), lambda path: os.truncate(path, 5000)):
            self.directory = self.mktemp()
            self.filled(ONE, TWO)
            ruin(self.path(DATABASE))
            store = self.open()
            self.assertEqual(self.get(store.torrents()), [ONE, TWO])
            self.assertFalse(store.clean)

    def test_torrents_added_after_the_backup_are_rebuilt(self) -> None:
        self.filled(ONE)
        backup = self.path(BACKUP)
        with open(backup, "rb") as file:
            old = file.read()
        self.filled(TWO)
        self.spoil(BACKUP, old)
        self.spoil(DATABASE)
        one, two = self.get(self.open().torrents())
        self.assertEqual(one, ONE)
        self.assertRebuilt(two, TWO)

    def test_torrents_removed_after_the_backup_are_doubted(self) -> None:
        self.filled(ONE, TWO)
        with open(self.path(BACKUP), "rb") as file:
            old = file.read()
        store = self.open()
        self.get(store.remove(ONE.infohash))
        self.get(store.close(clean=True))
        self.spoil(BACKUP, old)
        self.spoil(DATABASE)
        one, two = self.get(self.open().torrents())
        self.assertRebuilt(one, ONE)
        self.assertEqual(two, TWO)

    def test_no_backup_either(self) -> None:
        for backup in (None, b"\xa5" * 9000):
            self.directory = self.mktemp()
            self.filled(ONE, TWO)
            self.spoil(DATABASE)
            if backup is None:
                os.unlink(self.path(BACKUP))
            else:
                self.spoil(BACKUP, backup)
            store = self.open()
            rebuilt = self.get(store.torrents())
            for torrent, original in zip(rebuilt, (ONE, TWO), strict=True):
                self.assertRebuilt(torrent, original)
            self.get(store.close(clean=True))
            again = self.get(self.open().torrents())
            self.assertEqual([each.options["paused"] for each in again], [True, True])

    def test_spoilt_copy_is_said(self) -> None:
        self.filled(ONE, TWO)
        self.spoil(os.path.join(TORRENTS, ONE.infohash.hex() + ".torrent"))
        os.unlink(self.path(BACKUP))
        self.spoil(DATABASE)
        store = self.open()
        self.assertEqual([each.infohash for each in self.get(store.torrents())], [TWO.infohash])
        self.assertTrue(any(ONE.infohash.hex() in text for text in store.repairs))


class KeptFileTests(DiskCase):
    """The copies of the .torrent files follow the database."""

    def kept(self) -> set[str]:
        return set(os.listdir(self.path(TORRENTS)))

    def test_copy_comes_and_goes(self) -> None:
        store = self.open()
        self.get(store.add(ONE))
        with open(self.path(TORRENTS, ONE.infohash.hex() + ".torrent"), "rb") as file:
            self.assertEqual(file.read(), ONE.metainfo)
        self.get(store.remove(ONE.infohash))
        self.assertEqual(self.kept(), set())

    def test_copies_nobody_acknowledged_go(self) -> None:
        """A kill between the copy and the commit, or between the commit of a removal and the deletion."""
        self.filled(ONE)
        for name in (TWO.infohash.hex() + ".torrent", TWO.infohash.hex() + ".torrent.new"):
            self.spoil(os.path.join(TORRENTS, name), TWO.metainfo)
        self.assertEqual(self.get(self.open().torrents()), [ONE])
        self.assertEqual(self.kept(), {ONE.infohash.hex() + ".torrent"})

    def test_missing_copy_comes_back(self) -> None:
        self.filled(ONE)
        os.unlink(self.path(TORRENTS, ONE.infohash.hex() + ".torrent"))
        self.get(self.open().torrents())
        self.assertEqual(self.kept(), {ONE.infohash.hex() + ".torrent"})


class RefusalTests(DiskCase):
    """Durability 7: what the disk refuses is refused, and nothing is half done."""

    def test_refused_add(self) -> None:
        self.filled(ONE)
        self.execute("CREATE TRIGGER full BEFORE INSERT ON torrents BEGIN SELECT RAISE(FAIL, 'full'); END")
        store = self.open()
        failure = self.failureResultOf(store.add(TWO), StoreError)
        self.assertIsInstance(failure.value.__cause__, sqlite3.Error)
        self.assertEqual(self.get(store.torrents()), [ONE])
        self.assertEqual(os.listdir(self.path(TORRENTS)), [ONE.infohash.hex() + ".torrent"])

    def test_refused_commit_is_wholly_undone(self) -> None:
        self.filled(ONE, TWO)
        self.execute("CREATE TRIGGER full BEFORE UPDATE ON masks BEGIN SELECT RAISE(FAIL, 'full'); END")
        store = self.open()
        first = attrs.evolve(SOME, infohash=TWO.infohash)
        second = attrs.evolve(SOME, bits=b"\xff", masks={5: b"\xff"})
        self.failureResultOf(store.commit([first, second]), StoreError)
        self.assertIsNone(self.get(store.progress(TWO.infohash)))
        self.assertEqual(self.get(store.progress(ONE.infohash)), SOME)
        self.get(store.commit([first]))
        self.assertEqual(self.get(store.progress(TWO.infohash)), first)

    def test_copy_that_cannot_be_written(self) -> None:
        store = self.open()
        os.rmdir(self.path(TORRENTS))
        failure = self.failureResultOf(store.add(ONE), StoreError)
        self.assertIsInstance(failure.value.__cause__, OSError)
        self.assertEqual(self.get(store.torrents()), [])

    def test_directory_that_cannot_be_made(self) -> None:
        with open(self.directory, "w") as file:
            file.write("in the way")
        self.failureResultOf(self.opening(), StoreError)

    def test_failed_close_still_frees_the_directory(self) -> None:
        self.filled(ONE)
        self.execute(
            "CREATE TRIGGER full BEFORE UPDATE ON facts WHEN NEW.value BEGIN SELECT RAISE(FAIL, 'x'); END"
        )
        store = self.open()
        self.failureResultOf(store.close(clean=True), StoreError)
        self.assertFalse(self.open().clean)

    def test_missing_backup_is_no_failure(self) -> None:
        os.makedirs(self.path(BACKUP))
        self.filled(ONE)
        self.assertEqual(self.get(self.open().torrents()), [ONE])


class Turns:
    """A reactor of which only callFromThread is there."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []
        self.arrived = threading.Semaphore(0)

    def callFromThread(self, function, *args, **kwargs) -> None:
        self.calls.append((function, args, kwargs))
        self.arrived.release()

    def turn(self) -> None:
        """Wait for the next call of the thread, and make it."""
        assert self.arrived.acquire(timeout=10)
        function, args, kwargs = self.calls.pop(0)
        function(*args, **kwargs)


class WriterThreadTests(FolderTestCase):
    """The thread itself."""

    def setUp(self) -> None:
        self.reactor = Turns()
        self.writer = WriterThread(self.reactor, name="writer under test")

    def test_in_order_in_one_other_thread(self) -> None:
        seen: list[tuple[int, threading.Thread]] = []
        done = [self.writer.call(lambda n=n: seen.append((n, threading.current_thread()))) for n in range(20)]
        for _ in done:
            self.reactor.turn()
        self.assertEqual([number for number, _ in seen], list(range(20)))
        self.assertEqual(len({thread for _, thread in seen}), 1)
        self.assertIsNot(seen[0][1], threading.current_thread())
        for each in done:
            self.successResultOf(each)
        self.writer.stop()

    def test_errors_come_back_and_the_thread_goes_on(self) -> None:
        failed = self.writer.call(lambda: 1 // 0)
        done = self.writer.call(lambda: 7)
        self.reactor.turn()
        self.reactor.turn()
        self.failureResultOf(failed, ZeroDivisionError)
        self.assertEqual(self.successResultOf(done), 7)
        self.writer.stop()

    def test_stop_lets_the_work_asked_for_finish(self) -> None:
        done = self.writer.call(lambda: 7)
        self.writer.stop()
        self.reactor.turn()
        self.assertEqual(self.successResultOf(done), 7)
        for thread in threading.enumerate():
            if thread.name == "writer under test":
                thread.join(10)
                self.assertFalse(thread.is_alive())
