"""Fetching from strangers, on a reactor of memory; real sockets are in tests/live/test_tracker.py."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from irontide import __version__
from irontide.errors import FetchError
from irontide.interfaces import IFetcher
from irontide.transport.fetch import CONNECT_TIMEOUT, OVERHEAD, REPLY_LIMIT, Fetcher
from irontide.transport.watched import ScreenedReactor

PUBLIC = "93.184.216.34"
SECRET = "0123456789abcdef"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n"
URL = f"http://t.example/{SECRET}/announce?info_hash=%20%2B"


@implementer(IHostResolution)
class Resolution:
    """A lookup that cannot be cancelled."""

    name = ""

    def cancel(self) -> None:
        pass


@implementer(IHostnameResolver)
class Names:
    """Knows some names, at once; an unknown one is never answered."""

    def __init__(self, **names: Sequence[str]) -> None:
        self.names = {f"{name}.example": hosts for name, hosts in names.items()}

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        resolutionReceiver.resolutionBegan(Resolution())
        numeric = hostName.replace(".", "").isdigit() or ":" in hostName
        hosts = [hostName] if numeric else self.names.get(hostName)
        for host in hosts or ():
            kind = IPv6Address if ":" in host else IPv4Address
            resolutionReceiver.addressResolved(kind("TCP", host, portNumber))
        if hosts is not None:
            resolutionReceiver.resolutionComplete()
        return Resolution()


class Wire(StringTransport):
    """A transport that tells where it leads."""

    def __init__(self, host: str) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", host, 80))
        self.aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class FetchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.reactor.installNameResolver(
            Names(
                t=[PUBLIC],
                inner=["192.168.1.1"],
                both=["192.168.1.1", "8.8.8.8"],
                nothing=[],
            )
        )
        self.fetcher = Fetcher(self.reactor)

    def fetch(self, url: str = URL, deadline: float = 20.0) -> Deferred[bytes]:
        return self.fetcher.fetch(url, deadline=deadline)

    def connect(self) -> tuple[str, Wire, object]:
        """Let the latest connection stand; return where it leads."""
        host, port, factory, _, _ = self.reactor.tcpClients[-1]
        protocol = factory.buildProtocol(IPv4Address("TCP", host, port))
        wire = Wire(host)
        protocol.makeConnection(wire)
        return f"{host}:{port}", wire, protocol

    def answer(self, reply: bytes, *, end: bool = False) -> tuple[str, Wire]:
        """Answer the latest request."""
        where, wire, protocol = self.connect()
        protocol.dataReceived(reply)
        if end:
            protocol.connectionLost(Failure(ConnectionDone()))
        return where, wire

    def redirect(self, location: str) -> None:
        self.answer(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())

    def refusal(self, fetching: Deferred[bytes]) -> str:
        text = self.failureResultOf(fetching, FetchError).getErrorMessage()
        self.assertNotIn(SECRET, text)
        self.assertEqual([call for call in self.reactor.getDelayedCalls() if call.active()], [])
        return text

    def test_faithful(self) -> None:
        self.assertTrue(verifyObject(IFetcher, self.fetcher))

    def test_request_and_reply(self) -> None:
        fetching = self.fetch()
        where, wire = self.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nspam")
        self.assertEqual(where, f"{PUBLIC}:80")
        self.assertEqual(self.successResultOf(fetching), b"spam")
        head = wire.value()
        self.assertTrue(head.startswith(f"GET /{SECRET}/announce?info_hash=%20%2B HTTP/1.1\r\n".encode()))
        self.assertIn(b"\r\nHost: t.example\r\n", head)
        self.assertIn(f"\r\nUser-Agent: irontide/{__version__}\r\n".encode(), head)
        self.assertIn(b"\r\nConnection: close\r\n", head)
        self.assertTrue(wire.aborted)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_closing_may_end_the_reply(self) -> None:
        fetching = self.fetch()
        self.answer(b"HTTP/1.0 200 OK\r\n\r\nspam", end=True)
        self.assertEqual(self.successResultOf(fetching), b"spam")

    def test_only_the_web(self) -> None:
        for url in ("file:///etc/passwd", "ftp://t.example/", "http://t.example/a b", "http://[x", ""):
            self.refusal(self.fetch(url))
        self.assertEqual(self.reactor.tcpClients, [])

    def test_redirect_is_followed(self) -> None:
        fetching = self.fetch()
        self.redirect("http://both.example:8080/x")
        where, wire = self.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        self.assertEqual(self.successResultOf(fetching), b"ok")
        self.assertEqual(where, "8.8.8.8:8080")
        self.assertIn(b"\r\nHost: both.example:8080\r\n", wire.value())

    def test_redirect_from_public_to_private_is_refused(self) -> None:
        """By number and by name, in every spelling, and nobody knocks there."""
        for location in [
            "http://127.0.0.1/",
            "http://192.168.1.1:8080/admin",
            "http://169.254.169.254/latest/meta-data",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://inner.example/",
        ]:
            fetching = self.fetch()
            before = len(self.reactor.tcpClients)
            self.redirect(location)
            self.assertEqual(
                self.refusal(fetching), "redirected from the Internet to a private address", location
            )
            self.assertEqual(len(self.reactor.tcpClients), before)

    def test_a_second_redirect_is_judged_like_the_first(self) -> None:
        fetching = self.fetch()
        self.redirect("/again")
        self.redirect("http://inner.example/")
        self.assertIn("private", self.refusal(fetching))

    def test_private_servers_may_redirect_among_themselves(self) -> None:
        fetching = self.fetch("http://inner.example/announce")
        self.redirect("http://127.0.0.1/announce")
        self.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        self.assertEqual(self.successResultOf(fetching), b"ok")

    def test_redirect_to_a_file_is_refused(self) -> None:
        fetching = self.fetch()
        self.redirect("file:///etc/passwd")
        self.assertIn("file: URLs are not supported", self.refusal(fetching))

    def test_redirects_are_counted(self) -> None:
        fetching = self.fetch()
        for _ in range(6):
            self.assertNoResult(fetching)
            self.redirect("/again")
        self.assertIn("more than 5 times", self.refusal(fetching))
        self.assertEqual(len(self.reactor.tcpClients), 6)

    def test_silent_name_server(self) -> None:
        fetching = self.fetch("http://unheard.example/")
        self.reactor.advance(CONNECT_TIMEOUT)
        self.assertEqual(self.refusal(fetching), "no connection within 5 s")

    def test_unknown_name(self) -> None:
        fetching = self.fetch("http://nothing.example/")
        self.assertEqual(self.refusal(fetching), "the name of the host is not known")

    @given(st.text(), st.sampled_from(["http", "https"]))
    def test_any_host(self, host: str, scheme: str) -> None:
        self.setUp()
        fetching = self.fetch(f"{scheme}://{host}/")
        self.reactor.advance(20)
        self.failureResultOf(fetching, FetchError)

    @given(st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", CHUNKED]), st.binary())
    def test_any_answer(self, start: bytes, rest: bytes) -> None:
        """Whatever comes, there is an end: with a body where the answer happened to have one."""
        self.setUp()
        ends: list[object] = []
        self.fetch().addBoth(ends.append)
        self.answer(start + rest, end=True)
        (end,) = ends
        self.assertTrue(isinstance(end, bytes) or end.check(FetchError), end)

    @given(st.text())
    def test_any_redirect(self, location: str) -> None:
        self.setUp()
        fetching = self.fetch()
        head = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: "
        self.answer(head + location.encode("utf-8", "replace") + b"\r\n\r\n")
        self.reactor.advance(20)
        self.failureResultOf(fetching, FetchError)

    def test_silent_host(self) -> None:
        fetching = self.fetch()
        self.reactor.advance(CONNECT_TIMEOUT)
        self.assertEqual(self.refusal(fetching), "no connection within 5 s")

    def test_refused_connection(self) -> None:
        fetching = self.fetch()
        factory = self.reactor.tcpClients[-1][2]
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.reactor.advance(1)
        self.assertEqual(self.refusal(fetching), "connection refused")

    def test_deadline_is_for_all_of_it(self) -> None:
        """A server that drips is cut off, however often it says something."""
        fetching = self.fetch(deadline=10.0)
        _, wire, protocol = self.connect()
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(9):
            self.reactor.advance(1)
            protocol.dataReceived(b"x")
        self.assertNoResult(fetching)
        self.reactor.advance(1)
        self.assertEqual(self.refusal(fetching), "no answer within 10 s")
        self.assertTrue(wire.aborted)

    def test_too_large(self) -> None:
        for head in (b"Content-Length: %d\r\n" % (REPLY_LIMIT + 1), b"", b"Transfer-Encoding: chunked\r\n"):
            fetching = self.fetch()
            _, wire, protocol = self.connect()
            protocol.dataReceived(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
            if not head.startswith(b"Content"):
                block = bytes(65536) if not head else b"10000\r\n" + bytes(65536) + b"\r\n"
                for _ in range(17):
                    protocol.dataReceived(block)
            self.assertIn("larger than", self.refusal(fetching))
            self.assertTrue(wire.aborted)

    def test_endless_headers(self) -> None:
        """What is no body counts as well: the connection is cut, whatever the parser makes of it."""
        fetching = self.fetch()
        _, wire, protocol = self.connect()
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\n")
        sent, line = 0, b"X-A: " + b"x" * 1000 + b"\r\n"
        while not wire.aborted:
            protocol.dataReceived(line)
            sent += len(line)
            self.assertLess(sent, 2 * REPLY_LIMIT + OVERHEAD + 2000)
        protocol.connectionLost(Failure(ConnectionDone()))
        self.refusal(fetching)

    def test_status(self) -> None:
        for status in (204, 304, 404, 500):
            fetching = self.fetch()
            self.answer(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
            error = self.failureResultOf(fetching, FetchError).value
            self.assertEqual((str(error), error.status), (f"HTTP status {status}", status))

    def test_cancelled(self) -> None:
        for connected in (False, True):
            fetching = self.fetch()
            wire = self.connect()[1] if connected else None
            fetching.cancel()
            self.assertEqual(self.refusal(fetching), "cancelled")
            self.assertTrue(wire is None or wire.aborted)


class ScreenedReactorTests(SynchronousTestCase):
    def test_is_the_reactor_otherwise(self) -> None:
        reactor = MemoryReactorClock()
        reactor.advance(5)
        screened = ScreenedReactor(reactor, lambda host: True)
        self.assertEqual(screened.seconds(), 5)
        names = Names()
        screened.installNameResolver(names)
        self.assertIs(screened.nameResolver, names)
        self.assertIsNot(reactor.nameResolver, names)
