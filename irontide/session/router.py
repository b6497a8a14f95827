"""Decides which torrent serves a connection that has said its infohash."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.interfaces import IProtocol
from zope.interface import implementer

from irontide.interfaces import IConnectionRouter, ISlot
from irontide.torrent.torrent import Torrent
from irontide.values import PeerAddress
from irontide.wire.preamble import Preamble


@implementer(IConnectionRouter)
class Router:
    """Routes within this process."""

    def __init__(self, torrents: Mapping[bytes, Torrent]) -> None:
        self._torrents = torrents

    def route(self, preamble: Preamble, address: PeerAddress, slot: ISlot) -> IProtocol | None:
        """The protocol of the torrent, if there is one and it takes peers."""
        torrent = self._torrents.get(preamble.infohash)
        return None if torrent is None else torrent.accept(address)
