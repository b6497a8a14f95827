"""Infohashes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from irontide.metainfo.infohash import InfoHashes


class InfoHashesTests(SynchronousTestCase):
    """One hash or both."""

    def test_v1_is_what_peers_know(self) -> None:
        self.assertEqual(InfoHashes(v1=b"1" * 20, v2=b"2" * 32).best, b"1" * 20)
        self.assertEqual(InfoHashes(v1=b"1" * 20).best, b"1" * 20)

    def test_v2_is_cut_short(self) -> None:
        self.assertEqual(InfoHashes(v2=bytes(range(32))).best, bytes(range(20)))

    def test_text(self) -> None:
        self.assertEqual(str(InfoHashes(v1=b"\xab" * 20)), "ab" * 20)

    def test_no_hash_is_refused(self) -> None:
        for v1, v2 in ((None, None), (b"1" * 19, None), (b"", None), (None, b"2" * 20)):
            self.assertRaises(ValueError, InfoHashes, v1, v2)
