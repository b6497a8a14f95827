"""Announces and scrapes as URLs and bodies."""

from __future__ import annotations

import contextlib
import math

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import TrackerError
from irontide.metainfo.bencode import encode
from irontide.tracker.announce import AnnounceReply, AnnounceRequest, Event, Scrape, TrackerRefusal
from irontide.tracker.http import announce_url, parse_announce, parse_scrape, scrape_url
from irontide.values import PeerAddress

REQUEST = AnnounceRequest(
    infohash=bytes.fromhex("123456789abcdef123456789abcdef123456789a"),
    peer_id=b"-IT0100-abc def+%&~.",
    port=6881,
    uploaded=1,
    downloaded=2,
    left=2**63,
    wanted=50,
    event=Event.STARTED,
    key="k&y",
)
PEERS4 = b"\x01\x02\x03\x04\x1a\xe1\x05\x06\x07\x08\x00\x50"
ADDRESSES4 = (PeerAddress("1.2.3.4", 6881), PeerAddress("5.6.7.8", 80))

bencoded = st.recursive(
    st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=30),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.binary(max_size=8), inner, max_size=5),
    max_leaves=15,
)
KEYS = [
    b"peers", b"peers6", b"interval", b"min interval", b"complete", b"incomplete", b"tracker id",
    b"external ip", b"warning message", b"failure reason", b"retry in", b"files",
]  # fmt: skip


class AnnounceUrlTests(SynchronousTestCase):
    def test_whole(self) -> None:
        """The infohash is the classic example; a blank is %20 and a plus %2B, never the other way."""
        self.assertEqual(
            announce_url("http://t.example:80/announce", REQUEST),
            "http://t.example:80/announce?info_hash=%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A"
            "&peer_id=-IT0100-abc%20def%2B%25%26~.&port=6881&uploaded=1&downloaded=2"
            "&left=9223372036854775808&compact=1&no_peer_id=1&numwant=50&key=k%26y&event=started",
        )

    def test_query_of_the_url_is_kept(self) -> None:
        for url, start in [
            ("http://t.example/a?passkey=1", "http://t.example/a?passkey=1&info_hash="),
            ("http://t.example/a?passkey=1&", "http://t.example/a?passkey=1&info_hash="),
            ("http://t.example/a?", "http://t.example/a?info_hash="),
        ]:
            self.assertTrue(announce_url(url, REQUEST).startswith(start), url)

    def test_no_event_no_key(self) -> None:
        url = announce_url("http://t.example/a", evolve(REQUEST, event=Event.NONE, key=""))
        self.assertNotIn("event", url)
        self.assertNotIn("key=", url)

    def test_numwant(self) -> None:
        for wanted, event, asked in [
            (0, Event.NONE, 0),
            (-1, Event.NONE, 0),
            (10**6, Event.NONE, 200),
            (50, Event.STOPPED, 0),
        ]:
            url = announce_url("http://t.example/a", evolve(REQUEST, wanted=wanted, event=event))
            self.assertIn(f"&numwant={asked}&", url)

    def test_tracker_id(self) -> None:
        url = announce_url("http://t.example/a", evolve(REQUEST, tracker_id=b"\x00&"))
        self.assertTrue(url.endswith("&trackerid=%00%26"))

    @given(st.binary(min_size=20, max_size=20))
    def test_any_infohash(self, infohash: bytes) -> None:
        url = announce_url("http://t.example/a", evolve(REQUEST, infohash=infohash))
        encoded = url.partition("info_hash=")[2].partition("&")[0]
        decoded, at = b"", 0
        while at < len(encoded):
            size = 3 if encoded[at] == "%" else 1
            decoded += bytes.fromhex(encoded[at + 1 : at + 3]) if size == 3 else encoded[at].encode()
            at += size
        self.assertEqual(decoded, infohash)


class ScrapeUrlTests(SynchronousTestCase):
    def test_convention(self) -> None:
        """The examples of BEP 48."""
        for url, scrape in [
            ("http://example.com/announce", "http://example.com/scrape?"),
            ("http://example.com/x/announce", "http://example.com/x/scrape?"),
            ("http://example.com/announce.php", "http://example.com/scrape.php?"),
            ("http://example.com/announce?x2%0644", "http://example.com/scrape?x2%0644&"),
        ]:
            self.assertEqual(scrape_url(url, b"aaaaaaaaaaaaaaaaaaaa"), scrape + "info_hash=" + "a" * 20)

    def test_not_offered(self) -> None:
        for url in [
            "http://example.com/a",
            "http://example.com/announce?x=2/4",
            "http://example.com/x%064announce",
            "http://example.com/",
        ]:
            with self.assertRaises(TrackerError, msg=url):
                scrape_url(url, bytes(20))


