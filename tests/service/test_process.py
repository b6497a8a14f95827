"""The clock and the signals of a process that is ours."""

from __future__ import annotations

import signal
import time

from twisted.internet.base import ReactorBase
from twisted.trial.unittest import SynchronousTestCase

from irontide.service.process import StopSignals, use_monotonic_clock


class InertReactor(ReactorBase):
    """A stock reactor without any I/O."""

    def installWaker(self) -> None:
        """See ReactorBase."""

    def removeAll(self) -> list:
        """See ReactorBase."""
        return []


class ClockTests(SynchronousTestCase):
    """Principle 9 of the architecture."""

    def setUp(self) -> None:
        self.reactor = InertReactor()

    def test_timed_calls_run_on_the_monotonic_clock(self) -> None:
        use_monotonic_clock(self.reactor)
        call = self.reactor.callLater(5, lambda: None)
        self.assertApproximates(call.getTime() - time.monotonic(), 5, 1)
        self.assertLessEqual(self.reactor.timeout(), 5)
        call.reset(7)
        self.assertApproximates(call.getTime() - time.monotonic(), 7, 1)
        call.cancel()

    def test_again_is_fine(self) -> None:
        use_monotonic_clock(self.reactor)
        call = self.reactor.callLater(5, lambda: None)
        use_monotonic_clock(self.reactor)
        call.cancel()

    def test_leaves_nothing_behind(self) -> None:
        use_monotonic_clock(self.reactor)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_too_late(self) -> None:
        """A call that is due by the wall clock would come in decades."""
        self.reactor.callLater(5, lambda: None)
        self.assertRaises(RuntimeError, use_monotonic_clock, self.reactor)

    def test_reactor_that_will_not(self) -> None:
        wall = time.time
        self.patch(self.reactor, "callLater", lambda delay, call: _Call(wall() + delay))
        self.assertRaises(RuntimeError, use_monotonic_clock, self.reactor)


class _Call:
    """A timed call on another clock."""

    def __init__(self, due: float) -> None:
        self._due = due

    def getTime(self) -> float:
        """See IDelayedCall."""
        return self._due

    def cancel(self) -> None:
        """See IDelayedCall."""


class SignalTests(SynchronousTestCase):
    """S8 and the signals that must not kill."""

    def setUp(self) -> None:
        self.did: list[object] = []
        self.signals = StopSignals(
            self, lambda number, frame: self.did.append(("stop", number)), self.exit_now
        )

    def stop(self, number: int, frame: object) -> None:
        self.did.append(("stop", number))

    def exit_now(self, code: int) -> None:
        self.did.append(("exit", code))
        raise SystemExit

    def callFromThread(self, function, *args, **kwargs) -> None:
        self.did.append("later")

    def test_first_stops_in_order(self) -> None:
        self.signals.stop_signal(signal.SIGTERM, None)
        self.assertEqual(self.did, [("stop", signal.SIGTERM)])

    def test_second_ends_at_once(self) -> None:
        self.signals.stop_signal(signal.SIGTERM, None)
        self.assertRaises(SystemExit, self.signals.stop_signal, signal.SIGTERM, None)
        self.assertEqual(self.did[1:], [("exit", 143)])

    def test_interrupt_after_term_ends_at_once(self) -> None:
        self.signals.stop_signal(signal.SIGTERM, None)
        self.assertRaises(SystemExit, self.signals.stop_signal, signal.SIGINT, None)
        self.assertEqual(self.did[1:], [("exit", 130)])

    def test_hangup_only_logs(self) -> None:
        self.signals.hangup(signal.SIGHUP, None)
        self.assertEqual(self.did, ["later"])
