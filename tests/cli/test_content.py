"""Which files are found, and what they hash to."""

from __future__ import annotations

import os
import socket
from hashlib import sha1
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from irontide.cli.content import ContentError, find, hash_pieces

PIECE = 16 * 1024


class FolderCase(SynchronousTestCase):
    """Has a folder named ``top`` to fill."""

    def setUp(self) -> None:
        self.top = Path(os.path.realpath(self.mktemp())) / "top"
        self.top.mkdir(parents=True)

    def put(self, path: str, data: bytes = b"data") -> Path:
        file = self.top / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return file


class FindTests(FolderCase):
    """What is shared."""

    def test_file(self) -> None:
        content = find(str(self.put("a.bin", b"12345")))
        self.assertEqual((content.name, content.files, content.total), ("a.bin", ((("a.bin",), 5),), 5))

    def test_folder_in_the_order_of_names(self) -> None:
        for path in ("b", "a/z", "a/b/c", "B", "a.txt", ".hidden", ".git/x", "ü"):
            self.put(path)
        self.put("empty", b"")
        content = find(str(self.top))
        self.assertEqual(
            ["/".join(path) for path, _ in content.files],
            [
                "top/.git/x",
                "top/.hidden",
                "top/B",
                "top/a/b/c",
                "top/a/z",
                "top/a.txt",
                "top/b",
                "top/empty",
                "top/ü",
            ],
        )
        self.assertEqual(content.skipped, ())
        self.assertEqual(content.path_of(3), str(self.top / "a/b/c"))

    def test_slash_at_the_end(self) -> None:
        self.put("a")
        self.assertEqual(find(f"{self.top}/").name, "top")

    def test_symbolic_links_are_left_out_and_named(self) -> None:
        self.put("a")
        (self.top / "link").symlink_to("a")
        (self.top / "folder").symlink_to("/etc")
        (self.top / "dangling").symlink_to("nowhere")
        content = find(str(self.top))
        self.assertEqual([path for path, _ in content.files], [("top", "a")])
        self.assertEqual(
            content.skipped, tuple(f"{self.top}/{n}: a symbolic link" for n in ("dangling", "folder", "link"))
        )

    def test_a_symbolic_link_that_the_user_names_is_followed(self) -> None:
        self.put("a", b"12345")
        link = self.top.parent / "link"
        link.symlink_to(self.top)
        content = find(str(link))
        self.assertEqual(content.files, ((("link", "a"), 5),))
        self.assertEqual(hash_pieces(content, PIECE, lambda _: None), sha1(b"12345").digest())

    def test_what_is_no_file_is_left_out_and_named(self) -> None:
        self.put("a")
        os.mkfifo(self.top / "pipe")
        content = find(str(self.top))
        self.assertEqual(content.skipped, (f"{self.top}/pipe: neither a file nor a folder",))
        self.assertRaises(ContentError, find, str(self.top / "pipe"))

    def test_socket(self) -> None:
        self.put("a")
        here = os.getcwd()
        os.chdir(self.top)  # the path of a socket has to be short
        try:
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind("socket")
        finally:
            os.chdir(here)
        self.assertEqual(len(find(str(self.top)).skipped), 1)

    def test_the_file_that_is_written_is_left_out(self) -> None:
        self.put("a")
        written = self.put("top.torrent")
        content = find(str(self.top), str(written))
        self.assertEqual([path for path, _ in content.files], [("top", "a")])
        self.assertIn("top.torrent", content.skipped[0])

    def test_nothing_to_share(self) -> None:
        self.assertRaises(ContentError, find, str(self.top))
        (self.top / "folder").mkdir()
        self.assertRaises(ContentError, find, str(self.top))
        empty = self.put("empty", b"")
        self.assertRaises(ContentError, find, str(self.top))
        self.assertRaises(ContentError, find, str(empty))

    def test_nothing_there(self) -> None:
        self.assertRaises(FileNotFoundError, find, str(self.top / "missing"))

    def test_no_name(self) -> None:
        """Said at once, not after a look at the whole system."""
        self.assertIn("no name", str(self.assertRaises(ContentError, find, "/")))

    def test_very_deep(self) -> None:
        """No recursion; that the torrent would be refused is for others to say."""
        self.put("/".join(["d"] * 200) + "/a")
        self.assertEqual(len(find(str(self.top)).files[0][0]), 202)


class HashTests(FolderCase):
    """Pieces."""

    def hashed(self, piece_length: int, *files: bytes) -> tuple[bytes, list[int]]:
        for index, data in enumerate(files):
            self.put(f"{index:04}", data)
        told: list[int] = []
        return hash_pieces(find(str(self.top)), piece_length, told.append), told

    def expected(self, piece_length: int, *files: bytes) -> bytes:
        data = b"".join(files)
        return b"".join(
            sha1(data[at : at + piece_length]).digest() for at in range(0, len(data), piece_length)
        )

    def test_one_file(self) -> None:
        data = os.urandom(5 * PIECE + 1)
        found, told = self.hashed(PIECE, data)
        self.assertEqual(found, self.expected(PIECE, data))
        self.assertEqual(told, [PIECE] * 5 + [1])

    def test_whole_pieces(self) -> None:
        data = os.urandom(2 * PIECE)
        self.assertEqual(self.hashed(PIECE, data)[0], self.expected(PIECE, data))

    def test_piece_larger_than_what_is_read_at_once(self) -> None:
        data = os.urandom(5 * 1024 * 1024 + 7)
        found, _ = self.hashed(4 * 1024 * 1024, data)
        self.assertEqual(found, self.expected(4 * 1024 * 1024, data))

    def test_pieces_across_many_files(self) -> None:
        files = [os.urandom(length) for length in (0, 1, PIECE - 1, PIECE, 0, 3 * PIECE + 5, 7, 0, 100)]
        found, told = self.hashed(PIECE, *files)
        self.assertEqual(found, self.expected(PIECE, *files))
        self.assertEqual(sum(told), sum(map(len, files)))

    def test_more_pieces_than_are_ahead(self) -> None:
        data = os.urandom(100 * PIECE)
        self.assertEqual(self.hashed(PIECE, data)[0], self.expected(PIECE, data))


class ChangeTests(FolderCase):
    """A torrent of files that change would be one that nobody can complete."""

    def setUp(self) -> None:
        super().setUp()
        self.file = self.put("a", bytes(3 * PIECE))
        self.put("b", b"more")
        self.content = find(str(self.top))

    def hash(self) -> None:
        hash_pieces(self.content, PIECE, lambda _: None)

    def refused(self, reason: str) -> None:
        error = self.assertRaises(ContentError, self.hash)
        self.assertIn(str(self.file), str(error))
        self.assertIn(reason, str(error))

    def test_shorter(self) -> None:
        self.file.write_bytes(bytes(PIECE))
        self.refused("shorter")

    def test_longer(self) -> None:
        self.file.write_bytes(bytes(4 * PIECE))
        self.refused("changed")

    def test_other_bytes(self) -> None:
        self.file.write_bytes(b"x" * 3 * PIECE)
        os.utime(self.file, ns=(1, 1))
        self.refused("changed")

    def test_gone(self) -> None:
        self.file.unlink()
        self.assertRaises(FileNotFoundError, self.hash)

    def test_link_in_its_place(self) -> None:
        self.file.unlink()
        self.file.symlink_to("/etc/passwd")
        self.assertRaises(OSError, self.hash)

    def test_no_descriptor_is_left(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        self.file.write_bytes(bytes(PIECE))
        self.assertRaises(ContentError, self.hash)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
