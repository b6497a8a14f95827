"""
Worker threads for blocking work on files, shared by all torrents.

``deferToThread`` costs 55-60 us a call; a flood of jobs through one queue, with one wake-up of the reactor
for many completions, costs a few.  So results are collected in a deque and announced by a single
``callFromThread``: the flag that says "announced" is cleared *before* the deque is emptied, so that a result
can be announced twice but never be forgotten.  A worker takes several waiting jobs at a time, and gives back
what it has not begun once it has worked for a millisecond.

Fairness: devices with waiting jobs take turns, and no device holds more than all but one of the workers: a
disk that hangs stops its own torrents only.  fdatasync runs in a thread of its own for each device, one at a
time, because it takes as long as the disk likes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from irontide.errors import StorageError
from irontide.interfaces import IDisk

T = TypeVar("T")

THREADS = 3
BATCH = 8
"""A worker takes at most this many waiting jobs at a time."""
BATCH_SECONDS = 0.001
"""A worker begins no further job of its batch after this long."""
STOP_SECONDS = 5.0
"""How long ``stop`` waits for running jobs."""
CROWDED = 64
"""With this many jobs waiting or running, a device is slower than what is asked of it."""


class IDiskReactor(IReactorFromThreads, IReactorTime):
    """What a Disk needs of the reactor."""


def storage_error(error: OSError, path: str | None = None) -> StorageError:
    """Say of the system's error which file it concerns."""
    name = error.filename if path is None else path
    where = None if name is None else str(name)
    text = error.strerror or str(error)
    wrapped = StorageError(text if where is None else f"{where}: {text}", error.errno, where)
    wrapped.__cause__ = error
    return wrapped


def run_job(work: Callable[[], T]) -> T | Failure:
    """Return what ``work`` returns, or the Failure of what it raises; an OSError becomes a StorageError."""
    try:
        return work()
    except OSError as error:
        return Failure(storage_error(error))
    except BaseException:  # not ours to judge: whoever asked for the work gets it
        return Failure()


def _refused() -> Failure:
    return Failure(StorageError("the disk threads are stopped"))


class _Job:
    __slots__ = ("deferred", "device", "result", "work")

    def __init__(self, device: int, work: Callable[[], Any], deferred: Deferred[Any]) -> None:
        self.device = device
        self.work = work
        self.deferred = deferred
        self.result: Any = None


