"""Waiting, taking turns, trying again."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from irontide.torrent.retry import SPACE_RETRY, SPACE_RETRY_LAST, Retry
from irontide.torrent.turns import Turns
from irontide.torrent.waiting import Waiting


class WaitingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.waiting = Waiting()

    def test_all_are_told_once(self) -> None:
        first, second = self.waiting.wait(), self.waiting.wait()
        self.waiting.fire()
        self.successResultOf(first)
        self.successResultOf(second)
        self.waiting.fire()
        self.assertNoResult(self.waiting.wait())

    def test_all_are_told_what_went_wrong(self) -> None:
        first, second = self.waiting.wait(), self.waiting.wait()
        self.waiting.fail(OSError())
        self.failureResultOf(first, OSError)
        self.failureResultOf(second, OSError)

    def test_whoever_gives_up_is_not_told(self) -> None:
        first, second = self.waiting.wait(), self.waiting.wait()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.waiting.fire()
        self.successResultOf(second)

    def test_whoever_waits_again_when_told_waits_for_the_next_time(self) -> None:
        again: list[Deferred[None]] = []
        self.waiting.wait().addCallback(lambda _: again.append(self.waiting.wait()))
        self.waiting.fire()
        self.assertNoResult(again[0])

    def test_one_that_is_told_may_take_another_off(self) -> None:
        """The list is the one at the time of firing."""
        second: list[Deferred[None]] = []
        self.waiting.wait().addCallback(lambda _: second[0].cancel())
        second.append(self.waiting.wait())
        second[0].addErrback(lambda failure: failure.trap(CancelledError) and None)
        self.waiting.fire()
        self.successResultOf(second[0])


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.turns = Turns()
        self.begun: list[str] = []
        self.ends: dict[str, Deferred[None]] = {}

    async def change(self, name: str) -> None:
        self.begun.append(name)
        self.ends[name] = Deferred()
        await self.ends[name]

    def test_in_order_and_one_at_a_time(self) -> None:
        done = [self.turns.run(lambda name=name: self.change(name)) for name in "abc"]  # type: ignore[misc]
        self.assertEqual(self.begun, ["a"])
        self.ends["a"].errback(OSError())
        self.failureResultOf(done[0], OSError)
        self.assertEqual(self.begun, ["a", "b"])
        self.ends["b"].callback(None)
        self.successResultOf(done[1])
        self.ends["c"].callback(None)
        self.successResultOf(done[2])

    def test_hurry_until_its_turn(self) -> None:
        self.turns.run(lambda: self.change("a"))
        self.assertFalse(self.turns.hurry)
        self.turns.run_soon(lambda: self.change("b"))
        self.turns.run(lambda: self.change("c"))
        self.assertTrue(self.turns.hurry)
        self.ends["a"].callback(None)
        self.assertFalse(self.turns.hurry)

    def test_no_hurry_when_given_up(self) -> None:
        first = self.turns.run(lambda: self.change("a"))
        second = self.turns.run_soon(lambda: self.change("b"))
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertFalse(self.turns.hurry)
        self.ends["a"].callback(None)
        self.successResultOf(first)
        self.assertEqual(self.begun, ["a"])


class RetryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: list[float] = []
        self.retry = Retry(self.clock, lambda: self.calls.append(self.clock.seconds()))

    def waits(self) -> float:
        (call,) = self.clock.getDelayedCalls()
        return call.getTime() - self.clock.seconds()

    def test_more_and_more_seldom(self) -> None:
        waits = []
        for _ in range(6):
            self.retry.later()
            waits.append(self.waits())
            self.clock.advance(waits[-1])
        self.assertEqual(waits, [SPACE_RETRY, 30, 60, SPACE_RETRY_LAST, SPACE_RETRY_LAST, SPACE_RETRY_LAST])
        self.assertEqual(len(self.calls), 6)

    def test_soon_again_when_it_went_well(self) -> None:
        self.retry.later()
        self.retry.went_well()
        self.retry.later()
        self.assertEqual(self.waits(), SPACE_RETRY)
        self.retry.cancel()
        self.retry.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_never_after_the_end(self) -> None:
        self.retry.later()
        self.retry.end()
        self.retry.later()
        self.assertEqual(self.clock.getDelayedCalls(), [])
