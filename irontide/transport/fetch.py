"""
Fetches small things from strangers' web servers: tracker replies, .torrent files.

Everything is bounded: time, size before and after unpacking, redirects and where they lead.  A redirect from
a server in the Internet to a private address is refused, or any tracker could have us knock at the doors of
the user's own network.  TLS is verified, always.  Texts of errors hold no part of a URL but its host.

treq is not used for this, though Twisted's Agent below it is: treq unpacks gzip before anybody can count,
keeps cookies, and follows redirects without asking.  Each fetch has its own connection, which is closed with
it: a kept one would escape the screening of addresses, and most trackers close theirs anyway.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    BrowserLikePolicyForHTTPS,
    HostnameCachingHTTPSPolicy,
    ResponseDone,
    ResponseFailed,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from irontide import __version__
from irontide.errors import FetchError, TrackerError
from irontide.interfaces import IFetcher
from irontide.tracker.urls import http_url, is_public, redirected
from irontide.transport.bounded_body import BoundedBody
from irontide.transport.watched import ScreenedReactor, Watched, WatchedEndpoint

REPLY_LIMIT = 1 << 20
MAX_REDIRECTS = 5
CONNECT_TIMEOUT = 5.0
"""Seconds until the connection stands, from the name on."""
OVERHEAD = 128 * 1024
"""Bytes that may come beside the body: headers, and the framing of chunks."""
CACHED_HOSTS = 200
"""Hosts whose TLS settings are kept: making them loads all certificates of the system."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
HEADERS = {"User-Agent": [f"irontide/{__version__}"], "Accept-Encoding": ["gzip"], "Accept": ["*/*"]}


@implementer(IFetcher)
class Fetcher:
    """
    Gets bodies over HTTP and HTTPS; keeps nothing open between two fetches.

    :param policy: which certificates are trusted; by default those that the system trusts.
    """

    def __init__(self, reactor: Any, policy: IPolicyForHTTPS | None = None) -> None:
        self._reactor = reactor
        self._policy = policy or HostnameCachingHTTPSPolicy(BrowserLikePolicyForHTTPS(), CACHED_HOSTS)

    def fetch(self, url: str, *, deadline: float, limit: int = REPLY_LIMIT) -> Deferred[bytes]:
        """
        Return the body at ``url``, of at most ``limit`` bytes; cancelling closes the connection.

        Fails with FetchError: in at most ``deadline`` seconds, whoever answers.
        """
        fetching = _Fetch(self._reactor, self._policy, limit)
        running = Deferred.fromCoroutine(fetching.run(url))
        late: list[bool] = []

        def give_up() -> None:
            late.append(True)
            running.cancel()

        timer = self._reactor.callLater(deadline, give_up)

        def done(result: bytes | Failure) -> bytes | Failure:
            if timer.active():
                timer.cancel()
            if not isinstance(result, Failure) or result.check(FetchError):
                return result
            reason = f"no answer within {deadline:g} s" if late else explanation(result, fetching)
            return result if reason is None else Failure(FetchError(reason))

        return running.addBoth(done)


@implementer(IAgentEndpointFactory)
class _Fetch:
    """
    One fetch, through all its redirects.

    :ivar was_public: some server on the way stood in the Internet.
    :ivar refused: an address was left out because of that.
    """

    def __init__(self, reactor: Any, policy: IPolicyForHTTPS, limit: int) -> None:
        self._reactor = reactor
        self._policy = policy
        self._limit = limit
        self._agent = Agent.usingEndpointFactory(reactor, self)
        self._screened = ScreenedReactor(reactor, self._allows)
        self._connection: Watched | None = None
        self.was_public = False
        self.refused = False

    async def run(self, url: str) -> bytes:
        try:
            response = await self._follow(_checked(url))
            if response.code != 200:
                raise FetchError(f"HTTP status {response.code}", response.code)
            return await self._body(response)
        finally:
            self._hang_up()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        host = uri.host.decode("ascii")
        endpoint: Any = HostnameEndpoint(self._screened, host, uri.port, timeout=CONNECT_TIMEOUT)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), endpoint)
        return WatchedEndpoint(
            self._reactor,
            endpoint,
            timeout=CONNECT_TIMEOUT,
            most=2 * self._limit + OVERHEAD,
            connected=self._connected,
        )

    async def _follow(self, url: str) -> IResponse:
        for _ in range(MAX_REDIRECTS + 1):
            response: IResponse = await self._agent.request(b"GET", url.encode("ascii"), Headers(HEADERS))
            if response.code not in REDIRECTS:
                return response
            locations = response.headers.getRawHeaders("location") or [""]
            self._hang_up()
            if not locations[0]:
                raise FetchError("redirected to nowhere", response.code)
            try:
                url = redirected(url, locations[0])
            except TrackerError as error:
                raise FetchError(str(error)) from None
        raise FetchError(f"redirected more than {MAX_REDIRECTS} times")

    async def _body(self, response: IResponse) -> bytes:
        if isinstance(response.length, int) and response.length > self._limit:
            raise FetchError(f"the answer is larger than {self._limit} bytes")
        encodings = response.headers.getRawHeaders("content-encoding") or [""]
        body: Deferred[bytes] = Deferred()
        response.deliverBody(_Body(BoundedBody(self._limit, ",".join(encodings)), body))
        return await body

    def _connected(self, connection: Watched) -> None:
        self._connection = connection
        host = getattr(connection.transport.getPeer(), "host", "")  # type: ignore[union-attr]
        self.was_public = self.was_public or is_public(host)

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def _allows(self, host: str) -> bool:
        if self.was_public and not is_public(host):
            self.refused = True
            return False
        return True


class _Body(Protocol):
    """Takes the body in as it comes."""

    def __init__(self, body: BoundedBody, done: Deferred[bytes]) -> None:
        self._body = body
        self._done = done

    def dataReceived(self, data: bytes) -> None:
        if not self._done.called:
            try:
                self._body.feed(data)
            except FetchError:
                self._done.errback()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._done.called:
            return
        if not reason.check(ResponseDone, PotentialDataLoss):  # the latter: closing marks the end
            self._done.errback(reason)
            return
        try:
            self._done.callback(self._body.finish())
        except FetchError:
            self._done.errback()


def _checked(url: str) -> str:
    try:
        return http_url(url)
    except TrackerError as error:
        raise FetchError(str(error)) from None


def explanation(failure: Failure, fetching: _Fetch) -> str | None:
    """Say in our own words why a fetch failed, for theirs may hold secrets; None for what is our bug."""
    if isinstance(failure.value, ResponseFailed):
        causes = failure.value.reasons
        if any(cause.check(CancelledError) for cause in causes):
            return "cancelled"
        if any(cause.check(SSL.Error, VerificationError) for cause in causes):
            return "TLS failed: the certificate is not trusted, or no TLS is spoken"
        return "the connection ended before the answer did, or the answer is no HTTP"
    if failure.check(DNSLookupError):
        if fetching.refused:
            return "redirected from the Internet to a private address"
        return "the name of the host is not known"
    if failure.check(ConnectionRefusedError):
        return "connection refused"
    if failure.check(TimeoutError):
        return f"no connection within {CONNECT_TIMEOUT:g} s"
    if failure.check(ConnectError, ConnectionClosed):
        return "no connection"
    if failure.check(ValueError):
        return "the name of the host is not valid"
    return "cancelled" if failure.check(CancelledError, ConnectingCancelledError) else None
