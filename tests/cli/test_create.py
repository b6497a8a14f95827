"""``irontide create``, as a user runs it."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from hashlib import sha1
from pathlib import Path
from typing import Any

import libtorrent
from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from irontide.cli.create import Order, carry_out, create, write_atomically
from irontide.metainfo.info import MAX_PIECES
from irontide.metainfo.torrent_file import TorrentFile

PIECE = 16 * 1024
A, B, C = "http://a.example/announce", "https://b.example/announce", "udp://c.example:6969"


class CreateCase(SynchronousTestCase):
    """Has a folder to work in, with a file and a folder to share."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(parents=True)
        self.file = self.folder / "a.bin"
        self.file.write_bytes(b"x" * (PIECE + 1))
        self.many = self.folder / "many"
        (self.many / "d").mkdir(parents=True)
        (self.many / "d" / "b").write_bytes(b"b" * 100)
        (self.many / "a").write_bytes(b"a" * 50)
        (self.many / "empty").touch()
        self.output = self.folder / "out.torrent"

    def run_create(self, *arguments: str, path: Path | None = None, **environment: str) -> Result:
        words = [str(path or self.file), "--output", str(self.output), *arguments]
        return CliRunner(env=environment).invoke(create, words)

    def made(self, *arguments: str, **more: Any) -> TorrentFile:
        result = self.run_create(*arguments, **more)
        self.assertEqual((result.exit_code, result.stderr), (0, ""))
        return TorrentFile.from_bytes(self.output.read_bytes())

    def left_over(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} - {"a.bin", "many", "out.torrent"}


class GoodTests(CreateCase):
    """What is made."""

    def test_file(self) -> None:
        info = self.made().info
        self.assertEqual((info.name, info.total, info.single), ("a.bin", PIECE + 1, True))
        self.assertEqual(info.piece_hashes, sha1(b"x" * PIECE).digest() + sha1(b"x").digest())
        theirs = libtorrent.load_torrent_buffer(self.output.read_bytes()).ti
        self.assertEqual(theirs.info_hashes().v1.to_bytes(), info.infohash)

    def test_folder(self) -> None:
        info = self.made(path=self.many).info
        self.assertEqual(
            [("/".join(file.path), file.length) for file in info.files],
            [("many/a", 50), ("many/d/b", 100), ("many/empty", 0)],
        )
        self.assertEqual(info.piece_hashes, sha1(b"a" * 50 + b"b" * 100).digest())

    def test_everything(self) -> None:
        torrent = self.made(
            *("--tracker", f"{A},{B}", "--tracker", C, "--private", "--comment", "schön"),
            *("--web-seed", "http://w.example/a,b", "--web-seed", "https://v.example/", "--source", "SRC"),
            *("--piece-length", "32 KiB"),
            SOURCE_DATE_EPOCH="1700000000",
        )
        self.assertEqual(torrent.tiers, ((A, B), (C,)))
        self.assertEqual(torrent.web_seeds, ("http://w.example/a,b", "https://v.example/"))
        self.assertEqual((torrent.info.private, torrent.info.source, torrent.comment), (True, "SRC", "schön"))
        self.assertEqual((torrent.info.piece_length, torrent.creation_date), (2 * PIECE, 1_700_000_000))
        self.assertTrue(torrent.created_by.startswith("irontide/"))

    def test_same_input_same_bytes(self) -> None:
        first = self.made(path=self.many, SOURCE_DATE_EPOCH="1").raw
        self.output.unlink()
        self.assertEqual(self.made(path=self.many, SOURCE_DATE_EPOCH="1").raw, first)

    def test_dates_that_are_none_do_no_harm(self) -> None:
        for said in ("", "x", "-1", "9" * 12, "9" * 5000):
            self.assertIsNotNone(self.made("--force", SOURCE_DATE_EPOCH=said).creation_date)

    def test_default_output_is_here(self) -> None:
        path = self.many.resolve()
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(elsewhere)
        self.assertEqual(CliRunner().invoke(create, [f"{path}/"]).exit_code, 0)
        self.assertEqual(os.listdir(), ["many.torrent"])

    def test_output_in_the_shared_folder_is_no_part_of_it(self) -> None:
        self.output = self.many / "many.torrent"
        info = self.made(path=self.many).info
        result = self.run_create("--force", path=self.many)
        self.assertEqual(result.exit_code, 0)
        self.assertIn("skipped", result.stderr)
        self.assertEqual(TorrentFile.from_bytes(self.output.read_bytes()).info, info)

    def test_says_what_it_made(self) -> None:
        result = self.run_create()
        info = TorrentFile.from_bytes(self.output.read_bytes()).info
        self.assertIn(info.infohash.hex(), result.stdout)
        self.assertIn("1 file, 16 KiB in 2 pieces of 16 KiB", result.stdout)

    def test_json(self) -> None:
        (self.many / "link").symlink_to("a")
        result = self.run_create("--json", "--tracker", A, path=self.many)
        info = TorrentFile.from_bytes(self.output.read_bytes()).info
        said = json.loads(result.stdout)
        self.assertIn("link: a symbolic link", said.pop("skipped")[0])
        self.assertEqual(
            said,
            {
                "path": str(self.output),
                "infohash": info.infohash.hex(),
                "name": "many",
                "total": 150,
                "files": 3,
                "pieces": 1,
                "piece_length": PIECE,
                "private": False,
                "trackers": [[A]],
            },
        )
        self.assertEqual(result.stderr, "")

    def test_quiet(self) -> None:
        result = self.run_create("--quiet")
        self.assertEqual((result.exit_code, result.output), (0, ""))

    def test_links_are_named(self) -> None:
        (self.many / "link").symlink_to("a")
        result = self.run_create(path=self.many)
        self.assertEqual(result.exit_code, 0)
        self.assertIn("link: a symbolic link", result.stderr)

    def test_names_that_do_things_to_a_terminal(self) -> None:
        (self.many / "\x1b[2J").symlink_to("a")
        self.assertNotIn("\x1b", self.run_create(path=self.many).output)

    def test_progress_adds_up(self) -> None:
        told: list[int] = []
        order = Order(str(self.file), str(self.output), None, False, (), (), "", "", False)
        carry_out(order, self.fail, lambda total: nullcontext(lambda n: told.append(n)))
        self.assertEqual(sum(told), PIECE + 1)


