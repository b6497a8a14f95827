"""All torrents of a process: starting, stopping, adding, removing; contract S as far as a session goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from irontide.errors import Closed, DuplicateTorrent, ListenPortInUse, StoreError
from irontide.metainfo.torrent_file import TorrentFile
from irontide.session.events import (
    Degraded,
    Event,
    Listening,
    PhaseChanged,
    RuntimeFailed,
    Subscription,
    TorrentAdded,
    TorrentChecked,
    TorrentRemoved,
    TorrentUnreadable,
)
from irontide.session.session import Session
from irontide.settings import Settings, defaults
from irontide.torrent.changes import Changes
from irontide.torrent.options import TorrentOptions
from irontide.torrent.running import Running
from irontide.torrent.torrent import Torrent
from irontide.values import PeerAddress, StoredTorrent
from tests.storage.fakes import InlineDisk, SlowDisk
from tests.temporary import FolderTestCase
from tests.torrent.fakes import BROKEN, KIB16, REFUSED, FakeSource, FakeStore, torrent_file
from tests.transport.fakes import FakeListeningSocket

T = TypeVar("T")


class QuickDisk(InlineDisk):
    """Done before the call returns."""

    pending = 0

    def __init__(self) -> None:
        self.stopped = False

    def stop(self) -> Deferred[None]:
        self.stopped = True
        return succeed(None)


class HangingDisk(SlowDisk):
    """Answers when turned by hand, and may be told to hang for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = False
        self.hangs = False

    def call(self, device: int, work: Callable[[], T]) -> Deferred[T]:
        called = super().call(device, work)
        if not self.hangs:
            self.turn_all()
        return called

    sync_call = call

    def stop(self) -> Deferred[None]:
        self.stopped = True
        return Deferred() if self.hangs else succeed(None)


class SessionTestCase(FolderTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.reactor.advance(1.0)
        self.folder = self.mktemp()
        self.store = FakeStore([])
        self.disk: Any = HangingDisk()
        self.source = FakeSource()
        self.sockets: list[FakeListeningSocket] = []
        self.ports_in_use: set[int] = set()
        self.settings: Settings = evolve(
            defaults(), downloads=self.folder, listen_addresses=("127.0.0.1",), listen_port=6881
        )
        self.session = self.make()

    def open_socket(self, host: str, port: int) -> FakeListeningSocket:
        if port in self.ports_in_use:
            raise OSError(98, "in use")
        self.sockets.append(FakeListeningSocket(host, port))
        return self.sockets[-1]

    def make(self) -> Session:
        return Session(
            self.reactor,
            self.settings,
            self.store,
            sources=[self.source],
            disk=self.disk,
            open_socket=self.open_socket,
        )

    def start(self) -> Session:
        self.successResultOf(self.session.start())
        return self.session

    def tearDown(self) -> None:
        """Whatever happened: a stop ends it, and nothing is left over."""
        self.store.calls.slow.clear()
        self.store.calls.failing.clear()
        self.store.calls.turn_all()
        self.disk.hangs = False
        if isinstance(self.disk, HangingDisk):
            self.disk.turn_all()
        stopped = self.session.stop()
        self.reactor.pump([0.5] * 20)
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.session.slots.used, 0)
        self.assertTrue(self.disk.stopped)
        self.assertEqual([socket for socket in self.sockets if not socket.closed], [])
        self.assertEqual(self.reactor.getReaders(), [])

    def stop_well(self) -> None:
        stopped = self.session.stop()
        self.reactor.advance(0)
        self.successResultOf(stopped)

    def seconds_to_stop(self) -> float:
        before = self.reactor.seconds()
        done: list[None] = []
        self.session.stop().addCallback(done.append)
        while not done:
            self.reactor.advance(0.1)
            self.assertLess(self.reactor.seconds(), before + 60)
        return self.reactor.seconds() - before

    def add(self, seed: int = 0, **how: Any) -> Torrent:
        torrent: Torrent = self.successResultOf(self.session.add(torrent_file(seed=seed)[0], **how))
        return torrent

    def rows(self) -> Sequence[StoredTorrent]:
        """What is in the store, however it feels."""
        return list(self.store._torrents.values())

    def events(self, listener: Subscription) -> list[Event]:
        found: list[Event] = []
        while (waiting := listener.next()).called:
            result: Any = self.results(waiting)
            if isinstance(result, Failure):
                result.trap(Closed)
                return found
            found.append(result)
        waiting.addErrback(lambda failure: None)
        waiting.cancel()
        return found

    def results(self, deferred: Deferred[Any]) -> Any:
        found: list[Any] = []
        deferred.addBoth(found.append)
        return found[0]


