"""
Which peers are known to exist, and which of them to dial next.

Addresses are gossip.  Anybody can announce anything to a tracker or say it in PEX, so what strangers say is
bounded, checked and dialled at most once a minute; and since a stranger could have us knock on the doors of
our own network, private addresses are believed only if whoever told them is there as well.

An address is *dialled* from ``next`` on until ``failed`` or ``connected`` says how it went, and *connected*
until as many ``disconnected`` came as ``connected``.  In between it is never proposed.  Otherwise it waits
for its time: each failure doubles the wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from heapq import heapify, heappop, heappush, nsmallest

from attrs import define

from irontide.swarm.reach import Reach, parse, reach_of, trust_in
from irontide.values import PeerAddress

LIMIT = 2000
MAX_BANS = 4096
REDIAL = 60.0  # seconds between two dials of an address that a stranger told
TRUSTED_REDIAL = 5.0  # the same, told by the user or seen in the local network
MAX_BACKOFF = 3600.0
SHORT = 30.0  # seconds; a connection that ends sooner counts as a failed dial
TRUSTED = frozenset({"user", "lsd"})
NEAR = TRUSTED | {"incoming"}  # sources that know what is in our own network
# Why some connections ended that need not be tried again soon, and for how long not.
RESTS = {
    "both have everything": 3600.0,
    "connected twice": 3600.0,
    "that is ourselves": 3600.0,
}
# Sources in the order in which their addresses are tried; others come last.
RANKS = {"user": 0, "lsd": 1, "incoming": 2, "tracker": 2, "pex": 3, "dht": 4}


@define(eq=False)
class _Entry:
    """
    An address and what became of it.

    :ivar number: counts up; the smaller, the older.
    :ivar token: marks the one valid item of this entry in the queues; None while it must not be dialled.
    :ivar proven: whether anybody has ever answered there.
    """

    address: PeerAddress
    number: int
    rank: int
    trusted: bool
    token: int | None = None
    failures: int = 0
    proven: bool = False
    dialled_at: float | None = None

    def backoff(self) -> float:
        """How long to leave it alone after a failure, or after a connection."""
        first = TRUSTED_REDIAL if self.trusted else REDIAL
        return min(MAX_BACKOFF, first * 2.0 ** min(max(0, self.failures - 1), 30))

    def worth(self) -> tuple[int, bool, int, int]:
        """The least go first when the book is full: failed most, never answered, hearsay, oldest."""
        return (-self.failures, self.proven, -self.rank, self.number)


class PeerBook:
    """
    The addresses of one torrent.

    :ivar limit: how many are kept at most; those that the user gave, and those in use, never give way.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._entries: dict[PeerAddress, _Entry] = {}
        self._connected: Counter[PeerAddress] = Counter()
        self._banned: dict[str, None] = {}
        self._own: frozenset[PeerAddress] = frozenset()
        self._dialled: dict[PeerAddress, float] = {}  # lately, even if they have given way since
        self._count = 0  # numbers and tokens given out
        self._waiting: list[tuple[float, int, _Entry]] = []  # heap by due time
        self._ready: list[tuple[int, int, int, _Entry]] = []  # heap of those that are due, best first

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, address: PeerAddress) -> bool:
        return address in self._entries

    # --- hearsay

    def found(
        self, addresses: Iterable[PeerAddress], source: str, now: float, *, teller: str | None = None
    ) -> int:
        """
        Take in what ``source`` says (``tracker``, ``pex``, ``dht``, ``lsd``, ``user``, ``incoming``), and
        return how many addresses were news.

        What cannot be a peer of ours is ignored, and so are private addresses from afar.

        :param teller: the host of the tracker or peer who said it; None counts as far away.
        """
        trust = Reach.HOST if source in NEAR else trust_in(teller)
        rank = RANKS.get(source, len(RANKS))
        news: dict[PeerAddress, None] = {}
        for told in addresses:
            ip = parse(told.host)
            if ip is None or not 0 < told.port < 65536 or reach_of(ip) > trust:
                continue
            address = PeerAddress(str(ip), told.port)
            known = self._entries.get(address)
            if known is not None:
                self._told_again(known, source, rank, now)
            elif not self._is_own(address) and address.host not in self._banned:
                news[address] = None
        room = self._make_room(len(news), rank)
        for address in list(news)[:room]:
            self._add(address, rank, source in TRUSTED, now)
        return min(room, len(news))

    def listens_at(self, host: str, port: int) -> None:
        """
        Note that a peer who connected to us listens at ``port`` itself, and that it is connected.

        When it goes, ``disconnected`` is to be called with the address it listens at.
        """
        address = PeerAddress(host, port)
        self.found([address], "incoming", 0.0)
        self.connected(address)

    def set_own(self, addresses: Iterable[PeerAddress]) -> None:
        """
        Say where we listen ourselves: such addresses are not peers.

        An unspecified host (``0.0.0.0``, ``::``) stands for every loopback address.
        """
        self._own = frozenset(addresses)
        for address in [address for address in self._entries if self._is_own(address)]:
            del self._entries[address]

    def _is_own(self, address: PeerAddress) -> bool:
        if not self._own:
            return False
        ip = parse(address.host)
        anywhere = (PeerAddress("0.0.0.0", address.port), PeerAddress("::", address.port))
        loopback = ip is not None and ip.is_loopback
        return address in self._own or (loopback and not self._own.isdisjoint(anywhere))

    def _told_again(self, entry: _Entry, source: str, rank: int, now: float) -> None:
        entry.rank = min(entry.rank, rank)
        entry.trusted = entry.trusted or source in TRUSTED
        if source == "user":  # who asks for it expects it now, whatever failed before
            entry.failures = 0
            if entry.token is not None:
                self._wait_until(entry, now)

    # --- how it went

    def connected(self, address: PeerAddress) -> None:
        """Note that there is a connection: one that was dialled, or one from a peer that listens there."""
        self._connected[address] += 1
        entry = self._entries.get(address)
        if entry is not None:
            entry.token = None
            entry.proven = entry.proven or entry.dialled_at is not None

    def failed(self, address: PeerAddress, now: float) -> None:
        """Note that nobody could be reached there."""
        entry = self._entries.get(address)
        if entry is not None:
            entry.failures += 1
            self._rest(entry, entry.backoff(), now)

    def untried(self, address: PeerAddress, now: float) -> None:
        """Note that it could not even be dialled, which says nothing about it: it is due at once."""
        entry = self._entries.get(address)
        if entry is not None:
            entry.dialled_at = None
            self._dialled.pop(address, None)
            self._wait_until(entry, now)

    def disconnected(self, address: PeerAddress, reason: str, now: float) -> None:
        """
        Note that a connection has ended.

        One that did not last long after it was dialled is a failure, so that a peer who throws us out at once
        is not asked each minute; any other forgives the failures before.
        """
        self._connected[address] -= 1
        if self._connected[address] <= 0:
            del self._connected[address]
        entry = self._entries.get(address)
        if entry is None:
            return
        short = entry.dialled_at is not None and now - entry.dialled_at < SHORT
        entry.failures = entry.failures + 1 if short else 0
        self._rest(entry, RESTS.get(reason, entry.backoff()), now)

    def _rest(self, entry: _Entry, seconds: float, now: float) -> None:
        if not self._connected[entry.address]:
            self._wait_until(entry, now + seconds)

    # --- bans

    def ban(self, host: str) -> None:
        """Have nothing to do with ``host`` any more; after MAX_BANS bans the oldest is lifted."""
        ip = parse(host)
        host = str(ip) if ip is not None else host
        self._banned[host] = None
        if len(self._banned) > MAX_BANS:
            del self._banned[next(iter(self._banned))]
        for address in [address for address in self._entries if address.host == host]:
            del self._entries[address]

    def banned(self, host: str) -> bool:
        """Tell whether ``host`` is banned."""
        return host in self._banned or (host.startswith("::") and str(parse(host)) in self._banned)

    # --- whom to dial

    def next(self, now: float) -> PeerAddress | None:
        """
        Return the address to dial next, or None if none is due.

        Whoever asks dials it, and tells by ``failed`` or ``connected`` how it went.
        """
        self._advance(now)
        if not self._ready:
            return None
        entry = heappop(self._ready)[-1]
        entry.token = None
        entry.dialled_at = self._dialled[entry.address] = now
        return entry.address

    def next_time(self, now: float) -> float | None:
        """Return when ``next`` will have an answer: ``now`` if it has one, None if it waits for nothing."""
        self._advance(now)
        if self._ready:
            return now
        return self._waiting[0][0] if self._waiting else None

    def _advance(self, now: float) -> None:
        """Move what is due from the waiting to the ready, and clear both heads of what is no longer valid."""
        for address in [address for address, when in self._dialled.items() if when <= now - REDIAL]:
            del self._dialled[address]
        waiting, ready = self._waiting, self._ready
        while waiting and (waiting[0][0] <= now or not self._valid(*waiting[0][-2:])):
            _, token, entry = heappop(waiting)
            if self._valid(token, entry):
                heappush(ready, (entry.failures - entry.proven, entry.rank, token, entry))
        while ready and not self._valid(*ready[0][-2:]):
            heappop(ready)

    def _valid(self, token: int, entry: _Entry) -> bool:
        return entry.token == token and self._entries.get(entry.address) is entry

    def _wait_until(self, entry: _Entry, due: float) -> None:
        """Queue ``entry``; where it stands in a queue already is no longer valid."""
        self._count += 1
        entry.token = self._count
        heappush(self._waiting, (due, entry.token, entry))
        if len(self._waiting) + len(self._ready) > 2 * self.limit + 64:
            self._waiting = [item for item in self._waiting if self._valid(*item[-2:])]
            self._ready = [item for item in self._ready if self._valid(*item[-2:])]
            heapify(self._waiting)
            heapify(self._ready)

    # --- room

    def _add(self, address: PeerAddress, rank: int, trusted: bool, now: float) -> None:
        self._count += 1
        entry = self._entries[address] = _Entry(address, self._count, rank, trusted)
        if not self._connected[address]:
            again = self._dialled.get(address, now - REDIAL) + REDIAL
            self._wait_until(entry, now if trusted else max(now, again))

    def _make_room(self, count: int, rank: int) -> int:
        """
        Return how many of ``count`` new addresses there is room for.

        The worst of the old ones go, as far as they are worth no more than hearsay of ``rank``.
        """
        room = self.limit - len(self._entries)
        if room < count:
            going = [
                entry
                for entry in self._entries.values()
                # Neither what the user gave, nor what is dialled or connected.
                if entry.rank > 0 and entry.token is not None and entry.worth()[:3] <= (0, False, -rank)
            ]
            for entry in nsmallest(count - room, going, key=_Entry.worth):
                del self._entries[entry.address]
            room = self.limit - len(self._entries)
        return min(room, count)
