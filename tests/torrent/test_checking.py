"""Checking: what a plan doubts is hashed, samples decide over their file, cancelling ends it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import StorageError
from irontide.metainfo.bitfield import Bitfield
from irontide.torrent.checking import Checking
from irontide.torrent.options import TorrentOptions
from irontide.torrent.resume import Plan
from tests.torrent.fakes import BROKEN, KIB16, FakeDisk, FakeStorage, torrent_file


class CheckingTests(SynchronousTestCase):
    def setUp(self) -> None:
        file, data = torrent_file([("a", 3 * KIB16), ("b", 3 * KIB16)])
        self.info = file.info
        self.disk = FakeDisk(self.info, data, [])

    def check(
        self,
        have: set[int],
        check: tuple[int, ...] = (),
        samples: Mapping[int, tuple[int, ...]] | None = None,
        masks: Mapping[int, bytes] | None = None,
    ) -> tuple[Checking, Deferred[Bitfield]]:
        bits = Bitfield(6)
        for piece in have:
            bits.set(piece)
        storage: Any = FakeStorage(self.disk, "/d", TorrentOptions())
        checking = Checking(self.info, storage, Plan(bits, check, samples or {}, masks or {}))
        return checking, Deferred.fromCoroutine(checking.run())

    def test_pieces_that_pass_are_had(self) -> None:
        self.disk.put([1, 3])
        checking, done = self.check({5}, (0, 1, 2, 3))
        self.assertEqual(list(self.successResultOf(done).ones()), [1, 3, 5])
        self.assertEqual(self.disk.checked, [0, 1, 2, 3])
        self.assertEqual(checking.progress, 1.0)

    def test_nothing_to_check(self) -> None:
        checking, done = self.check({5})
        self.assertEqual(list(self.successResultOf(done).ones()), [5])
        self.assertEqual(checking.progress, 1.0)

    def test_good_samples_are_all_that_is_hashed(self) -> None:
        self.disk.put(range(6))
        _, done = self.check({0, 1, 2, 3}, (), {0: (1,)})
        self.assertEqual(list(self.successResultOf(done).ones()), [0, 1, 2, 3])
        self.assertEqual(self.disk.checked, [1])

    def test_one_bad_sample_condemns_its_file_and_no_other(self) -> None:
        """Every piece of the file is hashed; what is right is had, even what was not believed before."""
        self.disk.put([1, 2, 3])
        _, done = self.check({0, 1, 3, 4}, (), {0: (0, 1)}, {2: b"\x80", 5: b"\x80"})
        self.assertEqual(list(self.successResultOf(done).ones()), [1, 2, 3, 4])
        self.assertEqual(self.disk.checked, [0, 1, 0, 1, 2])

    def test_masks_of_a_condemned_file_are_forgotten(self) -> None:
        checking, done = self.check({0, 3}, (), {0: (0,)}, {2: b"\x80", 5: b"\x80"})
        self.successResultOf(done)
        self.assertEqual(checking.masks, {5: b"\x80"})

    def test_progress(self) -> None:
        self.disk.hold_checks = True
        checking, done = self.check({5}, (0, 1), {1: (5, 4)})
        self.assertEqual(checking.progress, 0.0)
        self.disk.checks[0].go_on(1)
        self.assertEqual(checking.progress, 0.25)
        self.disk.checks[0].go_on()
        self.assertEqual(checking.progress, 0.5)
        self.disk.checks[1].go_on()  # fails: the three pieces of the file are to be hashed as well
        self.assertEqual(checking.progress, 4 / 7)
        self.disk.checks[2].go_on()
        self.assertEqual(checking.progress, 1.0)
        self.successResultOf(done)

    def test_cancelled(self) -> None:
        self.disk.hold_checks = True
        checking, done = self.check({5}, (0, 1))
        checking.cancel()
        self.failureResultOf(done, CancelledError)

    def test_cancelled_before_it_begins(self) -> None:
        bits = Bitfield(6)
        storage: Any = FakeStorage(self.disk, "/d", TorrentOptions())
        checking = Checking(self.info, storage, Plan(bits, (), {}, {}))
        checking.cancel()
        self.failureResultOf(Deferred.fromCoroutine(checking.run()), CancelledError)
        self.assertEqual(self.disk.checks, [])

    def test_disk_refuses(self) -> None:
        self.disk.failing["check"] = BROKEN
        _, done = self.check(set(), (0,))
        self.assertIs(self.failureResultOf(done, StorageError).value, BROKEN)
