""".torrent files: the Info must be right, all else is optional."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import MetainfoError
from irontide.metainfo.bencode import encode
from irontide.metainfo.info import Info
from irontide.metainfo.torrent_file import LAST_SECOND, MAX_FILE, TorrentFile
from tests.metainfo.fakes import multi, single, torrent

A, B, C = b"http://a.example/announce", b"https://b.example/announce", b"udp://c.example:6969"


class ReadTests(SynchronousTestCase):
    """What is around the Info."""

    def read(self, **keys: object) -> TorrentFile:
        return TorrentFile.from_bytes(torrent(**keys))

    def test_bare(self) -> None:
        data = torrent()
        file = TorrentFile.from_bytes(data)
        self.assertEqual(file.info, Info.from_bytes(encode(single())))
        self.assertEqual((file.tiers, file.web_seeds, file.nodes, file.trackers), ((), (), (), ()))
        self.assertEqual((file.comment, file.created_by, file.creation_date), ("", "", None))
        self.assertEqual(file.to_bytes(), data)

    def test_everything(self) -> None:
        file = self.read(
            announce=A,
            comment="schön".encode(),
            created_by=b"a tool",
            creation_date=1_700_000_000,
            url_list=B,
            nodes=[[b"router.example", 6881], [b"10.0.0.1", 1]],
        )
        self.assertEqual(file.tiers, (("http://a.example/announce",),))
        self.assertEqual((file.comment, file.created_by), ("schön", "a tool"))
        self.assertEqual(file.creation_date, 1_700_000_000)
        self.assertEqual(file.nodes, (("router.example", 6881), ("10.0.0.1", 1)))

    def test_web_seeds(self) -> None:
        data = torrent(**{"url-list": [A, b"file:///etc/passwd", C, B]})
        self.assertEqual(
            TorrentFile.from_bytes(data).web_seeds,
            ("http://a.example/announce", "https://b.example/announce"),
        )

    def test_announce_list_goes_before_announce(self) -> None:
        """BEP 12."""
        file = self.read(announce=A, **{"announce-list": [[B], [C]]})
        self.assertEqual(file.trackers, (B.decode(), C.decode()))

    def test_announce_if_the_list_is_of_no_use(self) -> None:
        for useless in ([], [[]], b"x", 5, [[b"file:///x"]], [[5]], {}):
            self.assertEqual(self.read(announce=A, **{"announce-list": useless}).trackers, (A.decode(),))

    def test_urls_of_other_schemes_are_dropped(self) -> None:
        self.assertEqual(self.read(announce=b"file:///etc/passwd").tiers, ())

    def test_optional_keys_of_a_wrong_kind_are_left_out(self) -> None:
        for wrong in (5, [], {}, b"\xff\xfe", [[[]]], -1, [5, b"x"]):
            file = self.read(
                **dict.fromkeys(
                    ("announce", "announce-list", "url-list", "httpseeds", "nodes", "created by", "encoding"),
                    wrong,
                ),
                **{"creation date": b"today", "comment": [wrong]},
            )
            self.assertEqual((file.tiers, file.web_seeds, file.nodes), ((), (), ()))
            self.assertEqual((file.comment, file.creation_date), ("", None))

    def test_nodes(self) -> None:
        bad = [[b"", 1], [b"a", 0], [b"a", 65536], [b"a", b"1"], [b"a"], [b"\xff", 1], b"a", [b"a" * 256, 1]]
        self.assertEqual(self.read(nodes=[*bad, [b"good", 1]]).nodes, (("good", 1),))
        self.assertEqual(len(self.read(nodes=[[b"a", 1]] * 1000).nodes), 100)

    def test_dates_that_no_calendar_has(self) -> None:
        for date, read in ((0, 0), (LAST_SECOND, LAST_SECOND), (LAST_SECOND + 1, None), (-1, None)):
            self.assertEqual(self.read(creation_date=date).creation_date, read)

    def test_text_is_bounded(self) -> None:
        self.assertEqual(len(self.read(comment=b"x" * 100_000).comment), 16 * 1024)

    def test_line_end_behind_it(self) -> None:
        """Some uploads leave one; other bytes are refused."""
        data = torrent() + b"\r\n"
        self.assertEqual(TorrentFile.from_bytes(data).raw, data)
        for behind in (b"x", b" ", b"\0", b"\n \n"):
            self.assertRaises(MetainfoError, TorrentFile.from_bytes, torrent() + behind)

    def test_unsorted_keys_leave_the_infohash_alone(self) -> None:
        raw = encode(single())
        file = TorrentFile.from_bytes(b"d4:info" + raw + b"8:announce" + encode(A) + b"e")
        self.assertEqual(file.info, Info.from_bytes(raw))
        self.assertEqual(file.trackers, (A.decode(),))

    def test_private(self) -> None:
        self.assertTrue(TorrentFile.from_bytes(torrent(single(private=1))).info.private)


class RefusedTests(SynchronousTestCase):
    """What cannot be used."""

    def test_no_torrent_file(self) -> None:
        for data in (b"", b"\r\n", b"<html>", b"de", b"le", b"d4:infode", b"d4:infoi1ee", torrent()[:-1]):
            self.assertRaises(MetainfoError, TorrentFile.from_bytes, data)

    def test_two_infos(self) -> None:
        info = b"4:info" + encode(single())
        self.assertRaises(MetainfoError, TorrentFile.from_bytes, b"d" + info + info + b"e")

    def test_too_large(self) -> None:
        data = torrent()
        self.assertRaises(MetainfoError, TorrentFile.from_bytes, data, max_size=len(data) - 1)
        TorrentFile.from_bytes(data, max_size=len(data))
        error = self.assertRaises(MetainfoError, TorrentFile.from_bytes, bytes(MAX_FILE + 1))
        self.assertIn(str(MAX_FILE), str(error))


anything = st.recursive(
    st.binary(max_size=25) | st.integers(-5, 2**40) | st.sampled_from([A, B, C]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=5), inner, max_size=3),
    max_leaves=10,
)
keys = st.sampled_from(
    b"announce|announce-list|url-list|httpseeds|nodes|comment|comment.utf-8|created by|creation date".split(
        b"|"
    )
)


class PropertyTests(SynchronousTestCase):
    """Anything at all."""

    @given(st.dictionaries(keys, anything))
    def test_around_a_good_info_all_is_taken(self, around: dict[bytes, object]) -> None:
        file = TorrentFile.from_bytes(encode({**around, b"info": single()}))
        self.assertLessEqual(len(file.trackers), 100)
        self.assertEqual(len(set(file.trackers)), len(file.trackers))

    @given(st.binary(max_size=100))
    def test_noise(self, data: bytes) -> None:
        self.assertRaises(MetainfoError, TorrentFile.from_bytes, data)

    @given(st.data())
    def test_damage(self, data: st.DataObject) -> None:
        good = torrent(multi(("a", 5), ("b/c", 6)), announce=A, comment=b"x", nodes=[[b"a", 1]])
        at = data.draw(st.integers(0, len(good) - 1))
        bad = good[:at] + data.draw(st.binary(max_size=3)) + good[at + data.draw(st.integers(0, 3)) :]
        try:
            file = TorrentFile.from_bytes(bad)
        except MetainfoError:
            return
        self.assertEqual(file.to_bytes(), bad)
