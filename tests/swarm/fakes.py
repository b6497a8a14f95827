"""
A swarm of one torrent on a Clock, and the other ends of its connections.

Everything of ours is real: protocol, swarm, open pieces, pool.  What a ``Remote`` says goes in as bytes, and
what it hears is parsed from the bytes that come out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from struct import unpack_from
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from irontide.flow import TokenBucket
from irontide.metainfo.bitfield import Bitfield
from irontide.metainfo.info import Info
from irontide.metainfo.layout import BLOCK_LENGTH
from irontide.peer.peer import Peer
from irontide.peer.protocol import PeerProtocol
from irontide.session.intake import SharedIntake
from irontide.storage.buffers import BufferPool
from irontide.storage.memory import MemoryStorage
from irontide.swarm.choker import Choker
from irontide.swarm.downloads import Downloads
from irontide.swarm.greeting import Us
from irontide.swarm.limits import Limits
from irontide.swarm.open_pieces import SEGMENT_LENGTH, OpenPiece
from irontide.swarm.peerbook import PeerBook
from irontide.swarm.picker import Picker
from irontide.swarm.requests import Requests
from irontide.swarm.serving import Serving
from irontide.swarm.swarm import Swarm
from irontide.values import PeerAddress
from irontide.wire import messages as m
from irontide.wire.codec import encode, piece_header
from irontide.wire.messages import MESSAGES, PIECE_ID, Message
from irontide.wire.preamble import HANDSHAKE_LENGTH, OUR_RESERVED, Preamble
from tests.fakes import FakePeerTransport
from tests.storage.fakes import make_info, noise

KIB16 = BLOCK_LENGTH
MIB = 1 << 20
OUR_ID = b"-IT0100-ourselves---"
OUR_PORT = 6881


@frozen
class Piece:
    """A block, as it went over the wire."""

    piece: int
    begin: int
    data: bytes


def torrent(total: int, piece_length: int, seed: int = 0) -> tuple[Info, bytes]:
    """A torrent of one file, and its bytes."""
    data = noise(total, seed)
    return make_info([("file", total)], data, piece_length), data


def parse(stream: bytes) -> Iterator[Message | Piece]:
    """What a whole stream of messages says."""
    at = 0
    while at < len(stream):
        (length,) = unpack_from(">I", stream, at)
        frame = stream[at + 4 : at + 4 + length]
        assert len(frame) == length
        at += 4 + length
        if not frame:
            yield m.KeepAlive()
        elif frame[0] == PIECE_ID:
            yield Piece(*unpack_from(">II", frame, 1), frame[9:])
        else:
            yield MESSAGES[frame[0]].from_payload(frame[1:])


def recount(piece: OpenPiece) -> None:
    """The counters of an open piece are what one counts."""
    state, asked = piece.state, piece.asked
    missing = [block for block in range(piece.blocks) if not state[block]]
    assert piece.missing == len(missing), (piece.missing, len(missing))
    free = [block for block in missing if not asked[block]]
    assert piece.free == len(free), (piece.free, len(free))
    for block in range(piece.blocks):
        in_memory = piece.segments[block * KIB16 // SEGMENT_LENGTH] is not None
        assert in_memory or state[block] != 1, "a received block has no memory"
        assert in_memory or state[block] or not asked[block], "a block was asked for without a place for it"
        assert in_memory or block not in piece.claims, "a peer writes to memory that was given back"


class Told:
    """What a torrent was told by its swarm."""

    def __init__(self) -> None:
        self.pieces: list[int] = []
        self.hosts: list[str] = []
        self.failures: list[Failure] = []
        self.departures: list[tuple[Peer, str]] = []
        self.completions = 0
        self.written = 0

    def blocks_written(self, length: int) -> None:
        self.written += length

    def piece_passed(self, index: int) -> None:
        self.pieces.append(index)

    def download_complete(self) -> None:
        self.completions += 1

    def storage_failed(self, failure: Failure) -> None:
        self.failures.append(failure)

    def banned(self, host: str) -> None:
        self.hosts.append(host)

    def lost_peer(self, peer: Peer, reason: str) -> None:
        self.departures.append((peer, reason))


class World:
    """One torrent of ours."""

    def __init__(
        self,
        *,
        total: int = 16 * KIB16,
        piece_length: int = 4 * KIB16,
        have: Iterable[int] = (),
        pool: int = 8 * MIB,
        storage: Callable[[Any], Any] = lambda storage: storage,
        download_rate: float = 0,
        upload_rate: float = 0,
        slots: int = 4,
        sequential: bool = True,
        priorities: Sequence[int] | None = None,
        random: Random | None = None,
        jobs: Callable[[], int] = lambda: 0,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.info, self.data = torrent(total, piece_length)
        layout = self.layout = self.info.layout
        self.have = Bitfield(layout.pieces)
        self.disk = MemoryStorage(self.info)
        for index in have:
            self.have.set(index)
            start = index * piece_length
            self.disk.data[start : start + piece_length] = self.data[start : start + piece_length]
        self.storage = storage(self.disk)
        self.pool = BufferPool(pool)
        self.book = PeerBook()
        self.intake = SharedIntake(self.clock, jobs)
        self.may_request = True
        self.told = Told()
        self.remotes: list[Remote] = []
        rng = random or Random(1)
        now = self.clock.seconds()
        self.download_bucket = TokenBucket(download_rate, now=now)
        self.upload_bucket = TokenBucket(upload_rate, now=now)
        self.picker = Picker(
            layout,
            self.have,
            priorities=priorities or [1] * layout.pieces,
            random=rng,
            sequential=sequential,
        )
        self.swarm = Swarm(
            self.info,
            self.have,
            self.picker,
            lambda swarm: Downloads(
                self.info,
                self.have,
                self.picker,
                self.storage,
                self.pool,
                Limits([self.download_bucket]),
                self.clock,
                swarm,
                lambda: self.may_request,
            ),
            lambda swarm: Serving(
                layout,
                self.have,
                self.storage,
                Limits([self.upload_bucket]),
                Choker(slots, rng),
                self.clock,
                swarm,
            ),
            self.book,
            Us(OUR_ID, lambda: OUR_PORT),
            self.clock,
            self.told,
        )
        self.downloads = self.swarm.downloads

    # --- time and order

    def pass_time(self, seconds: float) -> None:
        """Second by second, each with its tick."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            self.swarm.tick(self.clock.seconds())
        self.clock.advance(seconds - int(seconds))

    def check(self) -> None:
        """What must always be so."""
        for piece in self.downloads.open:
            recount(piece)
        asked: dict[tuple[int, int], int] = {}
        for requests in self.swarm.peers.values():
            for key, piece in requests.asked.items():
                assert self.downloads.open.get(piece.index) is piece, "a request of a piece that is closed"
                place = (piece.index, key % -(-self.layout.piece_length // KIB16))
                asked[place] = asked.get(place, 0) + 1
        for piece in self.downloads.open:
            counted = [asked.get((piece.index, block), 0) for block in range(piece.blocks)]
            assert counted == list(piece.asked), (counted, list(piece.asked))
        held = sum(buffer is not None for piece in self.downloads.open for buffer in piece.segments)
        assert held or not self.pool.in_use, "memory that no open piece has"

    def settle(self) -> Deferred[None]:
        """Stop, and see that nothing is left over but what is written."""
        stopped = self.swarm.stop("the test is over")
        while getattr(self.storage, "pending", 0):
            self.storage.turn()
        self.clock.advance(0)
        assert stopped.called, "stop() does not end"
        assert self.pool.in_use == 0, f"{self.pool.in_use} bytes were not given back"
        assert not self.clock.getDelayedCalls(), self.clock.getDelayedCalls()
        return stopped

    @property
    def complete(self) -> bool:
        return self.have.complete and self.disk.data == self.data

    def block(self, piece: int, begin: int, length: int) -> bytes:
        """The true bytes."""
        start = piece * self.layout.piece_length + begin
        return self.data[start : start + length]

    def join(self, host: str = "10.0.0.1", **named: Any) -> Remote:
        """A peer whose handshake is done."""
        remote = Remote(self, host, **named)
        remote.shake()
        return remote

    def seed(self, host: str = "10.0.0.1", **named: Any) -> Remote:
        """A peer that has everything and unchokes us."""
        remote = self.join(host, **named)
        everything = m.BitfieldMessage(Bitfield.full(self.layout.pieces).to_bytes())
        remote.say(m.HaveAll() if remote.fast else everything, m.Unchoke())
        return remote


class Remote:
    """
    The other end of a connection.

    :ivar owed: the requests that we were sent, neither answered nor cancelled, in order.
    :ivar ends: how often the protocol told that the connection ended.
    """

    _ids = iter(range(1, 1 << 30))

    def __init__(
        self,
        world: World,
        host: str,
        *,
        fast: bool = True,
        extended: bool = False,
        incoming: bool = True,
        drains: bool = True,
        peer_id: bytes | None = None,
        port: int = 50000,
    ) -> None:
        self.world = world
        self.host = host
        self.fast = fast
        self.peer_id = peer_id or b"-XX0001-%012d" % next(self._ids)
        reserved = bytearray(8)
        reserved[5] |= 0x10 if extended else 0
        reserved[7] |= 0x04 if fast else 0
        self.preamble = Preamble(bytes(reserved), world.info.infohash)
        self.transport = FakePeerTransport(drains=drains)
        self.ends: list[tuple[Peer | None, str]] = []
        self.protocol = PeerProtocol(
            world.swarm,
            Preamble(OUR_RESERVED, world.info.infohash),
            OUR_ID,
            PeerAddress(host, port),
            incoming=incoming,
            clock=world.clock,
            intake=world.intake,
            lost=lambda peer, reason: self.ends.append((peer, reason)),
        )
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)
        self.owed: list[m.Request] = []
        self._heard = HANDSHAKE_LENGTH
        world.remotes.append(self)

    @property
    def closed(self) -> bool:
        """Whether the connection is no more."""
        return bool(self.ends)

    @property
    def why(self) -> str:
        """Why it ended."""
        return self.ends[0][1]

    @property
    def peer(self) -> Peer:
        assert self.protocol.peer is not None
        return self.protocol.peer

    @property
    def requests(self) -> Requests:
        return self.world.swarm.peers[self.peer]

    # --- saying

    def shake(self) -> None:
        self.raw(self.preamble.to_bytes() + self.peer_id)

    def raw(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def say(self, *messages: Message) -> None:
        self.raw(b"".join(map(encode, messages)))

    def send(self, request: m.Request, *, lie: bool = False) -> None:
        """Answer a request."""
        self.raw(self.frame(request, lie=lie))

    def frame(self, request: m.Request, *, lie: bool = False) -> bytes:
        """The answer to a request, as bytes."""
        data = self.world.block(request.piece, request.begin, request.length)
        if lie:
            data = bytes(byte ^ 0xFF for byte in data)
        return piece_header(request.piece, request.begin, request.length) + data

    def answer(self, count: int | None = None, *, lie: bool = False) -> int:
        """Answer the oldest requests, each in a read of its own; how many were answered."""
        answered = 0
        while count is None or answered < count:
            self.listen()
            if not self.owed or self.closed:
                break
            self.send(self.owed.pop(0), lie=lie)
            answered += 1
        return answered

    def leave(self) -> None:
        """Close the connection from the other side."""
        self.transport.lose()

    # --- hearing

    def listen(self) -> list[Message | Piece]:
        """What was said to us since the last time; keeps ``owed``."""
        stream = self.transport.value()
        heard = list(parse(stream[self._heard :]))
        self._heard = max(self._heard, len(stream))
        for message in heard:
            if isinstance(message, m.Request):
                self.owed.append(message)
            elif isinstance(message, m.Cancel):
                request = m.Request(message.piece, message.begin, message.length)
                if request in self.owed:
                    self.owed.remove(request)
        return heard

    def hears(self, *kinds: type) -> list[Any]:
        """Those of these kinds."""
        return [message for message in self.listen() if isinstance(message, kinds)]