class ParseAnnounceTests(SynchronousTestCase):
    def parse(self, reply: dict[bytes, object], **options: object) -> AnnounceReply:
        return parse_announce(encode(reply), **options)

    def test_whole(self) -> None:
        reply = self.parse(
            {
                b"interval": 900,
                b"min interval": 300,
                b"complete": 3,
                b"incomplete": 4,
                b"tracker id": b"id",
                b"warning message": b"soon closed",
                b"external ip": b"\x09\x08\x07\x06",
                b"peers": PEERS4,
                b"peers6": bytes.fromhex("20010db8" + "00" * 11 + "01" + "1ae1"),
            }
        )
        self.assertEqual(
            reply,
            AnnounceReply(
                interval=900,
                min_interval=300,
                peers=(*ADDRESSES4, PeerAddress("2001:db8::1", 6881)),
                seeds=3,
                leechers=4,
                tracker_id=b"id",
                external_host="9.8.7.6",
                warning="soon closed",
            ),
        )

    def test_not_compact(self) -> None:
        peers = [
            {b"ip": b"1.2.3.4", b"port": 6881, b"peer id": b"x" * 20},
            {b"ip": b"5.6.7.8", b"port": 80},
            {b"ip": b"2001:db8::1", b"port": 1},
            {b"ip": b"peer.example", b"port": 1},
            {b"ip": b"1.2.3.4", b"port": b"80"},
            {b"ip": 5, b"port": 5},
            {b"port": 5},
            b"1.2.3.4",
        ]
        self.assertEqual(self.parse({b"peers": peers}).peers, (*ADDRESSES4, PeerAddress("2001:db8::1", 1)))

    def test_own_address_is_no_peer(self) -> None:
        reply = self.parse({b"external ip": b"\x01\x02\x03\x04", b"peers": PEERS4}, port=6881)
        self.assertEqual(reply.peers, ADDRESSES4[1:])

    def test_nothing_but_a_dictionary(self) -> None:
        self.assertEqual(parse_announce(b"de"), AnnounceReply(interval=1800))

    def test_careless_trackers_are_understood(self) -> None:
        """Keys in any order, and a newline at the end."""
        self.assertEqual(parse_announce(b"d5:peers0:8:intervali900ee\r\n").interval, 900)

    def test_wrong_keys_cost_only_themselves(self) -> None:
        wrong = {b"interval": b"soon", b"min interval": -1, b"complete": -1, b"incomplete": 2**40,
                 b"tracker id": b"x" * 257, b"warning message": 5, b"external ip": b"abc",
                 b"peers": PEERS4}  # fmt: skip
        self.assertEqual(self.parse(wrong), AnnounceReply(interval=1800, peers=ADDRESSES4))

    def test_intervals_are_clamped(self) -> None:
        for told, kept in [(1, 60), (10**9, 86400)]:
            reply = self.parse({b"interval": told, b"min interval": told})
            self.assertEqual((reply.interval, reply.min_interval), (kept, kept))

    def test_refusal(self) -> None:
        for told, seconds in [
            ({}, None),
            ({b"retry in": 5}, 300.0),
            ({b"retry in": b"5"}, 300.0),
            ({b"retry in": b"never"}, math.inf),
            ({b"retry in": 0}, 60.0),
            ({b"retry in": 10**18}, 86400.0),
            ({b"retry in": -5}, None),
            ({b"retry in": []}, None),
            ({b"retry in": "²".encode()}, None),
        ]:
            with self.assertRaises(TrackerRefusal) as caught:
                self.parse({b"failure reason": b"not\r\nregistered", b"peers": PEERS4, **told})
            self.assertEqual(str(caught.exception), "not registered")
            self.assertEqual(caught.exception.retry_in, seconds, told)

    def test_garbage(self) -> None:
        for body in [
            b"", b"<html>", b"de junk", b"i5e", b"le", b"4:spam", b"d", b"d8:interval",
            b"d5:peers5:12345e", b"d5:peersi5ee", b"d5:peersdee", b"d6:peers617:" + bytes(17) + b"e",
            b"l" * 10**6, b"d1:a" * 10**5, b"d5:peers9999999999:e", b"d14:failure reasonlee",
        ]:  # fmt: skip
            with self.assertRaises(TrackerError, msg=body[:40]):
                parse_announce(body)

    @given(st.binary())
    def test_any_bytes(self, body: bytes) -> None:
        for parse in (parse_announce, lambda body: parse_scrape(body, bytes(20))):
            with contextlib.suppress(TrackerError):
                parse(body)

    @given(st.dictionaries(st.sampled_from(KEYS), bencoded))
    def test_any_values(self, reply: dict[bytes, object]) -> None:
        try:
            parsed = self.parse(reply)
        except TrackerError:
            return
        self.assertTrue(60 <= parsed.interval <= 86400)
        self.assertTrue(60 <= parsed.min_interval <= 86400)


class ParseScrapeTests(SynchronousTestCase):
    def test_good(self) -> None:
        body = encode({b"files": {b"h" * 20: {b"complete": 1, b"downloaded": 2, b"incomplete": 3}}})
        self.assertEqual(parse_scrape(body, b"h" * 20), Scrape(seeds=1, leechers=3, downloaded=2))

    def test_left_out(self) -> None:
        body = encode({b"files": {b"h" * 20: {}}})
        self.assertEqual(parse_scrape(body, b"h" * 20), Scrape(None, None, None))

    def test_another_torrent(self) -> None:
        for files in [{}, {b"x" * 20: {}}, {b"h" * 20: 5}, [], 5]:
            with self.assertRaises(TrackerError):
                parse_scrape(encode({b"files": files}), b"h" * 20)
