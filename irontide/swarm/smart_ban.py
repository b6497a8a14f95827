"""
Who sent the bad blocks of a piece that failed its hash.

A piece comes from many peers, and its v1 hash says only that one of them lied (or garbled).  So the digest
of each block is kept together with its sender; when the piece passes at last, every remembered block that
differs from the good one convicts its sender.  Only one case is clear at once: everything came from one
host.  Nobody is judged on suspicion: a host that sent nothing but good blocks can never be named.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence

from attrs import frozen

MAX_PIECES = 64
MAX_ATTEMPTS = 8
MAX_BLOCKS = 65_536


@frozen
class _Attempt:
    """One failed copy of a piece: for each block its digest, and the host it came from if that is known."""

    digests: tuple[bytes, ...]
    hosts: tuple[str | None, ...]


class SmartBan:
    """
    Remembers failed pieces until they pass.

    At most MAX_PIECES pieces, MAX_ATTEMPTS copies of each and MAX_BLOCKS blocks in all are remembered; what
    was noted first is forgotten first, which lets a liar go but never accuses anyone.
    """

    def __init__(self) -> None:
        self._failed: OrderedDict[int, deque[_Attempt]] = OrderedDict()
        self._blocks = 0

    def wants_digests(self, piece: int) -> bool:
        """Tell whether the digests of ``piece`` are needed even if it passes."""
        return piece in self._failed

    def failed(self, piece: int, digests: Sequence[bytes], contributors: Sequence[str | None]) -> set[str]:
        """
        Note a failed copy of ``piece`` and return whom to ban for it at once.

        :param contributors: the host that sent each block; None where it is not known (read from disk).
        """
        if len(digests) != len(contributors):
            raise ValueError(f"{len(digests)} digests for {len(contributors)} blocks")
        if not contributors:
            return set()
        self._remember(piece, _Attempt(tuple(digests), tuple(contributors)))
        first, *rest = set(contributors)
        return set() if rest or first is None else {first}

    def passed(self, piece: int, digests: Sequence[bytes]) -> set[str]:
        """
        Return whose blocks of ``piece`` were not what they are in the good copy, and forget the piece.

        :param digests: of the good copy; may be empty if ``wants_digests`` is False.
        """
        attempts = self._failed.pop(piece, None)
        if attempts is None:
            return set()
        self._blocks -= sum(len(attempt.digests) for attempt in attempts)
        return {
            host
            for attempt in attempts
            for digest, good, host in zip(attempt.digests, digests, attempt.hosts, strict=False)
            if digest != good and host is not None
        }

    def _remember(self, piece: int, attempt: _Attempt) -> None:
        attempts = self._failed.setdefault(piece, deque())
        attempts.append(attempt)
        self._failed.move_to_end(piece)
        self._blocks += len(attempt.digests)
        if len(attempts) > MAX_ATTEMPTS:
            self._blocks -= len(attempts.popleft().digests)
        while len(self._failed) > MAX_PIECES:
            self._forget_oldest()
        while self._blocks > MAX_BLOCKS:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        """Forget the oldest attempt of the piece that has not failed for longest."""
        piece, attempts = next(iter(self._failed.items()))
        self._blocks -= len(attempts.popleft().digests)
        if not attempts:
            del self._failed[piece]
