"""
irontide as a daemon: what ``twistd irontide`` runs.

Here, and on the command line, the process is ours: the reactor gets the monotonic clock, the limit of open
files is raised, signals are taken over.  A Session that is embedded elsewhere does none of this.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from irontide.errors import Closed, IrontideError
from irontide.interfaces import IStore
from irontide.metainfo.torrent_file import TorrentFile
from irontide.service.options import Options
from irontide.service.process import StopSignals, raise_descriptor_limit, use_monotonic_clock
from irontide.service.systemd import Notifier, initial_environment, passed_sockets
from irontide.service.watch import WatchedDirectory
from irontide.session.events import Degraded, Events, RuntimeFailed, Subscription
from irontide.session.session import Session
from irontide.session.store import SQLiteStore
from irontide.settings import Settings, unknown_variables
from irontide.values import PeerAddress


class Engine(Protocol):
    """What the daemon needs of a Session."""

    @property
    def events(self) -> Events:
        """See Session."""
        ...

    @property
    def listening(self) -> Sequence[PeerAddress]:
        """See Session."""
        ...

    @property
    def torrents(self) -> Any:
        """See Session."""
        ...

    def start(self) -> Deferred[None]:
        """See Session."""
        ...

    def stop(self) -> Deferred[None]:
        """See Session."""
        ...

    def add(self, torrent_file: TorrentFile) -> Deferred[Any]:
        """See Session."""
        ...


class Daemon(Service):
    """
    One session as a Twisted service.

    :param open_store: opens the store in a directory.
    :param make_session: builds the session, on sockets that were passed on to us if there are any.
    :param give_up: called once if the session could not start, or has failed, after the reason is logged.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        *,
        open_store: Callable[[str], Deferred[Any]],
        make_session: Callable[[Settings, IStore], Engine],
        notifier: Notifier,
        give_up: Callable[[], object],
    ) -> None:
        self.setName("irontide")
        self._reactor = reactor
        self._settings = settings
        self._open_store = open_store
        self._make_session = make_session
        self._notifier = notifier
        self._give_up = give_up
        self._session: Engine | None = None
        self._watch: WatchedDirectory | None = None
        self._starting: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Begin to start; ``give_up`` is told if that fails."""
        super().startService()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._failed)

    def stopService(self) -> Deferred[None]:
        """Stop in order; fires when all is closed, or when ``stop_deadline`` is over."""
        super().stopService()
        self._notifier.tell(STOPPING=1, STATUS="Stopping")
        return self._bounded(Deferred.fromCoroutine(self._stop()))

    async def _start(self) -> None:
        store = await self._open_store(self._settings.state)
        session = self._make_session(self._settings, store)
        await session.start()
        self._session = session
        self._follow(session.events.listen())
        for text in store.repairs:
            self._log.warn("the state was damaged: {text}", text=text)
        self._start_watching(session)
        where = ", ".join(map(str, session.listening)) or "no address"
        self._log.info("listening on {where}", where=where)
        self._log.info("downloads go to {path}", path=self._settings.downloads)
        self._log.info("state is kept in {path}", path=self._settings.state)
        self._notifier.tell(READY=1, STATUS=f"Listening on {where}; {len(session.torrents)} torrents")

    def _follow(self, events: Subscription) -> None:
        """Listen to what becomes of the session, until there is nothing more to tell."""
        following = Deferred.fromCoroutine(self._heed(events))
        following.addErrback(lambda failure: self._log.failure("nobody follows the session", failure))

    async def _heed(self, events: Subscription) -> None:
        while True:
            try:
                event = await events.next()
            except Closed:
                return
            if isinstance(event, RuntimeFailed):
                self._log.critical("irontide stops: its {part} has failed", part=event.component)
                self._notifier.tell(STATUS=f"Failed: {event.component}")
                self._give_up()
            elif isinstance(event, Degraded):
                well = event.reason is None
                text = f"The {event.part} works again" if well else f"Degraded: {event.part}: {event.reason}"
                self._notifier.tell(STATUS=text)

    def _start_watching(self, session: Engine) -> None:
        directory = self._settings.watch
        if directory is None:
            return
        self._watch = WatchedDirectory(
            self._reactor,
            directory,
            session.add,
            lambda work: deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work),
            self._settings.max_torrent_file,
        )
        self._watch.start()
        self._log.info("torrents are taken from {path}", path=directory)

    async def _stop(self) -> None:
        await self._starting
        if self._watch is not None:
            await self._watch.stop()
        if self._session is not None:
            await self._session.stop()
            self._log.info("stopped")

    def _failed(self, failure: Failure) -> None:
        """Say what the user can mend in one line; anything else is our bug and has a traceback."""
        if failure.check(IrontideError):
            self._log.critical("irontide cannot start: {error}", error=failure.value)
        else:
            self._log.failure("irontide cannot start", failure)
        self._notifier.tell(STATUS=f"Cannot start: {failure.value}")
        self._give_up()

    def _bounded(self, stopping: Deferred[None]) -> Deferred[None]:
        """Wait no longer than the deadline.  What is not done then is cut off; the store stands that."""
        done: Deferred[None] = Deferred()

        def finished(result: object) -> None:
            if isinstance(result, Failure):
                self._log.failure("stopping failed", result)
            if late.active():
                late.cancel()
                done.callback(None)

        def overrun() -> None:
            seconds = self._settings.stop_deadline
            self._log.error(
                "not everything stopped within {seconds} s; giving up on the rest", seconds=seconds
            )
            done.callback(None)

        late = self._reactor.callLater(self._settings.stop_deadline, overrun)
        stopping.addBoth(finished)
        return done


class StandaloneDaemon(Daemon):
    """The daemon in a process of its own."""

    def __init__(self, reactor: Any, settings: Settings) -> None:
        self._inherited: Sequence[int] = ()
        super().__init__(
            reactor,
            settings,
            open_store=lambda directory: SQLiteStore.open(reactor, directory),
            make_session=self._session_on_inherited,
            notifier=Notifier(os.environ),
            give_up=self._exit_with_failure,
        )

    def privilegedStartService(self) -> None:
        """Note the sockets of socket activation, before anything else opens a descriptor."""
        super().privilegedStartService()
        self._inherited = passed_sockets(initial_environment())

    def startService(self) -> None:
        """Set the process up, then start."""
        raise_descriptor_limit()
        for name in unknown_variables(os.environ):
            self._log.warn("{name} in the environment is no setting; ignored", name=name)
        self._reactor.callWhenRunning(self._take_signals)
        super().startService()

    def _session_on_inherited(self, settings: Settings, store: IStore) -> Session:
        session = Session(self._reactor, settings, store)
        for descriptor in self._inherited:
            session.listener.adopt(descriptor)
        return session

    def _take_signals(self) -> None:
        """After the reactor has installed its own handlers, which a first signal still gets to."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def stop(number: int, frame: Any) -> None:
            handler = before[signal.Signals(number)]
            if callable(handler):
                handler(number, frame)

        StopSignals(self._reactor, stop).install()

    def _exit_with_failure(self) -> None:
        """Stop the reactor, and have the process exit with 1, for which twistd itself has no way."""
        atexit.register(_exit, 1)
        self._reactor.callWhenRunning(self._reactor.stop)


def _exit(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def makeService(options: Options) -> Daemon:
    """What twistd calls, before it becomes a daemon: nothing here may open anything."""
    from twisted.internet import reactor

    use_monotonic_clock(reactor)
    return StandaloneDaemon(reactor, options.settings)
