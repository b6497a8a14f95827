"""Making .torrent files, with libtorrent as the one who reads them."""

from __future__ import annotations

import libtorrent
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import MetainfoError
from irontide.metainfo.create import build, check_tracker, check_web_seed, choose_piece_length
from irontide.metainfo.torrent_file import TorrentFile

PIECE = 16 * 1024
A, B, C = "http://a.example/announce", "https://b.example/announce", "udp://c.example:6969"


class PieceLengthTests(SynchronousTestCase):
    """Sizes of pieces."""

    def test_known(self) -> None:
        mib = 1024 * 1024
        for total, length in (
            (0, PIECE),
            (1, PIECE),
            (2000 * PIECE, PIECE),
            (2000 * PIECE + 1, 2 * PIECE),
            (1024 * mib, mib),
            (2000 * 16 * mib, 16 * mib),
            (2**45, 16 * mib),
        ):
            self.assertEqual(choose_piece_length(total), length)

    @given(st.integers(1, 2000 * 2**24))
    def test_a_thousand_to_two_thousand_pieces(self, total: int) -> None:
        length = choose_piece_length(total)
        self.assertEqual(length & (length - 1), 0)
        self.assertLessEqual(-(-total // length), 2000)
        if length > PIECE:
            self.assertGreaterEqual(-(-total // length), 1000)


class BuildTests(SynchronousTestCase):
    """What is written."""

    def test_single_file(self) -> None:
        data = build("a.bin", [(("a.bin",), PIECE + 1)], PIECE, b"h" * 40)
        info = TorrentFile.from_bytes(data).info
        self.assertEqual((info.single, info.name, info.total), (True, "a.bin", PIECE + 1))
        theirs = libtorrent.torrent_info(libtorrent.bdecode(data))
        self.assertEqual(theirs.info_hashes().v1.to_bytes(), info.infohash)
        self.assertEqual((theirs.name(), theirs.total_size()), ("a.bin", PIECE + 1))

    def test_everything(self) -> None:
        data = build(
            "Ordner ü",
            [(("Ordner ü", "a"), 5), (("Ordner ü", "d", "b"), 0), (("Ordner ü", "d", "ç"), PIECE)],
            PIECE,
            b"h" * 40,
            tiers=[[A, B], [C]],
            private=True,
            comment="a comment",
            web_seeds=[A, B],
            source="SRC",
            created_by="irontide",
            creation_date=1_700_000_000,
        )
        file = TorrentFile.from_bytes(data)
        self.assertEqual(file.tiers, ((A, B), (C,)))
        self.assertEqual((file.comment, file.created_by), ("a comment", "irontide"))
        self.assertEqual((file.web_seeds, file.creation_date), ((A, B), 1_700_000_000))
        self.assertEqual((file.info.private, file.info.source), (True, "SRC"))
        added = libtorrent.load_torrent_buffer(data)
        theirs = added.ti
        self.assertEqual(theirs.info_hashes().v1.to_bytes(), file.info.infohash)
        self.assertTrue(theirs.priv())
        self.assertEqual((added.trackers, added.tracker_tiers), ([A, B, C], [0, 0, 1]))
        self.assertEqual(
            [theirs.layout().file_path(i) for i in range(3)], ["Ordner ü/a", "Ordner ü/d/b", "Ordner ü/d/ç"]
        )
        self.assertEqual(theirs.piece_length(), PIECE)

    def test_bytes(self) -> None:
        """Exactly these: a key more or less would be another infohash."""
        data = build("n", [(("n",), 5)], PIECE, b"h" * 20, tiers=[[A]], comment="c")
        self.assertEqual(
            data,
            b"d8:announce25:http://a.example/announce7:comment1:c4:infod6:lengthi5e4:name1:n"
            b"12:piece lengthi16384e6:pieces20:hhhhhhhhhhhhhhhhhhhhee",
        )

    def test_one_file_in_a_folder_stays_in_it(self) -> None:
        info = TorrentFile.from_bytes(build("d", [(("d", "a"), 5)], PIECE, b"h" * 20)).info
        self.assertEqual(info.files[0].path, ("d", "a"))

    def test_web_seed_alone_is_a_string(self) -> None:
        self.assertIn(b"8:url-list25:http", build("n", [(("n",), 5)], PIECE, b"h" * 20, web_seeds=[A]))

    def test_empty_tiers_are_left_out(self) -> None:
        data = build("n", [(("n",), 5)], PIECE, b"h" * 20, tiers=[[], [A], []])
        self.assertNotIn(b"announce-list", data)
        self.assertEqual(TorrentFile.from_bytes(data).tiers, ((A,),))


class RefusedTests(SynchronousTestCase):
    """What irontide would refuse or change when reading."""

    def refuse(self, reason: str, name: str = "n", length: int = 5, **arguments: object) -> None:
        values: dict[str, object] = {
            "files": [((name,), length)],
            "piece_length": PIECE,
            "piece_hashes": b"h" * 20,
        }
        error = self.assertRaises(MetainfoError, build, name, **{**values, **arguments})
        self.assertIn(reason, str(error))

    def test_hashes(self) -> None:
        self.refuse("piece hashes", piece_hashes=b"h" * 40)
        self.refuse("multiple of 20", piece_hashes=b"h")

    def test_piece_length(self) -> None:
        self.refuse("piece length", piece_length=1000)

    def test_no_files(self) -> None:
        self.refuse("no files", files=[])
        self.refuse("no data", length=0, piece_hashes=b"")

    def test_names_that_others_would_change(self) -> None:
        self.refuse("would become", name="a\\b")
        self.refuse("would become", files=[(("n", "a"), 5), (("n", "A"), 5)])
        self.refuse("would become", files=[(("other", "a"), 5)])

    def test_names_that_are_no_text(self) -> None:
        self.refuse("UTF-8", name="a\udcff")

    def test_urls(self) -> None:
        self.refuse("is not a tracker", tiers=[[A], ["ftp://a.example/"]])
        self.refuse("is not a web seed", web_seeds=[C])
        self.refuse("101 trackers", tiers=[[f"http://{n}.example/" for n in range(101)]])

    def test_checks(self) -> None:
        self.assertEqual((check_tracker(C), check_web_seed(A)), (C, A))
        self.assertIn("http or https or udp", str(self.assertRaises(MetainfoError, check_tracker, "x")))
        self.assertRaises(MetainfoError, check_web_seed, C)


names = st.text("abcäé", min_size=1, max_size=3)
folders = st.dictionaries(
    st.lists(names, min_size=1, max_size=2).map(tuple), st.integers(1, 50_000), min_size=1
)


class PropertyTests(SynchronousTestCase):
    """Whatever is made can be read again."""

    @given(folders, st.booleans(), st.text(max_size=20), st.lists(st.lists(st.sampled_from([A, B, C]))))
    def test_round_trip(
        self, files: dict[tuple[str, ...], int], private: bool, comment: str, tiers: list[list[str]]
    ) -> None:
        entries = [(("top", *path), length) for path, length in sorted(files.items())]
        pieces = -(-sum(files.values()) // PIECE)
        try:
            data = build(
                "top", entries, PIECE, bytes(20 * pieces), private=private, comment=comment, tiers=tiers
            )
        except MetainfoError as error:
            self.assertIn("would become", str(error))  # a file and a folder of one name
            return
        file = TorrentFile.from_bytes(data)
        self.assertEqual([(each.path, each.length) for each in file.info.files], entries)
        self.assertEqual((file.info.private, file.comment), (private, comment))
        self.assertEqual(set(file.trackers), {url for tier in tiers for url in tier})
