"""Where a .torrent comes from: files and URLs, both bounded."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost, ConnectionRefusedError, DNSLookupError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

from irontide.cli.source import FETCH_DEADLINE, load
from irontide.errors import FetchError, MetainfoError
from tests.session.fakes import torrent_file
from tests.temporary import FolderTestCase

DATA, INFOHASH = torrent_file(b"name")


class FakeResponse:
    """A response whose body comes when the test says so."""

    def __init__(self, code: int = 200) -> None:
        self.code = code
        self.transport = StringTransport()
        self.body: Any = None

    def deliverBody(self, body: Any) -> None:
        """See IResponse."""
        self.body = body
        body.makeConnection(self.transport)


class FakeHttp:
    """treq's get, with one answer."""

    def __init__(self, answer: Deferred[Any]) -> None:
        self.answer = answer

    def get(self, url: str, **_: Any) -> Deferred[Any]:
        """See treq."""
        return self.answer


class FileTests(FolderTestCase):
    """Files."""

    def load(self, source: str, limit: int = 10_000) -> Deferred[Any]:
        return Deferred.fromCoroutine(load(Clock(), source, limit))

    def put(self, data: bytes) -> str:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(data)
        return path

    def test_good_file(self) -> None:
        self.assertEqual(self.successResultOf(self.load(self.put(DATA))).info.infohash, INFOHASH)

    def test_missing_file(self) -> None:
        self.failureResultOf(self.load(self.mktemp()), OSError)
        self.failureResultOf(self.load(os.path.dirname(self.mktemp())), OSError)

    def test_bad_files_are_told_by_name(self) -> None:
        for data in (b"", b"junk", DATA[:-1], b"d" * 100):
            path = self.put(data)
            self.assertIn(path, str(self.failureResultOf(self.load(path), MetainfoError).value))

    def test_limit(self) -> None:
        path = self.put(DATA)
        self.successResultOf(self.load(path, len(DATA)))
        self.assertIn(
            "larger", str(self.failureResultOf(self.load(path, len(DATA) - 1), MetainfoError).value)
        )

    def test_magnet_is_refused_by_name(self) -> None:
        error = self.failureResultOf(self.load("magnet:?xt=urn:btih:00"), MetainfoError).value
        self.assertIn("magnet links are not supported yet", str(error))


class UrlTests(FolderTestCase):
    """URLs."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.response = FakeResponse()

    def load(self, answer: Any = None, limit: int = 10_000) -> Deferred[Any]:
        http = FakeHttp(succeed(self.response) if answer is None else answer)
        return Deferred.fromCoroutine(load(self.clock, "https://t.example/x.torrent?k=SECRET", limit, http))

    def assertRefused(self, loading: Deferred[Any], text: str) -> None:
        error = self.failureResultOf(loading, FetchError).value
        self.assertIn(text, str(error))
        self.assertNotIn("SECRET", str(error))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_good_answer(self) -> None:
        loading = self.load()
        for part in (DATA[:10], DATA[10:]):
            self.response.body.dataReceived(part)
        self.response.body.connectionLost(Failure(ResponseDone()))
        self.assertEqual(self.successResultOf(loading).info.infohash, INFOHASH)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_endless_answer_is_cut_at_the_limit(self) -> None:
        loading = self.load(limit=100)
        for _ in range(11):
            self.response.body.dataReceived(b"x" * 10)
        self.assertRefused(loading, "larger than 100 bytes")
        self.assertTrue(self.response.transport.disconnecting)
        self.response.body.dataReceived(b"more")
        self.response.body.connectionLost(Failure(ConnectionLost()))

    def test_cut_off_answer(self) -> None:
        loading = self.load()
        self.response.body.dataReceived(DATA[:10])
        self.response.body.connectionLost(Failure(ConnectionLost()))
        self.assertRefused(loading, "lost in the middle")

    def test_status(self) -> None:
        self.response.code = 404
        self.assertRefused(self.load(), "404")

    def test_unreachable(self) -> None:
        self.assertRefused(self.load(fail(DNSLookupError())), "no such host")
        self.assertRefused(self.load(fail(ConnectionRefusedError())), "cannot be reached")

    def test_silent_server(self) -> None:
        loading = self.load(Deferred())
        self.clock.advance(FETCH_DEADLINE)
        self.assertRefused(loading, "60 s")

    def test_dripping_server(self) -> None:
        loading = self.load()
        self.response.body.dataReceived(b"d")
        self.clock.advance(FETCH_DEADLINE)
        self.assertRefused(loading, "60 s")
        self.assertTrue(self.response.transport.disconnecting)

    def test_html_instead_of_a_torrent(self) -> None:
        loading = self.load()
        self.response.body.dataReceived(b"<html>please log in</html>")
        self.response.body.connectionLost(Failure(ResponseDone()))
        self.failureResultOf(loading, MetainfoError)
