"""The phase in which a torrent's files are looked at: what may be believed, what has to be hashed again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from twisted.internet.defer import CancelledError

from irontide.metainfo.bitfield import Bitfield
from irontide.metainfo.info import Info
from irontide.storage.check import Check
from irontide.storage.file_storage import FileStorage
from irontide.torrent.resume import Plan


class Checking:
    """
    Hashes the pieces that a plan doubts.

    :ivar have: what is known to be there so far.
    :ivar masks: the blocks of unfinished pieces that are believed.
    """

    name = "checking"

    def __init__(self, info: Info, storage: FileStorage, plan: Plan) -> None:
        self.have = plan.have
        self.masks = dict(plan.masks)
        self._info = info
        self._storage = storage
        self._plan = plan
        self._total = len(plan.check) + sum(len(pieces) for pieces in plan.samples.values())
        self._done = 0
        self._check: Check | None = None
        self._cancelled = False

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        return self._done / self._total if self._total else 1.0

    async def run(self) -> Bitfield:
        """Return the pieces that are there; raises CancelledError after ``cancel``."""
        await self._hash(self._plan.check, self._judged)
        for file, pieces in self._plan.samples.items():
            failed: list[int] = []
            await self._hash(pieces, partial(self._sampled, failed))
            if failed:
                await self._doubt(file)
        return self.have

    async def _doubt(self, file: int) -> None:
        """A sample of a file is wrong: believe nothing of it."""
        pieces = list(self._info.layout.pieces_of(file))
        for piece in pieces:
            self.have.clear(piece)
            self.masks.pop(piece, None)
        self._total += len(pieces)
        await self._hash(pieces, self._judged)

    def _judged(self, piece: int, good: bool) -> None:
        if good:
            self.have.set(piece)

    @staticmethod
    def _sampled(failed: list[int], piece: int, good: bool) -> None:
        if not good:
            failed.append(piece)

    async def _hash(self, pieces: Iterable[int], judged: Callable[[int, bool], None]) -> None:
        if self._cancelled:
            raise CancelledError()

        def found(piece: int, good: bool) -> None:
            self._done += 1
            judged(piece, good)

        self._check = self._storage.check(pieces, found)
        if not await self._check.done:
            raise CancelledError()

    def cancel(self) -> None:
        """Stop hashing."""
        self._cancelled = True
        if self._check is not None:
            self._check.cancel()
