from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from irontide.storage import beneath


class BeneathTests(SynchronousTestCase):
    """Names and paths: nothing outside the root is reached, whatever is planted in it."""

    openat2 = True

    def setUp(self) -> None:
        if self.openat2 and not beneath.has_openat2():
            self.skipTest("this kernel has no openat2")
        self.patch(beneath, "HAVE_OPENAT2", self.openat2)
        self.base = Path(self.mktemp()).absolute()
        self.outside = self.base / "outside"
        self.outside.mkdir(parents=True)
        (self.outside / "secret").write_bytes(b"secret")
        self.root = self.base / "root"
        (self.root / "d" / "e").mkdir(parents=True)
        (self.root / "d" / "e" / "file").write_bytes(b"content")
        self.fd = os.open(self.root, os.O_PATH | os.O_DIRECTORY)
        self.addCleanup(os.close, self.fd)

    def error_of(self, *path: str, flags: int = os.O_RDONLY) -> int:
        with self.assertRaises(OSError) as caught:
            os.close(beneath.open_file(self.fd, path, flags))
        assert caught.exception.errno is not None
        return caught.exception.errno

    def test_a_file_is_opened(self) -> None:
        fd = beneath.open_file(self.fd, ("d", "e", "file"), os.O_RDONLY)
        self.addCleanup(os.close, fd)
        self.assertEqual(os.read(fd, 100), b"content")
        self.assertFalse(os.get_inheritable(fd))

    def test_a_file_is_made(self) -> None:
        os.close(beneath.open_file(self.fd, ("d", "new"), os.O_RDWR | os.O_CREAT))
        self.assertTrue((self.root / "d" / "new").is_file())

    def test_links_are_not_followed(self) -> None:
        (self.root / "link").symlink_to(self.outside)
        (self.root / "d" / "file link").symlink_to(self.outside / "secret")
        (self.root / "inner link").symlink_to(self.root / "d")
        for path in (("link", "secret"), ("d", "file link"), ("inner link", "e", "file"), ("link", "new")):
            for flags in (os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT):
                self.assertIn(self.error_of(*path, flags=flags), (errno.ELOOP, errno.ENOTDIR))
        self.assertEqual(os.listdir(self.outside), ["secret"])
        self.assertEqual((self.outside / "secret").read_bytes(), b"secret")

    def test_nothing_is_made_or_removed_through_a_link(self) -> None:
        (self.root / "link").symlink_to(self.outside)
        self.assertRaises(OSError, beneath.make_directories, self.fd, ("link", "new"))
        with self.assertRaises(OSError):
            beneath.rename(self.fd, ("d", "e", "file"), self.fd, ("link", "file"))
        with self.assertRaises(OSError):
            beneath.rename(self.fd, ("link", "secret"), self.fd, ("d", "secret"))
        beneath.remove_empty(self.fd, ("link",))
        with contextlib.suppress(OSError):
            beneath.unlink(self.fd, ("link", "secret"))
        self.assertEqual(os.listdir(self.outside), ["secret"])
        self.assertTrue((self.root / "link").is_symlink())

    def test_ways_out_are_refused(self) -> None:
        for path in (
            ("..", "outside", "secret"),
            ("d", "..", "file"),
            ("/etc/passwd",),
            ("d/e/file",),
            ("",),
            (),
        ):
            self.assertEqual(self.error_of(*path), errno.EINVAL)
        self.assertEqual(self.error_of("a\0b"), errno.EINVAL)
        self.assertEqual(self.error_of(), errno.EINVAL)

    def test_only_regular_files_are_opened(self) -> None:
        """A FIFO would block who opens it, for ever."""
        os.mkfifo(self.root / "fifo")
        self.assertEqual(self.error_of("fifo"), errno.EINVAL)
        self.assertEqual(self.error_of("d"), errno.EISDIR)

    def test_error_names_the_path(self) -> None:
        with self.assertRaises(FileNotFoundError) as caught:
            beneath.open_file(self.fd, ("d", "none"), os.O_RDONLY)
        self.assertEqual(caught.exception.filename, "d/none")

    def test_stat(self) -> None:
        found = beneath.stat_file(self.fd, ("d", "e", "file"))
        assert found is not None
        self.assertEqual(found.st_size, 7)
        self.assertIsNone(beneath.stat_file(self.fd, ("d", "none")))
        self.assertIsNone(beneath.stat_file(self.fd, ("none", "none")))
        self.assertIsNone(beneath.stat_file(self.fd, ("d", "e", "file", "deeper")))

    def test_directories_are_made_and_told(self) -> None:
        made = beneath.make_directories(self.fd, ("d", "x", "y"))
        self.assertEqual(made, [("d", "x"), ("d", "x", "y")])
        self.assertTrue((self.root / "d" / "x" / "y").is_dir())
        self.assertEqual(beneath.make_directories(self.fd, ("d", "x", "y")), [])

    def test_empty_directories_are_removed_up_to_the_root(self) -> None:
        beneath.make_directories(self.fd, ("x", "y", "z"))
        (self.root / "x" / "kept").touch()
        beneath.remove_empty(self.fd, ("x", "y", "z"))
        self.assertEqual(os.listdir(self.root / "x"), ["kept"])
        os.unlink(self.root / "x" / "kept")
        beneath.remove_empty(self.fd, ("x",))
        self.assertEqual(os.listdir(self.root), ["d"])

    def test_rename_overwrites_nothing(self) -> None:
        (self.root / "other").write_bytes(b"other")
        with self.assertRaises(FileExistsError):
            beneath.rename(self.fd, ("d", "e", "file"), self.fd, ("other",))
        self.assertEqual((self.root / "other").read_bytes(), b"other")
        beneath.rename(self.fd, ("d", "e", "file"), self.fd, ("d", "renamed"))
        self.assertEqual((self.root / "d" / "renamed").read_bytes(), b"content")

    def test_unlink_of_nothing_is_no_error(self) -> None:
        beneath.unlink(self.fd, ("none", "none"))
        beneath.unlink(self.fd, ("d", "e", "file"))
        self.assertEqual(os.listdir(self.root / "d" / "e"), [])

    def test_no_descriptor_is_left_over(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for path in (("d", "e", "file"), ("d",), ("none",), ("d", "none", "none")):
            with contextlib.suppress(OSError):
                os.close(beneath.open_file(self.fd, path, os.O_RDONLY))
            beneath.stat_file(self.fd, path)
        beneath.make_directories(self.fd, ("d", "x", "y"))
        beneath.sync_directory(self.fd, ("d", "x"))
        beneath.remove_empty(self.fd, ("d", "x", "y"))
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


class StepByStepTests(BeneathTests):
    """The same, where the kernel has no openat2."""

    openat2 = False
