"""``irontide info``, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.cli.info import describe, facts, info
from irontide.metainfo.bencode import encode
from irontide.metainfo.torrent_file import TorrentFile

VECTORS = Path(__file__).parent.parent / "vectors" / "metainfo"
BARE = {b"name": b"n", b"piece length": 16384, b"length": 5, b"pieces": bytes(20)}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(info, [str(each) for each in arguments])


class InfoTests(SynchronousTestCase):
    """Files that are right."""

    def test_for_people(self) -> None:
        result = run(VECTORS / "v1_multi.torrent")
        self.assertEqual(result.exit_code, 0)
        self.assertEqual(
            result.stdout.splitlines(),
            [
                "name:        data",
                "infohash:    df74bb6c3e4b94cc7e3a617c72092d9dd2c53d30",
                "size:        54.3 KiB (55610 bytes)",
                "pieces:      4 of 16 KiB",
                "comment:     made by libtorrent",
                "created:     2023-11-14 22:13:20 UTC by libtorrent",
                "tier 1:      http://tracker.example/announce",
                "tier 2:      udp://tracker.example:6969",
                "files:       4",
                "        10 B  data/run.sh",
                "      25 KiB  data/a.bin",
                "    29.3 KiB  data/sub/b.txt",
                "         0 B  data/sub/empty",
            ],
        )

    def test_json_of_a_single_file(self) -> None:
        result = run("--json", VECTORS / "v1_single.torrent")
        self.assertEqual(result.exit_code, 0)
        self.assertEqual(
            json.loads(result.stdout),
            {
                "name": "a.bin",
                "infohash": "9cc01b4cd09ff78259850410f04c80664b9b3d59",
                "infohash_v2": None,
                "total": 25600,
                "pieces": 2,
                "piece_length": 16384,
                "private": False,
                "source": "",
                "comment": "made by libtorrent",
                "created_by": "libtorrent",
                "creation_date": 1700000000,
                "trackers": [["http://tracker.example/announce"], ["udp://tracker.example:6969"]],
                "web_seeds": [],
                "nodes": [],
                "files": [{"path": "a.bin", "length": 25600, "pad": False, "attributes": ""}],
            },
        )

    def test_hybrid(self) -> None:
        """Both hashes are told; pad files are for programs only."""
        path = VECTORS / "hybrid.torrent"
        lines = run(path).stdout
        self.assertIn("infohash v2: 4c850290e206b041888a146be5c9d05473e158edd5b9b5970a4997d5a165991c", lines)
        self.assertNotIn(".pad", lines)
        said = json.loads(run(path, "--json").stdout)
        self.assertEqual([file["path"] for file in said["files"] if file["pad"]][0], "data/.pad/7168")

    def test_bare(self) -> None:
        lines = list(describe(TorrentFile.from_bytes(encode({b"info": BARE}))))
        self.assertEqual(
            [line.split(":")[0] for line in lines[:-1]], ["name", "infohash", "size", "pieces", "files"]
        )

    def test_all_that_there_may_be(self) -> None:
        data = encode(
            {
                b"info": BARE | {b"private": 1, b"source": b"SRC"},
                b"url-list": b"http://w.example/",
                b"nodes": [[b"node.example", 6881]],
            }
        )
        lines = list(describe(TorrentFile.from_bytes(data)))
        for line in (
            "private:     yes",
            "source:      SRC",
            "web seed:    http://w.example/",
            "DHT node:    node.example:6881",
        ):
            self.assertIn(line, lines)

    @given(st.text(), st.text(), st.binary(max_size=20))
    def test_nothing_gets_through_to_the_terminal(self, comment: str, by: str, name: bytes) -> None:
        data = {b"info": BARE | {b"name": name}, b"comment": comment.encode(), b"created by": by.encode()}
        torrent = TorrentFile.from_bytes(encode(data))
        for line in describe(torrent):
            self.assertTrue(line.isprintable(), repr(line))
        json.dumps(facts(torrent))


class RefusedTests(SynchronousTestCase):
    """Files that are not: a line on stderr, exit code 1."""

    def refused(self, path: object, reason: str) -> None:
        result = run(path)
        self.assertEqual((result.exit_code, result.stdout), (1, ""))
        self.assertIn(reason, result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1)
        result = run(path, "--json")
        self.assertEqual(result.exit_code, 1)
        self.assertIn(reason, json.loads(result.stdout)["error"])

    def test_v2_only(self) -> None:
        self.refused(VECTORS / "v2_only.torrent", "BitTorrent v2 is not supported yet")

    def test_no_torrent_file(self) -> None:
        self.refused(__file__, "not a usable .torrent file")

    def test_nothing_there(self) -> None:
        self.refused("missing.torrent", "No such file")

    def test_folder(self) -> None:
        self.refused(VECTORS, "Is a directory")

    def test_usage(self) -> None:
        self.assertEqual(run().exit_code, 2)
        self.assertEqual(run("a", "b").exit_code, 2)
