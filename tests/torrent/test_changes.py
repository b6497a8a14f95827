"""Changes by the user: durable first and in force then, undone if the store refuses."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from irontide.errors import MetainfoError, StorageError, StoreError
from irontide.torrent.changes import Changes
from irontide.torrent.options import TorrentOptions
from irontide.torrent.running import Running
from irontide.torrent.shared import Notice
from tests.torrent.fakes import BROKEN, KIB16, NO_SPACE, REFUSED, deliver
from tests.torrent.test_torrent import TorrentTestCase

FILES = (("a", KIB16), ("b", KIB16), (".pad/1", KIB16), ("c", KIB16))


class ChangesTestCase(TorrentTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.torrent = self.bench.running(FILES)
        self.changes = Changes(self.torrent)
        self.disk = self.bench.disk(self.torrent)
        self.bench.log.clear()

    def refuse(self) -> None:
        self.bench.store.calls.failing["add"] = REFUSED

    def stored(self) -> TorrentOptions:
        (row,) = self.successResultOf(self.bench.store.torrents())
        return TorrentOptions.from_json(row.options)

    @property
    def phase(self) -> Running:
        assert isinstance(self.torrent.phase, Running)
        return self.torrent.phase


class PrioritiesTests(ChangesTestCase):
    def test_in_the_store_then_on_disk_then_in_the_picker(self) -> None:
        self.bench.store.calls.slow.add("add")
        self.disk.slow.add("set_wanted")
        changed = self.changes.set_priorities([0, 4, 4, 7])
        self.assertEqual(self.torrent.options.priorities, None)
        self.assertEqual(self.phase.picker.left, 3)
        self.bench.store.calls.turn()
        self.assertEqual(self.torrent.options.priorities, (0, 4, 4, 7))
        self.assertEqual(self.phase.picker.left, 3)
        self.disk.turn()
        self.successResultOf(changed)
        self.assertEqual(self.disk.wanted, (False, True, True, True))
        self.assertEqual(self.phase.picker.left, 2)

    def test_refused(self) -> None:
        self.refuse()
        self.failureResultOf(self.changes.set_priorities([0, 4, 4, 4]), StoreError)
        self.assertIsNone(self.torrent.options.priorities)
        self.assertEqual(self.bench.log, [])
        self.assertEqual(self.phase.picker.left, 3)

    def test_out_of_range(self) -> None:
        for wrong in ([4, 4, 4], [4] * 5, [-1, 4, 4, 4], [4, 4, 4, 8]):
            self.assertRaises(ValueError, self.changes.set_priorities, wrong)

    def test_of_a_torrent_that_is_stopped(self) -> None:
        """Whoever opens its files the next time knows."""
        self.successResultOf(self.torrent.pause())
        self.successResultOf(self.changes.set_priorities([0, 4, 4, 4]))
        self.successResultOf(self.torrent.resume())
        self.assertEqual(self.disk.wanted, (False, True, True, True))
        self.assertEqual(self.phase.picker.left, 2)

    def test_nothing_left_to_want_is_complete(self) -> None:
        """As if the last piece had come: synced, committed, told."""
        done = self.torrent.when_complete()
        deliver(self.torrent, 1)
        self.bench.log.clear()
        self.successResultOf(self.changes.set_priorities([0, 4, 4, 0]))
        self.successResultOf(done)
        names = [entry[0] for entry in self.bench.log]
        self.assertEqual(names, ["wanted", "sync", "synced", "commit"])
        self.assertEqual(self.bench.committed(self.torrent), {1})
        self.successResultOf(self.changes.set_priorities([0, 5, 4, 0]))
        self.assertEqual(self.bench.notices.count(Notice.COMPLETE), 1)

    def test_wanting_more_is_not_complete(self) -> None:
        self.successResultOf(self.changes.set_priorities([0, 4, 4, 0]))
        deliver(self.torrent, 1)
        self.successResultOf(self.torrent.when_complete())
        self.successResultOf(self.changes.set_priorities([4, 4, 4, 0]))
        done = self.torrent.when_complete()
        self.assertNoResult(done)
        deliver(self.torrent, 0)
        self.successResultOf(done)

    def test_no_space_to_make_a_file(self) -> None:
        """The wish is kept: the torrent stops, and goes on with it when there is space."""
        self.disk.failing["set_wanted"] = NO_SPACE
        self.failureResultOf(self.changes.set_priorities([0, 4, 4, 4]), StorageError)
        self.assertStopped(self.torrent, NO_SPACE)
        self.disk.failing.clear()
        self.clock.advance(15)
        self.assertEqual(self.phase.picker.left, 2)


class LimitsTests(ChangesTestCase):
    def test_limits(self) -> None:
        self.successResultOf(self.changes.set_limits(1000, 2000))
        self.assertEqual((self.phase.download_limit.rate, self.phase.upload_limit.rate), (1000, 2000))
        self.assertEqual((self.stored().download_rate, self.stored().upload_rate), (1000, 2000))

    def test_limits_refused(self) -> None:
        self.refuse()
        self.failureResultOf(self.changes.set_limits(1000, 2000), StoreError)
        self.assertEqual((self.phase.download_limit.rate, self.phase.upload_limit.rate), (0, 0))

    def test_limits_outlive_a_pause(self) -> None:
        self.successResultOf(self.torrent.pause())
        self.successResultOf(self.changes.set_limits(1000, 0))
        self.successResultOf(self.torrent.resume())
        self.assertEqual(self.phase.download_limit.rate, 1000)

    def test_negative_limits(self) -> None:
        self.assertRaises(ValueError, self.changes.set_limits, -1, 0)
        self.assertRaises(ValueError, self.changes.set_limits, 0, -1)

    def test_sequential(self) -> None:
        self.successResultOf(self.changes.set_sequential(True))
        self.assertTrue(self.phase.picker.sequential)
        self.assertTrue(self.stored().sequential)
        self.refuse()
        self.failureResultOf(self.changes.set_sequential(False), StoreError)
        self.assertTrue(self.phase.picker.sequential)


class MoveTests(ChangesTestCase):
    def test_files_then_store(self) -> None:
        self.bench.store.calls.slow.add("add")
        moved = self.changes.move("/new")
        self.assertEqual((self.disk.root, self.torrent.save_path), ("/new", "/d"))
        self.bench.store.calls.turn()
        self.successResultOf(moved)
        self.assertEqual(self.torrent.save_path, "/new")
        (row,) = self.successResultOf(self.bench.store.torrents())
        self.assertEqual(row.save_path, "/new")

    def test_undone_if_the_store_refuses(self) -> None:
        self.refuse()
        self.failureResultOf(self.changes.move("/new"), StoreError)
        self.assertEqual(self.bench.log, [("move", "/new"), ("move", "/d")])
        self.assertEqual(self.torrent.save_path, "/d")
        self.assertEqual(self.torrent.phase.name, "running")

    def test_undone_if_anything_else_goes_wrong(self) -> None:
        self.bench.store.calls.failing["add"] = ZeroDivisionError()
        self.failureResultOf(self.changes.move("/new"), ZeroDivisionError)
        self.assertEqual(self.disk.root, "/d")

    def test_that_fails(self) -> None:
        self.disk.failing["move"] = BROKEN
        self.failureResultOf(self.changes.move("/new"), StorageError)
        self.assertEqual(self.torrent.save_path, "/d")

    def test_of_a_stopped_torrent(self) -> None:
        """Its files are opened for that, and closed again."""
        self.successResultOf(self.torrent.pause())
        self.successResultOf(self.changes.move("/new"))
        self.assertEqual(self.disk.open_storages, 0)
        self.refuse()
        self.failureResultOf(self.changes.move("/other"), StoreError)
        self.assertEqual((self.disk.root, self.disk.open_storages), ("/new", 0))
        self.disk.failing["move"] = BROKEN
        self.failureResultOf(self.changes.move("/other"), StorageError)
        self.assertEqual(self.disk.open_storages, 0)

    def test_one_at_a_time(self) -> None:
        self.disk.slow.add("move")
        done = [self.changes.move(path) for path in ("/1", "/2")]
        self.assertEqual(len(self.disk.waiting), 1)
        self.disk.turn()
        self.successResultOf(done[0])
        self.disk.turn()
        self.successResultOf(done[1])
        self.assertEqual(self.torrent.save_path, "/2")

    def test_stop_waits_for_it(self) -> None:
        self.disk.slow.add("move")
        moved = self.changes.move("/new")
        stopped = self.torrent.stop()
        self.assertNoResult(stopped)
        self.disk.turn()
        self.successResultOf(moved)
        self.successResultOf(stopped)


class RenameTests(ChangesTestCase):
    def rename(self, path: list[str], file: int = 1) -> Deferred[None]:
        return self.changes.rename(file, path)

    def test_files_then_store(self) -> None:
        self.successResultOf(self.rename(["t", "sub", "new"]))
        self.assertEqual(self.bench.log, [("rename", 1, ("t", "sub", "new"))])
        self.assertEqual(self.stored().paths(self.torrent.info)[1], ("t", "sub", "new"))
        self.successResultOf(self.rename(["x"], 0))
        self.assertEqual(self.stored().renamed, ((0, ("x",)), (1, ("t", "sub", "new"))))

    def test_undone_if_the_store_refuses(self) -> None:
        self.successResultOf(self.rename(["first"]))
        self.refuse()
        self.failureResultOf(self.rename(["second"]), StoreError)
        self.assertEqual(self.bench.log[-2:], [("rename", 1, ("second",)), ("rename", 1, ("first",))])
        self.assertEqual(self.torrent.options.renamed, ((1, ("first",)),))

    def test_names_are_made_safe(self) -> None:
        self.successResultOf(self.rename(["..", "a/b"]))
        (_, _, path) = self.bench.log[0]
        self.assertNotIn("..", path)
        self.assertFalse(any("/" in name for name in path))

    def test_names_that_are_none(self) -> None:
        self.assertRaises(MetainfoError, self.rename, [])

    def test_files_that_are_none(self) -> None:
        for file in (-1, 4, 2):  # 2 is padding
            self.assertRaises(ValueError, self.rename, ["x"], file)

    def test_of_a_stopped_torrent(self) -> None:
        self.successResultOf(self.torrent.pause())
        self.successResultOf(self.rename(["x"]))
        self.assertEqual(self.disk.open_storages, 0)


class RemovedTests(ChangesTestCase):
    def test_files_are_deleted(self) -> None:
        deliver(self.torrent, 0)
        self.successResultOf(self.torrent.close("removed"))
        self.successResultOf(self.torrent.delete_files())
        self.assertEqual((self.disk.sizes, self.disk.open_storages), ({}, 0))

    def test_files_that_cannot_be_deleted(self) -> None:
        self.successResultOf(self.torrent.close("removed"))
        self.disk.failing["delete"] = BROKEN
        self.failureResultOf(self.torrent.delete_files(), StorageError)
        self.assertEqual(self.disk.open_storages, 0)
