"""
The trackers of a torrent, in tiers (BEP 12).

Within a tier the order is drawn by lot once, so that the load spreads; a tracker that answered moves to the
front of its tier.  A round begins at the top and ends with the first that answers.  A tracker whose host is
left alone just now (see hosts.py), or which asked to be left alone itself, is passed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from random import Random

from irontide.errors import TrackerError
from irontide.tracker.announce import AnnounceReply, Scrape, State, TrackerRefusal, TrackerStatus
from irontide.tracker.hosts import blames_host
from irontide.tracker.urls import host_of, http_url, is_local, shown_url, without_secrets

MAX_TRACKERS = 100
FIRST_RETRY = 60.0
LONGEST_RETRY = 3600.0
NEVER = math.inf


class Tracker:
    """
    One tracker of one torrent, and how it goes with it.

    :ivar started: whether it has answered a ``started``, and so may be told ``completed`` and ``stopped``.
    :ivar retry_at: not to be asked for this torrent before.
    :ivar asked_again_at: not to be asked before, even if the user wishes: its ``min interval``.
    """

    __slots__ = (
        "asked_again_at",
        "failures",
        "host",
        "leechers",
        "local",
        "message",
        "peers",
        "retry_at",
        "seeds",
        "shown",
        "started",
        "state",
        "tier",
        "tracker_id",
        "url",
    )

    def __init__(self, url: str, tier: int) -> None:
        self.url = url
        self.tier = tier
        self.shown = shown_url(url)
        self.started = False
        self.state: State = "not contacted"
        self.message = ""
        self.seeds: int | None = None
        self.leechers: int | None = None
        self.peers = 0
        self.failures = 0
        self.tracker_id: bytes | None = None
        self.retry_at = -math.inf
        self.asked_again_at = -math.inf
        try:
            self.host, self.local = host_of(http_url(url)), is_local(url)
        except TrackerError as error:
            self.host, self.local = "", False
            self.message = str(error)
            self.retry_at = NEVER

    @property
    def usable(self) -> bool:
        """Whether we can speak to a tracker with such a URL at all."""
        return bool(self.host)

    def answered(self, reply: AnnounceReply, now: float) -> None:
        """It answered an announce."""
        self.state = "working"
        self.message = without_secrets(reply.warning or "", self.url)
        self.failures = 0
        self.retry_at = -math.inf
        self.asked_again_at = now + reply.min_interval
        self.peers = len(reply.peers)
        self.tracker_id = reply.tracker_id or self.tracker_id
        self.swarm_is(Scrape(reply.seeds, reply.leechers, None))

    def swarm_is(self, size: Scrape) -> None:
        """It told how large the swarm is; what it left out stays as it was."""
        self.seeds = self.seeds if size.seeds is None else size.seeds
        self.leechers = self.leechers if size.leechers is None else size.leechers

    def failed(self, error: Exception, now: float) -> None:
        """
        It did not answer as it should have.

        A refusal may say when to come back (BEP 31).  What is the fault of the whole host is not held
        against this tracker: the host is left alone as a whole.
        """
        self.passed_over(str(error))
        self.failures += 1
        if not blames_host(error):
            told = error.retry_in if isinstance(error, TrackerRefusal) else None
            longer = min(FIRST_RETRY * 2.0 ** min(self.failures - 1, 30), LONGEST_RETRY)
            self.retry_at = now + (longer if told is None else told)

    def passed_over(self, reason: str) -> None:
        """It could not be asked."""
        self.state = "not working"
        self.message = without_secrets(reason, self.url)

    def status(self, next_announce: float | None) -> TrackerStatus:
        """Return what the user may see of it."""
        return TrackerStatus(
            url=self.shown,
            tier=self.tier,
            state=self.state,
            message=self.message,
            seeds=self.seeds,
            leechers=self.leechers,
            peers=self.peers,
            next_announce=next_announce,
            failures=self.failures,
        )


class Tiers:
    """All trackers of one torrent, each once, at most MAX_TRACKERS, in the order to try them."""

    def __init__(self, tiers: Sequence[Sequence[str]], random: Random) -> None:
        self._tiers: list[list[Tracker]] = []
        seen: set[str] = set()
        for number, urls in enumerate(tiers):
            fresh = list(dict.fromkeys(url for url in urls if url not in seen))
            fresh = fresh[: MAX_TRACKERS - len(seen)]
            seen.update(fresh)
            random.shuffle(fresh)
            self._tiers.append([Tracker(url, number) for url in fresh])

    def __iter__(self) -> Iterator[Tracker]:
        for tier in self._tiers:
            yield from tier

    def promote(self, tracker: Tracker) -> None:
        """Put the tracker that answered at the front of its tier."""
        tier = self._tiers[tracker.tier]
        tier.remove(tracker)
        tier.insert(0, tracker)

    def pick(
        self, now: float, tried: Collection[Tracker], blocked_until: Callable[[str], float]
    ) -> Tracker | None:
        """Return the next tracker of this round, or None when the round is over."""
        for tracker in self:
            if tracker not in tried and self._ready_at(tracker, blocked_until) <= now:
                return tracker
        return None

    def ready_at(self, blocked_until: Callable[[str], float]) -> float:
        """Return when one of them may be asked again; ``inf`` if none ever may."""
        return min((self._ready_at(tracker, blocked_until) for tracker in self), default=NEVER)

    def patience(self) -> float:
        """Return the time before which no tracker that works wants to be asked again."""
        return min((each.asked_again_at for each in self if each.state == "working"), default=-math.inf)

    @staticmethod
    def _ready_at(tracker: Tracker, blocked_until: Callable[[str], float]) -> float:
        if not tracker.usable:
            return NEVER
        return max(tracker.retry_at, blocked_until(tracker.host))
