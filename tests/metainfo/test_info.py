"""Infos: what is taken, what is refused and why."""

from __future__ import annotations

import time
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import MetainfoError
from irontide.metainfo.bencode import decode, encode
from irontide.metainfo.info import MAX_FILES, MAX_PIECE_LENGTH, MAX_PIECES, File, Info
from irontide.metainfo.torrent_file import TorrentFile
from tests.metainfo.fakes import PIECE, multi, single

VECTORS = Path(__file__).parent.parent / "vectors" / "metainfo"


def read(values: object) -> Info:
    return Info.from_bytes(encode(values))


class GoodTests(SynchronousTestCase):
    """What is taken."""

    def test_single_file(self) -> None:
        raw = encode(single(PIECE + 1, pieces=b"a" * 20 + b"b" * 20))
        info = Info.from_bytes(raw)
        self.assertEqual(info.files, (File(("file.bin",), PIECE + 1, 0),))
        self.assertEqual((info.name, info.total, info.piece_length), ("file.bin", PIECE + 1, PIECE))
        self.assertEqual([info.piece_hash(i) for i in range(2)], [b"a" * 20, b"b" * 20])
        self.assertEqual(info.infohash, sha1(raw).digest())
        self.assertIsNone(info.infohashes.v2)
        self.assertEqual((info.raw, info.private, info.source, info.single), (raw, False, "", True))
        self.assertEqual((info.layout.pieces, info.layout.total), (2, PIECE + 1))

    def test_many_files(self) -> None:
        info = read(multi(("a", 5), ("d/empty", 0), ("d/b", PIECE)))
        self.assertEqual(
            info.files,
            (
                File(("folder", "a"), 5, 0),
                File(("folder", "d", "empty"), 0, 5),
                File(("folder", "d", "b"), PIECE, 5),
            ),
        )
        self.assertEqual((info.total, info.layout.pieces, info.single), (PIECE + 5, 2, False))

    def test_one_file_in_a_folder(self) -> None:
        info = read(multi(("a", 5)))
        self.assertEqual((info.files[0].path, info.single), (("folder", "a"), False))

    def test_last_piece_of_one_byte(self) -> None:
        info = read(single(5 * PIECE + 1))
        self.assertEqual((info.layout.pieces, info.layout.piece_size(5)), (6, 1))

    def test_ends_of_piece_length(self) -> None:
        for length in (PIECE, PIECE + 1, 100_000, 16 * 1024 * 1024, MAX_PIECE_LENGTH):
            self.assertEqual(read(single(1, piece_length=length)).piece_length, length)

    def test_private(self) -> None:
        for value, private in ((None, False), (0, False), (1, True), (2, True), (b"1", True), (b"0", False)):
            self.assertEqual(read(single(private=value)).private, private, value)

    def test_pad_files(self) -> None:
        """BEP 47: they have bytes but no file, and by custom many have one name."""
        pads = [{b"path": [b".pad", b"9"], b"length": 9, b"attr": b"p"} for _ in range(600)]
        info = read(multi(("a", 5), *pads, ("b", 1)))
        self.assertEqual(info.files[1], File(("folder", ".pad", "9"), 9, 5, True, "p"))
        self.assertEqual(info.files[-1], File(("folder", "b"), 1, 5 + 600 * 9))

    def test_symbolic_links_are_not_made(self) -> None:
        link = {b"path": [b"link"], b"length": 0, b"attr": b"l", b"symlink path": [b"..", b"etc"]}
        info = read(multi(("a", 5), link))
        self.assertEqual(info.files[1], File(("folder", "link"), 0, 5, True, "l"))

    def test_executables(self) -> None:
        info = read(multi({b"path": [b"run"], b"length": 5, b"attr": b"xh"}))
        self.assertEqual((info.files[0].pad, info.files[0].attributes), (False, "xh"))

    def test_names_are_made_safe(self) -> None:
        info = read(multi(("../../etc/passwd", 1), ("A", 1), ("a", 1), name=b"../x"))
        self.assertEqual(
            ["/".join(file.path) for file in info.files],
            [".._x/_/_/etc/passwd", ".._x/A", ".._x/a (1)"],
        )
        self.assertEqual(read(single(name=b"..")).files[0].path, ("_",))

    def test_names_in_other_encodings(self) -> None:
        entry = {b"path": [b"\xc4\xd6"], b"path.utf-8": ["Ä".encode()], b"length": 1}
        values = multi(entry, name=b"\xff") | {b"name.utf-8": "Ü".encode()}
        self.assertEqual(read(values).files[0].path, ("Ü", "Ä"))
        self.assertEqual(read(single(name=b"a\xffb")).name, "a_b")

    def test_no_name(self) -> None:
        self.assertEqual(read(single(name=None)).name, "_")

    def test_keys_in_any_order(self) -> None:
        """The infohash is that of the bytes as they are."""
        raw = b"d6:lengthi5e4:name1:x12:piece lengthi16384e6:pieces20:" + bytes(20) + b"e"
        swapped = b"d4:name1:x6:lengthi5e12:piece lengthi16384e6:pieces20:" + bytes(20) + b"e"
        self.assertEqual(Info.from_bytes(raw).files, Info.from_bytes(swapped).files)
        self.assertEqual(Info.from_bytes(swapped).infohash, sha1(swapped).digest())

    def test_source(self) -> None:
        self.assertEqual(read(single(source=b"SRC")).source, "SRC")

    def test_infos_of_the_same_bytes_are_equal(self) -> None:
        self.assertEqual(read(single()), read(single()))
        self.assertEqual(hash(read(single())), hash(read(single())))
        self.assertNotEqual(read(single()), read(single(source=b"x")))


