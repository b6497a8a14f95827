"""One announced torrent: what to say next to which of its trackers, and what their answers change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

from attrs import frozen

from irontide.interfaces import IAnnouncement
from irontide.tracker.announce import AnnounceReply, AnnounceRequest, Event
from irontide.tracker.hosts import Priority
from irontide.tracker.http import announce_url
from irontide.tracker.tiers import Tiers, Tracker
from irontide.values import PeerAddress

SOONEST_RETRY = 5.0
JITTER = 0.05
"""Announces are late by up to this share of their interval, so that torrents started together part."""

Found = Callable[[Sequence[PeerAddress], str, bool], None]


@frozen
class Identity:
    """
    Who we are to trackers.

    :ivar port: asked at each announce for the port that peers reach us at.
    :ivar key: tells trackers that we are the same client after our address changed.
    """

    peer_id: bytes
    port: Callable[[], int]
    key: str


class AnnouncedTorrent:
    """
    A torrent between its start and its stop.

    :ivar completed: the download became complete, and no tracker has been told yet.
    :ivar priority: of its next announce.
    """

    __slots__ = ("_random", "announcement", "completed", "found", "priority", "tiers")

    def __init__(
        self, announcement: IAnnouncement, found: Found, random: Random, *, urgent: bool = False
    ) -> None:
        self.announcement = announcement
        self.found = found
        self.tiers = Tiers(announcement.tiers, random)
        self.completed = False
        self.priority = Priority.USER if urgent else Priority.STARTED
        self._random = random

    def event_for(self, tracker: Tracker) -> Event:
        """Return what this tracker has to be told first: ``started`` comes before all others."""
        if not tracker.started:
            return Event.STARTED
        return Event.COMPLETED if self.completed else Event.NONE

    def url(self, tracker: Tracker, event: Event, identity: Identity) -> str:
        """Return the URL that announces the torrent, with the figures of this moment."""
        figures = self.announcement.transferred()
        request = AnnounceRequest(
            infohash=self.announcement.infohash,
            peer_id=identity.peer_id,
            port=identity.port(),
            uploaded=figures.uploaded,
            downloaded=figures.downloaded,
            left=figures.left,
            wanted=self.announcement.wanted_peers(),
            event=event,
            key=identity.key,
            tracker_id=tracker.tracker_id,
        )
        return announce_url(tracker.url, request)

    def answered(self, tracker: Tracker, event: Event, reply: AnnounceReply, now: float) -> float:
        """Take in that ``tracker`` answered an announce of ``event``; return the seconds to the next."""
        tracker.answered(reply, now)
        tracker.started = True
        if event is Event.COMPLETED:
            self.completed = False
        self.tiers.promote(tracker)
        if self.completed:
            self.priority = Priority.STARTED
            return 0.0
        self.priority = Priority.REGULAR
        return self._late(max(reply.interval, reply.min_interval))

    def unanswered(self, now: float, blocked_until: Callable[[str], float]) -> float:
        """Return the seconds to wait after a round in which nobody answered; ``inf`` for ever."""
        return self._late(max(self.tiers.ready_at(blocked_until) - now, SOONEST_RETRY))

    def forgive(self) -> list[str]:
        """Let every tracker be asked again at once, because the user says so; return their hosts."""
        self.priority = Priority.USER
        usable = [tracker for tracker in self.tiers if tracker.usable]
        for tracker in usable:
            tracker.retry_at = -math.inf
        return [tracker.host for tracker in usable]

    def _late(self, wait: float) -> float:
        return wait if wait == math.inf else wait + self._random.uniform(0.0, JITTER * wait)
