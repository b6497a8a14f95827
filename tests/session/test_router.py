"""Routing to the torrents of this process."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from irontide.interfaces import IConnectionRouter
from irontide.peer.protocol import PeerProtocol
from irontide.session.router import Router
from irontide.values import PeerAddress
from irontide.wire.preamble import OUR_RESERVED, Preamble
from tests.torrent.fakes import Bench

ADDRESS = PeerAddress("192.0.2.1", 1)


class RouterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench()
        self.torrent = self.bench.running()
        self.torrents: dict[bytes, Any] = {self.torrent.infohash: self.torrent}
        self.router = Router(self.torrents)
        self.addCleanup(lambda: self.successResultOf(self.torrent.close("the test ends")))

    def route(self, infohash: bytes | None = None) -> Any:
        preamble = Preamble(OUR_RESERVED, infohash or self.torrent.infohash)
        return self.router.route(preamble, ADDRESS, None)  # type: ignore[arg-type]

    def test_router_is_faithful(self) -> None:
        self.assertTrue(verifyObject(IConnectionRouter, self.router))

    def test_known_infohash(self) -> None:
        self.assertIsInstance(self.route(), PeerProtocol)

    def test_each_connection_has_a_protocol_of_its_own(self) -> None:
        self.assertIsNot(self.route(), self.route())

    def test_unknown_infohash(self) -> None:
        self.assertIsNone(self.route(b"u" * 20))

    def test_torrent_that_takes_no_peers(self) -> None:
        self.successResultOf(self.torrent.pause())
        self.assertIsNone(self.route())

    def test_torrents_come_and_go(self) -> None:
        """Contract L10: asked at identification and at hand-over, each time for what is there then."""
        del self.torrents[self.torrent.infohash]
        self.assertIsNone(self.route())
        self.torrents[self.torrent.infohash] = self.torrent
        self.assertIsNotNone(self.route())