class RefusedTests(CreateCase):
    """What is not made: said in a line, exit code 1, and nothing is left behind."""

    def refused(self, *arguments: str, reason: str, **more: Any) -> None:
        before = self.output.read_bytes() if self.output.exists() else None
        result = self.run_create(*arguments, **more)
        self.assertEqual(result.exit_code, 1)
        self.assertIn(reason, result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1)
        self.assertEqual(self.output.read_bytes() if self.output.exists() else None, before)
        self.assertEqual(self.left_over(), set())

    def test_output_is_there(self) -> None:
        self.output.write_bytes(b"precious")
        self.refused(reason="--force")
        self.assertEqual(self.run_create("--force").exit_code, 0)
        self.assertNotEqual(self.output.read_bytes(), b"precious")

    def test_output_is_a_dangling_link(self) -> None:
        self.output.symlink_to("nowhere")
        self.assertEqual(self.run_create().exit_code, 1)
        self.assertTrue(self.output.is_symlink())

    def test_empty_folder(self) -> None:
        empty = self.many / "e"
        empty.mkdir()
        self.refused(path=empty, reason="nothing in it to share")

    def test_folder_of_the_output_is_missing(self) -> None:
        self.output = self.folder / "missing" / "x.torrent"
        self.refused(reason="cannot write into")

    def test_names_that_others_would_change(self) -> None:
        (self.many / "A").write_bytes(b"another")
        self.refused(path=self.many, reason="would become")

    def test_names_that_are_no_text(self) -> None:
        with open(os.fsencode(self.many) + b"/\xff", "wb"):
            pass
        self.refused(path=self.many, reason="UTF-8")

    def test_too_many_pieces(self) -> None:
        os.truncate(self.file, (MAX_PIECES + 1) * PIECE)  # a hole
        self.refused("--piece-length", "16KiB", reason=f"{MAX_PIECES + 1} pieces")

    def test_too_many_trackers(self) -> None:
        urls = ",".join(f"http://{n}.example/" for n in range(101))
        self.refused("--tracker", urls, reason="101 trackers")

    def test_json(self) -> None:
        self.output.write_bytes(b"precious")
        result = self.run_create("--json")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("--force", json.loads(result.stdout)["error"])


class UsageTests(CreateCase):
    """Exit code 2."""

    def test_wrong_usage(self) -> None:
        for words in (
            ["--tracker", "ftp://a.example/"],
            ["--tracker", f"{A},nonsense"],
            ["--web-seed", C],
            ["--piece-length", "100"],
            ["--piece-length", "48 KiB"],
            ["--piece-length", "512 MiB"],
            ["--piece-length", "much"],
            ["--nonsense"],
        ):
            self.assertEqual(self.run_create(*words).exit_code, 2, words)
        self.assertFalse(self.output.exists())

    def test_missing_path(self) -> None:
        self.assertEqual(self.run_create(path=self.folder / "missing").exit_code, 2)


class WriteTests(CreateCase):
    """All of a file or nothing."""

    def test_a_file_that_appeared_meanwhile_stays(self) -> None:
        self.output.write_bytes(b"precious")
        self.assertRaises(FileExistsError, write_atomically, str(self.output), b"new", replace=False)
        self.assertEqual(self.output.read_bytes(), b"precious")
        self.assertEqual(self.left_over(), set())

    def test_replace(self) -> None:
        for data in (b"one", b"two"):
            write_atomically(str(self.output), data, replace=True)
            self.assertEqual(self.output.read_bytes(), data)
        self.assertEqual(self.left_over(), set())

    def test_failure_leaves_nothing(self) -> None:
        self.assertRaises(OSError, write_atomically, str(self.many), b"new", replace=True)
        self.assertEqual(self.left_over(), set())

    def test_others_may_read_it(self) -> None:
        before = os.umask(0o022)
        self.addCleanup(os.umask, before)
        write_atomically(str(self.output), b"data", replace=False)
        self.assertEqual(self.output.stat().st_mode & 0o777, 0o644)
        self.assertEqual(self.output.stat().st_nlink, 1)
