"""
Who may download from us.

While we download ourselves, the peers that give most get most; one slot in five (one at least) is
*optimistic*: it goes round among the others, whatever they give, newcomers three times as likely, for 30 s
each.  That is how we find better peers, how peers that have nothing yet come to something, and the only way
back for a peer that snubs us.  Once we only seed, a quarter of the slots goes to those who take fastest,
because they spread it soonest; the others go round in turns of a minute.

The optimistic slots go round in laps: nobody has a second turn before everybody who waits had one.  So chance
decides the order, and never that somebody starves.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from random import Random
from typing import Protocol, TypeVar

from irontide.peer.rates import Rate

ROUND = 10.0  # seconds
OPTIMISTIC_TURN = 30.0
SEEDING_TURN = 60.0
NEWCOMER = 60.0  # for so long after it connected a peer is a newcomer
NEWCOMER_WEIGHT = 3


class IChokable(Hashable, Protocol):
    """
    What the choker looks at; peers are told apart by identity.

    :ivar interested: whether the peer wants anything of us.
    :ivar snubbed: whether it has owed us blocks for long and sends none.
    :ivar download: the payload that it gives us.
    :ivar upload: the payload that we give it.
    :ivar unchoked_since: None while it is choked.
    :ivar joined: when it connected.
    """

    interested: bool
    snubbed: bool
    download: Rate
    upload: Rate
    unchoked_since: float | None
    joined: float


P = TypeVar("P", bound=IChokable)


class Choker:
    """Gives away the upload slots of a torrent."""

    def __init__(self, slots: int, random: Random) -> None:
        self._random = random
        self._next_round = -math.inf
        self._early = False
        self._optimists: dict[IChokable, float] = {}  # since when
        self._lap: set[IChokable] = set()  # who had an optimistic turn in this lap
        self._served: dict[IChokable, float] = {}  # when it last had a slot
        self.slots = slots

    @property
    def slots(self) -> int:
        """How many peers may be unchoked at a time."""
        return self._slots

    @slots.setter
    def slots(self, slots: int) -> None:
        if slots < 0:
            raise ValueError(f"{slots} upload slots")
        self._slots = slots
        self.due_at_once()

    def due(self, now: float) -> bool:
        """Tell whether it is time to call ``round``."""
        return self._early or now >= self._next_round

    def due_at_once(self) -> None:
        """Note that a slot may be free, or that somebody waits who did not before."""
        self._early = True

    def round(self, peers: Sequence[P], seeding: bool, now: float) -> set[P]:
        """
        Return who is to be unchoked; everybody else is to be choked.

        All slots are given anew once in ROUND seconds.  In between, whoever is unchoked stays so, and only
        free slots are given away.
        """
        self._forget_all_but(set(peers))
        waiting: list[IChokable] = [peer for peer in peers if peer.interested]
        keep = {peer for peer in waiting if peer.unchoked_since is not None}
        if now >= self._next_round:
            self._next_round = now + ROUND
            keep.clear()
            self._end_turns(now)
        self._early = False
        if seeding:
            unchoked = self._for_seeding(waiting, keep, now)
        else:
            unchoked = self._for_trading(waiting, keep, now)
        self._served.update(dict.fromkeys(unchoked, now))
        return {peer for peer in peers if peer in unchoked}

    def _forget_all_but(self, peers: set[P]) -> None:
        self._lap.intersection_update(peers)
        self._optimists = {peer: since for peer, since in self._optimists.items() if peer in peers}
        self._served = {peer: when for peer, when in self._served.items() if peer in peers}

    # --- while we download

    def _end_turns(self, now: float) -> None:
        """Take the optimistic slots of those who had them for long enough, give or take half a round."""
        oldest = now - OPTIMISTIC_TURN + ROUND / 2
        self._optimists = {peer: since for peer, since in self._optimists.items() if since > oldest}

    def _for_trading(self, waiting: list[IChokable], keep: set[IChokable], now: float) -> set[IChokable]:
        optimistic = min(self._slots, max(1, self._slots // 5))
        regular = set(self._givers(waiting, keep, now)[: self._slots - optimistic])
        stay = [peer for peer in self._optimists if peer.interested and peer not in regular]
        self._optimists = {peer: self._optimists[peer] for peer in stay[:optimistic]}
        while len(self._optimists) < optimistic:
            others = [peer for peer in waiting if peer not in regular and peer not in self._optimists]
            if not others:
                break
            self._optimists[self._draw(others, now)] = now
        return regular.union(self._optimists)

    def _givers(self, waiting: list[IChokable], keep: set[IChokable], now: float) -> list[IChokable]:
        """Return the peers that may have a regular slot, best first: those to keep, then who gives most."""
        if keep:
            waiting = [peer for peer in waiting if peer not in self._optimists]
        return sorted(
            (peer for peer in waiting if peer in keep or not peer.snubbed),
            key=lambda peer: (
                peer not in keep,
                -peer.download.value(now),
                math.inf if peer.unchoked_since is None else peer.unchoked_since,
                peer.joined,
            ),
        )

    def _draw(self, others: list[IChokable], now: float) -> IChokable:
        """Choose who has the next optimistic turn."""
        if self._lap.issuperset(others):
            self._lap.difference_update(others)
        first = [peer for peer in others if peer not in self._lap]
        weights = [NEWCOMER_WEIGHT if now - peer.joined < NEWCOMER else 1 for peer in first]
        chosen = self._random.choices(first, weights)[0]
        self._lap.add(chosen)
        return chosen

    # --- while we seed

    def _for_seeding(self, waiting: list[IChokable], keep: set[IChokable], now: float) -> set[IChokable]:
        self._optimists.clear()
        unchoked = [peer for peer in waiting if peer.unchoked_since is not None]
        unchoked.sort(key=lambda peer: -peer.upload.value(now))
        fastest = [peer for peer in unchoked[: self._slots // 4] if peer.upload.value(now)]
        in_turn = [peer for peer in unchoked if peer in keep or not _had_its_turn(peer, now)]
        others = [peer for peer in waiting if peer.unchoked_since is None]
        others.sort(key=lambda peer: self._served.get(peer, peer.joined))
        by_claim = dict.fromkeys([*fastest, *in_turn, *others, *unchoked])
        return set(list(by_claim)[: self._slots])


def _had_its_turn(peer: IChokable, now: float) -> bool:
    return peer.unchoked_since is not None and now - peer.unchoked_since >= SEEDING_TURN
