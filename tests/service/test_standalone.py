"""The daemon around a session: its order, its bounds and what it says."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.application.service import IService
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from irontide.errors import ListenPortInUse, StateInUse
from irontide.service.standalone import Daemon
from irontide.session.events import Degraded, RuntimeFailed
from irontide.session.memory_store import MemoryStore
from irontide.settings import Settings
from tests.service.fakes import FakeNotifier, FakeSession
from tests.temporary import FolderTestCase


class DaemonTests(FolderTestCase):
    """Daemon with a session that does as the test says."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.session = FakeSession()
        self.notifier = FakeNotifier()
        self.store = MemoryStore()
        self.opening: Deferred[Any] = succeed(self.store)
        self.given_up: list[bool] = []
        self.settings = Settings(downloads="/there", state="/here", stop_deadline=8.0)

    def make(self) -> Daemon:
        return Daemon(
            self.clock,
            self.settings,
            open_store=lambda directory: self.opening,
            make_session=lambda settings, store: self.session,
            notifier=self.notifier,  # type: ignore[arg-type]
            give_up=lambda: self.given_up.append(True),
        )

    def texts(self, events: list[Any], level: LogLevel = LogLevel.info) -> list[str]:
        return [formatEvent(event) for event in events if event["log_level"] is level]

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IService, self.make()))

    def test_says_where_it_is_and_where_it_keeps_what(self) -> None:
        with capturedLogs() as events:
            self.make().startService()
        self.assertEqual(
            self.texts(events),
            ["listening on 0.0.0.0:6881, [::]:6881", "downloads go to /there", "state is kept in /here"],
        )

    def test_ready_only_when_started(self) -> None:
        self.session.starting = Deferred()
        self.make().startService()
        self.assertEqual(self.notifier.told, [])
        self.session.starting.callback(None)
        self.assertEqual(self.notifier.told[0]["READY"], 1)

    def test_stop_in_order(self) -> None:
        daemon = self.make()
        daemon.startService()
        self.session.stopping = Deferred()
        stopped = daemon.stopService()
        self.assertEqual(self.notifier.told[-1]["STOPPING"], 1)
        self.assertNoResult(stopped)
        self.session.stopping.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.session.calls, ["start", "stop"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_is_bounded(self) -> None:
        """S4: a session that does not stop is given up after the deadline, and that is said."""
        daemon = self.make()
        daemon.startService()
        self.session.stopping = Deferred()
        stopped = daemon.stopService()
        self.clock.advance(7.9)
        self.assertNoResult(stopped)
        with capturedLogs() as events:
            self.clock.advance(0.2)
        self.successResultOf(stopped)
        self.assertEqual(len(self.texts(events, LogLevel.error)), 1)
        self.session.stopping.callback(None)

    def test_stop_while_starting_waits_for_the_start(self) -> None:
        self.session.starting = Deferred()
        daemon = self.make()
        daemon.startService()
        stopped = daemon.stopService()
        self.assertEqual(self.session.calls, ["start"])
        self.session.starting.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.session.calls, ["start", "stop"])

    def test_stop_that_fails_still_ends(self) -> None:
        daemon = self.make()
        daemon.startService()
        self.session.stopping = fail(ZeroDivisionError())
        self.successResultOf(daemon.stopService())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_what_the_user_can_mend_is_one_line(self) -> None:
        for error in (ListenPortInUse(6881), StateInUse("/here is in use by process 7")):
            self.session.starting = fail(error)
            with capturedLogs() as events:
                daemon = self.make()
                daemon.startService()
            self.assertEqual(self.texts(events, LogLevel.critical), [f"irontide cannot start: {error}"])
            self.assertEqual(len(events), 1)
            self.assertNotIn("log_failure", events[0])
            self.successResultOf(daemon.stopService())
        self.assertEqual(self.given_up, [True, True])
        self.assertNotIn("stop", self.session.calls)

    def test_ends_when_a_part_fails_that_it_needs(self) -> None:
        """A process without its listener or its store must not look alive (contract S2)."""
        self.make().startService()
        self.assertEqual(self.given_up, [])
        with capturedLogs() as events:
            self.session.events.tell(RuntimeFailed("listener", Failure(OSError("gone"))))
        self.assertEqual(self.given_up, [True])
        self.assertEqual(self.texts(events, LogLevel.critical), ["irontide stops: its listener has failed"])

    def test_degraded_is_told_to_the_service_manager(self) -> None:
        self.make().startService()
        self.session.events.tell(Degraded("store", "disk full"))
        self.assertEqual(self.notifier.told[-1], {"STATUS": "Degraded: store: disk full"})
        self.session.events.tell(Degraded("store", None))
        self.assertEqual(self.notifier.told[-1], {"STATUS": "The store works again"})

    def test_bugs_have_their_traceback(self) -> None:
        self.opening = fail(ZeroDivisionError())
        self.make().startService()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.given_up, [True])
        self.assertEqual(self.session.calls, [])

    def test_repairs_of_the_store_are_said(self) -> None:
        self.store.repairs = ["a row was damaged"]
        with capturedLogs() as events:
            self.make().startService()
        self.assertEqual(self.texts(events, LogLevel.warn), ["the state was damaged: a row was damaged"])

    def test_watching_starts_and_stops_with_it(self) -> None:
        self.settings = attrs.evolve(self.settings, watch=self.mktemp())
        self.patch(self.clock, "getThreadPool", None) if hasattr(self.clock, "getThreadPool") else None
        self.clock.getThreadPool = lambda: _InPlace()  # type: ignore[attr-defined]
        self.clock.callFromThread = lambda call, *args, **kw: call(*args, **kw)  # type: ignore[attr-defined]
        daemon = self.make()
        daemon.startService()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.successResultOf(daemon.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])


class _InPlace:
    """A thread pool that has no threads."""

    def callInThreadWithCallback(self, done: Any, work: Any, *args: Any, **kw: Any) -> None:
        """See IThreadPool."""
        try:
            result = work(*args, **kw)
        except Exception as error:
            done(False, error)
        else:
            done(True, result)