class StartTests(SessionTestCase):
    def test_listens(self) -> None:
        listener = self.session.events.listen()
        self.start()
        self.assertEqual(self.session.listening, [PeerAddress("127.0.0.1", 6881)])
        self.assertEqual(self.events(listener), [Listening((PeerAddress("127.0.0.1", 6881),))])

    def test_port_in_use(self) -> None:
        """Nothing is left open, the store neither; and a state that was not clean is not called so."""
        self.store.clean = False
        self.ports_in_use = {6881}
        self.failureResultOf(self.session.start(), ListenPortInUse)
        self.assertTrue(self.disk.stopped)
        self.assertIs(self.store.closed_clean, False)

    def test_port_in_use_and_clean(self) -> None:
        self.ports_in_use = {6881}
        self.failureResultOf(self.session.start(), ListenPortInUse)
        self.assertIs(self.store.closed_clean, True)

    def test_next_port(self) -> None:
        self.settings = evolve(self.settings, listen_next_port=True)
        self.session = self.make()
        self.ports_in_use = {6881, 6882}
        self.start()
        self.assertEqual(self.session.listening, [PeerAddress("127.0.0.1", 6883)])

    def test_no_next_port(self) -> None:
        self.settings = evolve(self.settings, listen_next_port=True, listen_port=65534)
        self.session = self.make()
        self.ports_in_use = {65534, 65535}
        self.failureResultOf(self.session.start(), ListenPortInUse)

    def test_store_that_cannot_be_read(self) -> None:
        for name in ("torrents", "progress"):
            self.store = FakeStore([])
            file, _ = torrent_file()
            self.store.add(StoredTorrent(file.info.infohash, file.raw, self.folder, 1.0, {}))
            self.store.calls.failing[name] = REFUSED
            self.session = self.make()
            started = self.session.start()
            self.reactor.advance(0)
            self.failureResultOf(started, StoreError)
            self.assertIsNotNone(self.store.closed_clean)
            self.assertEqual([socket for socket in self.sockets if not socket.closed], [])

    def test_failing_in_the_middle_stops_what_was_started(self) -> None:
        """The second torrent's progress cannot be read: the first runs already."""
        for seed in range(2):
            file, _ = torrent_file(seed=seed)
            self.store.add(StoredTorrent(file.info.infohash, file.raw, self.folder, 1.0, {}))
        self.store.calls.slow.add("progress")
        started = self.session.start()
        self.store.calls.turn()
        self.assertEqual(len(self.source.started), 1)
        self.store.calls.failing["progress"] = REFUSED
        self.store.calls.turn()
        self.reactor.advance(0)
        self.failureResultOf(started, StoreError)
        self.assertEqual(len(self.source.stopped), 1)

    def test_twice(self) -> None:
        self.start()
        self.failureResultOf(self.session.start(), RuntimeError)
        self.assertEqual(self.session.listening, [PeerAddress("127.0.0.1", 6881)])

    def test_after_the_stop(self) -> None:
        self.successResultOf(self.session.stop())
        self.assertIsNotNone(self.store.closed_clean)
        self.failureResultOf(self.session.start(), Closed)

    def test_torrents_of_the_store(self) -> None:
        file, data = torrent_file([("a", KIB16)])
        options = TorrentOptions(upload_rate=5).to_json()
        self.store.add(StoredTorrent(file.info.infohash, file.raw, self.folder, 7.0, options))
        self.start()
        torrent = self.session.torrents[file.info.infohash]
        self.assertEqual((torrent.save_path, torrent.added), (self.folder, 7.0))
        self.assertEqual(torrent.options.upload_rate, 5)
        self.assertEqual(torrent.phase.name, "running")

    def test_unreadable_rows_are_told_and_kept(self) -> None:
        """The others run."""
        good, _ = torrent_file(seed=1)
        other, _ = torrent_file(seed=2)
        rows = [
            StoredTorrent(b"1" * 20, b"nonsense", self.folder, 1.0, {}),
            StoredTorrent(b"2" * 20, other.raw, self.folder, 1.0, {}),  # of another torrent
            StoredTorrent(other.info.infohash, other.raw, self.folder, 1.0, {"upload_rate": "much"}),
            StoredTorrent(good.info.infohash, good.raw, self.folder, 1.0, {}),
        ]
        for row in rows:
            self.store.add(row)
        listener = self.session.events.listen()
        self.start()
        unreadable = {row.infohash for row in rows[:3]}
        self.assertEqual(set(self.session.unreadable), unreadable)
        self.assertEqual(set(self.session.torrents), {good.info.infohash})
        told = {each.infohash for each in self.events(listener) if isinstance(each, TorrentUnreadable)}
        self.assertEqual(told, unreadable)
        self.assertEqual(len(self.rows()), 4)

    def test_unreadable_row_is_replaced_by_adding(self) -> None:
        file, _ = torrent_file()
        bad = StoredTorrent(file.info.infohash, file.raw, self.folder, 1.0, {"upload_rate": "much"})
        self.store.add(bad)
        self.start()
        self.add()
        self.assertEqual(self.session.unreadable, {})
        self.assertEqual(self.rows()[0].options["upload_rate"], 0)

    def test_unreadable_row_can_be_removed(self) -> None:
        self.store.add(StoredTorrent(b"1" * 20, b"nonsense", self.folder, 1.0, {}))
        self.start()
        self.successResultOf(self.session.remove(b"1" * 20))
        self.assertEqual((self.session.unreadable, self.rows()), ({}, []))

    def test_rebuilt_torrents_are_held(self) -> None:
        """Until the user says otherwise; then the row is stored as any other."""
        file, _ = torrent_file()
        row = StoredTorrent(file.info.infohash, file.raw, "", 1.0, {}, rebuilt="damaged")
        self.store._torrents[row.infohash] = row
        self.start()
        torrent = self.session.torrents[row.infohash]
        self.assertEqual(torrent.phase.name, "stopped")
        self.assertEqual(torrent.save_path, self.folder)
        self.assertFalse(os.path.exists(self.folder))
        self.successResultOf(torrent.resume())
        self.assertEqual(torrent.phase.name, "running")
        (stored,) = self.rows()
        self.assertEqual((stored.rebuilt, stored.save_path), ("", self.folder))


