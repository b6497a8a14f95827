"""URLs of strangers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.metainfo.urls import (
    MAX_URL,
    MAX_WEB_SEEDS,
    TRACKER_SCHEMES,
    WEB_SEED_SCHEMES,
    tracker_tiers,
    usable_url,
    web_seed_urls,
)

A, B, C = "http://a.example/announce", "https://b.example:8443/x?passkey=1", "udp://c.example:6969"


class UsableTests(SynchronousTestCase):
    """One URL."""

    def test_trackers(self) -> None:
        for url in (A, B, C, "http://[2001:db8::1]:80/a", "HTTP://A.EXAMPLE/", "udp://10.0.0.1:1/announce"):
            self.assertEqual(usable_url(url.encode(), TRACKER_SCHEMES), url)
            self.assertEqual(usable_url(url, TRACKER_SCHEMES), url)

    def test_white_space_around_it_goes(self) -> None:
        self.assertEqual(usable_url(f" {A}\r\n".encode(), TRACKER_SCHEMES), A)

    def test_others_are_dropped(self) -> None:
        for value in (
            None,
            1,
            [A],
            b"",
            b"a.example",
            b"/announce",
            b"file:///etc/passwd",
            b"ftp://a.example/",
            b"wss://a.example/",
            b"javascript:alert(1)",
            b"http:///announce",
            b"http://",
            b"http://:80/",
            b"http://a.example:0/",
            b"http://a.example:65536/",
            b"http://a.example:port/",
            b"http://[::1/",
            b"http://a.example/a b",
            b"http://a.example/\r\nHost: b",
            b"http://a.example/\x00",
            b"http://a.example/\x7f",
            b"http://a.example/\xff",
            b"udp://a.example",
            b"http://a.example/" + b"x" * MAX_URL,
        ):
            self.assertIsNone(usable_url(value, TRACKER_SCHEMES), value)

    def test_web_seeds_are_no_trackers(self) -> None:
        self.assertIsNone(usable_url(C, WEB_SEED_SCHEMES))

    @given(st.text(max_size=40) | st.builds("http://{}".format, st.text(max_size=30)))
    def test_any_text(self, text: str) -> None:
        found = usable_url(text.encode(errors="replace"), TRACKER_SCHEMES)
        if found is not None:
            self.assertTrue(found.lower().startswith(("http://", "https://", "udp://")))
            self.assertTrue(found.isprintable() or any(ord(c) > 127 for c in found))


class TiersTests(SynchronousTestCase):
    """Many URLs, in tiers."""

    def test_tiers_keep_their_order(self) -> None:
        self.assertEqual(tracker_tiers([[A.encode(), B.encode()], [C.encode()]]), ((A, B), (C,)))

    def test_each_url_once(self) -> None:
        self.assertEqual(tracker_tiers([[A, A, B], [B], [A, C]]), ((A, B), (C,)))

    def test_what_is_no_url_is_left_out(self) -> None:
        self.assertEqual(tracker_tiers([[b"file:///x"], [], 5, None, {}, [1, A, [B]]]), ((A,),))

    def test_a_flat_list_is_tiers_of_one(self) -> None:
        """Not what BEP 12 says, but what some tools write."""
        self.assertEqual(tracker_tiers([A.encode(), B.encode()]), ((A,), (B,)))

    def test_at_most_a_hundred(self) -> None:
        many = [[f"http://{n}.example/{m}" for m in range(30)] for n in range(10)]
        tiers = tracker_tiers(many)
        self.assertEqual([len(tier) for tier in tiers], [30, 30, 30, 10])


class WebSeedTests(SynchronousTestCase):
    """``url-list``, one string or a list."""

    def test_one_or_many(self) -> None:
        self.assertEqual(web_seed_urls(A.encode()), (A,))
        self.assertEqual(web_seed_urls([A.encode(), B.encode(), A.encode()]), (A, B))

    def test_others_are_dropped(self) -> None:
        for value in (None, b"", 5, {}, [], [5], [b"file:///x"], [C.encode()]):
            self.assertEqual(web_seed_urls(value), ())

    def test_bounded(self) -> None:
        self.assertEqual(len(web_seed_urls([f"http://{n}.example/" for n in range(1000)])), MAX_WEB_SEEDS)
