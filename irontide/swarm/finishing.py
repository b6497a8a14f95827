"""
Sees to the disk jobs of open pieces: full segments, spilled pieces, and the last step of hash and write.

The jobs of one piece run one after another; those of different pieces side by side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from irontide.interfaces import IPieceStorage
from irontide.swarm.open_pieces import OpenPiece
from irontide.swarm.smart_ban import SmartBan
from irontide.values import Verdict


class Outcome(Protocol):
    """Who is told how it ended."""

    def passed(self, piece: OpenPiece, liars: Iterable[str]) -> None:
        """Verified and written."""

    def failed(self, piece: OpenPiece, liars: Iterable[str]) -> None:
        """Not what the hash says."""

    def blocks_written(self, length: int) -> None:
        """So many bytes of an unfinished piece are written: its mask is worth a commit."""

    def storage_failed(self, failure: Failure) -> None:
        """The disk refused."""


class Finishing:
    """The disk jobs of one torrent's open pieces; once one has failed, there are no more."""

    def __init__(self, storage: IPieceStorage, smart_ban: SmartBan, outcome: Outcome) -> None:
        self._storage = storage
        self._smart_ban = smart_ban
        self._outcome = outcome
        self._running = 0
        self._idle: list[Deferred[None]] = []
        self._stopping = self._failed = False

    def stop(self, pieces: Iterable[OpenPiece]) -> Deferred[None]:
        """Write whatever is in memory; fires when no job runs."""
        self._stopping = True
        for piece in pieces:
            if piece.missing:
                self._next(piece)
        if not self._running:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._idle.append(waiting)
        return waiting

    def segment(self, piece: OpenPiece, segment: int) -> None:
        """All blocks of a segment of a large piece have come: write it and give its memory back."""
        piece.pending.append(segment)
        self._next(piece)

    def spill(self, piece: OpenPiece) -> None:
        """Write whatever blocks of a piece are in memory."""
        if not piece.writing:
            self._write(piece, None)

    def piece(self, piece: OpenPiece) -> None:
        """All blocks have come: hash and write, once what is being written is."""
        piece.pending.clear()
        self._next(piece)

    def _next(self, piece: OpenPiece) -> None:
        """Start the next job of a piece, unless one runs."""
        if not piece.missing:
            if not piece.writing:
                self._verify(piece)
            return
        while piece.pending and not piece.writing:
            self._write(piece, [piece.pending.pop(0)])
        if self._stopping:
            self.spill(piece)

    def _write(self, piece: OpenPiece, segments: list[int] | None) -> None:
        chunks, blocks = piece.begin_write(segments)
        if not blocks or self._failed:
            piece.writing -= 1
            return
        hasher = None
        if segments is not None and piece.hashable(segments[0], blocks):
            hasher = piece.hasher = piece.hasher or hashlib.sha1(usedforsecurity=False)
            piece.hashed += sum(len(chunk.data) for chunk in chunks)
        self._running += 1
        written = self._storage.write(piece.index, chunks, hasher)
        written.addCallbacks(self._written, self._refused, callbackArgs=(piece, blocks), errbackArgs=(piece,))
        written.addBoth(self._ended)

    def _written(self, _: None, piece: OpenPiece, blocks: list[int]) -> None:
        piece.written(blocks)
        self._outcome.blocks_written(sum(map(piece.block_length, blocks)))
        self._next(piece)

    def _verify(self, piece: OpenPiece) -> None:
        if self._failed:
            return
        chunks, _ = piece.begin_write()
        self._running += 1
        verdict = self._storage.verify_and_write(
            piece.index,
            chunks,
            hasher=piece.hasher,
            hashed=piece.hashed,
            digests=self._smart_ban.wants_digests(piece.index),
        )
        verdict.addCallbacks(self._judged, self._refused, callbackArgs=(piece,), errbackArgs=(piece,))
        verdict.addBoth(self._ended)

    def _judged(self, verdict: Verdict, piece: OpenPiece) -> None:
        if verdict.passed:
            self._outcome.passed(piece, self._smart_ban.passed(piece.index, verdict.digests))
        else:
            liars = self._smart_ban.failed(piece.index, verdict.digests, piece.contributors)
            self._outcome.failed(piece, liars)

    def _refused(self, failure: Failure, piece: OpenPiece) -> None:
        piece.writing -= 1
        if not self._failed:
            self._failed = True
            self._outcome.storage_failed(failure)

    def _ended(self, result: object) -> object:
        """A job has run, with all that followed from it."""
        self._running -= 1
        if not self._running:
            waiting, self._idle = self._idle, []
            for deferred in waiting:
                deferred.callback(None)
        return result