class AddTests(SessionTestCase):
    def test_not_before_it_runs(self) -> None:
        self.failureResultOf(self.session.add(torrent_file()[0]), Closed)
        self.assertEqual(self.rows(), [])

    def test_acknowledged_after_the_commit(self) -> None:
        listener = self.start().events.listen()
        self.store.calls.slow.add("add")
        added = self.session.add(torrent_file()[0])
        self.assertNoResult(added)
        self.assertEqual(self.session.torrents, {})
        self.assertEqual(self.events(listener), [])
        self.store.calls.turn()
        torrent = self.successResultOf(added)
        self.assertEqual(self.session.torrents, {torrent.infohash: torrent})
        told = self.events(listener)
        self.assertEqual(told[0], TorrentAdded(torrent.infohash, torrent.name))
        self.assertEqual(
            told[-2:], [PhaseChanged(torrent.infohash, "running", None), TorrentChecked(torrent.infohash)]
        )

    def test_refused_leaves_nothing(self) -> None:
        """Durability 2: never acknowledged and lost."""
        self.start()
        self.store.calls.failing["add"] = REFUSED
        self.failureResultOf(self.session.add(torrent_file()[0]), StoreError)
        self.assertEqual((self.session.torrents, self.rows(), self.source.started), ({}, [], []))
        self.assertFalse(os.path.exists(self.folder))
        self.store.calls.failing.clear()
        self.add()

    def test_options_that_cannot_be_kept_leave_nothing(self) -> None:
        self.start()
        odd = TorrentOptions(download_rate=float("nan"))  # type: ignore[arg-type]
        self.failureResultOf(self.session.add(torrent_file()[0], options=odd), ValueError)
        self.assertEqual((self.session.torrents, self.rows()), ({}, []))

    def test_duplicate(self) -> None:
        self.start()
        torrent = self.add()
        self.failureResultOf(self.session.add(torrent_file()[0]), DuplicateTorrent)
        self.assertIs(self.session.torrents[torrent.infohash], torrent)

    def test_duplicate_while_it_is_added(self) -> None:
        self.start()
        self.store.calls.slow.add("add")
        first = self.session.add(torrent_file()[0])
        self.failureResultOf(self.session.add(torrent_file()[0]), DuplicateTorrent)
        self.store.calls.turn()
        self.successResultOf(first)

    def test_defaults(self) -> None:
        self.start()
        self.assertEqual(self.add().save_path, self.folder)
        self.assertEqual(self.add(1, save_path="relative").save_path, os.path.abspath("relative"))

    def test_peers(self) -> None:
        """They are known once it is known what is there."""
        self.start()
        address = PeerAddress("127.0.0.1", 5)
        torrent = self.add(peers=[address])
        assert isinstance(torrent.phase, Running)
        self.assertEqual(torrent.phase.book.next(self.reactor.seconds()), address)

    def test_paused(self) -> None:
        self.start()
        torrent = self.add(options=TorrentOptions(paused=True))
        self.assertEqual(torrent.phase.name, "stopped")
        self.assertFalse(os.path.exists(self.folder))

    def test_stop_while_it_is_added(self) -> None:
        """What was committed is acknowledged, and runs with the next session, not with one that is closed."""
        self.start()
        self.store.calls.slow.add("add")
        added = self.session.add(torrent_file()[0])
        stopped = self.session.stop()
        self.store.calls.turn()  # in order: the add came before the close
        self.reactor.advance(0)
        torrent = self.successResultOf(added)
        self.successResultOf(stopped)
        self.assertEqual((torrent.phase.name, self.source.started), ("stopped", []))
        self.assertEqual(len(self.rows()), 1)

    def test_stop_while_it_is_added_and_not_committed(self) -> None:
        self.start()
        self.store.calls.slow.add("add")
        added = self.session.add(torrent_file()[0])
        stopped = self.session.stop()
        self.reactor.advance(0)
        self.store.calls.turn()  # closed by now
        self.failureResultOf(added, StoreError)
        self.successResultOf(stopped)
        self.assertEqual(self.rows(), [])

    def test_after_the_stop(self) -> None:
        self.start()
        self.stop_well()
        self.failureResultOf(self.session.add(torrent_file()[0]), Closed)


