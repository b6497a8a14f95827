from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from irontide.storage.files import OpenFiles, Tree
from tests.storage.fakes import FailingSystem


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class OpenFilesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()
        self.tree = Tree(str(self.root))
        self.system = FailingSystem()
        self.files = OpenFiles(4, self.system)
        for number in range(10):
            (self.root / str(number)).write_bytes(b"%d" % number)
        self.before = descriptors()
        self.addCleanup(self.nothing_left)

    def nothing_left(self) -> None:
        self.files.forget(self.tree)
        self.assertEqual(descriptors(), self.before)

    def read(self, number: int) -> bytes:
        with self.files.use(self.tree, (str(number),)) as fd:
            return os.pread(fd, 100, 0)

    def opened(self) -> int:
        return self.system.calls.count("open_file")

    def test_opened_once(self) -> None:
        for _ in range(3):
            self.assertEqual(self.read(1), b"1")
        self.assertEqual(self.opened(), 1)

    def test_limit_holds_and_least_recently_used_goes_first(self) -> None:
        """The root counts too, and is used with every opening."""
        for number in (1, 2, 3, 1, 4):
            self.assertEqual(self.read(number), b"%d" % number)
            self.assertLessEqual(len(self.files), 4)
        self.assertEqual(self.opened(), 4)
        self.read(1)
        self.assertEqual(self.opened(), 4)
        self.read(2)
        self.assertEqual(self.opened(), 5)

    def test_ten_thousand_files_need_no_ten_thousand_descriptors(self) -> None:
        files = OpenFiles(64)
        for number in range(10_000):
            with files.use(self.tree, (f"{number} of many",), write=True, create=True):
                pass
        self.assertLessEqual(len(files), 64)
        self.assertLessEqual(descriptors(), self.before + 64)
        files.forget(self.tree)

    def test_a_file_in_use_is_never_closed(self) -> None:
        with self.files.use(self.tree, ("1",)) as fd:
            for number in range(2, 10):
                self.read(number)
            self.files.forget(self.tree)
            self.assertEqual(os.pread(fd, 10, 0), b"1")
        self.assertRaises(OSError, os.fstat, fd)

    def test_reading_upgrades_to_writing(self) -> None:
        with self.files.use(self.tree, ("1",)) as reading:
            with self.files.use(self.tree, ("1",), write=True) as writing:
                os.pwrite(writing, b"new", 0)
            self.assertEqual(os.pread(reading, 10, 0), b"new")
        self.assertEqual(self.read(1), b"new")
        self.assertEqual(self.opened(), 2)

    def test_reading_needs_no_right_to_write(self) -> None:
        flags: list[int] = []
        opener = self.system.open_file
        self.system.open_file = lambda root, path, how: (flags.append(how), opener(root, path, how))[1]  # type: ignore[method-assign]
        self.read(1)
        self.assertEqual(flags[0] & os.O_ACCMODE, os.O_RDONLY)

    def test_what_is_missing_is_not_remembered(self) -> None:
        with self.assertRaises(FileNotFoundError), self.files.use(self.tree, ("new",), write=True):
            pass
        with self.files.use(self.tree, ("new",), write=True, create=True) as fd:
            os.pwrite(fd, b"n", 0)
        self.assertEqual((self.root / "new").read_bytes(), b"n")

    def test_out_of_descriptors_some_are_closed(self) -> None:
        """EMFILE is met by closing idle files and trying again."""
        self.read(1)
        self.read(2)
        opener, failed = self.system.open_file, []

        def once(root: int, path: tuple[str, ...], flags: int) -> int:
            if not failed:
                failed.append(len(self.files))
                raise OSError(errno.EMFILE, "too many")
            failed.append(len(self.files))
            return opener(root, path, flags)

        self.system.open_file = once  # type: ignore[method-assign]
        self.assertEqual(self.read(3), b"3")
        self.assertLess(failed[1], failed[0])

    def test_out_of_descriptors_for_good_is_an_error(self) -> None:
        self.system.fail("open_file", errno.EMFILE)
        with self.assertRaises(OSError) as caught:
            self.read(1)
        self.assertEqual(caught.exception.errno, errno.EMFILE)

    def test_other_errors_are_not_tried_again(self) -> None:
        self.system.fail("open_file", errno.EACCES)
        self.assertRaises(PermissionError, self.read, 1)
        self.assertEqual(self.opened(), 1)

    def test_cached_never_opens(self) -> None:
        self.assertIsNone(self.files.cached(self.tree, ("1",)))
        self.assertEqual(self.system.calls, [])
        self.read(1)
        entry = self.files.cached(self.tree, ("1",))
        assert entry is not None
        self.assertEqual(os.pread(entry.fd, 10, 0), b"1")
        self.files.give_back(entry)

    def test_one_file_is_forgotten(self) -> None:
        self.read(1)
        self.read(2)
        self.files.forget(self.tree, ("1",))
        self.assertIsNone(self.files.cached(self.tree, ("1",)))
        entry = self.files.cached(self.tree, ("2",))
        assert entry is not None
        self.files.give_back(entry)

    def test_trees_do_not_share_files(self) -> None:
        """Two torrents may have the same root; forgetting one leaves the other's files open."""
        other = Tree(str(self.root))
        self.read(1)
        with self.files.use(other, ("1",)):
            pass
        self.files.forget(other)
        self.read(1)
        self.assertEqual(self.opened(), 2)

    def test_a_lowered_limit_closes_at_once(self) -> None:
        for number in range(3):
            self.read(number)
        self.files.set_limit(2)
        self.assertEqual((len(self.files), self.files.limit), (2, 2))
        self.assertEqual(descriptors(), self.before + 2)

    def test_threads_that_open_the_same_file(self) -> None:
        """However they interleave, everybody has a good descriptor and none is left over."""
        failed: list[BaseException] = []

        def work(seed: int) -> None:
            try:
                for step in range(300):
                    number = (seed * 7 + step * 3) % 10
                    with self.files.use(self.tree, (str(number),), write=step % 4 == 0) as fd:
                        if os.pread(fd, 100, 0) != b"%d" % number:
                            raise AssertionError(f"not file {number}")
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failed, [])
        self.assertLessEqual(len(self.files), 4)
