"""The phase in which a torrent has peers: it downloads what is missing and serves what is there."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.flow import TokenBucket
from irontide.interfaces import IAnnouncement
from irontide.metainfo.bitfield import Bitfield
from irontide.metainfo.layout import Layout
from irontide.metainfo.torrent_file import TorrentFile
from irontide.peer.peer import Peer
from irontide.peer.protocol import PeerProtocol
from irontide.storage.file_storage import FileStorage
from irontide.swarm.choker import Choker
from irontide.swarm.connector import Connector
from irontide.swarm.downloads import Downloads
from irontide.swarm.greeting import Us
from irontide.swarm.limits import Limits
from irontide.swarm.peerbook import PeerBook
from irontide.swarm.picker import Picker, piece_priorities
from irontide.swarm.serving import Serving
from irontide.swarm.swarm import Swarm
from irontide.torrent.options import TorrentOptions
from irontide.torrent.shared import Shared
from irontide.values import PeerAddress, Transferred
from irontide.wire.preamble import OUR_RESERVED, Preamble

TICK = 1.0
KEEP_COUNTS = 25.0
"""Seconds until what was transferred is committed, if no block was written meanwhile."""
SETTLED = 30.0
"""So long after the last byte everything is where it stays: written, and in the store."""
NUMWANT = 50


def have_bytes(layout: Layout, have: Bitfield) -> int:
    """How many bytes the pieces of ``have`` are; only the last piece of a torrent may be short."""
    last = layout.pieces - 1
    if last < 0 or not have[last]:
        return have.count * layout.piece_length
    return (have.count - 1) * layout.piece_length + layout.piece_size(last)


class Owner(Protocol):
    """What the torrent wants to know while it runs."""

    def piece_done(self, index: int) -> None:
        """A piece is verified and written."""

    def download_complete(self) -> None:
        """All wanted pieces are there."""

    def pieces_failed(self) -> None:
        """Pieces came whose hash was wrong."""

    def blocks_written(self, length: int) -> None:
        """So many bytes of an unfinished piece are written, perhaps none: masks and figures are others."""

    def storage_failed(self, failure: Failure) -> None:
        """The disk refused."""


@implementer(IAnnouncement)
class Running:
    """
    A torrent with peers.

    :ivar swarm: its peers.
    """

    _log = Logger()
    name = "running"

    def __init__(
        self,
        torrent_file: TorrentFile,
        have: Bitfield,
        masks: Mapping[int, bytes],
        storage: FileStorage,
        options: TorrentOptions,
        shared: Shared,
        owner: Owner,
        book: PeerBook,
    ) -> None:
        info = self._info = torrent_file.info
        self.infohash = info.infohash
        self.private = info.private
        self.tiers = torrent_file.tiers
        self._have = have
        self._shared = shared
        self._owner = owner
        self._started = False
        self._timer: IDelayedCall | None = None
        clock = shared.clock
        settings = shared.settings()
        now = clock.seconds()
        self._counts = (0, 0)
        self._failed_bytes = 0
        self._active = now - SETTLED
        self._kept = now
        self.download_limit = TokenBucket(options.download_rate, now=now)
        self.upload_limit = TokenBucket(options.upload_rate, now=now)
        self.picker = Picker(
            info.layout,
            have,
            priorities=piece_priorities(info.layout, options.file_priorities(info)),
            random=shared.random,
            sequential=options.sequential,
        )
        self.book = book
        self.choker = Choker(settings.upload_slots, shared.random)
        us = Us(shared.peer_id, shared.port, float(settings.peer_timeout))
        self.swarm = Swarm(
            info,
            have,
            self.picker,
            lambda swarm: Downloads(
                info,
                have,
                self.picker,
                storage,
                shared.download_pool,
                Limits([self.download_limit, shared.download_limit]),
                clock,
                swarm,
                shared.commits.may_request,
            ),
            lambda swarm: Serving(
                info.layout,
                have,
                storage,
                Limits([self.upload_limit, shared.upload_limit]),
                self.choker,
                clock,
                swarm,
            ),
            self.book,
            us,
            clock,
            self,
        )
        self.swarm.downloads.resume(masks)
        self._connector = Connector(
            self.book,
            shared.dialer,
            shared.dials,
            lambda address: self._protocol(address, incoming=False),
            clock,
            self._max_peers,
        )

    # --- life --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Find peers."""
        self._started = True
        if (port := self._shared.port()) is not None:
            self.book.set_own([PeerAddress("0.0.0.0", port), PeerAddress("::", port)])
        for source in self._shared.sources:
            try:
                source.start(self, self._found)
            except Exception:  # its failure, and not ours (contract S3)
                self._log.failure("a source of peers does not start")
        self._tick_in(0.0)

    async def stop(self, reason: str) -> None:
        """Close all connections; returns when what came is written.  Saying goodbye is not waited for."""
        self._started = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._connector.stop()
        await self.swarm.stop(reason)

    def goodbye(self) -> list[Deferred[None]]:
        """Tell the sources that the torrent stops."""
        return [source.stop(self.infohash) for source in self._shared.sources]

    def set_priorities(self, options: TorrentOptions) -> None:
        """Want other files than before."""
        layout = self._info.layout
        self.picker.set_priorities(piece_priorities(layout, options.file_priorities(self._info)))
        self.swarm.wanted_changed()

    def set_limits(self, download: int, upload: int) -> None:
        """Other limits, in bytes/s, 0 for none."""
        now = self._shared.clock.seconds()
        self.download_limit.set_rate(download, now)
        self.upload_limit.set_rate(upload, now)

    def _max_peers(self) -> int:
        limit = self._shared.settings().max_connections_per_torrent
        return sys.maxsize if limit < 0 else limit

    # --- peers -------------------------------------------------------------------------------------------

    def accept(self, address: PeerAddress) -> IProtocol | None:
        """The protocol for a connection that asked for this torrent; None when there are enough."""
        enough = len(self.swarm.peers) >= self._max_peers()
        if not self._started or enough or self.book.banned(address.host):
            return None
        return self._protocol(address, incoming=True)

    def _protocol(self, address: PeerAddress, *, incoming: bool) -> PeerProtocol:
        self._tick_in(TICK)
        return PeerProtocol(
            self.swarm,
            Preamble(OUR_RESERVED, self.infohash),
            self._shared.peer_id,
            address,
            incoming=incoming,
            clock=self._shared.clock,
            intake=self._shared.intake,
            lost=None if incoming else partial(self._lost, address),
        )

    def _lost(self, address: PeerAddress, peer: Peer | None, reason: str) -> None:
        """A connection that we made has ended."""
        self.book.disconnected(address, reason, self._shared.clock.seconds())

    def add_peers(self, addresses: Sequence[PeerAddress], source: str = "user") -> None:
        """Addresses to try."""
        self._found(addresses, source, True)

    def _found(self, addresses: Sequence[PeerAddress], source: str, near: bool) -> None:
        if self._started:
            self.swarm.peers_found(addresses, source, near=near)
            self._tick_in(0.0)

    # --- IAnnouncement -----------------------------------------------------------------------------------

    def transferred(self) -> Transferred:
        """The figures of this run."""
        left = self._info.total - have_bytes(self._info.layout, self._have)
        return Transferred(self.swarm.serving.uploaded, self.swarm.downloads.downloaded, left)

    def wanted_peers(self) -> int:
        """How many addresses would be welcome."""
        if not self._started:
            return 0
        return max(0, min(NUMWANT, self._max_peers() - len(self.swarm.peers)))

    # --- what the swarm tells ----------------------------------------------------------------------------

    def piece_passed(self, index: int) -> None:
        """A piece is verified and written."""
        self._owner.piece_done(index)

    def download_complete(self) -> None:
        """All wanted pieces are there."""
        if self._have.complete:
            for source in self._shared.sources:
                source.completed(self.infohash)
        self._owner.download_complete()

    def blocks_written(self, length: int) -> None:
        """So many bytes of an unfinished piece are written."""
        self._owner.blocks_written(length)

    def storage_failed(self, failure: Failure) -> None:
        """The disk refused."""
        self._owner.storage_failed(failure)

    def banned(self, host: str) -> None:
        """This host sent wrong blocks."""
        self._log.info("banned {host}: it sent wrong blocks", host=host)

    def lost_peer(self, peer: Peer, reason: str) -> None:
        """A connection is closed."""
        if peer.incoming and peer.listens is not None:
            self.book.disconnected(peer.listens, reason, self._shared.clock.seconds())
        if self._started:
            self._tick_in(TICK)

    # --- time --------------------------------------------------------------------------------------------

    def _tick_in(self, delay: float) -> None:
        if self._timer is None:
            self._timer = self._shared.clock.callLater(delay, self._tick)
        elif delay < self._timer.getTime() - self._shared.clock.seconds():
            self._timer.reset(delay)

    def _tick(self) -> None:
        """Once a second while there are peers, and until what they sent is settled; else to dial."""
        self._timer = None
        now = self._shared.clock.seconds()
        self.swarm.tick(now)
        if not self._started:
            return
        self._connector.connect(len(self.swarm.peers), now)
        self._count(now)
        if self.swarm.peers or now - self._active < SETTLED:
            self._tick_in(TICK)
        elif (due := self.book.next_time(now)) is not None:
            self._tick_in(max(TICK, due - now))

    def _count(self, now: float) -> None:
        """Say when there are figures that the store may not have."""
        downloads = self.swarm.downloads
        counts = (downloads.downloaded, self.swarm.serving.uploaded)
        if counts != self._counts:
            self._counts, self._active = counts, now
        if now - self._active < SETTLED and now - self._kept >= KEEP_COUNTS:
            self._kept = now
            self._owner.blocks_written(0)
        if downloads.failed_bytes != self._failed_bytes:
            self._failed_bytes = downloads.failed_bytes
            self._owner.pieces_failed()
