"""Where a command gets its .torrent from: a file or an http(s) URL, both bounded in size and time."""

from __future__ import annotations

from typing import Any

import treq
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse

from irontide import __version__
from irontide.errors import FetchError, MetainfoError
from irontide.metainfo.torrent_file import TorrentFile

FETCH_DEADLINE = 60.0
"""Seconds for all of a download of a .torrent file."""


async def load(reactor: IReactorTime, source: str, max_size: int, http: Any = treq) -> TorrentFile:
    """
    Return the .torrent that ``source`` names.

    :param http: what has treq's ``get``.
    :raises OSError: the file cannot be read.
    :raises FetchError: the server did not give it.
    :raises MetainfoError: it is no .torrent that can be used.
    """
    scheme = source.partition(":")[0].lower()
    if scheme == "magnet":
        raise MetainfoError("magnet links are not supported yet; give a .torrent file or its URL")
    if scheme in ("http", "https"):
        fetching = Deferred.fromCoroutine(_fetch(http, reactor, source, max_size))
        fetching.addTimeout(FETCH_DEADLINE, reactor, onTimeoutCancel=_too_slow)
        data = await fetching
    else:
        with open(source, "rb") as file:
            data = file.read(max_size + 1)
    if len(data) > max_size:
        raise MetainfoError(f"{source}: larger than {max_size} bytes")
    try:
        return TorrentFile.from_bytes(data)
    except MetainfoError as error:
        raise MetainfoError(f"{source}: not a usable .torrent file: {error}") from error


def _too_slow(result: object, seconds: float) -> object:
    raise FetchError(f"the server did not answer in full within {seconds:.0f} s")


async def _fetch(http: Any, reactor: IReactorTime, url: str, max_size: int) -> bytes:
    try:
        response: IResponse = await http.get(
            url,
            headers={"User-Agent": [f"irontide/{__version__}"]},
            reactor=reactor,
            persistent=False,
            unbuffered=True,
        )
        if response.code != 200:
            raise FetchError(f"the server answered {response.code}", response.code)
        body = Body(max_size)
        response.deliverBody(body)
        return await body.whole
    except DNSLookupError as error:
        raise FetchError("there is no such host") from error
    except ConnectError as error:
        raise FetchError(f"the server cannot be reached: {error}") from error
    except FetchError:
        raise
    except Exception as error:  # TLS, HTTP and URL errors have no root of their own
        raise FetchError(f"the server's answer cannot be used: {error}") from error


class Body(Protocol):
    """
    Collects the body of a response, as long as it is not too large.

    :ivar whole: fires with it, or fails with FetchError.
    """

    def __init__(self, max_size: int) -> None:
        self.whole: Deferred[bytes] = Deferred(self._cancel)
        self._max_size = max_size
        self._parts: list[bytes] = []
        self._size = 0
        self._over = False

    def dataReceived(self, data: bytes) -> None:
        """See Protocol."""
        if self._over:
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size > self._max_size:
            self._end(FetchError(f"the file is larger than {self._max_size} bytes"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See Protocol."""
        if self._over:
            return
        self._over = True
        if reason.check(ResponseDone, PotentialDataLoss):
            self.whole.callback(b"".join(self._parts))
        else:
            self.whole.errback(FetchError("the connection was lost in the middle"))

    def _cancel(self, whole: Deferred[bytes]) -> None:
        self._end(FetchError("given up"))

    def _end(self, error: FetchError) -> None:
        self._over = True
        if self.transport is not None:
            self.transport.loseConnection()
        self.whole.errback(error)
