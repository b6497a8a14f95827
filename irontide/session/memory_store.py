"""A store that forgets everything when the process ends: for embedding, and for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeVar

import attrs
from twisted.internet.defer import Deferred, execute, fail, succeed
from zope.interface import implementer

from irontide.errors import StoreError
from irontide.interfaces import IStore
from irontide.values import Progress, StoredTorrent

T = TypeVar("T")


@implementer(IStore)
class MemoryStore:
    """An IStore whose Deferreds have fired already."""

    def __init__(self) -> None:
        self.clean = True
        self.repairs: Sequence[str] = ()
        self._torrents: dict[bytes, StoredTorrent] = {}
        self._progress: dict[bytes, Progress] = {}
        self._closed = False

    def torrents(self) -> Deferred[Sequence[StoredTorrent]]:
        """See IStore."""
        return self._answer(list(self._torrents.values()))

    def add(self, torrent: StoredTorrent) -> Deferred[None]:
        """See IStore."""

        def keep() -> None:
            self._refuse_if_closed()
            options = json.loads(json.dumps(dict(torrent.options), allow_nan=False))
            self._torrents[torrent.infohash] = attrs.evolve(torrent, options=options, rebuilt="")

        return execute(keep)

    def remove(self, infohash: bytes) -> Deferred[None]:
        """See IStore."""

        def forget() -> None:
            self._refuse_if_closed()
            self._torrents.pop(infohash, None)
            self._progress.pop(infohash, None)

        return execute(forget)

    def progress(self, infohash: bytes) -> Deferred[Progress | None]:
        """See IStore."""
        return self._answer(self._progress.get(infohash))

    def commit(self, progress: Sequence[Progress]) -> Deferred[None]:
        """See IStore."""

        def keep() -> None:
            self._refuse_if_closed()
            for each in progress:
                if each.infohash in self._torrents:
                    self._progress[each.infohash] = self._merged(each)

        return execute(keep)

    def close(self, *, clean: bool) -> Deferred[None]:
        """See IStore."""
        self._closed = True
        return succeed(None)

    def _merged(self, new: Progress) -> Progress:
        old = self._progress.get(new.infohash)
        stats = {**(old.stats if old else {}), **new.stats}
        at_rest = new.stats.keys() - new.dirty
        dirty = ((old.dirty if old else frozenset()) - at_rest) | new.dirty
        return attrs.evolve(
            new,
            masks=dict(new.masks),
            stats={file: stat for file, stat in stats.items() if file not in dirty},
            dirty=dirty,
        )

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")

    def _answer(self, value: T) -> Deferred[T]:
        return fail(StoreError("the store is closed")) if self._closed else succeed(value)