class RemoveTests(SessionTestCase):
    def test_remove(self) -> None:
        self.start()
        torrent = self.add()
        listener = self.session.events.listen()
        self.successResultOf(self.session.remove(torrent.infohash))
        self.assertEqual((self.session.torrents, self.rows()), ({}, []))
        self.assertEqual(self.source.stopped, [torrent.infohash])
        self.assertEqual(self.events(listener)[0], TorrentRemoved(torrent.infohash))
        self.failureResultOf(torrent.resume(), Closed)

    def test_unknown(self) -> None:
        self.start()
        self.failureResultOf(self.session.remove(b"u" * 20), KeyError)

    def test_refused(self) -> None:
        """It is as it was."""
        self.start()
        torrent = self.add()
        self.store.calls.failing["remove"] = REFUSED
        self.failureResultOf(self.session.remove(torrent.infohash), StoreError)
        self.assertEqual(torrent.phase.name, "running")
        self.assertIn(torrent.infohash, self.session.torrents)
        self.store.calls.failing.clear()
        self.successResultOf(self.session.remove(torrent.infohash))

    def put_files(self, torrent: Torrent | None = None) -> str:
        file, data = torrent_file()
        path = os.path.join(self.folder, "t", "a")
        os.makedirs(os.path.dirname(path))
        with open(path, "wb") as there:
            there.write(data)
        return path

    def test_files_stay(self) -> None:
        self.start()
        path = self.put_files()
        torrent = self.add()
        self.assertTrue(torrent.complete)
        self.successResultOf(self.session.remove(torrent.infohash))
        self.assertTrue(os.path.exists(path))

    def test_files_are_deleted(self) -> None:
        self.start()
        path = self.put_files()
        torrent = self.add()
        self.successResultOf(self.session.remove(torrent.infohash, delete_files=True))
        self.assertFalse(os.path.exists(path))
        self.assertFalse(os.path.exists(os.path.join(self.folder, "t")))

    def test_while_checking(self) -> None:
        self.start()
        self.put_files()
        self.disk.hangs = True
        torrent = self.add()
        self.disk.turn()
        while torrent.phase.name != "checking":
            self.disk.turn()
        removed = self.session.remove(torrent.infohash)
        self.assertNoResult(removed)
        self.assertEqual(self.rows(), [])
        self.disk.turn_all()
        self.successResultOf(removed)
        self.assertEqual(torrent.phase.name, "stopped")
        self.assertEqual(self.source.started, [])

    def test_again_only_when_its_files_are_closed(self) -> None:
        """Two torrents must not have the same files; and the second would lose them with the first."""
        self.start()
        torrent = self.add()
        self.disk.hangs = True
        removed = self.session.remove(torrent.infohash, delete_files=True)
        self.failureResultOf(self.session.add(torrent_file()[0]), DuplicateTorrent)
        self.failureResultOf(self.session.remove(torrent.infohash), KeyError)
        self.disk.hangs = False
        self.disk.turn_all()
        self.successResultOf(removed)
        self.add()

    def test_does_not_come_back_by_a_change(self) -> None:
        """The change is asked for while the store forgets the torrent."""
        self.start()
        torrent = self.add()
        self.store.calls.slow.update({"remove", "add"})
        removed = self.session.remove(torrent.infohash)
        changed = Changes(torrent).set_limits(1, 1)
        self.store.calls.turn_all()
        self.successResultOf(removed)
        self.failureResultOf(changed, Closed)
        self.assertEqual(self.rows(), [])

    def test_one_that_is_being_added(self) -> None:
        self.start()
        self.store.calls.slow.add("add")
        file = torrent_file()[0]
        added = self.session.add(file)
        self.failureResultOf(self.session.remove(file.info.infohash), KeyError)
        self.store.calls.turn()
        self.successResultOf(added)

    def test_bits_of_the_removed_are_not_those_of_the_next(self) -> None:
        self.start()
        self.put_files()
        torrent = self.add()
        self.successResultOf(self.session.remove(torrent.infohash, delete_files=True))
        again = self.add()
        self.assertEqual(again.have.count, 0)


