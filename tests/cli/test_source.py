"""Where a .torrent comes from: files and URLs, both bounded."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from irontide.cli.source import FETCH_DEADLINE, load
from irontide.errors import FetchError, MetainfoError
from tests.session.fakes import torrent_file
from tests.temporary import FolderTestCase

DATA, INFOHASH = torrent_file(b"name")


class FakeFetcher:
    """A fetcher with one answer."""

    def __init__(self, answer: Deferred[bytes]) -> None:
        self._answer = answer
        self.asked: list[tuple[str, float, int]] = []

    def fetch(self, url: str, *, deadline: float, limit: int) -> Deferred[bytes]:
        """See Fetcher."""
        self.asked.append((url, deadline, limit))
        return self._answer


class FileTests(FolderTestCase):
    """Files."""

    def load(self, source: str, limit: int = 10_000) -> Deferred[Any]:
        return Deferred.fromCoroutine(load(FakeFetcher(Deferred()), source, limit))

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

    url = "https://t.example/x.torrent?k=SECRET"

    def load(self, answer: Deferred[bytes]) -> Deferred[Any]:
        self.fetcher = FakeFetcher(answer)
        return Deferred.fromCoroutine(load(self.fetcher, self.url, 10_000))

    def test_good_answer(self) -> None:
        self.assertEqual(self.successResultOf(self.load(succeed(DATA))).info.infohash, INFOHASH)
        self.assertEqual(self.fetcher.asked, [(self.url, FETCH_DEADLINE, 10_000)])

    def test_refused(self) -> None:
        self.failureResultOf(self.load(fail(FetchError("HTTP status 404", 404))), FetchError)

    def test_html_instead_of_a_torrent(self) -> None:
        """Said without the URL, which may hold a secret."""
        for answer in (b"<html>please log in</html>", b"x" * 10_001):
            error = self.failureResultOf(self.load(succeed(answer)), MetainfoError).value
            self.assertNotIn("SECRET", str(error))
