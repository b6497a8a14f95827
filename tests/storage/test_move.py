from __future__ import annotations

import errno
import os
from pathlib import Path

from irontide.errors import StorageError
from irontide.storage.beneath import RelativePath
from irontide.storage.move import copy_data
from tests.storage.fakes import SlowDisk, noise
from tests.storage.test_file_storage import StorageCase

NAMES = {"t/a", "t/d/b", "t/d/c", "t/last", "t/empty"}
NO_B = [True, False, True, True, True, True]


class MoveTests(StorageCase):
    across = False

    def setUp(self) -> None:
        super().setUp()
        self.target = Path(self.mktemp()).absolute() / "deep" / "target"
        if self.across:
            self.system.fail("rename", errno.EXDEV)

    def test_everything_is_at_the_new_root(self) -> None:
        storage = self.prepared()
        self.put(storage)
        times = {name: (self.root / name).stat().st_mtime_ns for name in NAMES}
        self.successResultOf(storage.move(str(self.target)))
        self.assertEqual(storage.root, str(self.target))
        self.assertEqual(self.existing(self.target), NAMES)
        self.assertEqual(os.listdir(self.root), [])
        self.assertEqual({name: (self.target / name).stat().st_mtime_ns for name in NAMES}, times)
        self.assertHas(storage)
        self.put(storage)
        self.successResultOf(storage.sync())

    def test_the_part_file_comes_along(self) -> None:
        storage = self.prepared(wanted=NO_B)
        self.put(storage)
        self.successResultOf(storage.move(str(self.target)))
        self.assertHas(storage)
        self.assertEqual(os.listdir(self.root), [])

    def test_foreign_files_stay(self) -> None:
        storage = self.prepared()
        self.put(storage)
        (self.root / "t" / "mine").touch()
        self.successResultOf(storage.move(str(self.target)))
        self.assertEqual(self.existing(), {"t/mine"})

    def test_nothing_at_the_destination_is_overwritten(self) -> None:
        storage = self.prepared()
        self.put(storage)
        (self.target / "t" / "d").mkdir(parents=True)
        (self.target / "t" / "d" / "c").write_bytes(b"mine")
        failure = self.failureResultOf(storage.move(str(self.target)), StorageError)
        self.assertEqual(failure.value.errno, errno.EEXIST)
        self.assertEqual(failure.value.path, str(self.target / "t" / "d" / "c"))
        self.assertEqual((self.target / "t" / "d" / "c").read_bytes(), b"mine")
        self.assertEqual(self.existing(self.target), {"t/d/c"})
        self.assertHas(storage)

    def assertUndone(self, move: object) -> None:
        self.assertEqual(self.existing(), NAMES)
        self.assertFalse(self.target.parent.exists())

    def test_a_sync_that_fails_undoes_all(self) -> None:
        storage = self.prepared()
        self.put(storage)
        self.system.fail("sync_directory", errno.EIO, after=1)
        self.failureResultOf(storage.move(str(self.target)), StorageError)
        self.assertUndone(storage)
        self.assertEqual(storage.root, str(self.root))
        self.assertHas(storage)

    def test_moving_to_where_it_is(self) -> None:
        storage = self.prepared()
        self.put(storage)
        self.successResultOf(storage.move(str(self.root) + "/."))
        self.assertHas(storage)

    def test_moving_what_has_no_files_yet(self) -> None:
        storage = self.storage()
        self.successResultOf(storage.move(str(self.target)))
        self.put(storage)
        self.assertEqual(self.existing(self.target), NAMES - {"t/empty"})

    def test_progress(self) -> None:
        storage = self.prepared()
        self.put(storage)
        told: list[tuple[int, int]] = []
        self.successResultOf(storage.move(str(self.target), lambda done, total: told.append((done, total))))
        self.assertEqual(told[-1], (100001, 100001))

    def test_jobs_wait_for_a_move(self) -> None:
        """What is asked for meanwhile is read where the bytes are then."""
        disk = SlowDisk()
        self.put(self.prepared())
        storage = self.storage(disk=disk)
        storage.hash(0)
        disk.turn_all()
        moved = storage.move(str(self.target))
        hashed = storage.hash(1)
        answer = storage.read(1, 0, 100)
        self.assertEqual(disk.pending, 1)
        disk.turn_all()
        self.successResultOf(moved)
        self.assertTrue(self.successResultOf(hashed))
        self.buffer(answer).release()