class StopTests(SessionTestCase):
    def test_in_order(self) -> None:
        """S4: nothing new comes in first of all, and the store is closed last."""
        self.start()
        self.add()
        log: list[str] = []
        socket = self.sockets[0]
        close, disk_stop, store_close = socket.close, self.disk.stop, self.store.close
        self.patch(socket, "close", lambda: (log.append("socket"), close()))
        self.patch(self.disk, "stop", lambda: (log.append("disk"), disk_stop())[1])
        self.patch(self.source, "stop", lambda infohash: (log.append("goodbye"), succeed(None))[1])
        self.patch(self.store, "close", lambda clean: (log.append("store"), store_close(clean=clean))[1])
        self.stop_well()
        self.assertEqual(log, ["socket", "goodbye", "disk", "store"])

    def test_clean(self) -> None:
        self.start()
        self.add()
        self.stop_well()
        self.assertIs(self.store.closed_clean, True)

    def test_no_failure_is_told(self) -> None:
        """S6."""
        listener = self.start().events.listen()
        self.add()
        self.stop_well()
        told = self.events(listener)
        self.assertEqual([each for each in told if isinstance(each, RuntimeFailed | Degraded)], [])

    def test_second_call(self) -> None:
        """It fires when the first one does."""
        self.start()
        self.add()
        self.disk.hangs = True
        first, second = self.session.stop(), self.session.stop()
        self.reactor.advance(0)
        self.assertNoResult(first)
        self.assertNoResult(second)
        self.disk.hangs = False
        self.disk.turn_all()
        self.reactor.advance(0)
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(self.session.stop())

    def test_disk_that_never_answers(self) -> None:
        """S8: within the deadline, and the store is closed, not as clean."""
        self.start()
        self.add()
        self.disk.hangs = True
        self.assertLessEqual(self.seconds_to_stop(), self.settings.stop_deadline + 0.2)
        self.assertIs(self.store.closed_clean, False)

    def test_store_that_never_answers(self) -> None:
        self.start()
        self.add()
        self.store.calls.slow.update({"commit", "close"})
        self.assertLessEqual(self.seconds_to_stop(), self.settings.stop_deadline + 0.2)

    def test_nothing_ever_answers(self) -> None:
        self.start()
        self.add()
        self.store.calls.slow.update({"commit", "close"})
        self.disk.hangs = True
        self.assertLessEqual(self.seconds_to_stop(), self.settings.stop_deadline + 0.2)

    def test_one_hanging_torrent_does_not_hold_up_the_rest(self) -> None:
        """They stop, and what they have is committed."""
        self.start()
        hanging, good = self.add(1), self.add(2)
        self.patch(hanging.opened, "sync", lambda: Deferred())
        good.ledger.have.set(0)
        self.seconds_to_stop()
        self.assertEqual((hanging.kept, good.kept), (False, True))
        self.assertEqual(self.store._progress[good.infohash].bits, good.have.to_bytes())

    def test_tracker_that_never_answers(self) -> None:
        """The goodbye is given up after its time."""
        self.session = Session(
            self.reactor, self.settings, self.store, disk=self.disk, open_socket=self.open_socket
        )
        self.start()
        raw = torrent_file()[0].raw
        file = TorrentFile.from_bytes(b"d8:announce22:http://127.0.0.1/abcde" + raw[1:])
        self.successResultOf(self.session.add(file))
        self.reactor.pump([0.1] * 10)
        self.assertLessEqual(self.seconds_to_stop(), self.settings.tracker_goodbye + 1)
        self.reactor.pump([1.0] * 30)

    def test_goodbye_that_never_ends(self) -> None:
        """Trackers are told how long they have; and if that were broken, it would not hold up the rest."""
        deadlines: list[float] = []
        trackers = self.session.trackers
        self.patch(trackers, "stop_all", lambda deadline: (deadlines.append(deadline), Deferred())[1])
        self.start()
        self.add()
        self.assertLessEqual(self.seconds_to_stop(), self.settings.stop_deadline)
        self.assertEqual(deadlines, [self.settings.tracker_goodbye])
        self.assertIs(self.store.closed_clean, True)

    def test_while_starting(self) -> None:
        """The store never says what torrents there are."""
        self.store.calls.slow.add("torrents")
        started = self.session.start()
        self.assertNoResult(started)
        stopped = self.session.stop()
        self.reactor.advance(0)
        self.failureResultOf(started, Closed)
        self.successResultOf(stopped)
        self.assertIsNotNone(self.store.closed_clean)
        self.store.calls.turn_all()
        self.assertEqual(self.session.torrents, {})

    def test_while_loading(self) -> None:
        for seed in range(2):
            file, _ = torrent_file(seed=seed)
            self.store.add(StoredTorrent(file.info.infohash, file.raw, self.folder, 1.0, {}))
        self.store.calls.slow.add("progress")
        started = self.session.start()
        self.store.calls.turn()
        stopped = self.session.stop()
        self.reactor.advance(0)
        self.failureResultOf(started, Closed)
        self.successResultOf(stopped)
        self.assertEqual(len(self.source.stopped), 1)

    def test_while_checking(self) -> None:
        self.start()
        RemoveTests.put_files(self)  # type: ignore[arg-type]
        self.disk.hangs = True
        torrent = self.add()
        while torrent.phase.name != "checking":
            self.disk.turn()
        stopped = self.session.stop()
        self.reactor.advance(0)
        self.disk.hangs = False
        self.disk.turn_all()
        self.successResultOf(stopped)
        self.assertEqual(self.source.started, [])

    def test_files_that_could_not_be_synced_are_not_clean(self) -> None:
        self.start()
        torrent = self.add()
        self.patch(torrent.opened, "sync", lambda: fail(BROKEN))
        self.seconds_to_stop()
        self.assertIs(self.store.closed_clean, False)

    def test_degraded_is_not_clean(self) -> None:
        self.start()
        self.add()
        self.store.calls.failing["commit"] = REFUSED
        self.seconds_to_stop()
        self.assertIs(self.store.closed_clean, False)

    def test_a_listener_that_fails_to_stop(self) -> None:
        """The rest is closed all the same (S3)."""
        self.start()
        self.add()
        listener_stop = self.session.listener.stop

        def stop() -> Deferred[None]:
            listener_stop()
            raise ZeroDivisionError

        self.session._supervisor._parts["listener"].service.stop = stop  # type: ignore[attr-defined, method-assign]
        self.seconds_to_stop()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIs(self.store.closed_clean, True)

    def test_events_end(self) -> None:
        listener = self.start().events.listen()
        self.stop_well()
        self.events(listener)
        self.failureResultOf(listener.next(), Closed)


