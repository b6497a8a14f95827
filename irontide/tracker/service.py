"""
Announces torrents to their trackers, in time and without storms.

All waiting is in two heaps, of torrents (``DueTimes``) and of hosts (``HostQueues``), with a single timed
call for both.  Whatever happens only notes what is to be done; ``_turn`` does it.  The HTTP client comes in
by the constructor as an IFetcher, which also keeps strangers' replies within bounds.

Each torrent has at most one announce on its way at a time, so events cannot overtake one another, and a
torrent that is started again while its goodbye is being said waits for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from attrs import define
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.errors import Closed, FetchError, TrackerError
from irontide.interfaces import IAnnouncement, IFetcher, IPeerSource
from irontide.tracker.announce import AnnounceReply, Event, Scrape, TrackerStatus
from irontide.tracker.announced import AnnouncedTorrent, Found, Identity
from irontide.tracker.due import DueTimes
from irontide.tracker.hosts import HostLeftAlone, HostQueues, Priority, blames_host
from irontide.tracker.http import parse_announce, parse_scrape, scrape_url
from irontide.tracker.tiers import Tracker
from irontide.tracker.urls import without_secrets

REQUEST_DEADLINE = 20.0
"""Seconds for one request, from the name to the last byte."""
GOODBYE_DEADLINE = 15.0
"""Seconds for the ``stopped`` of one torrent, waiting in the queue included."""
SURPRISE = 300.0
"""Seconds until the next try after an error that nobody expected."""


Outcome = tuple[float, AnnounceReply | None]
"""Of a round: the seconds until the next, and what was answered, if anything."""


@define(eq=False)
class _Request:
    """One request and whoever waits for its body."""

    host: str
    url: Callable[[], str]
    body: Deferred[bytes]
    fetch: Deferred[bytes] | None = None


@implementer(IPeerSource)
class TrackerService:
    """
    The trackers of all torrents.

    :param client: gets the replies; whoever made it closes it.
    :param port: asked at each announce for the port that peers reach us at.
    :param key: tells trackers that we are the same client after our address changed.
    :param external: is told our own address whenever a tracker says it (BEP 24).
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        client: IFetcher,
        *,
        peer_id: bytes,
        port: Callable[[], int],
        key: str,
        random: Random | None = None,
        external: Callable[[str], None] | None = None,
    ) -> None:
        self._reactor = reactor
        self._client = client
        self._identity = Identity(peer_id, port, key)
        self._random = random or Random()
        self._external = external
        self._torrents: dict[bytes, AnnouncedTorrent] = {}
        self._rounds: dict[bytes, Deferred[Outcome]] = {}
        self._due: DueTimes[bytes] = DueTimes()
        self._queues: HostQueues[_Request] = HostQueues(self._random)
        self._requests: set[_Request] = set()
        self._leaving: dict[bytes, list[Deferred[None]]] = {}
        self._timer: IDelayedCall | None = None
        self._closed = False

    # --- what the session asks for ---------------------------------------------------------------------

    def start(self, announcement: IAnnouncement, found: Found, *, urgent: bool = False) -> None:
        """
        Announce the torrent and tell ``found`` of peers, until stopped.

        :param urgent: a user waits for it: before all those that merely run on after a restart.
        :raises Closed: ``stop_all`` was called.
        """
        if self._closed:
            raise Closed("the trackers are being told goodbye")
        infohash = announcement.infohash
        if infohash in self._torrents:
            raise ValueError("this torrent is announced already")
        torrent = AnnouncedTorrent(announcement, found, self._random, urgent=urgent)
        self._torrents[infohash] = torrent
        if infohash not in self._leaving:
            self._announce_at(infohash, self._reactor.seconds())

    def stop(self, infohash: bytes) -> Deferred[None]:
        """Tell the trackers that answered that this torrent stops; fires when said or given up."""
        torrent = self._torrents.pop(infohash, None)
        if torrent is None and infohash not in self._leaving:
            return succeed(None)
        done: Deferred[None] = Deferred()
        if infohash in self._leaving:  # a torrent started meanwhile has told nobody anything yet
            self._leaving[infohash].append(done)
            return done
        assert torrent is not None
        self._due.discard(infohash)
        if infohash in self._rounds:
            self._rounds[infohash].cancel()
        self._leaving[infohash] = [done]
        self._goodbye(torrent).addBoth(self._left, infohash)
        return done

    def completed(self, infohash: bytes) -> None:
        """Tell the tracker, once, that the download is complete (not for what was complete at the start)."""
        torrent = self._torrents.get(infohash)
        if torrent is not None:
            torrent.completed = True
            if self._waits(infohash):
                self._announce_at(infohash, self._reactor.seconds())

    def reannounce(self, infohash: bytes) -> None:
        """
        Announce as soon as may be, because the user asks for it.

        Trackers that failed, and their hosts, are tried at once; one that works not before its own
        ``min interval`` is over.
        """
        torrent = self._torrents.get(infohash)
        if torrent is None or not self._waits(infohash):
            return
        for host in torrent.forgive():
            self._queues.forgive(host)
        planned = self._due.at(infohash)
        soon = max(self._reactor.seconds(), torrent.tiers.patience())
        self._announce_at(infohash, soon if planned is None else min(soon, planned))

    def status(self, infohash: bytes) -> list[TrackerStatus]:
        """Return the trackers of a torrent in the order they are tried; nothing for one not announced."""
        torrent = self._torrents.get(infohash)
        if torrent is None:
            return []
        due = self._due.at(infohash)
        following = None if due is None else torrent.tiers.pick(due, (), self._queues.blocked_until)
        wait = None if due is None else max(0.0, due - self._reactor.seconds())
        return [tracker.status(wait if tracker is following else None) for tracker in torrent.tiers]

    def scrape(self, infohash: bytes) -> Deferred[Scrape]:
        """Ask how large the swarm is, tracker by tracker until one says; fails with TrackerError."""
        return Deferred.fromCoroutine(self._scrape(infohash))

    def stop_all(self, deadline: float) -> Deferred[None]:
        """
        Say goodbye for all torrents, for at most ``deadline`` seconds; nothing is left over then.

        Few requests are under way at one host even now, but they follow each other without a pause.
        """
        self._closed = True
        self._queues.spacing = 0.0
        goodbyes = [self.stop(infohash) for infohash in {*self._torrents, *self._leaving}]
        said = gatherResults(goodbyes, consumeErrors=True)
        said.addTimeout(max(deadline, 0.0), self._reactor)
        return said.addBoth(self._give_up)

    # --- announces -------------------------------------------------------------------------------------

    def _announce_at(self, infohash: bytes, time: float) -> None:
        self._due.set(infohash, time)
        self._arm()

    def _waits(self, infohash: bytes) -> bool:
        """Tell whether the torrent merely waits for its next announce."""
        return infohash not in self._rounds and infohash not in self._leaving

    def _begin_round(self, infohash: bytes) -> None:
        torrent = self._torrents[infohash]
        running = Deferred.fromCoroutine(self._round(torrent))
        self._rounds[infohash] = running
        running.addErrback(self._surprised).addCallback(self._end_round, torrent)

    def _surprised(self, failure: Failure) -> Outcome:
        if failure.check(CancelledError):
            return math.inf, None  # the torrent was stopped
        self._log.failure("announcing a torrent went wrong", failure)
        return SURPRISE, None

    def _end_round(self, outcome: Outcome, torrent: AnnouncedTorrent) -> None:
        """Plan the next round, then tell of the peers: whoever is told may stop the torrent."""
        wait, reply = outcome
        infohash = torrent.announcement.infohash
        del self._rounds[infohash]
        if wait != math.inf:
            self._announce_at(infohash, self._reactor.seconds() + wait)
        if reply is not None:
            self._tell(torrent, reply)

    async def _round(self, torrent: AnnouncedTorrent) -> Outcome:
        """Go through the tiers until a tracker answers; return the seconds until the next round too."""
        tried: set[Tracker] = set()
        blocked_until = self._queues.blocked_until
        while tracker := torrent.tiers.pick(self._reactor.seconds(), tried, blocked_until):
            tried.add(tracker)
            try:
                return await self._announce(torrent, tracker)
            except HostLeftAlone as error:
                tracker.passed_over(str(error))
            except (FetchError, TrackerError) as error:
                tracker.failed(error, self._reactor.seconds())
                self._log.debug("{tracker} did not answer: {why}", tracker=tracker.shown, why=tracker.message)
        return torrent.unanswered(self._reactor.seconds(), blocked_until), None

    async def _announce(self, torrent: AnnouncedTorrent, tracker: Tracker) -> Outcome:
        event = Event.NONE

        def url() -> str:
            nonlocal event
            event = torrent.event_for(tracker)
            return torrent.url(tracker, event, self._identity)

        tracker.state = "updating"
        body = await self._ask(tracker.host, url, torrent.priority)
        reply = parse_announce(body, port=self._identity.port(), local=tracker.local)
        return torrent.answered(tracker, event, reply, self._reactor.seconds()), reply

    def _tell(self, torrent: AnnouncedTorrent, reply: AnnounceReply) -> None:
        """Pass on what the tracker knows; that somebody cannot take it is no failure of the tracker."""
        try:
            if reply.external_host is not None and self._external is not None:
                self._external(reply.external_host)
            if reply.peers:
                torrent.found(reply.peers, "tracker", reply.near)
        except Exception:
            self._log.failure("peers of a tracker were not taken")

    # --- goodbyes and scrapes --------------------------------------------------------------------------

    def _goodbye(self, torrent: AnnouncedTorrent) -> Deferred[Any]:
        now = self._reactor.seconds()
        said = [
            Deferred.fromCoroutine(self._say_stopped(torrent, tracker))
            for tracker in torrent.tiers
            if tracker.started and self._queues.blocked_until(tracker.host) <= now
        ]
        return gatherResults(said, consumeErrors=True).addTimeout(GOODBYE_DEADLINE, self._reactor)

    async def _say_stopped(self, torrent: AnnouncedTorrent, tracker: Tracker) -> None:
        url = partial(torrent.url, tracker, Event.STOPPED, self._identity)
        try:
            await self._ask(tracker.host, url, Priority.USER)
        except (FetchError, TrackerError, CancelledError) as error:
            self._log.debug("{tracker} was not told: {why!r}", tracker=tracker.shown, why=type(error))

    def _left(self, result: object, infohash: bytes) -> None:
        if isinstance(result, Failure) and not result.check(DeferredTimeout, CancelledError):
            self._log.failure("saying goodbye went wrong", result)
        waiters = self._leaving.pop(infohash)
        if infohash in self._torrents:
            self._announce_at(infohash, self._reactor.seconds())
        for done in waiters:
            done.callback(None)

    def _give_up(self, result: object) -> None:
        for request in list(self._requests):
            request.body.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _scrape(self, infohash: bytes) -> Scrape:
        torrent = self._torrents.get(infohash)
        reason = "this torrent has no tracker that can be asked"
        for tracker in [] if torrent is None else list(torrent.tiers):
            if not tracker.usable or self._queues.blocked_until(tracker.host) > self._reactor.seconds():
                continue
            try:
                url = partial(scrape_url, tracker.url, infohash)
                size = parse_scrape(await self._ask(tracker.host, url, Priority.USER), infohash)
            except (FetchError, TrackerError) as error:
                reason = without_secrets(str(error), tracker.url)
            else:
                tracker.swarm_is(size)
                return size
        raise TrackerError(reason)

    # --- requests --------------------------------------------------------------------------------------

    def _ask(self, host: str, url: Callable[[], str], priority: Priority) -> Deferred[bytes]:
        """
        Get a body from a host when its turn has come; ``url`` is made only then.

        Fails with FetchError, HostLeftAlone, or what ``url`` raises.  Never fires before it returns.
        """

        def withdraw(_: Deferred[bytes]) -> None:
            self._withdraw(request)

        request = _Request(host, url, Deferred(withdraw))
        self._requests.add(request)
        self._queues.put(host, request, priority)
        self._arm()
        return request.body

    def _withdraw(self, request: _Request) -> None:
        self._requests.discard(request)
        self._queues.withdraw(request)
        if request.fetch is not None:
            request.fetch.cancel()
        self._arm()

    def _send(self, request: _Request) -> None:
        try:
            fetch = self._client.fetch(request.url(), deadline=REQUEST_DEADLINE)
        except Exception:  # passed on to whoever asked
            self._requests.discard(request)
            self._queues.withdraw(request)
            request.body.errback()
            return
        request.fetch = fetch
        fetch.addCallbacks(self._answered, self._unanswered, (request,), errbackArgs=(request,))

    def _answered(self, body: bytes, request: _Request) -> None:
        if request in self._requests:
            self._requests.discard(request)
            self._queues.answered(request)
            request.body.callback(body)
            self._arm()

    def _unanswered(self, failure: Failure, request: _Request) -> None:
        if request not in self._requests:
            return  # withdrawn
        self._requests.discard(request)
        waiting: list[_Request] = []
        if failure.value is not None and blames_host(failure.value):
            waiting = self._queues.failed(request, self._reactor.seconds())
        elif failure.check(FetchError):
            self._queues.answered(request)
        else:
            self._queues.withdraw(request)
        for each in waiting:
            self._requests.discard(each)
            each.body.errback(HostLeftAlone(f"left alone for a while: {failure.getErrorMessage()}"))
        request.body.errback(failure)
        self._arm()

    def _turn(self) -> None:
        """Do what is due now."""
        self._timer = None
        now = self._reactor.seconds()
        while (infohash := self._due.pop(now)) is not None:
            self._begin_round(infohash)
        while (request := self._queues.take(now)) is not None:
            self._send(request)
        self._arm()

    def _arm(self) -> None:
        """Have ``_turn`` called at the next time that anything is due."""
        times = [time for time in (self._due.next(), self._queues.next_time()) if time is not None]
        now = self._reactor.seconds()
        if not times:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            self._timer = self._reactor.callLater(max(0.0, min(times) - now), self._turn)
        elif min(times) < self._timer.getTime():
            self._timer.reset(max(0.0, min(times) - now))
