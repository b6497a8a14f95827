"""Our peer id, and what others tell by theirs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.wire.peer_id import client_name, make_peer_id

NAMES = {
    b"-IT0100-abcdefghijkl": "irontide 0.1",
    b"-qB4520-abcdefghijkl": "qBittorrent 4.5.2",
    b"-LT20B0-abcdefghijkl": "libtorrent 2.0.11",
    b"-lt0D80-abcdefghijkl": "rTorrent 0.13.8",
    b"-TR3000-abcdefghijkl": "Transmission 3.0",
    b"-UT355W-abcdefghijkl": "uTorrent 3.5.5.32",
    b"-DE203s-abcdefghijkl": "Deluge 2.0.3.28",
    b"-WW0206-abcdefghijkl": "WebTorrent 0.2.0.6",
    b"-zz1234-abcdefghijkl": "zz 1.2.3.4",
    b"A2-1-36-0-abcdefghij": "aria2 1.36.0",
    b"M7-10-5--abcdefghijk": "BitTorrent 7.10.5",
    b"-G3g3rmz\0\0\0\0\0\0\0\0\0\0\0\0": "G3 Torrent",
    bytes(20): "unknown",
    b"-\xff\xff1234-abcdefghijkl": "unknown",
    b"": "unknown",
}


class PeerIdTests(SynchronousTestCase):
    def test_ours(self) -> None:
        self.assertEqual(make_peer_id(b"abcdefghijkl"), b"-IT0100-abcdefghijkl")
        self.assertEqual(len(make_peer_id()), 20)

    def test_ours_differ(self) -> None:
        self.assertNotEqual(make_peer_id(), make_peer_id())

    def test_wrong_amount_of_randomness(self) -> None:
        for length in (11, 13):
            with self.assertRaises(ValueError):
                make_peer_id(bytes(length))

    def test_names(self) -> None:
        self.assertEqual({peer_id: client_name(peer_id) for peer_id in NAMES}, NAMES)

    @given(st.binary(max_size=20) | st.binary(min_size=19, max_size=19).map(lambda rest: b"-" + rest))
    def test_any_bytes_have_a_printable_name(self, peer_id: bytes) -> None:
        name = client_name(peer_id)
        self.assertTrue(name.isprintable() and 0 < len(name) <= 60, name)
