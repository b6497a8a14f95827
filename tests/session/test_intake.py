"""The intake that all peers share: enough for a turn, enough for the disk, and turns for everybody."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from irontide.session.intake import MAX_JOBS, RETRY, TURN, SharedIntake


class TurnClock(Clock):
    """A Clock whose turns end: what is due at once, but was asked for in a turn, is for the next one."""

    def turn(self) -> None:
        """What was due when the turn began."""
        due = [call for call in self.getDelayedCalls() if call.getTime() <= self.seconds()]
        for call in due:
            self.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)


class SharedIntakeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = TurnClock()
        self.jobs = 0
        self.intake = SharedIntake(self.clock, lambda: self.jobs)
        self.woken: list[str] = []

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def wait(self, name: str, takes: float = 0.0, again: int = 0) -> None:
        """``name`` waits; once woken it parses for ``takes`` seconds, and waits ``again`` times more."""

        def go_on() -> None:
            self.woken.append(name)
            self.intake.begin()
            self.clock.rightNow += takes
            if again:
                self.wait(name, takes, again - 1)

        self.intake.when_room(go_on)

    def turn(self) -> list[str]:
        """One turn of the reactor: who was woken in it."""
        before = len(self.woken)
        self.clock.turn()
        return self.woken[before:]

    def test_a_turn_lasts_so_long_and_no_longer(self) -> None:
        self.intake.begin()
        self.clock.rightNow += TURN
        self.assertFalse(self.intake.full())
        self.clock.rightNow += 0.0001
        self.assertTrue(self.intake.full())
        self.clock.advance(0)
        self.assertFalse(self.intake.full())

    def test_all_peers_share_the_turn(self) -> None:
        """The second to begin does not begin a turn of its own."""
        self.intake.begin()
        self.clock.rightNow += TURN
        self.intake.begin()
        self.clock.rightNow += TURN / 2
        self.assertTrue(self.intake.full())
        self.turn()

    def test_a_silent_intake_has_room(self) -> None:
        self.clock.advance(100)
        self.assertFalse(self.intake.full())

    def test_too_many_disk_jobs(self) -> None:
        self.jobs = MAX_JOBS
        self.assertFalse(self.intake.full())
        self.jobs += 1
        self.assertTrue(self.intake.full())

    def test_who_waits_is_woken_in_the_next_turn_once(self) -> None:
        self.wait("a")
        self.assertEqual(self.woken, [])
        self.assertEqual(self.turn(), ["a"])
        self.assertEqual(self.turn(), [])

    def test_nobody_is_woken_while_the_disk_is_behind(self) -> None:
        self.jobs = MAX_JOBS + 1
        self.wait("a")
        self.wait("b")
        for _ in range(10):
            self.clock.advance(RETRY)
        self.assertEqual(self.woken, [])
        self.assertEqual(len(self.clock.getDelayedCalls()), 1, "one timer for all")
        self.jobs = 0
        self.clock.advance(RETRY)
        self.assertEqual(self.woken, ["a", "b"])
        self.turn()

    def test_waking_stops_when_the_turn_is_over_and_goes_on_with_the_next(self) -> None:
        for name in "abc":
            self.wait(name, takes=0.003)
        self.assertEqual(self.turn(), ["a", "b"])
        self.assertEqual(self.turn(), ["c"])
        self.turn()

    def test_a_flood_goes_behind_those_who_waited_meanwhile(self) -> None:
        """Two that never finish, and one that has a word to say."""
        self.wait("flood", takes=0.01, again=3)
        self.wait("storm", takes=0.01, again=3)
        self.wait("word")
        turns = [self.turn() for _ in range(8)]
        self.assertEqual(turns[:5], [["flood"], ["storm"], ["word", "flood"], ["storm"], ["flood"]])
        self.assertEqual(sorted(self.woken), 4 * ["flood"] + 4 * ["storm"] + ["word"])
        self.turn()

    def test_one_that_raises_does_not_keep_the_others_waiting(self) -> None:
        def bug() -> None:
            raise ZeroDivisionError

        self.intake.when_room(bug)
        self.wait("b")
        self.assertEqual(self.turn(), ["b"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.turn()
