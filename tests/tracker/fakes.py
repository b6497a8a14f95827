"""Stand-ins for a torrent and for the way to trackers, for the tests of this package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import parse_qs, urlsplit

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from irontide.errors import FetchError
from irontide.interfaces import IAnnouncement, IFetcher
from irontide.metainfo.bencode import encode
from irontide.values import PeerAddress, Transferred

GOOD = encode({b"interval": 1800, b"peers": b"\x01\x02\x03\x04\x1a\xe1"})


@implementer(IAnnouncement)
class Announced:
    """A torrent to announce."""

    private = False

    def __init__(self, infohash: bytes, *tiers: Sequence[str], left: int = 10) -> None:
        self.infohash = infohash
        self.tiers: Sequence[Sequence[str]] = tiers
        self.left = left
        self.wanted = 50
        self.found: list[tuple[list[PeerAddress], str]] = []

    def transferred(self) -> Transferred:
        return Transferred(1, 2, self.left)

    def wanted_peers(self) -> int:
        return self.wanted

    def peers_found(self, addresses: Sequence[PeerAddress], source: str, near: bool) -> None:
        self.found.append((list(addresses), source))


@define(eq=False)
class Fetch:
    """One request on its way."""

    url: str
    deadline: float
    time: float
    done: Deferred[bytes]
    cancelled: bool = False

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    def argument(self, name: str) -> str | None:
        values = parse_qs(urlsplit(self.url).query, encoding="latin-1", keep_blank_values=True)
        return values.get(name, [None])[0]

    @property
    def event(self) -> str | None:
        return self.argument("event")

    @property
    def infohash(self) -> bytes:
        return (self.argument("info_hash") or "").encode("latin-1")


@implementer(IFetcher)
@define
class Fetches:
    """
    Keeps every request until the test answers it, or has ``answer`` do so after ``delay`` seconds.

    :ivar most: the largest number that was under way at one host.
    """

    clock: Clock
    answer: Callable[[Fetch], bytes | FetchError] | None = None
    delay: float = 0.0
    all: list[Fetch] = field(factory=list)
    open: list[Fetch] = field(factory=list)
    most: int = 0

    def fetch(self, url: str, *, deadline: float) -> Deferred[bytes]:
        def cancel(done: Deferred[bytes]) -> None:
            fetch.cancelled = True
            self.open.remove(fetch)
            done.errback(FetchError("cancelled"))

        fetch = Fetch(url, deadline, self.clock.seconds(), Deferred(cancel))
        self.all.append(fetch)
        self.open.append(fetch)
        self.most = max(self.most, sum(each.host == fetch.host for each in self.open))
        if self.answer is not None:
            self.clock.callLater(self.delay, self._answer, fetch)
        return fetch.done

    def _answer(self, fetch: Fetch) -> None:
        if fetch in self.open:
            assert self.answer is not None
            result = self.answer(fetch)
            self.finish(fetch, result)

    def finish(self, fetch: Fetch, result: bytes | Exception) -> None:
        """Answer one request."""
        self.open.remove(fetch)
        if isinstance(result, bytes):
            fetch.done.callback(result)
        else:
            fetch.done.errback(result)

    def next(self) -> Fetch:
        """Return the only request that is on its way."""
        (fetch,) = self.open
        return fetch

    def events(self) -> list[str | None]:
        return [fetch.event for fetch in self.all]
