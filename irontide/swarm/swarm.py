"""
The peers of a torrent that has its Info: what each of them says, and what follows from it.

A message is one ``case``.  What is asked of peers is in ``downloads``, what they get in ``serving``, whom we
connect to in ``connector``; here is who is there and what they have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.errors import ProtocolViolation
from irontide.extensions import EXTENSIONS, lt_donthave, upload_only
from irontide.interfaces import IBlockSink, ISwarm
from irontide.metainfo.bitfield import Bitfield
from irontide.metainfo.info import Info
from irontide.peer.peer import Peer
from irontide.swarm.downloads import Downloads
from irontide.swarm.greeting import Us, what_we_can, what_we_have
from irontide.swarm.peerbook import PeerBook
from irontide.swarm.picker import Picker
from irontide.swarm.requests import Requests
from irontide.swarm.serving import Serving
from irontide.values import PeerAddress
from irontide.wire import messages as m
from irontide.wire.allowed_fast import allowed_fast_set
from irontide.wire.codec import encode
from irontide.wire.extended import EXTENDED_HANDSHAKE, ExtendedHandshake

KEEP_ALIVE = 100.0
MAX_ALLOWED_FAST = 128
HAVE_DELAY = 0.1
CONNECTED_TWICE = "connected twice"


class Watcher(Protocol):
    """What a torrent wants to know of its swarm."""

    def piece_passed(self, index: int) -> None:
        """A piece is verified and written."""

    def download_complete(self) -> None:
        """All wanted pieces are there."""

    def blocks_written(self, length: int) -> None:
        """So many bytes of an unfinished piece are written: its mask is worth a commit."""

    def storage_failed(self, failure: Failure) -> None:
        """The disk refused."""

    def banned(self, host: str) -> None:
        """This host sent wrong blocks."""

    def lost_peer(self, peer: Peer, reason: str) -> None:
        """A connection is closed."""


@implementer(ISwarm)
class Swarm:
    """The peers of one running torrent."""

    _log = Logger()

    def __init__(
        self,
        info: Info,
        have: Bitfield,
        picker: Picker,
        downloads: Callable[[Swarm], Downloads],
        serving: Callable[[Swarm], Serving],
        book: PeerBook,
        us: Us,
        clock: IReactorTime,
        watcher: Watcher,
    ) -> None:
        self.infohash = info.infohash
        self.pieces = info.layout.pieces
        self.peers: dict[Peer, Requests] = {}
        self.have = have
        self.book = book
        self.downloads = downloads(self)
        self.serving = serving(self)
        self._layout = info.layout
        self._picker = picker
        self._us = us
        self._clock = clock
        self._watcher = watcher
        self._new: dict[Peer, Requests] = {}
        self._haves: list[bytes] = []
        self._have_timer: IDelayedCall | None = None
        self._closing = False
        self._complete = not picker.left

    @property
    def seeding(self) -> bool:
        """Whether nothing is left to download."""
        return not self._picker.left

    # --- ISwarm: coming and going ----------------------------------------------------------------------

    def blocks_of(self, peer: Peer) -> IBlockSink:
        """Where the blocks go that ``peer`` will send."""
        requests = self._new[peer] = Requests(peer, self._layout, self.downloads)
        return requests

    def peer_joined(self, peer: Peer) -> None:
        """The handshake with ``peer`` is done."""
        requests = self._new.pop(peer)
        if self._closing or self.book.banned(peer.host):
            raise ProtocolViolation("not welcome")
        if peer.peer_id == self._us.peer_id:
            raise ProtocolViolation("that is ourselves")
        self._settle_for_one(peer)
        self.peers[peer] = requests
        self.downloads.joined(requests)
        self.serving.joined(peer)
        self._introduce(peer)

    def _settle_for_one(self, peer: Peer) -> None:
        """
        Of two connections with the same peer only one stays.

        If each of us has dialled the other, both ends must choose the same one, or none is left: it is the
        one that was dialled by the greater peer id.
        """
        theirs_wins = peer.peer_id > self._us.peer_id
        for other in [other for other in self.peers if other.peer_id == peer.peer_id]:
            crossed = peer.incoming != other.incoming and peer.incoming is theirs_wins
            if not crossed or peer.host != other.host:  # from elsewhere anybody can claim the id
                raise ProtocolViolation(CONNECTED_TWICE)
            other.drop(CONNECTED_TWICE)

    def _introduce(self, peer: Peer) -> None:
        """Say what we have, then what we can."""
        if peer.fast and self.have.count:
            offered = allowed_fast_set(self.infohash, peer.host, self._layout.pieces)
            peer.offered_fast = frozenset(piece for piece in offered if self.have[piece])
        greeting = what_we_have(peer, self.have)
        if peer.extended:
            greeting.append(what_we_can(peer, self._us, seeding=self.seeding))
        greeting += [m.AllowedFast(piece) for piece in sorted(peer.offered_fast)]
        peer.transport.write(b"".join(map(encode, greeting)))

    def peer_left(self, peer: Peer, reason: str) -> None:
        """The connection is closed."""
        self._new.pop(peer, None)
        requests = self.peers.pop(peer, None)
        if requests is None:
            return
        self.downloads.left(requests)
        self.serving.left(peer)
        if peer.bits is not None:
            self._picker.peer_left(peer.bits)
        self._watcher.lost_peer(peer, reason)
        if not self._closing:
            self.downloads.fill_all()

    def peers_found(self, addresses: Sequence[PeerAddress], source: str, *, near: bool = False) -> None:
        """Somebody knows these addresses."""
        self.book.found(addresses, source, self._clock.seconds(), teller="localhost" if near else None)

    def read_done(self, peer: Peer, received: int) -> None:
        """One read is parsed: ask for more, and answer what was asked."""
        now = self.downloads.now = self._clock.seconds()
        peer.last_received = now
        requests = self.peers.get(peer)
        if requests is None:
            return
        if requests.received:
            peer.download.add(requests.received, now)
            requests.adapt(peer.download.value(now))  # not only at the tick: that is a second too late
            requests.received = 0
        if requests.room():
            self.downloads.fill(requests)
        self.serving.read_done(peer, now)

    # --- ISwarm: messages ------------------------------------------------------------------------------

    def message_received(self, peer: Peer, message: m.Message) -> None:
        """``peer`` said something."""
        match message:
            case m.Request():  # first, because of these there are most
                self.serving.requested(peer, message)
            case m.Have(piece):
                self._peer_has(peer, self._layout.piece(piece))
            case m.Cancel():
                self.serving.cancelled(peer, message)
            case m.Choke():
                self._choked(peer)
            case m.Unchoke():
                peer.choking = False
                peer.last_block = self._clock.seconds()
            case m.Interested():
                peer.interested = True
                if peer.am_choking:
                    self.serving.interested(peer, self.seeding)
            case m.NotInterested():
                peer.interested = False
                self.serving.choke_soon()
            case m.BitfieldMessage(data):
                self._peer_has_all_of(peer, self._layout.bitfield(data))
            case m.HaveAll():
                self._peer_has_all_of(peer, Bitfield.full(self._layout.pieces))
            case m.HaveNone():
                self._peer_has_all_of(peer, Bitfield(self._layout.pieces))
            case m.RejectRequest(piece, begin, length):
                self._rejected(peer, piece, begin, length)
            case m.AllowedFast(piece):
                if len(peer.allowed_fast) < MAX_ALLOWED_FAST:
                    peer.allowed_fast.add(self._layout.piece(piece))
            case m.Extended(number, payload):
                self._extended(peer, number, payload)
            case _:
                pass  # keep-alives, suggestions, ports: nothing follows from them yet

    def _peer_has_all_of(self, peer: Peer, bits: Bitfield) -> None:
        """
        What the peer has, in one message; a later one is as many Haves (aria2 sends such).

        Each must tell of something new, so there are no more of them than pieces.
        """
        before = peer.bits
        if before is not None:
            new = bits.as_int() & ~before.as_int()
            if not new or before.as_int() & ~bits.as_int():
                raise ProtocolViolation("says again what it has, and nothing new")
            self._picker.peer_left(before)
        peer.bits = bits
        self._picker.peer_joined(bits)
        self._judge(peer)

    def _peer_has(self, peer: Peer, piece: int) -> None:
        bits = peer.bits
        if bits is None:
            bits = peer.bits = Bitfield(self._layout.pieces)
            self._picker.peer_joined(bits)
        if bits[piece]:
            return
        bits.set(piece)
        self._picker.peer_has(piece)
        if bits.complete:
            self._picker.peer_became_seed(bits)
            self._part_from_seed(peer)
        if not peer.am_interested and self._picker.wanted(piece):
            self._be_interested(peer)

    def _judge(self, peer: Peer) -> None:
        """See whether the peer has anything for us, and whether we have anything for each other."""
        if peer.bits is None:
            return
        interesting = self._picker.interesting(peer.bits)
        if interesting and not peer.am_interested:
            self._be_interested(peer)
        elif peer.am_interested and not interesting:
            peer.am_interested = False
            peer.send(m.NotInterested())
        self._part_from_seed(peer)

    def _be_interested(self, peer: Peer) -> None:
        peer.am_interested = True
        peer.send(m.Interested())

    def _part_from_seed(self, peer: Peer) -> None:
        """Two that have everything hold a connection for nothing."""
        if self.have.complete and peer.seed:
            peer.drop("both have everything")

    def _choked(self, peer: Peer) -> None:
        peer.choking = True
        if not peer.fast:  # with the fast extension each request is answered or rejected
            self.downloads.released(self.peers[peer].forget_all())

    def _rejected(self, peer: Peer, piece: int, begin: int, length: int) -> None:
        peer.allowed_fast.discard(piece)
        requests = self.peers[peer]
        found = requests.rejected(piece, begin, length)
        if found is not None:
            requests.refused = requests.refused or not peer.choking
            self.downloads.released((found,))

    def _extended(self, peer: Peer, number: int, payload: bytes) -> None:
        if number == EXTENDED_HANDSHAKE:
            handshake = ExtendedHandshake.from_payload(payload)
            peer.handshake = handshake if peer.handshake is None else peer.handshake.followed_by(handshake)
            self.peers[peer].adapt(peer.download_rate)
            if handshake.port and peer.incoming:
                self._listens_at(peer, PeerAddress(peer.host, handshake.port))
            if handshake.upload_only is not None:
                peer.upload_only = handshake.upload_only
        elif number == EXTENSIONS[upload_only.NAME]:
            peer.upload_only = upload_only.parse(payload)
        elif number == EXTENSIONS[lt_donthave.NAME]:
            self._peer_lost(peer, self._layout.piece(lt_donthave.parse(payload)))

    def _listens_at(self, peer: Peer, address: PeerAddress) -> None:
        """An incoming peer says where it can be dialled; it may say so again, and otherwise."""
        if peer.listens == address:
            return
        if peer.listens is not None:
            self.book.disconnected(peer.listens, "listens elsewhere now", self._clock.seconds())
        peer.listens = address
        self.book.listens_at(address.host, address.port)

    def _peer_lost(self, peer: Peer, piece: int) -> None:
        """BEP 54; each costs a pass over the availability, so they count against the peer."""
        if peer.bits is None or not peer.bits[piece]:
            return
        self.serving.strike(peer)
        self._picker.peer_left(peer.bits)
        peer.bits.clear(piece)
        self._picker.peer_joined(peer.bits)
        self.downloads.lost(self.peers[peer], piece)

    # --- what the downloads tell -------------------------------------------------------------------------

    def piece_passed(self, index: int) -> None:
        """A piece is verified and written: tell the world."""
        self._haves.append(encode(m.Have(index)))
        if self._have_timer is None and not self._closing:
            self._have_timer = self._clock.callLater(HAVE_DELAY, self._tell_haves)
        self._watcher.piece_passed(index)
        if not self._picker.left and not self._complete:
            self._complete = True
            self._tell_haves()
            for peer in list(self.peers):
                self._judge(peer)
            self._watcher.download_complete()

    def _tell_haves(self) -> None:
        if self._have_timer is not None and self._have_timer.active():
            self._have_timer.cancel()
        self._have_timer = None
        frames, self._haves = b"".join(self._haves), []
        for peer in self.peers:
            peer.transport.write(frames)

    def hosts_lied(self, hosts: Iterable[str]) -> None:
        """It is proved that these sent wrong blocks: never again."""
        for host in hosts:
            self.book.ban(host)
            self._watcher.banned(host)
            for peer in [peer for peer in self.peers if peer.host == host]:
                peer.drop("sent wrong blocks")

    def blocks_written(self, length: int) -> None:
        """So many bytes of an unfinished piece are written."""
        self._watcher.blocks_written(length)

    def storage_failed(self, failure: Failure) -> None:
        """The disk refused: the torrent will stop."""
        self._watcher.storage_failed(failure)

    def wanted_changed(self) -> None:
        """Priorities changed: interest may have, too."""
        self._complete = not self._picker.left
        for peer in list(self.peers):
            self._judge(peer)
        self.downloads.fill_all()

    # --- time ------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Once a second, while there are peers."""
        for peer in list(self.peers):
            peer.download_rate = peer.download.value(now)
            peer.upload_rate = peer.upload.value(now)
            if now - peer.last_received > self._us.peer_timeout:
                peer.drop("silent for too long")
            elif now - peer.last_sent > KEEP_ALIVE:
                peer.last_sent = now
                peer.send(m.KeepAlive())
            requests = self.peers.get(peer)
            if requests is not None and peer.am_interested and not requests.asked:
                self._judge(peer)
        self.downloads.tick(now)
        self.serving.tick(self.seeding, now)

    def stop(self, reason: str) -> Deferred[None]:
        """Ask for nothing more, close all connections; fires when what came is written."""
        self._closing = True
        if self._have_timer is not None:
            self._have_timer.cancel()
            self._have_timer = None
        for peer in list(self.peers):
            peer.drop(reason)
        self.serving.stop()
        return self.downloads.stop()
