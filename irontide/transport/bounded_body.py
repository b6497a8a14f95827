"""
The body of a stranger's HTTP reply, unpacked within bounds.

A gzip of 1 MiB can hold 1 GiB.  So no more is ever unpacked than the limit allows, and what grows more than
MAX_RATIO times is refused before that.
"""

from __future__ import annotations

import zlib

from irontide.errors import FetchError

MAX_RATIO = 100
_GZIP = 16 + zlib.MAX_WBITS


class BoundedBody:
    """
    Collects a body of at most ``limit`` bytes.

    :param encoding: the value of the Content-Encoding header; only gzip and none are understood.
    :raises FetchError: from every method, when the body is not acceptable.
    """

    def __init__(self, limit: int, encoding: str = "") -> None:
        self._limit = limit
        self._received = 0
        self._body = bytearray()
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise FetchError("the answer is encoded in a way that was not asked for")
        self._inflater = zlib.decompressobj(_GZIP) if encoding.endswith("gzip") else None

    def feed(self, data: bytes) -> None:
        """Take bytes in as they came."""
        self._received += len(data)
        room = self._limit - len(self._body)
        if self._inflater is None:
            self._body += data[: room + 1]
        elif not self._inflater.eof:
            try:
                self._body += self._inflater.decompress(data, room + 1)
            except zlib.error:
                raise FetchError("the answer is no valid gzip") from None
            if len(self._body) > MAX_RATIO * self._received:
                raise FetchError(f"the answer unpacks to more than {MAX_RATIO} times its size")
        if len(self._body) > self._limit or self._received > self._limit:
            raise FetchError(f"the answer is larger than {self._limit} bytes")

    def finish(self) -> bytes:
        """Return the body, now that all of it has come."""
        if self._inflater is not None and not self._inflater.eof:
            raise FetchError("the answer is no whole gzip")
        return bytes(self._body)
