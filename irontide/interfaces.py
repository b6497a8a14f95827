"""
The seams: every interface of which two implementations exist, with its contract in prose.

snake_case names are ours; a camelCase name is one that Twisted calls.  Everything here is called in the
reactor thread unless its text says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IProtocol, IPushProducer, ITransport
from zope.interface import Attribute, Interface

from irontide.values import Chunk, PeerAddress, Progress, StoredTorrent, Transferred, Verdict

if TYPE_CHECKING:
    from irontide.wire.messages import Message
    from irontide.wire.preamble import Preamble

T = TypeVar("T")


# --- connections ---------------------------------------------------------------------------------------


class IPeerTransport(ITransport, IConsumer, IPushProducer):
    """
    A stream to a peer: a Twisted transport that can also send many buffers without joining them.

    As IPushProducer it produces received bytes: pauseProducing stops reading.  As IConsumer it calls a
    registered streaming producer: pauseProducing above its high-water mark, resumeProducing below its
    low one.
    """

    queued: int = Attribute("How many bytes are written and have not yet left for the kernel.")

    def writeVec(buffers: Sequence[bytes | memoryview], sent: Callable[[], None] | None = None) -> None:
        """
        Queue ``buffers`` to be sent in this order, without copying them.

        A memoryview must not change until ``sent`` is called: once, when the last byte of the call has
        left or the connection is lost, whichever is first.
        """

    def abortConnection() -> None:
        """Close at once; what is queued is dropped."""


class ISlot(Interface):
    """The right to one connection, held from accept or connect() to the close of the connection."""

    address: PeerAddress = Attribute("The remote address the slot was taken for.")

    def identified() -> None:
        """Note that the infohash is known: from now on no newcomer may take this slot away."""

    def release() -> None:
        """Give the slot back; calling it again does nothing."""


class IConnectionRouter(Interface):
    """Decides who serves an identified connection: this process, or (later) a worker."""

    def route(preamble: Preamble, address: PeerAddress, slot: ISlot) -> IProtocol | None:
        """
        Return the protocol that takes the connection over, or None to refuse it.

        The protocol is then connected to the transport and receives the *whole* stream, the 48 bytes of
        the preamble included.  The caller holds ``slot`` and releases it when the connection is closed.

        A connection that had to wait (IReadiness) is asked for twice, at identification and at
        hand-over, and gets the protocol of the second answer.  Raising Closed ends listening.
        """


class IReadiness(Interface):
    """Whether a router takes connections just now; a listener keeps them waiting, bounded, while not."""

    ready: bool = Attribute("True while connections may be routed.")

    def when_ready(wake: Callable[[], None]) -> None:
        """Call ``wake`` once, as soon as ``ready`` is True again."""


# --- the wire ------------------------------------------------------------------------------------------


class IMessageReceiver(Interface):
    """Gets the messages of one peer, in order; all but ``piece``, whose bytes go to an IBlockSink."""

    def message_received(message: Message) -> None:
        """Take one message; may raise ProtocolViolation, which ends the connection."""


class IBlockSink(Interface):
    """
    Where the blocks of one peer go, without a copy of their own.

    A claim ends by ``complete``, by ``release`` (the connection ended in the middle) or by revocation:
    the owner of the buffer no longer wants these bytes and says so by the view's replacement (see
    ``PeerConnection.discard_claim``).
    """

    def claim(piece: int, begin: int, length: int) -> memoryview | None:
        """
        Say where the block goes: a writable view of exactly ``length`` bytes, or None to discard it.

        :raises ProtocolViolation: the block does not exist or was never requested of this peer.
        """

    def complete(piece: int, begin: int, length: int) -> None:
        """All bytes of the claimed (or discarded) block have arrived."""

    def take(piece: int, begin: int, data: memoryview) -> None:
        """
        Copy a block that is here as a whole: in one call what ``claim`` and ``complete`` are for its parts.

        Nearly all blocks of a fast peer come so.  ``data`` is valid during the call only.

        :raises ProtocolViolation: as ``claim``.
        """

    def release(piece: int, begin: int, length: int) -> None:
        """The connection ended before the block was complete."""


class ISwarm(Interface):
    """What peers of a torrent talk to, whatever its phase."""

    infohash: bytes = Attribute("20 bytes.")
    pieces: int | None = Attribute("How many pieces there are; None while the Info is not known.")

    def blocks_of(peer: Any) -> IBlockSink:
        """Where the blocks that ``peer`` will send go; asked once, before ``peer_joined``."""

    def peer_joined(peer: Any) -> None:
        """The handshake with ``peer`` is done; may raise ProtocolViolation to refuse it."""

    def read_done(peer: Any, received: int) -> None:
        """One read of ``received`` bytes is parsed: the moment to ask for more blocks."""

    def message_received(peer: Any, message: Message) -> None:
        """``peer`` said something; may raise ProtocolViolation."""

    def peer_left(peer: Any, reason: str) -> None:
        """The connection is closed; called exactly once for each peer that joined."""

    def peers_found(addresses: Sequence[PeerAddress], source: str, *, near: bool = False) -> None:
        """
        ``source`` (``tracker``, ``pex``, ``dht``, ``lsd``, ``user``, ...) knows these addresses.

        :param near: who said so is on this machine or in this network, so its word for addresses that mean
            something only there counts.
        """


# --- bytes on disk -------------------------------------------------------------------------------------


class IDisk(Interface):
    """Runs blocking work in threads."""

    def call(device: int, work: Callable[[], T]) -> Deferred[T]:
        """
        Run ``work`` in a worker thread; fires in the reactor thread with what it returns or raises.

        :param device: ``st_dev`` of the file system concerned; no device occupies all workers.
        """

    def sync_call(device: int, work: Callable[[], T]) -> Deferred[T]:
        """Run ``work``, which waits for the medium, apart from the workers and one at a time per device."""


class IBuffer(Interface):
    """A piece of pooled memory with one owner."""

    view: memoryview = Attribute("The writable bytes, as long as was asked for.")

    def release() -> None:
        """Give the memory back to its pool.  Nobody may touch the view from now on."""


class IPieceStorage(Interface):
    """
    The bytes of one torrent.

    Asynchronous methods fail with StorageError only.  Calls for different pieces may run at the same
    time and complete in any order; calls for one piece are the caller's to keep in order.  Buffers handed
    in must not change before the Deferred fires.
    """

    def write(piece: int, chunks: Sequence[Chunk], hasher: Any = None) -> Deferred[None]:
        """Write parts of a piece that is not verified yet; ``hasher.update`` is given them in order."""

    def verify_and_write(
        piece: int, chunks: Sequence[Chunk], *, hasher: Any = None, hashed: int = 0, digests: bool = False
    ) -> Deferred[Verdict]:
        """
        Hash a complete piece, and if it passes have all of it written.

        What ``chunks`` does not cover is on disk already.  If they cover everything, nothing is written
        unless the hash is right.  ``hasher`` has taken the first ``hashed`` bytes already.
        """

    def hash(piece: int) -> Deferred[bool]:
        """Tell whether what is on disk is the right piece; a short or missing file is just False."""

    def read(piece: int, begin: int, length: int) -> IBuffer | Deferred[IBuffer] | None:
        """
        Read up to 1 MiB into a pooled buffer: at once if the page cache has it, else from a worker.

        None means that the pool for uploads has no room now: ask again when ``when_room`` says so.
        """

    def when_room(wake: Callable[[], None]) -> None:
        """Call ``wake`` once when the pool for uploads has room again."""

    def sync() -> Deferred[None]:
        """fdatasync every file written since the last call.  After a failure nothing may be assumed."""

    def close() -> Deferred[None]:
        """Wait for what runs, then close the files."""


# --- finding peers -------------------------------------------------------------------------------------


class IAnnouncement(Interface):
    """A torrent as its peer sources see it."""

    infohash: bytes = Attribute("20 bytes.")
    private: bool = Attribute("BEP 27: trackers of the torrent only.")
    tiers: Sequence[Sequence[str]] = Attribute("Announce URLs by tier, BEP 12.")

    def transferred() -> Transferred:
        """The figures of this session, now."""

    def wanted_peers() -> int:
        """How many addresses would be welcome; 0 while none are."""


class IFetcher(Interface):
    """Gets small things over HTTP and HTTPS."""

    def fetch(url: str, *, deadline: float) -> Deferred[bytes]:
        """
        Return the body at ``url``; cancelling closes the connection.

        Fails with FetchError, and with nothing else: in at most ``deadline`` seconds, whoever answers.
        """


class IPeerSource(Interface):
    """A way to find peers."""

    def start(announcement: IAnnouncement, found: Callable[[Sequence[PeerAddress], str, bool], None]) -> None:
        """
        Announce the torrent and tell ``found`` of peers, until stopped.

        :param found: takes the addresses, the name of the source, and ``near`` as in ISwarm.peers_found.
        """

    def completed(infohash: bytes) -> None:
        """The download is complete, just now."""

    def stop(infohash: bytes) -> Deferred[None]:
        """Say goodbye; fires when that is said or given up."""


# --- the session ---------------------------------------------------------------------------------------


class IStore(Interface):
    """
    What outlives the process.  Every Deferred fires after the commit, or fails with StoreError.
    """

    clean: bool = Attribute("True if the last owner of the store closed it in order.")
    repairs: Sequence[str] = Attribute("What was damaged when it was opened or read, a sentence each.")

    def torrents() -> Deferred[Sequence[StoredTorrent]]:
        """All torrents, in the order in which they were added."""

    def add(torrent: StoredTorrent) -> Deferred[None]:
        """Class A: keep a new torrent, or replace what is kept of it."""

    def remove(infohash: bytes) -> Deferred[None]:
        """Class A: forget the torrent and its progress."""

    def progress(infohash: bytes) -> Deferred[Progress | None]:
        """The last committed progress, with every stat and the whole dirty set."""

    def commit(progress: Sequence[Progress]) -> Deferred[None]:
        """
        Class B: one transaction for all.

        Bits, masks and totals replace what was kept; stats and dirty files are added to it, and a file
        is in one of the two only (dirty wins).  What belongs to no torrent of the store is left out.
        """

    def close(*, clean: bool) -> Deferred[None]:
        """Close; ``clean`` says that every Progress was committed after the last write and sync."""


class IService(Interface):
    """A long-lived part under supervision (contract S)."""

    name: str = Attribute("For events and the log.")

    def start() -> Deferred[None]:
        """Fires when the part is up; fails if it could not come up."""

    def stop() -> Deferred[None]:
        """Fires when nothing of it is left over."""
