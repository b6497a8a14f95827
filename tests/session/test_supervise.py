"""Contract S2, S3 and S6: what follows from the failure of a part, and that nothing else does."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from irontide.interfaces import IService
from irontide.session.supervise import RESTART_FIRST, RESTART_LAST, Part, Policy, Supervisor


@implementer(IService)
class FakeService:
    """Starts and stops as told."""

    def __init__(self, name: str = "part") -> None:
        self.name = name
        self.starts = self.stops = 0
        self.starting: Deferred[None] | None = None
        self.stopping: Deferred[None] | None = None
        self.error: Exception | None = None

    def start(self) -> Deferred[None]:
        self.starts += 1
        if self.error is not None:
            return fail(self.error)
        return self.starting or succeed(None)

    def stop(self) -> Deferred[None]:
        self.stops += 1
        return self.stopping or succeed(None)


class SupervisorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.failed: list[tuple[str, Failure]] = []
        self.supervisor = Supervisor(self.clock, lambda name, failure: self.failed.append((name, failure)))
        self.service = FakeService()

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def start(self, policy: Policy) -> None:
        self.successResultOf(self.supervisor.start(self.service, policy))

    def break_down(self) -> None:
        self.supervisor.failed("part", Failure(ZeroDivisionError()))

    def stop(self) -> bool:
        return self.successResultOf(self.supervisor.stop("part", 5))

    def test_services_are_faithful(self) -> None:
        self.assertTrue(verifyObject(IService, self.service))
        self.assertTrue(verifyObject(IService, Part("part", self.service.start, self.service.stop)))

    def test_stopping_is_no_failure(self) -> None:
        for policy in Policy:
            self.start(policy)
            self.assertTrue(self.stop())
            self.break_down()
        self.assertEqual((self.service.starts, self.service.stops, self.failed), (3, 3, []))

    def test_required_part_that_fails(self) -> None:
        """Told exactly once, however much fails after it."""
        other = FakeService("other")
        self.start(Policy.REQUIRED)
        self.successResultOf(self.supervisor.start(other, Policy.REQUIRED))
        self.break_down()
        self.break_down()
        self.supervisor.failed("other", Failure(OSError()))
        self.assertEqual([name for name, _ in self.failed], ["part"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.clock.advance(RESTART_LAST)
        self.assertEqual(self.service.starts, 1)

    def test_required_part_that_does_not_start(self) -> None:
        """Whoever starts it is told, and nobody else."""
        self.service.error = OSError()
        self.failureResultOf(self.supervisor.start(self.service, Policy.REQUIRED), OSError)
        self.assertEqual(self.failed, [])
        self.assertTrue(self.stop())
        self.assertEqual(self.service.stops, 0)

    def test_restarted(self) -> None:
        self.start(Policy.RESTART)
        self.break_down()
        self.assertEqual(self.service.stops, 1)
        self.clock.advance(RESTART_FIRST - 0.1)
        self.assertEqual(self.service.starts, 1)
        self.clock.advance(0.1)
        self.assertEqual(self.service.starts, 2)
        self.assertEqual(self.failed, [])
        self.assertTrue(self.stop())
        self.flushLoggedErrors(ZeroDivisionError)

    def test_restarted_with_backoff(self) -> None:
        self.service.error = OSError()
        self.start(Policy.RESTART)
        waits = []
        for _ in range(8):
            (call,) = self.clock.getDelayedCalls()
            waits.append(call.getTime() - self.clock.seconds())
            self.clock.advance(waits[-1])
        self.assertEqual(waits, [RESTART_FIRST, 10, 20, 40, 80, 160, RESTART_LAST, RESTART_LAST])
        self.assertTrue(self.stop())
        self.assertEqual(self.service.stops, 0)
        self.flushLoggedErrors(OSError)

    def test_backoff_begins_anew_once_it_ran_well(self) -> None:
        self.start(Policy.RESTART)
        for ran, wait in ((1, 5), (1, 10), (RESTART_LAST, 5)):
            self.clock.advance(ran)
            self.break_down()
            (call,) = self.clock.getDelayedCalls()
            self.assertEqual(call.getTime() - self.clock.seconds(), wait)
            self.clock.advance(wait)
        self.assertTrue(self.stop())
        self.flushLoggedErrors(ZeroDivisionError)

    def test_not_restarted_once_stopped(self) -> None:
        self.start(Policy.RESTART)
        self.break_down()
        self.assertTrue(self.stop())
        self.clock.advance(RESTART_LAST)
        self.assertEqual(self.service.starts, 1)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_not_restarted_if_stopped_while_it_goes_down(self) -> None:
        self.start(Policy.RESTART)
        self.service.stopping = Deferred()
        self.break_down()
        stopped = self.supervisor.stop("part", 5)
        self.service.stopping.callback(None)
        self.successResultOf(stopped)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_a_start_that_ends_after_the_stop(self) -> None:
        """It is stopped all the same."""
        self.service.starting = Deferred()
        started = self.supervisor.start(self.service, Policy.RESTART)
        self.assertTrue(self.stop())
        self.service.starting.callback(None)
        self.successResultOf(started)
        self.assertEqual(self.service.stops, 1)

    def test_best_effort(self) -> None:
        self.start(Policy.BEST_EFFORT)
        self.break_down()
        self.assertEqual(self.failed, [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.clock.advance(RESTART_LAST)
        self.assertEqual(self.service.starts, 1)

    def test_best_effort_that_does_not_start(self) -> None:
        self.service.error = OSError()
        self.start(Policy.BEST_EFFORT)
        self.flushLoggedErrors(OSError)

    def test_an_exception_while_starting_is_a_failure_of_the_part(self) -> None:
        def start() -> Deferred[None]:
            raise ZeroDivisionError

        part = Part("part", start, self.service.stop)
        self.successResultOf(self.supervisor.start(part, Policy.BEST_EFFORT))
        self.failureResultOf(self.supervisor.start(part, Policy.REQUIRED), ZeroDivisionError)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_stopping_is_bounded(self) -> None:
        self.start(Policy.REQUIRED)
        self.service.stopping = Deferred()
        stopped = self.supervisor.stop("part", 5)
        self.clock.advance(4.9)
        self.assertNoResult(stopped)
        self.clock.advance(0.1)
        self.assertFalse(self.successResultOf(stopped))
        self.service.stopping.errback(OSError())
        self.flushLoggedErrors(OSError)

    def test_stopping_that_fails(self) -> None:
        self.start(Policy.REQUIRED)
        self.service.stopping = fail(OSError())
        self.assertFalse(self.stop())
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_stopping_what_there_is_not(self) -> None:
        self.assertTrue(self.stop())
        self.assertTrue(self.stop())