class RuntimeTests(SessionTestCase):
    def failures(self, listener: Subscription) -> list[str]:
        return [each.component for each in self.events(listener) if isinstance(each, RuntimeFailed)]

    def test_listener_that_is_lost(self) -> None:
        """S2: required. Told exactly once, then everything stops in order."""
        listener = self.start().events.listen()
        self.add()
        port: Any = self.reactor.getReaders()[0]
        port.connectionLost(Failure(OSError("gone")))
        self.reactor.advance(0)
        self.assertEqual(self.failures(listener), ["listener"])
        self.assertIs(self.store.closed_clean, True)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_store_that_breaks(self) -> None:
        listener = self.start().events.listen()
        self.add()
        self.store.calls.failing["commit"] = ZeroDivisionError()
        self.failureResultOf(
            self.session.commits.commit(next(iter(self.session.torrents.values())).ledger.snapshot()),
            StoreError,
        )
        self.reactor.pump([0.1] * 10)
        self.assertEqual(self.failures(listener), ["store"])
        self.assertIs(self.store.closed_clean, False)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_store_that_refuses_is_degraded(self) -> None:
        """Durability 7: no failure of the service."""
        self.start()
        torrent = self.add()
        listener = self.session.events.listen()
        self.store.calls.failing["commit"] = REFUSED
        torrent.ledger.note(1)
        self.reactor.advance(1)
        self.store.calls.failing.clear()
        self.reactor.advance(2)
        self.assertEqual(
            [each for each in self.events(listener) if isinstance(each, Degraded)],
            [Degraded("store", str(REFUSED)), Degraded("store", None)],
        )
        self.assertEqual(torrent.phase.name, "running")
