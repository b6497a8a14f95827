from __future__ import annotations

import errno
import os

from irontide.errors import StorageError
from irontide.storage import check as check_module
from irontide.storage.memory import MemoryStorage
from tests.storage.fakes import KIB16, SlowDisk, make_info, noise
from tests.storage.test_file_storage import StorageCase


class CheckTests(StorageCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(check_module, "JOB_LENGTH", 2 * KIB16)
        self.found: dict[int, bool] = {}

    def note(self, piece: int, passed: bool) -> None:
        self.assertNotIn(piece, self.found)
        self.found[piece] = passed

    def test_every_piece_is_told_once(self) -> None:
        storage = self.prepared()
        self.put(storage, [0, 2, 3])
        check = storage.check(range(self.layout.pieces), self.note)
        self.assertTrue(self.successResultOf(check.done))
        self.assertEqual(self.found, {piece: piece in (0, 2, 3) for piece in range(self.layout.pieces)})

    def test_some_pieces_only(self) -> None:
        storage = self.prepared()
        self.put(storage)
        self.assertTrue(self.successResultOf(storage.check(iter([5, 1]), self.note).done))
        self.assertEqual(self.found, {5: True, 1: True})

    def test_in_memory(self) -> None:
        """MemoryStorage answers likewise."""
        storage = MemoryStorage(self.info)
        self.put(storage, [2])
        check = storage.check(range(self.layout.pieces), self.note)
        check.cancel()
        self.assertTrue(self.successResultOf(check.done))
        self.assertEqual([piece for piece, passed in self.found.items() if passed], [2])

    def test_no_pieces(self) -> None:
        self.assertTrue(self.successResultOf(self.prepared().check([], self.note).done))

    def test_several_in_flight_and_no_more(self) -> None:
        disk = SlowDisk()
        storage = self.storage(disk=disk)
        storage.prepare()
        disk.turn_all()
        check = storage.check(range(self.layout.pieces), self.note)
        most = disk.pending
        self.assertEqual(most, min(check_module.IN_FLIGHT, -(-self.layout.pieces // 2)))
        while disk.pending:
            disk.turn()
            self.assertLessEqual(disk.pending, most)
        self.successResultOf(check.done)
        self.assertEqual(len(self.found), self.layout.pieces)

    def test_cancelled(self) -> None:
        disk = SlowDisk()
        storage = self.storage(disk=disk)
        storage.prepare()
        disk.turn_all()
        check = storage.check(range(self.layout.pieces), self.note)
        disk.turn()
        told = len(self.found)
        check.cancel()
        self.assertNoResult(check.done)
        disk.turn_all()
        self.assertFalse(self.successResultOf(check.done))
        self.assertEqual(len(self.found), told)

    def test_missing_files_are_skipped_without_asking_again(self) -> None:
        storage = self.prepared()
        self.system.calls.clear()
        self.successResultOf(storage.check(range(self.layout.pieces), self.note).done)
        self.assertFalse(any(self.found.values()))
        self.assertLessEqual(self.system.calls.count("open_file"), 4)
        self.assertNotIn("preadv", self.system.calls)

    def test_missing_root(self) -> None:
        self.successResultOf(self.storage().check(range(self.layout.pieces), self.note).done)
        self.assertFalse(any(self.found.values()))

    def test_holes_are_not_read(self) -> None:
        storage = self.prepared()
        (self.root / "t" / "a").touch()
        os.truncate(self.root / "t" / "a", 20000)
        self.system.calls.clear()
        self.successResultOf(storage.check([0], self.note).done)
        self.assertEqual(self.found, {0: False})
        self.assertNotIn("preadv", self.system.calls)

    def test_a_hole_that_is_meant_to_be_zeros_is_right(self) -> None:
        self.files = [("zeros", 3 * KIB16), ("noise", KIB16)]
        self.data = bytes(3 * KIB16) + noise(KIB16)
        self.info = make_info(self.files, self.data)
        storage = self.prepared()
        (self.root / "t" / "zeros").touch()
        os.truncate(self.root / "t" / "zeros", 3 * KIB16)
        self.successResultOf(storage.check(range(4), self.note).done)
        self.assertEqual(self.found, {0: True, 1: True, 2: True, 3: False})
        os.truncate(self.root / "t" / "zeros", 2 * KIB16 + 1)
        self.found.clear()
        self.successResultOf(storage.check(range(3), self.note).done)
        self.assertEqual(self.found, {0: True, 1: True, 2: False})

    def test_an_unreadable_disk_is_an_error(self) -> None:
        storage = self.prepared()
        self.put(storage)
        self.system.fail("preadv", errno.EIO, after=2)
        check = storage.check(range(self.layout.pieces), self.note)
        self.assertEqual(self.failureResultOf(check.done, StorageError).value.errno, errno.EIO)

    def test_pieces_in_the_part_file_are_checked_too(self) -> None:
        storage = self.prepared(wanted=[True, False, True, True, True, True])
        self.put(storage)
        self.successResultOf(storage.check(range(self.layout.pieces), self.note).done)
        self.assertTrue(all(self.found.values()))

    def test_what_was_found_is_synced_by_the_next_sync(self) -> None:
        """It may be in the cache only, written by a process that was killed."""
        self.put(self.prepared(), [0])
        storage = self.storage()
        self.successResultOf(storage.check([0, 1], self.note).done)
        self.system.calls.clear()
        self.successResultOf(storage.sync())
        self.assertEqual(self.system.calls.count("fdatasync"), len(self.layout.files_of(0)))
