"""
The store of a session on disk, as the reactor thread sees it.

Everything that waits for the disk happens in one writer thread; see ``state_directory`` for what is kept,
and ``memory_store`` for the other implementation of IStore.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.errors import StoreError
from irontide.interfaces import IStore
from irontide.session.database import dump_options
from irontide.session.memory_store import MemoryStore
from irontide.session.state_directory import StateDirectory
from irontide.session.writer_thread import Writer, WriterThread
from irontide.values import Progress, StoredTorrent

__all__ = ["MemoryStore", "SQLiteStore"]

T = TypeVar("T")


@implementer(IStore)
class SQLiteStore:
    """An IStore in a directory of its own; made by ``open``."""

    def __init__(self, state: StateDirectory, writer: Writer) -> None:
        self.clean = state.clean
        self.repairs: Sequence[str] = state.repairs
        self._state = state
        self._writer = writer
        self._closed = False

    @classmethod
    def open(
        cls, reactor: IReactorFromThreads, directory: str, writer: Writer | None = None
    ) -> Deferred[SQLiteStore]:
        """
        Open the store in ``directory``, which is made if need be.

        :param writer: what runs the store's work; by default a thread of its own.
        :raises StateInUse: another process has it.
        :raises NewerStore: a later version wrote it; nothing was touched.
        :raises StoreError: it cannot be read or written.
        """
        chosen = WriterThread(reactor) if writer is None else writer

        def opened(state: StateDirectory) -> SQLiteStore:
            return cls(state, chosen)

        def failed(failure: Failure) -> Failure:
            chosen.stop()
            return failure

        state = chosen.call(partial(_said_plainly, partial(StateDirectory, directory)))
        return state.addCallbacks(opened, failed)

    def torrents(self) -> Deferred[Sequence[StoredTorrent]]:
        """See IStore."""
        return self._call(self._state.torrents)

    def add(self, torrent: StoredTorrent) -> Deferred[None]:
        """See IStore."""
        try:
            dump_options(torrent.options)
        except (TypeError, ValueError):
            return fail(Failure())
        return self._call(partial(self._state.add, torrent))

    def remove(self, infohash: bytes) -> Deferred[None]:
        """See IStore."""
        return self._call(partial(self._state.remove, infohash))

    def progress(self, infohash: bytes) -> Deferred[Progress | None]:
        """See IStore."""
        return self._call(partial(self._state.progress, infohash))

    def commit(self, progress: Sequence[Progress]) -> Deferred[None]:
        """See IStore."""
        return self._call(partial(self._state.commit, tuple(progress)))

    def close(self, *, clean: bool) -> Deferred[None]:
        """See IStore."""
        if self._closed:
            return succeed(None)
        done = self._call(partial(self._state.close, clean=clean))
        self._closed = True
        self._writer.stop()
        return done

    def _call(self, work: Callable[[], T]) -> Deferred[T]:
        if self._closed:
            return fail(StoreError("the store is closed"))
        return self._writer.call(partial(_said_plainly, work))


def _said_plainly(work: Callable[[], T]) -> T:
    """Run ``work``; what the disk or the database refuses becomes a StoreError with that as its cause."""
    try:
        return work()
    except sqlite3.Error as error:
        raise StoreError(f"the store: {error}") from error
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise StoreError(f"the store: {error.strerror}{where}") from error
