"""
One torrent in a session of its own: what ``irontide download`` and ``irontide seed`` have in common.

The state is kept per torrent and apart from any daemon's, so that the same command goes on where it was.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Any

from attrs import frozen
from platformdirs import user_state_path
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.cli.progress import Reporter
from irontide.cli.run import Interrupted, Interruption, first_of
from irontide.cli.source import Fetches
from irontide.errors import IrontideError, StorageError
from irontide.interfaces import IStore
from irontide.metainfo.torrent_file import TorrentFile
from irontide.session.session import Session
from irontide.session.store import SQLiteStore
from irontide.settings import Settings, load
from irontide.transport.fetch import Fetcher
from irontide.values import PeerAddress

MAX_PEERS = 1000
RESOLVE_DEADLINE = 10.0


@frozen
class Parts:
    """What a transfer is made of; tests hand in others."""

    open_store: Callable[[Any, str], Deferred[Any]] = SQLiteStore.open
    make_session: Callable[[Any, Settings, IStore], Any] = Session
    in_thread: Callable[[Any, Callable[[], Any]], Deferred[Any]] = lambda reactor, work: deferToThreadPool(
        reactor, reactor.getThreadPool(), work
    )
    make_fetcher: Callable[[Any], Fetches] = Fetcher


REAL = Parts()


@frozen
class Request:
    """
    What the user asked for.

    :ivar folder: where the torrent's file or folder is, or shall be.
    :ivar settings: by name, as far as the user said something.
    """

    source: str
    folder: str
    peers: tuple[tuple[str, int], ...] = ()
    settings: tuple[tuple[str, object], ...] = ()


def state_of(infohash: bytes, purpose: str = "downloads") -> str:
    """
    The state directory of one torrent.

    ``irontide seed`` has one of its own (``seeds``), so that one user can seed and download a torrent at
    the same time.
    """
    return str(user_state_path("irontide", appauthor=False) / purpose / infohash.hex())


def settings_for(request: Request, infohash: bytes | None = None, purpose: str = "downloads") -> Settings:
    """
    The settings of the session: those of the environment and what the user said.

    :raises ValidationFailed: some of them are wrong.
    """
    said = dict(request.settings)
    chosen: dict[str, object] = {"listen_next_port": True, "downloads": request.folder, **said}
    if infohash is not None:
        chosen["state"] = state_of(infohash, purpose)
    return load(None, os.environ, chosen)


async def in_session(
    reactor: Any,
    settings: Settings,
    body: Callable[[Any], Awaitable[int]],
    parts: Parts,
) -> int:
    """Start a session, run ``body(session)``, and stop the session whatever happens."""
    store = await parts.open_store(reactor, settings.state)
    session = parts.make_session(reactor, settings, store)
    await session.start()
    try:
        return await body(session)
    finally:
        await session.stop()


async def add_or_continue(
    session: Any, torrent_file: TorrentFile, folder: str, peers: Sequence[PeerAddress], reporter: Reporter
) -> Any:
    """Return the torrent: the one that the state knows, or else a new one."""
    infohash = torrent_file.info.infohash
    torrent = session.torrents.get(infohash)
    if torrent is not None and os.path.abspath(torrent.save_path) != os.path.abspath(folder):
        reporter.note(f"it was in {torrent.save_path} before; what is there stays there")
        await session.remove(infohash)
        torrent = None
    if torrent is None:
        torrent = await session.add(torrent_file, save_path=folder, peers=peers)
    else:
        if torrent.options.paused:  # as one is that was rebuilt after damage
            await torrent.resume()
        if peers:
            torrent.when_checked().addCallbacks(lambda _: torrent.add_peers(peers), lambda _: None)
    reporter.started(
        name=torrent.name,
        infohash=infohash.hex(),
        total=torrent.info.total,
        path=os.path.abspath(folder),
        listening=", ".join(map(str, session.listening)),
    )
    return torrent


class Reporting:
    """
    Tells a reporter of a torrent at regular times, as a context manager.

    What is awaited by ``until`` is given up when the user interrupts, when the torrent stops with an error,
    and when nobody takes the reports any more.
    """

    def __init__(self, reactor: Any, torrent: Any, reporter: Reporter, interruption: Interruption) -> None:
        self._torrent = torrent
        self._reporter = reporter
        self._interruption = interruption
        self._trouble: Failure | None = None
        self._waiting: list[Deferred[Any]] = []
        self._loop = LoopingCall(self._tell)
        self._loop.clock = reactor

    def __enter__(self) -> Reporting:
        self._loop.start(self._reporter.interval, now=False).addErrback(self._fail)
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop.running:
            self._loop.stop()

    def until(self, awaited: Deferred[Any]) -> Deferred[Any]:
        """Fire as ``awaited`` does; fail with Interrupted or what went wrong if that comes first."""
        trouble: Deferred[Any] = Deferred()
        self._waiting.append(trouble)
        if self._trouble is not None:
            trouble.errback(self._trouble)
        return self._interruption.or_result(first_of(awaited, trouble))

    def _tell(self) -> None:
        status = self._torrent.status()
        self._reporter.progress(status)
        if status.error is not None:
            raise StorageError(status.error)

    def _fail(self, failure: Failure) -> None:
        self._trouble = failure
        for each in self._waiting:
            each.errback(failure)


async def seed_until_interrupted(reporting: Reporting) -> None:
    """Wait until the user has had enough, which is how seeding ends well; fail if it ends otherwise."""
    with contextlib.suppress(Interrupted):
        await reporting.until(Deferred())


async def resolve(
    reactor: Any, peers: Sequence[tuple[str, int]], interruption: Interruption
) -> list[PeerAddress]:
    """Turn the hosts that the user named into addresses; all that a name has are taken."""
    found: list[PeerAddress] = []
    for host, port in peers:
        try:
            found.append(PeerAddress(str(ip_address(host)), port))
        except ValueError:
            receiver = _Resolution()
            reactor.nameResolver.resolveHostName(receiver, host, port)
            receiver.done.addTimeout(RESOLVE_DEADLINE, reactor, onTimeoutCancel=lambda result, seconds: [])
            addresses = await interruption.or_result(receiver.done)
            if not addresses:
                raise IrontideError(f"there is no address of a host named {host}") from None
            found += addresses
    return found


@implementer(IResolutionReceiver)
class _Resolution:
    """Collects what the resolver finds."""

    def __init__(self) -> None:
        self.done: Deferred[list[PeerAddress]] = Deferred()
        self._found: list[PeerAddress] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """See IResolutionReceiver."""

    def addressResolved(self, address: IAddress) -> None:
        """See IResolutionReceiver."""
        if isinstance(address, IPv4Address | IPv6Address) and len(self._found) < MAX_PEERS:
            self._found.append(PeerAddress(address.host, address.port))

    def resolutionComplete(self) -> None:
        """See IResolutionReceiver."""
        if not self.done.called:
            self.done.callback(self._found)
