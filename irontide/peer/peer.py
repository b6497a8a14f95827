"""
One connected peer: what is known of it, and what can be told to it.

Facts only; what follows from them is decided by the swarm, and how bytes travel by PeerProtocol.
"""

from __future__ import annotations

from typing import Protocol

from irontide.interfaces import IPeerTransport
from irontide.metainfo.bitfield import Bitfield
from irontide.peer.rates import Rate
from irontide.values import PeerAddress
from irontide.wire.codec import encode
from irontide.wire.extended import ExtendedHandshake
from irontide.wire.messages import Message
from irontide.wire.preamble import Preamble

MAX_UNREAD = 2 << 20
"""Above the high-water mark of a transport, and one read-ahead of blocks."""


class Connection(Protocol):
    """What a peer's connection can be told."""

    transport: IPeerTransport

    def revoke_claim(self) -> None:
        """Throw away the rest of the block that is arriving."""

    def drop(self, reason: str) -> None:
        """Close the connection at once."""


class Peer:
    """
    A peer after its handshake.

    :ivar address: the remote address of the connection.
    :ivar listens: where it accepts connections, as far as known.
    :ivar bits: the pieces it has; None until it said so.
    :ivar choking: and ``interested``: what it told us; ``am_choking`` and ``am_interested``: what we said.
    :ivar download: and ``upload``: payload from it, and to it; ``download_rate`` and ``upload_rate`` are
        their rates at the last tick.
    :ivar strikes: invalid requests so far.
    """

    __slots__ = (
        "address",
        "allowed_fast",
        "am_choking",
        "am_interested",
        "bits",
        "choking",
        "connection",
        "download",
        "download_rate",
        "drained",
        "drained_at",
        "extended",
        "fast",
        "handshake",
        "incoming",
        "interested",
        "joined",
        "last_block",
        "last_received",
        "last_sent",
        "listens",
        "offered_fast",
        "optimistic_since",
        "peer_id",
        "snubbed",
        "strikes",
        "transport",
        "unchoked_since",
        "upload",
        "upload_only",
        "upload_rate",
    )

    def __init__(
        self,
        connection: Connection,
        address: PeerAddress,
        preamble: Preamble,
        peer_id: bytes,
        *,
        incoming: bool,
        now: float,
    ) -> None:  # fmt: skip
        self.connection = connection
        self.transport = connection.transport
        self.address = address
        self.listens: PeerAddress | None = None if incoming else address
        self.peer_id = peer_id
        self.incoming = incoming
        self.fast = preamble.fast
        self.extended = preamble.extensions
        self.handshake: ExtendedHandshake | None = None
        self.bits: Bitfield | None = None
        self.choking = self.am_choking = True
        self.interested = self.am_interested = False
        self.upload_only = False
        self.snubbed = False
        self.allowed_fast: set[int] = set()
        self.offered_fast: frozenset[int] = frozenset()
        self.download = Rate()
        self.upload = Rate()
        self.download_rate = self.upload_rate = 0.0
        self.joined = self.last_received = self.last_sent = self.last_block = now
        self.unchoked_since: float | None = None
        self.optimistic_since: float | None = None
        self.drained = 0
        self.drained_at = now
        self.strikes = 0

    @property
    def host(self) -> str:
        """The remote address, without the port."""
        return self.address.host

    @property
    def seed(self) -> bool:
        """Whether it has everything."""
        return self.bits is not None and self.bits.complete

    @property
    def reqq(self) -> int:
        """How many requests it is willing to queue."""
        return self.handshake.reqq if self.handshake is not None and self.handshake.reqq else 250

    @property
    def deaf(self) -> bool:
        """Whether more waits to be read by it than we ever queue: what we add is answers it does not read."""
        return self.transport.queued > MAX_UNREAD

    def has(self, piece: int) -> bool:
        """Whether it has a piece, as far as it said."""
        return self.bits is not None and self.bits[piece]

    def send(self, message: Message) -> None:
        """Queue one message."""
        self.transport.write(encode(message))

    def drop(self, reason: str) -> None:
        """Close the connection at once."""
        self.connection.drop(reason)
