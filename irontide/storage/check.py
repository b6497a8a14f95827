"""
Checking what is on disk: reads in large strides, hashes in several workers, skips what is not there.

A job takes a few MiB of pieces, asks the kernel to read them all ahead, and hashes them through a buffer that
fits a core's cache and is used again and again.  Holes and missing files cost a question each: a piece
that is one hole is right only if it is meant to be zeros.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import sha1

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from irontide.errors import StorageError
from irontide.storage.places import PAD, PART, Extent, Places, is_missing
from irontide.storage.verify import READ_LENGTH, hash_piece

IN_FLIGHT = 4
"""Jobs that one check has queued or running: the workers are kept busy, others get their turn."""
JOB_LENGTH = 4 << 20
"""Bytes of pieces in one job, or one piece if that is longer."""

Found = Callable[[int, bool], None]
Verdicts = list[tuple[int, bool]]


class Check:
    """
    A check under way.

    :ivar done: fires when the last job is done: True, or False if it was cancelled.  Fails with
        StorageError if the disk cannot be read.
    """

    def __init__(
        self,
        places: Places,
        run: Callable[[Callable[[], Verdicts]], Deferred[Verdicts]],
        pieces: Iterable[int],
        found: Found,
    ) -> None:
        """
        :param run: puts a job to a worker.
        :param found: is told of every piece, in the order in which they are done.
        """
        self.done: Deferred[bool] = Deferred()
        self._places = places
        self._run = run
        self._pieces = iter(pieces)
        self._found = found
        self._running = 0
        self._cancelled = False
        self._failure: Failure | None = None
        self._scratches: list[memoryview] = []
        self._absent: set[int] = set()
        self._zeros: dict[int, bytes] = {}

    def start(self) -> None:
        """Begin; called once, by whoever made it."""
        self._running += 1  # so that jobs that are done at once do not end it
        for _ in range(IN_FLIGHT):
            self._next_job()
        self._running -= 1
        self._end_if_over()

    def cancel(self) -> None:
        """Stop soon; ``done`` fires when the jobs that run have ended."""
        self._cancelled = True

    def _next_job(self) -> None:
        pieces = [] if self._cancelled or self._failure else self._next_pieces()
        if pieces:
            self._running += 1
            self._run(partial(self._judge, pieces)).addCallback(self._judged).addErrback(self._failed)

    def _next_pieces(self) -> list[int]:
        pieces, length = [], 0
        for piece in self._pieces:
            pieces.append(piece)
            length += self._places.layout.piece_size(piece)
            if length >= JOB_LENGTH:
                break
        return pieces

    def _judged(self, verdicts: Verdicts) -> None:
        self._running -= 1
        for piece, passed in verdicts:
            if self._cancelled:
                break
            self._found(piece, passed)
        self._next_job()
        self._end_if_over()

    def _failed(self, failure: Failure) -> None:
        self._running -= 1
        self._failure = self._failure or failure
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self._running or self.done.called:
            return
        if self._failure is not None:
            self.done.errback(self._failure)
        else:
            self.done.callback(not self._cancelled)

    # --- in a worker ---

    def _judge(self, pieces: list[int]) -> Verdicts:
        """Judge ``pieces``, or as many as there is time for before the check is cancelled."""
        known = {piece: verdict for piece in pieces if (verdict := self._glance(piece)) is not None}
        try:
            scratch = self._scratches.pop()
        except IndexError:
            scratch = memoryview(bytearray(READ_LENGTH))
        verdicts = []
        for piece in pieces:
            if self._cancelled:
                break
            verdict = known.get(piece)
            passed = hash_piece(self._places, piece, scratch) if verdict is None else verdict
            if passed:
                self._note_unsynced(piece)
            verdicts.append((piece, passed))
        self._scratches.append(scratch)
        return verdicts

    def _note_unsynced(self, piece: int) -> None:
        """What was read may be in the cache only, of a process that was killed: the next sync is for it."""
        for extent in self._places.extents(piece, 0, self._places.layout.piece_size(piece)):
            if extent.file != PAD:
                self._places.note_unsynced(PART if extent.parted else extent.file)

    def _glance(self, piece: int) -> bool | None:
        """Say what can be said of a piece without reading it; else have it read ahead."""
        size = self._places.layout.piece_size(piece)
        has_data = False
        for extent in self._places.extents(piece, 0, size):
            if extent.file == PAD:
                continue
            if extent.parted:
                has_data = True
            elif extent.file in self._absent:
                return False
            else:
                try:
                    has_data |= self._has_data(extent)
                except StorageError as error:
                    if not is_missing(error):
                        raise
                    self._absent.add(extent.file)
                    return False
        return None if has_data else self._zero_digest(size) == self._places.info.piece_hash(piece)

    def _has_data(self, extent: Extent) -> bool:
        """Tell whether any of ``extent`` is more than a hole, and if so have it read ahead."""
        with self._places.reading(extent.file) as fd:
            try:
                data = os.lseek(fd, extent.offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole to the end of the file, or behind it
                    return os.fstat(fd).st_size < extent.offset + extent.length
                if error.errno != errno.EINVAL:
                    raise
                data = extent.offset  # a file system that does not know about holes
            if data >= extent.offset + extent.length:
                return False
            os.posix_fadvise(fd, extent.offset, extent.length, os.POSIX_FADV_WILLNEED)
            return True

    def _zero_digest(self, size: int) -> bytes:
        """What a piece of zeros hashes to."""
        digest = self._zeros.get(size)
        if digest is None:
            digest = self._zeros[size] = sha1(bytes(size), usedforsecurity=False).digest()
        return digest
