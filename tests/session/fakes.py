"""Stand-ins for what a store needs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, execute

T = TypeVar("T")


def torrent_file(name: bytes) -> tuple[bytes, bytes]:
    """Return the smallest .torrent file of that name, and its infohash."""
    info = b"d6:lengthi1e4:name%d:%s12:piece lengthi16384e6:pieces20:%se" % (len(name), name, b"h" * 20)
    return b"d8:announce14:http://t/a?k=14:info%se" % info, hashlib.sha1(info).digest()


class ImmediateWriter:
    """A Writer without a thread: work is done when it is asked for."""

    def __init__(self) -> None:
        self.stopped = False

    def call(self, work: Callable[[], T]) -> Deferred[T]:
        """See Writer."""
        assert not self.stopped
        return execute(work)

    def stop(self) -> None:
        """See Writer."""
        self.stopped = True
