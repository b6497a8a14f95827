"""
The cap on connections: one exact count over inbound and outbound, TCP and (later) uTP.

A slot is taken at accept or at connect() and given back when the connection is closed.  Strangers may
hold only a part of the slots: a connection that has not yet said which torrent it is about gives way to a
newcomer, oldest first.  So ten thousand silent sockets cost an honest peer nothing, because each of them
pushes out another silent one, while a peer that speaks at once is identified before its turn comes.
"""

from __future__ import annotations

import resource
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from enum import StrEnum
from socket import AF_INET6, inet_pton

from zope.interface import implementer

from irontide.interfaces import ISlot
from irontide.values import PeerAddress

UNLIMITED = -1
MAX_UNIDENTIFIED = 512
"""However high the cap: so many connections may be unidentified at a time."""

PER_ADDRESS = 8
PER_LOOPBACK = 64
DESCRIPTOR_SHARE = 0.8
"""The part of RLIMIT_NOFILE that peers may use; files, store and API keep the rest."""


class Refusal(StrEnum):
    """Why a connection was not served: the keys of ``Slots.refusals``."""

    BANNED = "banned"
    """The filter says no; nothing was read."""
    CAP = "cap"
    """All slots are held by identified peers."""
    CROWDED = "crowded"
    """Unidentified, it gave way to a newcomer."""
    ADDRESS = "address"
    """Unidentified, it gave way to a newcomer from its own address."""
    NOT_BITTORRENT = "not bittorrent"
    """The bytes are not those of a preamble."""
    TIMEOUT = "timeout"
    """No whole preamble in time."""
    UNKNOWN = "unknown infohash"
    """The router has no such torrent."""
    REMOVED = "removed"
    """The router had the torrent, but no longer when the connection's turn came."""
    CLOSING = "closing"
    """The session is going away."""
    ERROR = "error"
    """A bug of ours; the log has the traceback."""
    DIAL = "dial"
    """We wanted to connect, and all slots are held by identified peers."""


def within_descriptors(limit: int, descriptors: int | None = None) -> int:
    """
    Return ``limit``, or 80 % of the descriptors that this process may open if that is less.

    :param descriptors: the number of descriptors to share out; by default the soft RLIMIT_NOFILE.
    """
    if descriptors is None:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return limit
    most = max(1, int(descriptors * DESCRIPTOR_SHARE))
    return most if limit == UNLIMITED else min(limit, most)


def network_of(host: str) -> str | bytes:
    """Return what counts as one stranger: an IPv4 address, or the /64 of an IPv6 one."""
    if ":" not in host:
        return host
    return inet_pton(AF_INET6, host.partition("%")[0])[:8]


def is_loopback(host: str) -> bool:
    """Tell whether the numeric address is this machine's own."""
    return host.startswith("127.") or host == "::1"


@implementer(ISlot)
class Slot:
    """One connection's place under the cap."""

    __slots__ = ("_held", "_network", "_slots", "address", "evict")

    def __init__(
        self, slots: Slots, address: PeerAddress, network: str | bytes, evict: Callable[[], None] | None
    ) -> None:
        self.address = address
        self.evict = evict
        self._slots = slots
        self._network = network
        self._held = True

    def identified(self) -> None:
        """Note that the infohash is known: from now on no newcomer may take this slot away."""
        self._slots._identified(self, self._network)
        self.evict = None

    def release(self) -> None:
        """Give the slot back; calling it again does nothing."""
        if self._held:
            self._held = False
            self._slots._released(self, self._network)
            self.evict = None


