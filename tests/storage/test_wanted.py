from __future__ import annotations

import errno

from irontide.errors import StorageError
from tests.storage.test_file_storage import StorageCase

NO_B = [True, False, True, True, True, True]
ALL = [True] * 6
NONE = [False] * 6


class WantedTests(StorageCase):
    """Files that are not wanted: their bytes live in the part file, and they are not made."""

    @property
    def part_name(self) -> str:
        return f".t.{self.info.infohash.hex()}.parts"

    def shared(self) -> list[int]:
        """The pieces that d/b shares with files that are wanted."""
        of_b = self.layout.pieces_of(1)
        return [of_b[0], of_b[-1]]

    def test_an_unwanted_file_is_not_made(self) -> None:
        storage = self.prepared(wanted=NO_B)
        self.put(storage, [0, *self.shared()])
        self.assertEqual(self.existing(), {"t/a", "t/empty", self.part_name})
        self.assertNotIn(1, self.successResultOf(storage.stats()))

    def test_shared_pieces_are_whole(self) -> None:
        storage = self.prepared(wanted=NO_B)
        self.put(storage, self.shared())
        for piece in self.shared():
            self.assertTrue(self.successResultOf(storage.hash(piece)))
            size = self.layout.piece_size(piece)
            self.assertEqual(self.read(storage, piece, 0, size), self.piece(piece))

    def test_without_shared_bytes_there_is_no_part_file(self) -> None:
        storage = self.prepared(wanted=NO_B)
        self.put(storage, [0])
        self.assertNotIn(self.part_name, self.existing())

    def test_known_again_after_a_restart(self) -> None:
        storage = self.prepared(wanted=NO_B)
        self.put(storage)
        self.successResultOf(storage.close())
        again = self.prepared(wanted=NO_B)
        self.assertHas(again)
        self.assertFalse((self.root / "t" / "d" / "b").exists())

    def test_a_file_that_becomes_wanted_gets_its_bytes(self) -> None:
        storage = self.prepared(wanted=NO_B)
        self.put(storage)
        self.successResultOf(storage.set_wanted(ALL))
        self.assertEqual((self.root / "t" / "d" / "b").read_bytes(), self.content_of("d/b"))
        self.assertNotIn(self.part_name, self.existing())
        self.assertHas(storage)

    def test_several_files_leave_one_after_the_other(self) -> None:
        storage = self.prepared(wanted=NONE)
        self.put(storage)
        self.assertEqual(self.existing(), {self.part_name})
        wanted = list(NONE)
        for file in (4, 0, 5, 1, 2):
            wanted[file] = True
            self.successResultOf(storage.set_wanted(wanted))
            self.assertHas(storage)
        self.assertEqual(self.existing(), {"t/a", "t/d/b", "t/d/c", "t/last", "t/empty"})

    def test_a_file_that_is_no_longer_wanted_stays(self) -> None:
        storage = self.prepared()
        self.put(storage)
        self.successResultOf(storage.set_wanted(NO_B))
        self.assertEqual((self.root / "t" / "d" / "b").read_bytes(), self.content_of("d/b"))
        self.assertHas(storage)
        self.put(storage)
        self.assertNotIn(self.part_name, self.existing())

    def test_not_yet_made_and_no_longer_wanted(self) -> None:
        storage = self.prepared()
        self.successResultOf(storage.set_wanted(NO_B))
        self.put(storage, self.shared())
        self.assertFalse((self.root / "t" / "d" / "b").exists())

    def test_synced_before_it_is_forgotten_there(self) -> None:
        """Durability 3: the bits say that the bytes are on disk, at every moment."""
        storage = self.prepared(wanted=NO_B)
        self.put(storage)
        self.successResultOf(storage.sync())
        self.system.fail("fdatasync", errno.EIO)
        self.failureResultOf(storage.set_wanted(ALL), StorageError)
        self.assertIn(self.part_name, self.existing())
        del self.system.failing["fdatasync"]
        self.assertHas(storage)
        self.successResultOf(storage.set_wanted(ALL))
        self.assertHas(storage)

    def test_full_disk_loses_nothing_and_can_be_tried_again(self) -> None:
        storage = self.prepared(wanted=NO_B)
        self.put(storage)
        self.system.fail("pwritev", errno.ENOSPC, after=1)
        failure = self.failureResultOf(storage.set_wanted(ALL), StorageError)
        self.assertEqual(failure.value.errno, errno.ENOSPC)
        del self.system.failing["pwritev"]
        self.assertHas(storage)
        self.successResultOf(storage.set_wanted(ALL))
        self.assertHas(storage)
        self.assertNotIn(self.part_name, self.existing())

    def test_a_crash_in_the_middle_of_taking_out(self) -> None:
        """A file lives in the part file until all of it was taken out, whatever is at its path."""
        storage = self.prepared(wanted=NO_B)
        self.put(storage)
        self.system.fail("pwritev", errno.EIO, after=2)
        self.failureResultOf(storage.set_wanted(ALL), StorageError)
        del self.system.failing["pwritev"]
        self.successResultOf(storage.close())  # as if killed: nothing more is written
        self.assertTrue((self.root / "t" / "d" / "b").exists())
        self.assertHas(self.prepared(wanted=NO_B))
        finished = self.prepared(wanted=ALL)
        self.assertHas(finished)
        self.assertNotIn(self.part_name, self.existing())

    def test_a_part_file_cut_off_while_it_was_made(self) -> None:
        self.root.mkdir()
        (self.root / self.part_name).touch()
        storage = self.prepared(wanted=NO_B)
        self.put(storage)
        self.assertHas(storage)

    def test_a_foreign_part_file_is_refused_and_kept(self) -> None:
        self.root.mkdir()
        (self.root / self.part_name).write_bytes(b"something else altogether")
        self.failureResultOf(self.storage().prepare(), StorageError)
        self.assertEqual((self.root / self.part_name).read_bytes(), b"something else altogether")

    def test_a_damaged_slot_is_refused(self) -> None:
        """It would mean terabytes, on the disk and in the list of free slots."""
        storage = self.prepared(wanted=NO_B)
        self.put(storage, self.shared())
        part = self.root / self.part_name
        damaged = bytearray(part.read_bytes())
        at = 20 + len(self.info.files) + 4 * self.shared()[0]
        self.assertIn(damaged[at : at + 4], (bytes((0, 0, 0, 1)), bytes((0, 0, 0, 2))))
        damaged[at : at + 4] = (self.layout.pieces + 1).to_bytes(4, "big")
        part.write_bytes(damaged)
        self.failureResultOf(self.storage(wanted=NO_B).prepare(), StorageError)
        self.assertEqual(part.read_bytes(), damaged)

    def test_slots_are_used_again(self) -> None:
        storage = self.prepared(wanted=NONE)
        self.put(storage)
        size = (self.root / self.part_name).stat().st_size
        for _ in range(3):
            self.successResultOf(storage.set_wanted([False, True, False, False, False, False]))
            (self.root / "t" / "d" / "b").unlink()
            self.open_files.set_limit(1)
            self.open_files.set_limit(64)
            self.successResultOf(storage.set_wanted(NONE))
            self.put(storage)
        self.assertLessEqual((self.root / self.part_name).stat().st_size, size)
        self.assertHas(storage)

    def test_wrong_number_of_marks(self) -> None:
        self.failureResultOf(self.prepared().set_wanted([True]), ValueError)
        self.assertRaises(ValueError, self.storage, wanted=[True])

    def test_full_allocation_only_of_wanted_files(self) -> None:
        storage = self.prepared(wanted=NO_B, preallocate="full")
        self.assertFalse((self.root / "t" / "d" / "b").exists())
        self.successResultOf(storage.set_wanted(ALL))
        self.assertEqual((self.root / "t" / "d" / "b").stat().st_size, 50000)