class AcrossFileSystemsTests(MoveTests):
    """The same, by copying."""

    across = True

    def test_a_copy_that_fails_undoes_all(self) -> None:
        storage = self.prepared()
        self.put(storage)
        self.system.fail("fdatasync", errno.ENOSPC, after=2)
        failure = self.failureResultOf(storage.move(str(self.target)), StorageError)
        self.assertEqual(failure.value.errno, errno.ENOSPC)
        self.assertUndone(storage)
        self.assertHas(storage)

    def test_what_appears_at_the_destination_meanwhile_is_neither_overwritten_nor_removed(self) -> None:
        storage = self.prepared()
        self.put(storage)
        rename = self.system.rename

        def somebody_is_faster(old_root: int, old: RelativePath, new_root: int, new: RelativePath) -> None:
            self.target.joinpath(*new).write_bytes(b"mine")
            rename(old_root, old, new_root, new)

        self.system.rename = somebody_is_faster  # type: ignore[method-assign]
        failure = self.failureResultOf(storage.move(str(self.target)), StorageError)
        self.assertEqual(failure.value.errno, errno.EEXIST)
        self.assertEqual((self.target / "t" / "a").read_bytes(), b"mine")
        self.assertEqual(self.existing(), NAMES)
        self.assertHas(storage)


class RenameFailsTests(StorageCase):
    def test_a_rename_that_fails_in_the_middle_undoes_all(self) -> None:
        storage = self.prepared()
        self.put(storage)
        target = Path(self.mktemp()).absolute()
        self.system.fail("rename", errno.EACCES, after=3)
        failure = self.failureResultOf(storage.move(str(target)), StorageError)
        self.assertEqual(failure.value.errno, errno.EACCES)
        self.assertEqual(self.existing(), NAMES)
        self.assertFalse(target.exists())
        self.assertHas(storage)

    def test_one_that_cannot_be_renamed_back_is_named(self) -> None:
        storage = self.prepared()
        self.put(storage)
        target = Path(self.mktemp()).absolute()
        rename = self.system.rename

        def fails_for_good(*args: object) -> None:
            if "sync_directory" not in self.system.failing:
                (self.root / "t").mkdir(exist_ok=True)
                self.system.fail("sync_directory", errno.EIO)
            rename(*args)  # type: ignore[arg-type]
            (self.root / "t" / "a").touch()  # somebody puts something in its place

        self.system.rename = fails_for_good  # type: ignore[method-assign]
        failure = self.failureResultOf(storage.move(str(target)), StorageError)
        self.assertIn("t/a", "".join(failure.value.__notes__))
        self.assertEqual((target / "t" / "a").read_bytes(), self.content_of("a"))


class CopyTests(StorageCase):
    def copied(self, size: int, writes: list[tuple[int, bytes]]) -> os.stat_result:
        self.root.mkdir()
        source = os.open(self.root / "source", os.O_RDWR | os.O_CREAT)
        target = os.open(self.root / "target", os.O_RDWR | os.O_CREAT)
        try:
            os.ftruncate(source, size)
            for offset, data in writes:
                os.pwrite(source, data, offset)
            self.assertEqual(sum(copy_data(source, target)), size)
        finally:
            os.close(source)
            os.close(target)
        self.assertEqual((self.root / "target").read_bytes(), (self.root / "source").read_bytes())
        return (self.root / "target").stat()

    def test_holes_stay_holes(self) -> None:
        mib = 1 << 20
        writes = [(mib, noise(70000)), (6 * mib, noise(mib))]
        self.assertLess(self.copied(9 * mib, writes).st_blocks * 512, 3 * mib)

    def test_one_hole(self) -> None:
        self.copied(1 << 20, [])

    def test_empty(self) -> None:
        self.copied(0, [])


