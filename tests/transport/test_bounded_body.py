"""Unpacking within bounds."""

from __future__ import annotations

import contextlib
import gzip
import os
import tracemalloc
import zlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import FetchError
from irontide.transport.bounded_body import BoundedBody

LIMIT = 1 << 20


def read(data: bytes, encoding: str = "", limit: int = LIMIT, step: int = 65536) -> bytes:
    body = BoundedBody(limit, encoding)
    for at in range(0, len(data), step):
        body.feed(data[at : at + step])
    return body.finish()


class BoundedBodyTests(SynchronousTestCase):
    def refused(self, *args: object, **options: object) -> str:
        with self.assertRaises(FetchError) as caught:
            read(*args, **options)
        return str(caught.exception)

    def test_plain(self) -> None:
        for encoding in ("", "identity", " Identity "):
            self.assertEqual(read(b"spam", encoding), b"spam")

    def test_gzip_however_it_is_cut(self) -> None:
        for encoding in ("gzip", "x-gzip", "GZIP"):
            for step in (1, 7, 10**6):
                self.assertEqual(read(gzip.compress(b"spam" * 20), encoding, step=step), b"spam" * 20)

    def test_at_the_limit_and_above(self) -> None:
        for encoding, pack in [("", bytes), ("gzip", gzip.compress)]:
            exact = os.urandom(100)
            self.assertEqual(read(pack(exact), encoding, 200)[:100], exact)
            self.assertIn("larger than 200", self.refused(pack(os.urandom(201)), encoding, 200))
        self.assertEqual(len(read(bytes(200), "", 200)), 200)

    def test_bomb(self) -> None:
        """64 MiB in 64 KiB, in one read: it costs little memory."""
        bomb = gzip.compress(bytes(64 << 20))
        tracemalloc.start()
        try:
            self.assertIn("larger than", self.refused(bomb, "gzip"))
            self.assertLess(tracemalloc.get_traced_memory()[1], 8 << 20)
        finally:
            tracemalloc.stop()

    def test_ratio(self) -> None:
        self.assertIn("100 times", self.refused(gzip.compress(bytes(LIMIT // 2)), "gzip"))

    def test_packed_bytes_count_too(self) -> None:
        """Nothing but empty blocks: unpacks to nothing, for ever."""
        deflate = zlib.compressobj(wbits=31)
        head = deflate.compress(b"x") + deflate.flush(zlib.Z_FULL_FLUSH)
        self.assertIn("larger than", self.refused(head + b"\0\0\0\xff\xff" * 100_000, "gzip", 10_000))

    def test_not_whole(self) -> None:
        packed = gzip.compress(b"spam" * 100)
        for end in (0, 5, len(packed) - 1):
            self.assertIn("no whole gzip", self.refused(packed[:end], "gzip"))

    def test_no_gzip(self) -> None:
        self.assertIn("no valid gzip", self.refused(b"spam, spam, spam", "gzip"))

    def test_what_follows_is_ignored(self) -> None:
        self.assertEqual(read(gzip.compress(b"spam") + b"\r\n", "gzip"), b"spam")
        self.assertEqual(read(gzip.compress(b"spam") + b"\r\n", "gzip", step=1), b"spam")

    def test_other_encodings(self) -> None:
        for encoding in ("deflate", "br", "gzip, gzip", "zstd"):
            self.assertIn("not asked for", self.refused(b"", encoding))

    @given(st.binary(max_size=200), st.sampled_from(["", "gzip"]), st.integers(1, 50))
    def test_anything(self, data: bytes, encoding: str, step: int) -> None:
        with contextlib.suppress(FetchError):
            self.assertLessEqual(len(read(data, encoding, 100, step)), 100)