class _Device:
    """
    The jobs of one device.

    :ivar held: how many workers run jobs of this device.
    :ivar pending: jobs that are not finished, as the reactor thread sees it.
    """

    __slots__ = ("held", "pending", "ready", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[_Job] = deque()
        self.held = 0
        self.pending = 0
        self.ready = False


class _Syncer:
    """The thread for the fdatasyncs of one device."""

    __slots__ = ("thread", "waiting")

    def __init__(self, thread: threading.Thread) -> None:
        self.thread = thread
        self.waiting: deque[_Job] = deque()


@implementer(IDisk)
class Disk:
    """
    Runs blocking work in threads that are started when first needed.

    :ivar pending: how many jobs are queued or running, as the reactor thread knows it.
    """

    def __init__(self, reactor: IDiskReactor, threads: int = THREADS) -> None:
        self._reactor = reactor
        self._limit = max(1, threads)
        self._share = max(1, self._limit - 1)
        self._lock = threading.Lock()
        self._work_waits = threading.Condition(self._lock)
        self._sync_waits = threading.Condition(self._lock)
        self._devices: dict[int, _Device] = {}
        self._ready: deque[_Device] = deque()
        self._idle = 0
        self._queued = 0
        self._workers: set[threading.Thread] = set()
        self._leaving: set[threading.Thread] = set()
        self._syncers: dict[int, _Syncer] = {}
        self._done: deque[_Job] = deque()
        self._announced = False
        self._stopping = False
        self._given_up = False
        self._ended = False
        self._stuck: StorageError | None = None
        self._stoppers: list[Deferred[None]] = []
        self._deadline: IDelayedCall | None = None
        self.pending = 0

    # --- in the reactor thread ---

    def call(self, device: int, work: Callable[[], T]) -> Deferred[T]:
        """Run ``work`` in a worker; see IDisk."""
        if self._stopping:
            return fail(_refused())
        deferred: Deferred[T] = Deferred()
        job = _Job(device, work, deferred)
        queue = self._devices.get(device)
        if queue is None:
            queue = self._devices[device] = _Device()
        self.pending += 1
        queue.pending += 1
        with self._lock:
            queue.waiting.append(job)
            self._queued += 1
            if not queue.ready and queue.held < self._share:
                queue.ready = True
                self._ready.append(queue)
            if queue.ready:
                if self._idle:
                    self._wake_one()
                elif len(self._workers) < self._limit:
                    self._start_worker()
        return deferred

    def sync_call(self, device: int, work: Callable[[], T]) -> Deferred[T]:
        """Run ``work`` in the thread that does this device's fdatasyncs, after those asked for before."""
        if self._stopping:
            return fail(_refused())
        deferred: Deferred[T] = Deferred()
        self.pending += 1
        with self._lock:
            syncer = self._syncers.get(device)
            if syncer is None:
                thread = threading.Thread(
                    target=self._sync, args=(device,), name=f"fdatasync of {device:x}", daemon=True
                )
                syncer = self._syncers[device] = _Syncer(thread)
                thread.start()
            syncer.waiting.append(_Job(-1, work, deferred))
            self._sync_waits.notify_all()
        return deferred

    def crowded(self, device: int) -> bool:
        """Tell whether more is asked of ``device`` than it keeps up with."""
        queue = self._devices.get(device)
        return queue is not None and queue.pending >= CROWDED

    def set_threads(self, threads: int) -> None:
        """Change the number of workers; those too many leave as they become free."""
        with self._lock:
            self._limit = max(1, threads)
            self._share = max(1, self._limit - 1)
            for queue in self._devices.values():
                self._offer(queue)
            for _ in range(min(self._queued, self._limit - len(self._workers))):
                self._start_worker()
            self._wake_all()

    def stop(self) -> Deferred[None]:
        """
        Take no more work, do what was asked for, end the threads.

        :return: fires when no thread is left.  Fails with StorageError if work still runs after
            ``STOP_SECONDS``: what had not begun by then has failed, and what runs cannot be stopped.
        """
        result: Deferred[None] = Deferred()
        self._stoppers.append(result)
        if self._stopping:
            if self._ended:
                self._end(self._stuck)
            return result
        self._stopping = True
        with self._lock:
            self._wake_all()
            self._sync_waits.notify_all()
            threads = bool(self._workers or self._syncers or self._leaving)
        if threads:
            self._deadline = self._reactor.callLater(STOP_SECONDS, self._give_up)
        else:
            self._end(None)
        return result

    def _give_up(self) -> None:
        """Stop waiting; the threads are daemons, so that the process can end all the same."""
        self._deadline = None
        with self._lock:
            self._given_up = True
            queues = [queue.waiting for queue in self._devices.values()]
            queues += [syncer.waiting for syncer in self._syncers.values()]
            dropped = [job for queue in queues for job in queue]
            for queue in queues:
                queue.clear()
            self._ready.clear()
            self._queued = 0
            self._wake_all()
            self._sync_waits.notify_all()
        for job in dropped:
            job.result = _refused()
        self._done.extend(dropped)
        self._deliver()
        self._end(StorageError(f"{self.pending} disk jobs still run after {STOP_SECONDS:g} s"))

    def _end(self, stuck: StorageError | None) -> None:
        """Tell who waits for the end."""
        self._ended = True
        self._stuck = stuck
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        stoppers, self._stoppers = self._stoppers, []
        for stopper in stoppers:
            stopper.callback(None) if stuck is None else stopper.errback(stuck)

    def _deliver(self) -> None:
        """Fire the Deferreds of all that is finished."""
        self._announced = False
        done = self._done
        while done:
            job = done.popleft()
            self.pending -= 1
            queue = self._devices.get(job.device)
            if queue is not None:
                queue.pending -= 1
            if isinstance(job.result, Failure):
                job.deferred.errback(job.result)
            else:
                job.deferred.callback(job.result)

    def _gone(self, thread: threading.Thread) -> None:
        """A thread said goodbye with its last line."""
        thread.join()
        with self._lock:
            self._leaving.discard(thread)
            left = bool(self._workers or self._syncers or self._leaving)
        if self._stopping and not left:
            self._deliver()
            self._end(None)

    # --- under the lock ---

    def _start_worker(self) -> None:
        thread = threading.Thread(target=self._work, name="disk", daemon=True)
        self._workers.add(thread)
        thread.start()

    def _offer(self, queue: _Device) -> None:
        """Have ``queue`` take part in the turns if it may."""
        if queue.waiting and not queue.ready and queue.held < self._share:
            queue.ready = True
            self._ready.append(queue)
            if self._idle:
                self._wake_one()

    def _wake_one(self) -> None:
        """Wake an idle worker, which from now on counts as busy: in a flood that is asked for once."""
        self._idle -= 1
        self._work_waits.notify()

    def _wake_all(self) -> None:
        self._idle = 0
        self._work_waits.notify_all()

    def _take(self) -> tuple[_Device, list[_Job]] | None:
        """Wait for work; None when there is none to come for this worker."""
        while not self._ready and not self._leaves():
            self._idle += 1
            self._work_waits.wait()
        if self._leaves():
            return None
        queue = self._ready.popleft()
        queue.ready = False
        count = min(BATCH, -(-len(queue.waiting) // self._limit))
        jobs = [queue.waiting.popleft() for _ in range(count)]
        self._queued -= count
        queue.held += 1
        self._offer(queue)
        return queue, jobs

    def _put_back(self, queue: _Device, jobs: list[_Job]) -> None:
        """A worker is done with ``queue``, all but the ``jobs`` that it did not begin."""
        queue.held -= 1
        queue.waiting.extendleft(reversed(jobs))
        self._queued += len(jobs)
        self._offer(queue)

    def _leaves(self) -> bool:
        """Whether a worker that has nothing in hand is to end."""
        return self._given_up or len(self._workers) > self._limit or (self._stopping and not self._queued)

    # --- in the threads ---

    def _work(self) -> None:
        """Take jobs and run them, until there are none to come."""
        queue: _Device | None = None
        left: list[_Job] = []
        while True:
            with self._lock:
                if queue is not None:
                    self._put_back(queue, left)
                taken = self._take()
                if taken is None:
                    self._workers.discard(threading.current_thread())
                    self._leaving.add(threading.current_thread())
                    self._wake_all()
                    break
            queue, left = taken
            self._run(left)
        self._reactor.callFromThread(self._gone, threading.current_thread())

    def _run(self, jobs: list[_Job]) -> None:
        """Run ``jobs`` for a while, and leave those in it that were not begun."""
        until = time.monotonic() + BATCH_SECONDS
        jobs.reverse()
        while jobs:
            self._finish(jobs.pop())
            if jobs and time.monotonic() > until and not self._given_up:
                break
        jobs.reverse()

    def _finish(self, job: _Job) -> None:
        """Run one job, and see to it that the reactor hears of it."""
        job.result = _refused() if self._given_up else run_job(job.work)
        self._done.append(job)
        if not self._announced:
            self._announced = True
            self._reactor.callFromThread(self._deliver)

    def _sync(self, device: int) -> None:
        """Run the fdatasyncs of one device, until stopped."""
        syncer = self._syncers[device]
        while True:
            with self._lock:
                while not syncer.waiting and not self._stopping:
                    self._sync_waits.wait()
                if not syncer.waiting:
                    del self._syncers[device]
                    self._leaving.add(threading.current_thread())
                    break
                job = syncer.waiting.popleft()
            self._finish(job)
        self._reactor.callFromThread(self._gone, threading.current_thread())