class RefusedTests(SynchronousTestCase):
    """What cannot be used, and the reason that is given."""

    def assertRefused(self, values: object, reason: str) -> None:
        error = self.assertRaises(MetainfoError, read, values)
        self.assertIn(reason, str(error))

    def test_no_dictionary(self) -> None:
        for values in ([], b"", 1):
            self.assertRefused(values, "not a dictionary")

    def test_no_bencode(self) -> None:
        self.assertRaises(MetainfoError, Info.from_bytes, b"d4:name")
        self.assertRaises(MetainfoError, Info.from_bytes, encode(single()) + b"x")

    def test_piece_length(self) -> None:
        for length in (0, -1, PIECE - 1, MAX_PIECE_LENGTH + 1, 2**63):
            self.assertRefused(single(1, piece_length=length), "piece length")
        for value in (None, b"16384", [16384]):
            self.assertRefused(single(piece_length=value), "no piece length")

    def test_pieces(self) -> None:
        self.assertRefused(single(PIECE, pieces=bytes(19)), "not a multiple of 20")
        self.assertRefused(single(PIECE, pieces=bytes(21)), "not a multiple of 20")
        self.assertRefused(single(PIECE, pieces=b""), "0 piece hashes for 1 pieces")
        self.assertRefused(single(PIECE, pieces=bytes(40)), "2 piece hashes for 1 pieces")
        self.assertRefused(single(PIECE + 1, pieces=bytes(20)), "1 piece hashes for 2 pieces")
        for value in (1, [bytes(20)]):
            self.assertRefused(single(PIECE, pieces=value), "no piece hashes")
        self.assertRefused(single(PIECE, pieces=None), "no piece hashes")

    def test_too_many_pieces(self) -> None:
        most = single(1) | {b"length": MAX_PIECES * PIECE, b"pieces": bytes(20 * MAX_PIECES)}
        self.assertEqual(read(most).layout.pieces, MAX_PIECES)
        more = {b"length": MAX_PIECES * PIECE + 1, b"pieces": bytes(20 * (MAX_PIECES + 1))}
        self.assertRefused(most | more, "2097153 pieces; the most are")

    def test_lengths(self) -> None:
        for length in (-1, b"5", [], 2**63):
            self.assertRefused(single(5) | {b"length": length}, "a file")
        self.assertRefused(single(5, length=None), "no length")
        self.assertRefused(single(5) | {b"length": -1}, "no length")
        self.assertRefused(multi(("a", 5)) | {b"files": [{b"path": [b"a"], b"length": -5}]}, "no length")
        self.assertRefused(multi(("a", 5)) | {b"files": [{b"path": [b"a"]}]}, "no length")

    def test_no_data(self) -> None:
        self.assertRefused(single(0), "no data")
        self.assertRefused(multi(("a", 0), ("b", 0)), "no data")

    def test_length_and_files(self) -> None:
        self.assertRefused(multi(("a", 5)) | {b"length": 5}, "both length and files")

    def test_files(self) -> None:
        for value in ([], b"", 0, {}):
            self.assertRefused(multi(("a", 5)) | {b"files": value}, "no files")
        for value in ([b"a"], [1], [[]]):
            self.assertRefused(multi(("a", 5)) | {b"files": value}, "a file is not a dictionary")

    def test_paths(self) -> None:
        for path in ([], b"a", 1, {}, None, [b"a"] * 64):
            entry: dict[bytes, Any] = {b"length": 5} | ({} if path is None else {b"path": path})
            self.assertRefused(multi(entry), "path of a file")
        for path in ([1], [b"a", [b"b"]]):
            self.assertRefused(multi({b"length": 5, b"path": path}), "not a string")
        deepest = multi({b"length": 5, b"path": [b"a"] * 63})
        self.assertEqual(len(read(deepest).files[0].path), 64)

    def test_too_many_equal_names(self) -> None:
        read(multi(*[("a", 1)] * 500))
        self.assertRefused(multi(*[("a", 1)] * 501), "more than 500")

    def test_too_many_files(self) -> None:
        entry = {b"length": 1, b"path": [b"a"]}
        self.assertRefused(multi(("a", 1)) | {b"files": [entry] * (MAX_FILES + 1)}, "200001 files")