class Slots:
    """
    Counts connections and says who may have one more.

    :ivar used: how many slots are held.
    :ivar refusals: how many connections were refused, by Refusal.
    """

    def __init__(
        self, limit: int, *, per_address: int = PER_ADDRESS, per_loopback: int = PER_LOOPBACK
    ) -> None:
        """
        :param limit: the most connections at a time; -1 is unlimited.
        :param per_address: how many connections of one address (IPv6: one /64) may be unidentified.
        :param per_loopback: the same for this machine's own addresses.
        """
        self.used = 0
        self.refusals: Counter[str] = Counter()
        self._unidentified: OrderedDict[Slot, None] = OrderedDict()
        self._by_network: dict[str | bytes, dict[Slot, None]] = {}
        self.set_limit(limit)
        self.set_per_address(per_address, per_loopback)

    # --- limits ----------------------------------------------------------------------------------------

    @property
    def limit(self) -> int:
        """The most connections at a time; -1 is unlimited."""
        return self._limit

    def set_limit(self, limit: int) -> None:
        """
        Put another cap in force for the next connection.  Nothing is closed: see ``shed``.

        :raises ValueError: 0, or less than -1.
        """
        if limit < UNLIMITED or limit == 0:
            raise ValueError(f"a cap of {limit} connections: -1 (unlimited) or at least 1 is possible")
        self._limit = limit

    def set_per_address(self, per_address: int, per_loopback: int = PER_LOOPBACK) -> None:
        """
        Put other bounds on the unidentified connections of one address in force.

        :raises ValueError: less than 1.
        """
        if per_address < 1 or per_loopback < 1:
            raise ValueError("each address must be allowed at least one unidentified connection")
        self._per_address = per_address
        self._per_loopback = per_loopback

    @property
    def unidentified(self) -> int:
        """How many of the used slots may still be taken away."""
        return len(self._unidentified)

    @property
    def max_unidentified(self) -> int:
        """A quarter of the cap, at least 1 and at most MAX_UNIDENTIFIED."""
        if self._limit == UNLIMITED:
            return MAX_UNIDENTIFIED
        return max(1, min(MAX_UNIDENTIFIED, self._limit // 4))

    @property
    def surplus(self) -> int:
        """How many connections there are above the cap, after it was lowered."""
        return 0 if self._limit == UNLIMITED else max(0, self.used - self._limit)

    def shed(self) -> int:
        """
        Close unidentified connections that a lowered cap has no room for, oldest first.

        Returns how many identified ones are still too many; which of them to close is the caller's choice.
        """
        while self._unidentified and (self.surplus or len(self._unidentified) > self.max_unidentified):
            self._evict(self._unidentified, Refusal.CROWDED)
        return self.surplus

    # --- taking a slot ---------------------------------------------------------------------------------

    def accept(self, address: PeerAddress, evict: Callable[[], None]) -> Slot | None:
        """
        Take a slot for an incoming connection, or return None if all are held by identified peers.

        :param evict: called when the connection has to give way to a newcomer.  It closes the connection
            at once, and its slot counts as released then; unless it finds that the connection is
            identified after all, and says so to the slot.
        """
        network = network_of(address.host)
        bound = self._per_loopback if is_loopback(address.host) else self._per_address
        while len(neighbours := self._by_network.get(network, {})) >= bound:
            self._evict(neighbours, Refusal.ADDRESS)
        while len(self._unidentified) >= self.max_unidentified:
            self._evict(self._unidentified, Refusal.CROWDED)
        if not self._room():
            self.refusals[Refusal.CAP] += 1
            return None
        slot = self._take(address, network, evict)
        self._unidentified[slot] = None
        self._by_network.setdefault(network, {})[slot] = None
        return slot

    def dial(self, address: PeerAddress) -> Slot | None:
        """
        Take a slot for an outgoing connection, which counts as identified from the start.

        Returns None if all slots are held by identified peers: like any newcomer, our own connection is
        worth more than a stranger's that says nothing.
        """
        if not self._room():
            self.refusals[Refusal.DIAL] += 1
            return None
        return self._take(address, network_of(address.host), None)

    def _take(self, address: PeerAddress, network: str | bytes, evict: Callable[[], None] | None) -> Slot:
        self.used += 1
        return Slot(self, address, network, evict)

    def _room(self) -> bool:
        """See that there is a free slot; False if only identified peers could give one up."""
        if self._limit == UNLIMITED:
            return True
        while self.used >= self._limit and self._unidentified:
            self._evict(self._unidentified, Refusal.CROWDED)
        return self.used < self._limit

    def _evict(self, among: Iterable[Slot], reason: Refusal) -> None:
        """Make the oldest of ``among`` give way; afterwards it is closed, or identified."""
        slot = next(iter(among))
        if slot.evict is not None:
            slot.evict()
        if slot in self._unidentified:
            self.refusals[reason] += 1
            slot.release()

    # --- called by Slot --------------------------------------------------------------------------------

    def _released(self, slot: Slot, network: str | bytes) -> None:
        self.used -= 1
        self._identified(slot, network)

    def _identified(self, slot: Slot, network: str | bytes) -> None:
        if slot not in self._unidentified:
            return
        del self._unidentified[slot]
        neighbours = self._by_network[network]
        del neighbours[slot]
        if not neighbours:
            del self._by_network[network]
