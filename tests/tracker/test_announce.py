"""Values of announces: what is believed of addresses, numbers and texts."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.tracker.announce import (
    DEFAULT_INTERVAL,
    MAX_INTERVAL,
    MAX_PEERS,
    MAX_TEXT,
    MIN_INTERVAL,
    clamped_interval,
    clean_text,
    usable_peers,
)
from irontide.values import PeerAddress

NEVER_PEERS = [
    ("0.0.0.0", 6881),
    ("224.0.0.1", 6881),
    ("255.255.255.255", 6881),
    ("240.0.0.1", 6881),
    ("::", 6881),
    ("ff02::1", 6881),
    ("fe80::1%eth0", 6881),
    ("1.2.3.4", 0),
    ("1.2.3.4", 65536),
    ("1.2.3.4", -1),
    ("peer.example", 6881),
    ("1.2.3", 6881),
    ("", 6881),
    (b"\x01\x02\x03", 6881),
]
ONLY_LOCAL = [("127.0.0.1", 1), ("::1", 1), ("169.254.1.1", 1), ("fe80::1", 1), ("::ffff:127.0.0.1", 1)]


class UsablePeersTests(SynchronousTestCase):
    def test_what_cannot_be_a_peer_is_dropped(self) -> None:
        for told in NEVER_PEERS:
            self.assertEqual(usable_peers([told], local=True), (), told)

    def test_this_machine_is_believed_only_of_a_local_tracker(self) -> None:
        for told in ONLY_LOCAL:
            self.assertEqual(usable_peers([told]), (), told)
            self.assertEqual(len(usable_peers([told], local=True)), 1, told)

    def test_private_addresses_are_kept(self) -> None:
        self.assertEqual(usable_peers([("10.0.0.1", 1)]), (PeerAddress("10.0.0.1", 1),))

    def test_one_spelling(self) -> None:
        told = [("::ffff:1.2.3.4", 5), (b"\x01\x02\x03\x04", 5), ("2001:DB8:0::1", 5), ("2001:db8::1", 5)]
        self.assertEqual(usable_peers(told), (PeerAddress("1.2.3.4", 5), PeerAddress("2001:db8::1", 5)))

    def test_own_address_is_dropped(self) -> None:
        own = PeerAddress("1.2.3.4", 5)
        told = [("1.2.3.4", 5), ("1.2.3.4", 6)]
        self.assertEqual(usable_peers(told, own=own), (PeerAddress("1.2.3.4", 6),))

    def test_bounded(self) -> None:
        """The rest is not even looked at."""
        told = (("1.2.3.4", port) for port in range(1, 65536))
        self.assertEqual(len(usable_peers(told)), MAX_PEERS)
        self.assertEqual(next(told), ("1.2.3.4", MAX_PEERS + 1))

    @given(st.lists(st.tuples(st.one_of(st.binary(max_size=20), st.text(max_size=20)), st.integers())))
    def test_anything(self, told: list[tuple[str | bytes, int]]) -> None:
        for peer in usable_peers(told):
            self.assertTrue(0 < peer.port < 65536)


class BoundsTests(SynchronousTestCase):
    def test_interval(self) -> None:
        for told, kept in [
            (None, DEFAULT_INTERVAL),
            (0, MIN_INTERVAL),
            (59, MIN_INTERVAL),
            (60, 60),
            (1800, 1800),
            (86400, 86400),
            (86401, MAX_INTERVAL),
            (math.inf, MAX_INTERVAL),
        ]:
            self.assertEqual(clamped_interval(told), kept)

    def test_text_is_one_short_printable_line(self) -> None:
        self.assertEqual(clean_text(b"a\r\n\x1b[31mb\xff \xe2\x80\xaec"), "a [31mb\ufffd c")
        self.assertEqual(len(clean_text(b"x" * 10**6)), MAX_TEXT)

    @given(st.binary())
    def test_any_text(self, raw: bytes) -> None:
        self.assertTrue(clean_text(raw).isprintable())