class V2Tests(SynchronousTestCase):
    """BEP 52, as far as it goes."""

    def hybrid(self, **leaf: Any) -> dict[bytes, Any]:
        leaf_values = {b"length": 5, b"pieces root": bytes(32)} | {
            key.replace("_", " ").encode(): value for key, value in leaf.items()
        }
        return multi(("a", 5)) | {b"meta version": 2, b"file tree": {b"d": {b"a": {b"": leaf_values}}}}

    def test_hybrid_is_run_as_v1(self) -> None:
        raw = encode(self.hybrid())
        info = Info.from_bytes(raw)
        self.assertEqual(info.infohashes.v1, sha1(raw).digest())
        self.assertEqual(info.infohashes.v2, sha256(raw).digest())
        self.assertEqual(info.infohash, sha1(raw).digest())

    def test_v2_only_is_refused_by_name(self) -> None:
        for values in (
            {b"meta version": 2, b"name": b"x", b"piece length": PIECE, b"file tree": {}},
            {b"file tree": {}},
            {b"meta version": 2},
        ):
            error = self.assertRaises(MetainfoError, read, values)
            self.assertEqual(str(error), "BitTorrent v2 is not supported yet")

    def test_pieces_root_of_wrong_length(self) -> None:
        for root in (b"", bytes(31), bytes(33), 5, []):
            error = self.assertRaises(MetainfoError, read, self.hybrid(pieces_root=root))
            self.assertIn("pieces root", str(error))
        read(self.hybrid(length=0, pieces_root=b""))

    def test_broken_tree(self) -> None:
        for tree in ({b"a": 1}, {b"a": {b"": 1}}, {b"a": {b"": {}}}, {b"": [{}]}):
            self.assertRaises(MetainfoError, read, self.hybrid() | {b"file tree": tree})

    def test_piece_length_is_a_power_of_two(self) -> None:
        self.assertRaises(MetainfoError, read, self.hybrid() | {b"piece length": PIECE + 1})

    def test_claim_of_v2_without_a_tree_is_v1(self) -> None:
        self.assertIsNone(read(single(meta_version=2)).infohashes.v2)


