from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import StorageError
from irontide.storage.gate import Gate


class GateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.gate = Gate()
        self.running: dict[str, Deferred[None]] = {}

    def start(self, name: str) -> Callable[[], Deferred[None]]:
        def begin() -> Deferred[None]:
            self.running[name] = Deferred()
            return self.running[name]

        return begin

    def end(self, name: str) -> None:
        self.running.pop(name).callback(None)

    def test_shared_operations_run_side_by_side(self) -> None:
        self.gate.shared(self.start("a"))
        self.gate.shared(self.start("b"))
        self.assertEqual(set(self.running), {"a", "b"})
        self.assertTrue(self.gate.free)

    def test_an_exclusive_one_waits_for_what_runs_and_is_waited_for(self) -> None:
        self.gate.shared(self.start("a"))
        moved = self.gate.exclusive(self.start("move"))
        self.gate.shared(self.start("b"))
        self.assertEqual(set(self.running), {"a"})
        self.assertFalse(self.gate.free)
        self.end("a")
        self.assertEqual(set(self.running), {"move"})
        self.end("move")
        self.successResultOf(moved)
        self.assertEqual(set(self.running), {"b"})
        self.assertTrue(self.gate.free)

    def test_exclusive_ones_run_one_after_the_other(self) -> None:
        for name in "ab":
            self.gate.exclusive(self.start(name))
        self.assertEqual(set(self.running), {"a"})
        self.end("a")
        self.assertEqual(set(self.running), {"b"})

    def test_a_failure_lets_the_next_in(self) -> None:
        result = self.gate.exclusive(self.start("a"))
        self.gate.shared(self.start("b"))
        self.running.pop("a").errback(StorageError("broken"))
        self.failureResultOf(result, StorageError)
        self.assertIn("b", self.running)

    def test_an_operation_that_raises_is_over(self) -> None:
        def broken() -> Deferred[None]:
            raise StorageError("broken")

        self.failureResultOf(self.gate.exclusive(broken), StorageError)
        self.gate.shared(self.start("a"))
        self.assertIn("a", self.running)

    def test_closed(self) -> None:
        """Closing waits for what runs; nothing starts after it."""
        self.gate.shared(self.start("a"))
        closed = self.gate.close(self.start("close"))
        self.failureResultOf(self.gate.shared(self.start("b")), StorageError)
        self.failureResultOf(self.gate.exclusive(self.start("c")), StorageError)
        self.assertFalse(self.gate.free)
        self.end("a")
        self.end("close")
        self.successResultOf(closed)
        self.assertFalse(self.gate.free)
        self.assertEqual(self.running, {})

    def test_thousands_that_wait_do_not_nest(self) -> None:
        """Operations that are over at once must not recurse into each other."""
        self.gate.exclusive(self.start("a"))
        done: list[int] = []

        def at_once(number: int) -> Deferred[None]:
            done.append(number)
            deferred: Deferred[None] = Deferred()
            deferred.callback(None)
            return deferred

        for number in range(5000):
            (self.gate.exclusive if number % 2 else self.gate.shared)(lambda number=number: at_once(number))
        self.end("a")
        self.assertEqual(done, list(range(5000)))
