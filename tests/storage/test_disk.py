from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from queue import Queue
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from irontide.errors import StorageError
from irontide.interfaces import IDisk
from irontide.storage.disk import CROWDED, STOP_SECONDS, Disk
from tests.storage.fakes import InlineDisk, SlowDisk

PATIENCE = 20.0
"""Seconds until a test that waits for a thread gives up."""


class ThreadClock(Clock):
    """A Clock whose callFromThread is a queue that the test empties."""

    def __init__(self) -> None:
        super().__init__()
        self.from_threads: Queue[tuple[Callable[..., object], tuple[Any, ...]]] = Queue()
        self.wakeups = 0

    def callFromThread(self, call: Callable[..., object], *args: Any) -> None:
        self.from_threads.put((call, args))

    def turn(self) -> None:
        """Wait for a call from a thread and do it."""
        call, args = self.from_threads.get(timeout=PATIENCE)
        self.wakeups += 1
        call(*args)


class DiskTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = ThreadClock()
        self.before = threading.active_count()
        self.disk = Disk(self.reactor, threads=3)
        self.gates: list[threading.Event] = []
        self.addCleanup(self.clean_up)

    def clean_up(self) -> None:
        """Let everything go on, stop, and see that nothing is left."""
        for gate in self.gates:
            gate.set()
        stopped = self.disk.stop()
        stopped.addErrback(lambda failure: failure.trap(StorageError))
        self.until(lambda: stopped.called and threading.active_count() <= self.before)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.reactor.turn()

    def result(self, deferred: Deferred[Any]) -> Any:
        outcome: list[Any] = []
        deferred.addBoth(outcome.append)
        self.until(lambda: bool(outcome))
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return outcome[0]

    def gate(self) -> threading.Event:
        gate = threading.Event()
        self.gates.append(gate)
        return gate

    def blocked(
        self, device: int, started: Queue[int] | None = None
    ) -> tuple[threading.Event, Deferred[bool]]:
        """A job that runs until its gate is opened."""
        gate = self.gate()

        def work() -> bool:
            if started is not None:
                started.put(device)
            return gate.wait(PATIENCE)

        return gate, self.disk.call(device, work)

    def test_fakes_are_faithful(self) -> None:
        for disk in (self.disk, InlineDisk(), SlowDisk()):
            self.assertTrue(verifyObject(IDisk, disk))

    def test_work_runs_in_another_thread_and_comes_back(self) -> None:
        self.assertNotEqual(self.result(self.disk.call(1, threading.get_ident)), threading.get_ident())
        self.assertEqual(self.disk.pending, 0)

    def test_system_error_is_a_storage_error_with_number_and_path(self) -> None:
        def work() -> None:
            raise OSError(errno.ENOSPC, "full", "/some/file")

        with self.assertRaises(StorageError) as caught:
            self.result(self.disk.call(1, work))
        self.assertEqual((caught.exception.errno, caught.exception.path), (errno.ENOSPC, "/some/file"))
        self.assertIn("full", str(caught.exception))

    def test_a_bug_comes_back_as_it_is(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            self.result(self.disk.call(1, lambda: 1 // 0))

    def test_one_wake_up_for_many_completions(self) -> None:
        """Data path 2: what is finished before the reactor comes to it costs one wake-up."""
        gate, held = self.blocked(1)
        done = [self.disk.call(1, lambda: None) for _ in range(200)]
        gate.set()
        last = threading.Event()
        end = self.disk.call(1, last.set)
        last.wait(PATIENCE)
        self.result(end)
        for deferred in [held, *done]:
            self.result(deferred)
        self.assertLess(self.reactor.wakeups, 20)

    def test_every_result_arrives(self) -> None:
        """No completion is lost between the flag and the deque, however they interleave."""
        results: list[int] = []
        for number in range(5000):
            self.disk.call(number % 3, lambda number=number: number).addCallback(results.append)
        self.until(lambda: len(results) == 5000)
        self.assertEqual(sorted(results), list(range(5000)))

    def test_a_device_never_holds_all_workers(self) -> None:
        """Data path 2: a disk that hangs stops its own torrents only."""
        started: Queue[int] = Queue()
        hung = [self.blocked(1, started)[1] for _ in range(10)]
        for _ in range(2):
            started.get(timeout=PATIENCE)
        self.assertEqual(self.result(self.disk.call(2, lambda: "other disk")), "other disk")
        self.assertTrue(started.empty())
        self.assertFalse(any(deferred.called for deferred in hung))

    def test_devices_take_turns(self) -> None:
        """A long queue of one device does not delay another one's job by more than a few of its own."""
        disk = self.disk
        disk.set_threads(1)
        gate, _ = self.blocked(9)
        order: list[int] = []
        waiting = [disk.call(1, lambda: order.append(1)) for _ in range(100)]
        waiting.append(disk.call(2, lambda: order.append(2)))
        gate.set()
        for deferred in waiting:
            self.result(deferred)
        self.assertLess(order.index(2), 20)

    def test_a_slow_job_of_a_batch_does_not_take_the_others_with_it(self) -> None:
        """What a worker took and has not begun goes back when it is late."""
        self.disk.set_threads(2)
        gate, _ = self.blocked(9)  # one worker left
        begun, late = self.gate(), self.gate()

        def slow() -> None:
            begun.set()
            late.wait(PATIENCE)

        jobs = [self.disk.call(1, slow), *(self.disk.call(1, lambda: None) for _ in range(7))]
        begun.wait(PATIENCE)
        gate.set()
        late.set()
        for job in jobs:
            self.result(job)

    def test_sync_runs_beside_the_workers(self) -> None:
        for device in (1, 2):
            for _ in range(3):
                self.blocked(device)
        self.assertEqual(self.result(self.disk.sync_call(1, lambda: "synced")), "synced")

    def test_one_sync_at_a_time_for_a_device(self) -> None:
        running: list[int] = []
        most: list[int] = []

        def sync() -> None:
            running.append(1)
            most.append(len(running))
            running.pop()

        for deferred in [self.disk.sync_call(1, sync) for _ in range(50)]:
            self.result(deferred)
        self.assertEqual(max(most), 1)

    def test_a_sync_that_hangs_holds_no_other_device(self) -> None:
        gate = self.gate()
        hung = self.disk.sync_call(1, lambda: gate.wait(PATIENCE))
        self.assertEqual(self.result(self.disk.sync_call(2, lambda: 2)), 2)
        self.assertFalse(hung.called)

    def test_a_device_with_a_long_queue_is_crowded(self) -> None:
        self.assertFalse(self.disk.crowded(1))
        blocked = [self.blocked(1)[1] for _ in range(CROWDED)]
        self.assertTrue(self.disk.crowded(1))
        self.assertFalse(self.disk.crowded(2))
        self.assertEqual(self.disk.pending, CROWDED)
        for gate in self.gates:
            gate.set()
        for deferred in blocked:
            self.result(deferred)
        self.assertFalse(self.disk.crowded(1))

    def test_stop_does_what_was_asked_for_and_ends_the_threads(self) -> None:
        done: list[int] = []
        for number in range(100):
            self.disk.call(1, lambda: None).addCallback(lambda _, number=number: done.append(number))
        self.disk.sync_call(1, lambda: None).addCallback(lambda _: done.append(100))
        self.result(self.disk.stop())
        self.assertEqual(sorted(done), list(range(101)))
        self.assertEqual(threading.active_count(), self.before)

    def test_stop_without_work(self) -> None:
        self.assertIsNone(self.successResultOf(self.disk.stop()))
        self.assertIsNone(self.successResultOf(self.disk.stop()))

    def test_nothing_is_taken_after_stop(self) -> None:
        self.disk.stop()
        self.failureResultOf(self.disk.call(1, lambda: None), StorageError)
        self.failureResultOf(self.disk.sync_call(1, lambda: None), StorageError)

    def test_stop_is_bounded(self) -> None:
        """What hangs cannot be stopped; it is said, and what had not begun fails."""
        started: Queue[int] = Queue()
        jobs = [self.blocked(1, started)[1] for _ in range(4)]
        for _ in range(2):
            started.get(timeout=PATIENCE)
        stopped = self.disk.stop()
        self.reactor.advance(STOP_SECONDS)
        self.failureResultOf(stopped, StorageError)
        self.failureResultOf(jobs[2], StorageError)
        self.failureResultOf(jobs[3], StorageError)
        self.assertFalse(jobs[0].called)
        self.failureResultOf(self.disk.stop(), StorageError)

    def test_more_and_fewer_threads(self) -> None:
        self.disk.set_threads(5)
        started: Queue[int] = Queue()
        jobs = [self.blocked(1, started)[1] for _ in range(8)]
        for _ in range(4):
            started.get(timeout=PATIENCE)
        self.disk.set_threads(1)
        for gate in self.gates:
            gate.set()
        for job in jobs:
            self.result(job)
        self.until(lambda: threading.active_count() <= self.before + 1)
        self.assertEqual(self.result(self.disk.call(1, lambda: "still works")), "still works")


class SlowDiskTests(SynchronousTestCase):
    def test_turned_by_hand(self) -> None:
        disk = SlowDisk()
        done: list[int] = []
        for number in range(3):
            disk.call(1, lambda number=number: done.append(number))
        self.assertEqual((done, disk.pending), ([], 3))
        disk.turn()
        self.assertEqual(done, [0])
        disk.turn_all()
        self.assertEqual((done, disk.pending), ([0, 1, 2], 0))