class VectorTests(SynchronousTestCase):
    """Files made by libtorrent 2.1, and what it says of them."""

    def vector(self, name: str) -> Info:
        return TorrentFile.from_bytes((VECTORS / name).read_bytes()).info

    def test_single(self) -> None:
        info = self.vector("v1_single.torrent")
        self.assertEqual(info.infohash.hex(), "9cc01b4cd09ff78259850410f04c80664b9b3d59")
        self.assertEqual(info.files, (File(("a.bin",), 25600, 0),))

    def test_multi(self) -> None:
        info = self.vector("v1_multi.torrent")
        self.assertEqual(info.infohash.hex(), "df74bb6c3e4b94cc7e3a617c72092d9dd2c53d30")
        self.assertEqual(
            [("/".join(file.path), file.length, file.attributes) for file in info.files],
            [("data/run.sh", 10, "x"), ("data/a.bin", 25600, ""), ("data/sub/b.txt", 30000, ""),
             ("data/sub/empty", 0, "")],
        )  # fmt: skip

    def test_hybrid(self) -> None:
        info = self.vector("hybrid.torrent")
        self.assertEqual(str(info.infohashes), "58bbd1c1845835b7c8e9533322862cc93c529a57")
        assert info.infohashes.v2 is not None
        self.assertEqual(
            info.infohashes.v2.hex(), "4c850290e206b041888a146be5c9d05473e158edd5b9b5970a4997d5a165991c"
        )
        self.assertEqual(
            [("/".join(file.path), file.length) for file in info.files if file.pad],
            [("data/.pad/7168", 7168), ("data/.pad/16374", 16374), ("data/.pad/2768", 2768)],
        )
        self.assertEqual([i for i, file in enumerate(info.files) if file.offset % PIECE], [1, 3, 5])

    def test_v2_only(self) -> None:
        error = self.assertRaises(MetainfoError, self.vector, "v2_only.torrent")
        self.assertEqual(str(error), "BitTorrent v2 is not supported yet")


class SpeedTests(SynchronousTestCase):
    """The largest list of files there may be.  About 2.5 s when nobody else is busy."""

    def test_200_000_files(self) -> None:
        files = [(f"folder{i // 100}/file{i}.bin", 1000 + i % 7) for i in range(MAX_FILES)]
        raw = encode(multi(*files))
        self.assertGreater(len(raw), 9_000_000)
        started = time.process_time()
        values = decode(raw)
        decoded = time.process_time()
        info = Info.from_values(values, raw)
        done = time.process_time()
        self.assertEqual(info.files[-1].path, ("folder", "folder1999", "file199999.bin"))
        self.assertLess(decoded - started, 6, "three times what it may take: a decoder gone quadratic")
        self.assertLess(done - decoded, 6)


keys = st.sampled_from(
    b"name|piece length|length|pieces|files|path|attr|private|source|meta version|file tree|pieces root|"
    b"name.utf-8|path.utf-8|".split(b"|")
)
anything = st.recursive(
    st.binary(max_size=25) | st.integers(-5, 2**40) | st.just(PIECE) | st.just(bytes(20)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=20,
)


class PropertyTests(SynchronousTestCase):
    """Strangers' Infos: an Info or a MetainfoError, nothing else."""

    def judge(self, raw: bytes) -> None:
        try:
            info = Info.from_bytes(raw)
        except MetainfoError:
            return
        self.assertEqual(len(info.piece_hashes), 20 * info.layout.pieces)
        self.assertEqual(sum(file.length for file in info.files), info.total)
        self.assertGreater(info.total, 0)
        for file in info.files:
            self.assertTrue(file.path and set(file.path).isdisjoint({"", ".", ".."}))
            self.assertNotIn("/", "".join(file.path))
        self.assertEqual(Info.from_bytes(info.raw), info)

    @given(st.dictionaries(keys, anything, max_size=8))
    def test_any_values(self, changes: dict[bytes, object]) -> None:
        self.judge(encode(changes))

    @given(st.dictionaries(keys, anything, max_size=2), st.booleans())
    def test_good_but_for_a_key_or_two(self, changes: dict[bytes, object], many: bool) -> None:
        self.judge(encode((multi(("a", 5), ("b/c", 6)) if many else single()) | changes))

    @given(st.lists(st.dictionaries(keys, anything, max_size=4) | anything, max_size=4))
    def test_any_files(self, files: list[object]) -> None:
        self.judge(encode(multi(("a", 5)) | {b"files": files}))
        good = {b"path": [b"a"], b"length": 5}
        changed = [good | file if isinstance(file, dict) else good for file in files]
        self.judge(encode(multi(("a", 5)) | {b"files": changed}))

    @given(st.data())
    def test_damaged_bytes(self, data: st.DataObject) -> None:
        raw = encode(multi(("a", 5), ("b/c", 6)))
        at = data.draw(st.integers(0, len(raw) - 1))
        self.judge(raw[:at] + data.draw(st.binary(max_size=3)) + raw[at + data.draw(st.integers(0, 3)) :])