class RenameTests(StorageCase):
    def test_a_file_gets_another_path(self) -> None:
        storage = self.prepared()
        self.put(storage)
        self.successResultOf(storage.rename(1, ("t", "new", "name")))
        self.assertEqual(self.existing(), NAMES - {"t/d/b"} | {"t/new/name"})
        self.assertHas(storage)
        self.put(storage)
        self.assertEqual(storage.paths[1], ("t", "new", "name"))
        self.assertEqual(storage.path(1), str(self.root / "t" / "new" / "name"))

    def test_known_again(self) -> None:
        storage = self.prepared()
        self.put(storage)
        self.successResultOf(storage.rename(1, ("elsewhere",)))
        again = self.prepared(paths=storage.paths)
        self.assertHas(again)

    def test_a_file_that_does_not_exist_yet(self) -> None:
        storage = self.prepared()
        self.successResultOf(storage.rename(1, ("t", "new", "name")))
        self.put(storage)
        self.assertEqual(self.existing(), NAMES - {"t/d/b"} | {"t/new/name"})

    def test_empty_directories_go(self) -> None:
        storage = self.prepared()
        self.put(storage)
        for file, name in ((1, "b"), (4, "c")):
            self.successResultOf(storage.rename(file, ("t", name)))
        self.assertFalse((self.root / "t" / "d").exists())

    def test_what_is_in_the_way_stays(self) -> None:
        storage = self.prepared()
        self.put(storage)
        (self.root / "t" / "mine").write_bytes(b"mine")
        for path in (("t", "mine"), ("t", "a"), ("t", "a", "below"), ("t", "d"), ("t", "mine", "below")):
            self.failureResultOf(storage.rename(1, path), StorageError)
        self.assertEqual((self.root / "t" / "mine").read_bytes(), b"mine")
        self.assertEqual(self.existing(), NAMES | {"t/mine"})
        self.assertHas(storage)

    def test_ways_out_are_refused(self) -> None:
        storage = self.prepared()
        for path in ((), ("..", "x"), ("t", ""), ("/x",), ("t", "x\0")):
            self.failureResultOf(storage.rename(1, path), StorageError)

    def test_a_failure_undoes_it(self) -> None:
        storage = self.prepared()
        self.put(storage)
        for name in ("rename", "sync_directory"):
            self.system.fail(name, errno.EIO)
            self.failureResultOf(storage.rename(1, ("t", "new", "name")), StorageError)
            del self.system.failing[name]
            self.assertEqual(self.existing(), NAMES)
            self.assertFalse((self.root / "t" / "new").exists())
            self.assertHas(storage)

    def test_the_same_name(self) -> None:
        storage = self.prepared()
        self.put(storage)
        self.successResultOf(storage.rename(1, ("t", "d", "b")))
        self.assertHas(storage)


class DeleteTests(StorageCase):
    def test_nothing_is_left_but_the_root(self) -> None:
        storage = self.prepared(wanted=NO_B)
        self.put(storage)
        self.successResultOf(storage.delete())
        self.assertEqual(os.listdir(self.root), [])

    def test_what_is_not_ours_stays(self) -> None:
        storage = self.prepared()
        self.put(storage)
        (self.root / "t" / "d" / "mine").touch()
        (self.root / "other").touch()
        self.successResultOf(storage.delete())
        self.assertEqual(self.existing(), {"t/d/mine", "other"})

    def test_what_cannot_be_removed_is_told_and_the_rest_goes(self) -> None:
        storage = self.prepared()
        self.put(storage)
        (self.root / "t" / "a").unlink()
        (self.root / "t" / "a").mkdir()
        self.failureResultOf(storage.delete(), StorageError)
        self.assertEqual(self.existing(), set())

    def test_without_a_root(self) -> None:
        self.successResultOf(self.storage().delete())
