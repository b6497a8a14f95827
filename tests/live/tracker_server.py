"""
A real HTTP tracker for tests, which misbehaves on demand.

``Tracker`` keeps swarms as trackers do, so clients find each other through it; ``misbehave`` names how the
next requests are answered instead (see MISCHIEF).
"""

from __future__ import annotations

import gzip
import ipaddress
import zlib
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IListeningPort
from twisted.internet.ssl import PrivateCertificate
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from irontide.metainfo.bencode import encode

Answer = bytes | int
INTERVAL = 1800


@define
class Announce:
    """One announce as it came in."""

    infohash: bytes
    event: bytes
    arguments: dict[bytes, bytes]


@define
class Swarm:
    """Peers by (host, port), with what is left to them."""

    peers: dict[tuple[str, int], int] = field(factory=dict)
    downloaded: int = 0

    def counts(self) -> dict[bytes, int]:
        seeds = sum(left == 0 for left in self.peers.values())
        return {
            b"complete": seeds,
            b"incomplete": len(self.peers) - seeds,
            b"downloaded": self.downloaded,
        }


class Quiet(Site):
    """Writes no access log, so that tests can look for secrets in the log."""

    noisy = False

    def log(self, request: Request) -> None:
        pass


class Tracker(Resource):
    """
    A tracker on loopback.

    :ivar announces: every announce that was understood, in order.
    :ivar requests: how many requests came, whatever became of them.
    """

    isLeaf = True

    def __init__(self, reactor: Any, certificate: PrivateCertificate | None = None) -> None:
        super().__init__()
        self._reactor = reactor
        self._certificate = certificate
        self._port: IListeningPort | None = None
        self._site = Quiet(self)
        self._hanging: list[Request] = []
        self.swarms: dict[bytes, Swarm] = {}
        self.announces: list[Announce] = []
        self.requests = 0
        self.mischief: Callable[[Tracker, Request], Answer] | None = None
        self.interval = INTERVAL
        self.extra: dict[bytes, object] = {}

    def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen."""
        if self._certificate is None:
            self._port = self._reactor.listenTCP(port, self._site, interface=host)
        else:
            options = self._certificate.options()
            self._port = self._reactor.listenSSL(port, self._site, options, interface=host)

    @property
    def url(self) -> str:
        """The announce URL."""
        assert self._port is not None
        address = self._port.getHost()
        host = f"[{address.host}]" if ":" in address.host else address.host
        return f"{'https' if self._certificate else 'http'}://{host}:{address.port}/announce"

    def misbehave(self, how: str | None) -> None:
        """Answer from now on as MISCHIEF says; None for a good tracker."""
        self.mischief = None if how is None else MISCHIEF[how]

    async def stop(self) -> None:
        """Stop listening, and cut every connection."""
        for request in self._hanging:
            if request.channel is not None:
                request.transport.abortConnection()
        self._hanging.clear()
        if self._port is not None:
            port, self._port = self._port, None
            await port.stopListening()

    def render_GET(self, request: Request) -> Answer:
        self.requests += 1
        request.setHeader(b"content-type", b"text/plain")
        if self.mischief is not None:
            return self.mischief(self, request)
        if request.path.endswith(b"/scrape"):
            return self.scraped(request)
        return self.announced(request)

    def announced(self, request: Request) -> bytes:
        """Take an announce and answer it."""
        arguments = {name: values[0] for name, values in request.args.items()}
        infohash, event = arguments[b"info_hash"], arguments.get(b"event", b"")
        self.announces.append(Announce(infohash, event, arguments))
        swarm = self.swarms.setdefault(infohash, Swarm())
        me = (request.getClientAddress().host, int(arguments[b"port"]))
        others = [peer for peer in swarm.peers if peer != me]
        if event == b"stopped":
            swarm.peers.pop(me, None)
        else:
            swarm.peers[me] = int(arguments[b"left"])
            swarm.downloaded += event == b"completed"
        reply: dict[bytes, Any] = {b"interval": self.interval, **swarm.counts(), **self.extra}
        return encode({**reply, **packed(others[: int(arguments.get(b"numwant", b"50"))])})

    def scraped(self, request: Request) -> bytes:
        """Answer a scrape."""
        infohash = request.args[b"info_hash"][0]
        swarm = self.swarms.get(infohash)
        return encode({b"files": {} if swarm is None else {infohash: swarm.counts()}})

    def hang(self, request: Request) -> int:
        """Leave a request unanswered until ``stop``."""
        self._hanging.append(request)
        return NOT_DONE_YET

    def events(self) -> list[bytes]:
        """Return the events of all announces, in order."""
        return [announce.event for announce in self.announces]


def packed(peers: list[tuple[str, int]]) -> dict[bytes, bytes]:
    """Return the compact keys of a reply."""
    keys = {b"peers": b"", b"peers6": b""}
    for host, port in peers:
        address = ipaddress.ip_address(host)
        keys[b"peers" if address.version == 4 else b"peers6"] += address.packed + port.to_bytes(2, "big")
    return keys


def _gzipped(tracker: Tracker, request: Request) -> Answer:
    request.setHeader(b"content-encoding", b"gzip")
    return gzip.compress(tracker.announced(request))


def _bomb(tracker: Tracker, request: Request) -> Answer:
    """64 MiB of zeros in 64 KiB of gzip."""
    request.setHeader(b"content-encoding", b"gzip")
    return gzip.compress(bytes(64 << 20))


def _small_bomb(tracker: Tracker, request: Request) -> Answer:
    """Within the size, but above the ratio."""
    request.setHeader(b"content-encoding", b"gzip")
    return gzip.compress(bytes(512 << 10))


def _slow_bomb(tracker: Tracker, request: Request) -> Answer:
    """Just within the ratio, but above the size."""
    request.setHeader(b"content-encoding", b"gzip")
    deflate = zlib.compressobj(0, wbits=16 + zlib.MAX_WBITS)
    return deflate.compress(bytes(2 << 20)) + deflate.flush()


def _large(tracker: Tracker, request: Request) -> Answer:
    """2 MiB, and no Content-Length."""
    for _ in range(32):
        request.write(bytes(64 << 10))
    return tracker.hang(request)


def _drip(tracker: Tracker, request: Request) -> Answer:
    """A head and some bytes, and then no more."""
    request.write(b"d8:interval")
    return tracker.hang(request)


def _endless_headers(tracker: Tracker, request: Request) -> Answer:
    """Headers that never end."""
    line = b"X-Header: " + b"x" * 1000 + b"\r\n"
    request.transport.write(b"HTTP/1.1 200 OK\r\n" + line * 8192)
    return tracker.hang(request)


def _garbage(tracker: Tracker, request: Request) -> Answer:
    return b"<html>buy now</html>"


def _no_http(tracker: Tracker, request: Request) -> Answer:
    request.transport.write(b"\x00\x01\x02 nonsense\r\n\r\n")
    request.transport.loseConnection()
    return tracker.hang(request)


def _cut(tracker: Tracker, request: Request) -> Answer:
    """Less than was promised."""
    request.setHeader(b"content-length", b"1000")
    request.write(b"d8:interval")
    request.transport.loseConnection()
    return tracker.hang(request)


def _lie(tracker: Tracker, request: Request) -> Answer:
    """Addresses that cannot be peers, an interval that cannot be meant."""
    nowhere = [("0.0.0.0", 1), ("224.0.0.1", 1), ("255.255.255.255", 6881), ("1.2.3.4", 0), ("::", 6881)]
    return encode({b"interval": 10**18, b"complete": -5, **packed([*nowhere, ("1.2.3.4", 6881)])})


def _redirect(location: bytes) -> Callable[[Tracker, Request], Answer]:
    def answer(tracker: Tracker, request: Request) -> Answer:
        request.setResponseCode(302)
        request.setHeader(b"location", location)
        return b""

    return answer


def _redirect_once(tracker: Tracker, request: Request) -> Answer:
    """To another path of ourselves, which is good."""
    if request.path != b"/other/announce":
        request.setResponseCode(301)
        request.setHeader(b"location", request.uri.replace(b"/announce", b"/other/announce", 1))
        return b""
    return tracker.announced(request)


def _refuse(tracker: Tracker, request: Request) -> Answer:
    """Repeats the passkey, as trackers do."""
    return encode({b"failure reason": b"no such passkey: " + request.uri, b"retry in": 5})


def _status(code: int) -> Callable[[Tracker, Request], Answer]:
    def answer(tracker: Tracker, request: Request) -> Answer:
        request.setResponseCode(code)
        return b"no"

    return answer


def _http_1_0(tracker: Tracker, request: Request) -> Answer:
    """A server that marks the end of its answer by closing, as old trackers do."""
    request.transport.write(
        b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + tracker.announced(request)
    )
    request.transport.loseConnection()
    return tracker.hang(request)


MISCHIEF: dict[str, Callable[[Tracker, Request], Answer]] = {
    "gzip": _gzipped,
    "bomb": _bomb,
    "small bomb": _small_bomb,
    "slow bomb": _slow_bomb,
    "large": _large,
    "silent": Tracker.hang,
    "drip": _drip,
    "endless headers": _endless_headers,
    "garbage": _garbage,
    "no http": _no_http,
    "cut": _cut,
    "lie": _lie,
    "loop": _redirect(b"/announce"),
    "redirect to file": _redirect(b"file:///etc/passwd"),
    "redirect to nowhere": _redirect(b""),
    "redirect once": _redirect_once,
    "refuse": _refuse,
    "404": _status(404),
    "503": _status(503),
    "http/1.0": _http_1_0,
}
"""How a tracker can answer, beside plainly; not all of it is wrong."""
