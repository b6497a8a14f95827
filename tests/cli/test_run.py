"""How a command ends: interruptions, errors and exit codes."""

from __future__ import annotations

import click
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import Logger, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from irontide.cli.run import Complaints, Interrupted, Interruption, exit_code, first_of, once
from irontide.errors import StateInUse


class FirstOfTests(SynchronousTestCase):
    """first_of."""

    def test_first_wins_and_the_others_are_cancelled(self) -> None:
        cancelled: list[object] = []
        slow: Deferred[int] = Deferred(cancelled.append)
        fast: Deferred[int] = Deferred()
        result = first_of(slow, fast)
        fast.callback(1)
        self.assertEqual(self.successResultOf(result), 1)
        self.assertEqual(cancelled, [slow])

    def test_first_failure_wins_too(self) -> None:
        slow: Deferred[int] = Deferred()
        self.failureResultOf(first_of(slow, fail(ValueError())), ValueError)

    def test_already_fired(self) -> None:
        self.assertEqual(self.successResultOf(first_of(succeed(1), fail(ValueError()))), 1)
        self.failureResultOf(first_of(fail(ValueError()), fail(KeyError())), ValueError)

    def test_later_outcomes_are_dropped(self) -> None:
        first: Deferred[int] = Deferred()
        second: Deferred[int] = Deferred()
        result = first_of(first, second)
        first.callback(1)
        second.errback(ValueError())
        self.assertEqual(self.successResultOf(result), 1)

    def test_cancelling_cancels_all(self) -> None:
        contenders: list[Deferred[int]] = [Deferred(), Deferred()]
        result = first_of(*contenders)
        result.cancel()
        self.failureResultOf(result, CancelledError)


class InterruptionTests(SynchronousTestCase):
    """Interruption."""

    def setUp(self) -> None:
        self.interruption = Interruption()

    def test_result_comes_first(self) -> None:
        self.assertEqual(self.successResultOf(self.interruption.or_result(succeed(7))), 7)
        self.interruption.happen()

    def test_interrupted(self) -> None:
        waiting: Deferred[int] = Deferred()
        result = self.interruption.or_result(waiting)
        self.interruption.happen()
        self.failureResultOf(result, Interrupted)

    def test_interrupted_before(self) -> None:
        self.interruption.happen()
        self.failureResultOf(self.interruption.or_result(Deferred()), Interrupted)
        self.successResultOf(self.interruption.wait())

    def test_result_after_the_interruption_is_dropped(self) -> None:
        waiting: Deferred[int] = Deferred()
        self.failureResultOf(self._interrupted(waiting), Interrupted)
        waiting.callback(7)

    def _interrupted(self, waiting: Deferred[int]) -> Deferred[int]:
        result = self.interruption.or_result(waiting)
        self.interruption.happen()
        return result


class ExitCodeTests(SynchronousTestCase):
    """exit_code."""

    def outcome(self, error: BaseException | None) -> tuple[int, list[str]]:
        said: list[str] = []

        async def work() -> int:
            if error is not None:
                raise error
            return 0

        return self.successResultOf(exit_code(work(), said.append)), said

    def test_done(self) -> None:
        self.assertEqual(self.outcome(None), (0, []))

    def test_interrupted(self) -> None:
        self.assertEqual(self.outcome(Interrupted()), (130, []))

    def test_what_the_user_can_mend_is_one_line(self) -> None:
        self.assertEqual(self.outcome(StateInUse("in use")), (1, ["in use"]))
        self.assertEqual(self.outcome(click.ClickException("so not")), (1, ["so not"]))
        missing = FileNotFoundError(2, "No such file or directory", "x.torrent")
        self.assertEqual(self.outcome(missing), (1, ["x.torrent: No such file or directory"]))

    def test_bug_has_its_traceback(self) -> None:
        code, (text,) = self.outcome(ZeroDivisionError("what"))
        self.assertEqual(code, 1)
        self.assertIn("a bug in irontide: what", text)
        self.assertIn("Traceback", text)


class OnceTests(SynchronousTestCase):
    """once."""

    def test_what_the_log_told_is_not_told_again(self) -> None:
        said: list[str] = []
        tell = once(said.append)
        for text in ("data stops: disk full", "disk full", "full disk"):
            tell(text)
        self.assertEqual(said, ["data stops: disk full", "full disk"])


class ComplaintsTests(SynchronousTestCase):
    """What of the log a user hears."""

    def hear(self, *, verbose: bool) -> tuple[list[str], list[str]]:
        said: list[str] = []
        logged: list[str] = []
        complaints = Complaints(said.append, logged.append, verbose)
        globalLogPublisher.addObserver(complaints)
        self.addCleanup(globalLogPublisher.removeObserver, complaints)
        log = Logger()
        log.info("fine")
        log.warn("look {here}", here="here")
        log.failure("broken", Failure(ZeroDivisionError("why")))
        self.flushLoggedErrors(ZeroDivisionError)
        globalLogPublisher.removeObserver(complaints)
        return said, logged

    def test_warnings_and_errors_without_tracebacks(self) -> None:
        self.assertEqual(self.hear(verbose=False), (["look here", "broken: why"], []))

    def test_everything_if_verbose(self) -> None:
        said, logged = self.hear(verbose=True)
        self.assertEqual((said, logged[:2]), ([], ["fine", "look here"]))
        self.assertIn("ZeroDivisionError", logged[2])
