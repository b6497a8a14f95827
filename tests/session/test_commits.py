"""Group commits: data first, then the sync, then the bits; and what happens while the store refuses."""

from __future__ import annotations

import sqlite3
from typing import Any

from hypothesis import given, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import StoreError
from irontide.session.commits import (
    DELAY,
    HOLD_BYTES,
    HOLD_SECONDS,
    MAX_UNCOMMITTED,
    RETRY_LAST,
    Commits,
    merged,
)
from irontide.session.memory_store import MemoryStore
from irontide.values import FileStat, Progress, StoredTorrent
from tests.torrent.fakes import BROKEN, REFUSED, FakeStore, SlowCalls

MIB = 1 << 20


class FakeTorrent:
    """Something to commit: a number that grows, and a disk that syncs it."""

    def __init__(self, name: bytes, log: list[Any]) -> None:
        self.infohash = name * 20
        self.calls = SlowCalls()
        self.log = log
        self.written = 0
        self.synced = 0
        self.failed: list[Failure] = []

    def write(self) -> None:
        self.written += 1

    def snapshot(self) -> Progress:
        return Progress(
            self.infohash, bytes([self.written]), {}, {}, frozenset(), "boot", downloaded=self.written
        )

    def sync(self) -> Deferred[None]:
        begun = self.written
        self.log.append(("sync", self.infohash, begun))

        def done() -> None:
            self.synced = max(self.synced, begun)

        return self.calls.call("sync", done)

    def sync_failed(self, failure: Failure) -> None:
        self.failed.append(failure)


class CommitsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.log: list[Any] = []
        self.store = FakeStore(self.log)
        self.changes: list[str | None] = []
        self.broken: list[Failure] = []
        self.commits = Commits(
            self.store,
            self.clock,
            lambda: self.changes.append(self.commits.degraded),
            self.broken.append,
        )

    def tearDown(self) -> None:
        self.store.calls.slow.clear()
        self.store.calls.turn_all()
        self.successResultOf(self.commits.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def torrent(self, name: bytes = b"a") -> FakeTorrent:
        torrent = FakeTorrent(name, self.log)
        self.store.add(StoredTorrent(torrent.infohash, b"", "/", 0.0, {}))
        return torrent

    def write(self, torrent: FakeTorrent, length: int = MIB) -> None:
        torrent.write()
        self.commits.note(torrent, length)

    def committed(self, torrent: FakeTorrent) -> int:
        """The number in the store."""
        found = self.successResultOf(MemoryStore.progress(self.store, torrent.infohash))
        return 0 if found is None else found.downloaded


class OrderTests(CommitsTestCase):
    def test_sync_then_commit(self) -> None:
        torrent = self.torrent()
        self.write(torrent)
        self.clock.advance(DELAY)
        self.assertEqual(self.log, [("sync", torrent.infohash, 1), ("commit", torrent.infohash)])

    def test_nothing_before_its_time(self) -> None:
        torrent = self.torrent()
        self.write(torrent)
        self.clock.advance(DELAY / 2)
        self.write(torrent)
        self.assertEqual(self.log, [])
        self.clock.advance(DELAY / 2)
        self.assertEqual(self.committed(torrent), 2)

    def test_not_before_the_sync_has_ended(self) -> None:
        torrent = self.torrent()
        torrent.calls.slow.add("sync")
        self.write(torrent)
        self.clock.advance(10)
        self.assertEqual(self.store.commits, [])
        torrent.calls.turn()
        self.assertEqual(self.committed(torrent), 1)

    def test_what_came_during_the_sync_is_not_in_its_commit(self) -> None:
        """It was not on the disk when the sync began."""
        torrent = self.torrent()
        torrent.calls.slow.add("sync")
        self.write(torrent)
        self.clock.advance(DELAY)
        self.write(torrent)
        torrent.calls.turn()
        self.assertEqual(self.committed(torrent), 1)
        self.clock.advance(DELAY)
        torrent.calls.turn()
        self.assertEqual(self.committed(torrent), 2)

    def test_a_sync_that_failed(self) -> None:
        torrent = self.torrent()
        torrent.calls.failing["sync"] = BROKEN
        self.write(torrent)
        self.clock.advance(DELAY)
        self.assertEqual(self.store.commits, [])
        self.assertEqual([failure.value for failure in torrent.failed], [BROKEN])
        self.assertIsNone(self.commits.degraded)

    def test_32_mib_do_not_wait(self) -> None:
        torrent = self.torrent()
        self.write(torrent, MAX_UNCOMMITTED - 1)
        self.assertEqual(self.store.commits, [])
        self.write(torrent, 1)
        self.assertEqual(self.committed(torrent), 2)
        self.assertEqual(MAX_UNCOMMITTED, 32 * MIB)

    def test_32_mib_of_all_together(self) -> None:
        torrents = [self.torrent(bytes([65 + n])) for n in range(4)]
        for torrent in torrents:
            self.write(torrent, MAX_UNCOMMITTED // 4)
        self.assertEqual([self.committed(torrent) for torrent in torrents], [1, 1, 1, 1])

    def test_one_transaction_for_all(self) -> None:
        """As many as are ready when the store has time."""
        torrents = [self.torrent(bytes([65 + n])) for n in range(5)]
        self.store.calls.slow.add("commit")
        for torrent in torrents:
            self.write(torrent)
        self.clock.advance(DELAY)
        self.store.calls.turn()
        self.store.calls.turn()
        self.assertEqual([len(each) for each in self.store.commits], [1, 4])

    def test_a_slow_disk_delays_its_own_torrent_only(self) -> None:
        slow, quick = self.torrent(b"s"), self.torrent(b"q")
        slow.calls.slow.add("sync")
        self.write(slow)
        self.write(quick)
        self.clock.advance(DELAY)
        self.assertEqual((self.committed(slow), self.committed(quick)), (0, 1))
        for _ in range(5):
            self.write(slow, MAX_UNCOMMITTED)  # however much it has, others have their second
            self.write(quick)
        commits = len(self.store.commits)
        self.assertEqual(commits, 1)
        self.clock.advance(DELAY)
        self.assertEqual((self.committed(slow), self.committed(quick)), (0, 6))
        self.assertEqual(len([entry for entry in self.log if entry[:2] == ("sync", slow.infohash)]), 1)
        slow.calls.turn_all()
        slow.calls.slow.clear()
        self.clock.advance(DELAY)
        self.assertEqual(self.committed(slow), 6)

    def test_nothing_noted_nothing_to_do(self) -> None:
        torrent = self.torrent()
        self.write(torrent)
        self.clock.advance(DELAY)
        self.clock.advance(DELAY)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_commit_at_once(self) -> None:
        torrent = self.torrent()
        torrent.write()
        self.successResultOf(self.commits.commit(torrent.snapshot()))
        self.assertEqual(self.committed(torrent), 1)

    def test_commit_waits_for_the_one_under_way(self) -> None:
        torrent = self.torrent()
        self.store.calls.slow.add("commit")
        first = self.commits.commit(torrent.snapshot())
        torrent.write()
        second = self.commits.commit(torrent.snapshot())
        self.store.calls.turn()
        self.successResultOf(first)
        self.assertNoResult(second)
        self.store.calls.turn()
        self.successResultOf(second)
        self.assertEqual(self.committed(torrent), 1)


class ForgetTests(CommitsTestCase):
    def test_nothing_is_begun(self) -> None:
        torrent = self.torrent()
        self.write(torrent)
        self.successResultOf(self.commits.forget(torrent))
        self.clock.advance(DELAY)
        self.assertEqual(self.log, [])

    def test_waits_for_the_sync_under_way(self) -> None:
        torrent = self.torrent()
        torrent.calls.slow.add("sync")
        self.write(torrent)
        self.clock.advance(DELAY)
        forgotten = self.commits.forget(torrent)
        self.assertNoResult(forgotten)
        torrent.calls.turn()
        self.successResultOf(forgotten)
        self.assertEqual(self.committed(torrent), 1)

    def test_waits_also_if_the_sync_fails(self) -> None:
        torrent = self.torrent()
        torrent.calls.slow.add("sync")
        self.write(torrent)
        self.clock.advance(DELAY)
        forgotten = self.commits.forget(torrent)
        torrent.calls.failing["sync"] = BROKEN
        torrent.calls.turn()
        self.successResultOf(forgotten)

    def test_removed_torrent_is_not_committed_later(self) -> None:
        """Not even what was under way when the store refused it: the next one of that name starts anew."""
        torrent = self.torrent()
        self.store.calls.slow.add("commit")
        done = self.commits.commit(torrent.snapshot())
        self.commits.drop(torrent.infohash)
        self.store.calls.failing["commit"] = REFUSED
        self.store.calls.turn()
        self.failureResultOf(done, StoreError)
        self.store.calls.failing.clear()
        self.store.calls.slow.clear()
        self.clock.advance(RETRY_LAST)
        self.assertEqual([progress for each in self.store.commits for progress in each], [])


class RefusalTests(CommitsTestCase):
    def refuse(self) -> FakeTorrent:
        torrent = self.torrent()
        self.store.calls.failing["commit"] = REFUSED
        self.write(torrent)
        self.clock.advance(DELAY)
        return torrent

    def accept(self) -> None:
        self.store.calls.failing.clear()

    def tries(self) -> list[float]:
        """The seconds between tries from now on."""
        waits = []
        tries = [0]

        def failed(name: str) -> None:
            tries[0] += 1

        self.store.calls.failed = failed  # type: ignore[method-assign]
        began = self.clock.seconds()
        while len(waits) < 9:
            before = tries[0]
            self.clock.advance(0.5)
            if tries[0] > before:
                waits.append(self.clock.seconds() - began)
                began = self.clock.seconds()
        return waits

    def test_degraded_until_it_is_taken(self) -> None:
        torrent = self.refuse()
        self.assertEqual(self.commits.degraded, str(REFUSED))
        self.assertEqual(self.changes, [str(REFUSED)])
        self.accept()
        self.clock.advance(1)
        self.assertIsNone(self.commits.degraded)
        self.assertEqual(self.changes, [str(REFUSED), None])
        self.assertEqual(self.committed(torrent), 1)
        self.assertEqual(self.broken, [])

    def test_backoff(self) -> None:
        """1 to 60 s, however much comes meanwhile."""
        self.refuse()
        self.assertEqual(self.tries(), [1, 2, 4, 8, 16, 32, 60, 60, 60])

    def test_backoff_while_downloading(self) -> None:
        torrent = self.refuse()
        tries = 0

        def failed(name: str) -> None:
            nonlocal tries
            tries += 1

        self.store.calls.failed = failed  # type: ignore[method-assign]
        for _ in range(120):
            self.write(torrent, 1)
            self.clock.advance(1)
        self.assertLessEqual(tries, 8)
        self.accept()
        self.clock.advance(RETRY_LAST)
        self.assertEqual(self.committed(torrent), torrent.written)

    def test_backoff_begins_anew(self) -> None:
        torrent = self.refuse()
        for _ in range(4):
            self.clock.advance(10)
        self.accept()
        self.clock.advance(RETRY_LAST)
        self.assertEqual(self.committed(torrent), 1)
        self.store.calls.failing["commit"] = REFUSED
        self.write(torrent)
        self.clock.advance(DELAY)
        self.accept()
        self.clock.advance(1)
        self.assertEqual(self.committed(torrent), 2)

    def test_syncs_go_on_and_the_newest_is_committed(self) -> None:
        torrent = self.refuse()
        for _ in range(5):
            self.write(torrent)
            self.clock.advance(DELAY)
        self.assertEqual(torrent.synced, 6)
        self.accept()
        self.clock.advance(RETRY_LAST)
        self.assertEqual(self.committed(torrent), 6)

    def test_commit_at_once_is_tried_at_once(self) -> None:
        torrent = self.refuse()
        self.failureResultOf(self.commits.commit(torrent.snapshot()), StoreError)
        self.accept()
        self.successResultOf(self.commits.commit(torrent.snapshot()))
        self.assertIsNone(self.commits.degraded)

    def test_whoever_asked_during_a_refused_commit_is_answered(self) -> None:
        """It does not wait for the time of the next try."""
        torrent = self.torrent()
        self.store.calls.slow.add("commit")
        self.store.calls.failing["commit"] = REFUSED
        first, second = (self.commits.commit(torrent.snapshot()) for _ in range(2))
        self.store.calls.turn()
        self.failureResultOf(first, StoreError)
        self.store.calls.turn()
        self.failureResultOf(second, StoreError)

    def test_stats_of_a_refused_commit_are_not_lost(self) -> None:
        """What is committed later says all that was to be said."""
        torrent = self.torrent()
        self.store.calls.failing["commit"] = REFUSED
        at_rest = Progress(torrent.infohash, b"1", {}, {0: FileStat(1, 1)}, frozenset({1}), "boot")
        self.failureResultOf(self.commits.commit(at_rest), StoreError)
        self.write(torrent)
        self.clock.advance(DELAY)
        found = self.successResultOf(self.commits.progress(torrent.infohash))
        assert found is not None
        self.assertEqual((found.bits, found.stats, found.dirty), (b"\x01", {0: FileStat(1, 1)}, {1}))
        self.accept()
        self.clock.advance(RETRY_LAST)
        found = self.successResultOf(MemoryStore.progress(self.store, torrent.infohash))
        assert found is not None
        self.assertEqual((found.bits, found.stats, found.dirty), (b"\x01", {0: FileStat(1, 1)}, {1}))

    # --- when downloads have to wait ---------------------------------------------------------------------

    def test_requests_stop_after_1_gib(self) -> None:
        torrent = self.refuse()
        self.assertTrue(self.commits.may_request())
        while torrent.written <= HOLD_BYTES // (64 * MIB):
            self.write(torrent, 64 * MIB)
        self.assertFalse(self.commits.may_request())
        self.accept()
        self.clock.advance(RETRY_LAST)
        self.assertTrue(self.commits.may_request())

    def test_bytes_count_wherever_they_are(self) -> None:
        """Noted, being synced or ready: it is not in the store."""
        torrent = self.refuse()
        torrent.calls.slow.add("sync")
        self.write(torrent, HOLD_BYTES // 2)
        self.clock.advance(DELAY)
        self.write(torrent, HOLD_BYTES // 2 - MIB)
        self.assertFalse(self.commits.may_request())

    def test_requests_stop_after_10_minutes(self) -> None:
        self.refuse()
        self.clock.pump([1.0] * int(HOLD_SECONDS - 1))
        self.assertTrue(self.commits.may_request())
        self.clock.advance(1)
        self.assertFalse(self.commits.may_request())
        self.accept()
        self.clock.advance(RETRY_LAST)
        self.assertTrue(self.commits.may_request())

    def test_a_slow_disk_is_no_reason_to_wait(self) -> None:
        torrent = self.torrent()
        torrent.calls.slow.add("sync")
        self.write(torrent, 2 * HOLD_BYTES)
        self.clock.advance(HOLD_SECONDS)
        self.assertTrue(self.commits.may_request())
        torrent.calls.turn_all()

    # --- failures ----------------------------------------------------------------------------------------

    def fail_with(self, error: Exception) -> None:
        torrent = self.torrent()
        self.store.calls.failing["commit"] = error
        self.failureResultOf(self.commits.commit(torrent.snapshot()), StoreError)

    def test_a_corrupt_database_is_a_failure(self) -> None:
        error = StoreError("malformed")
        error.__cause__ = sqlite3.DatabaseError()
        self.fail_with(error)
        self.assertEqual(len(self.broken), 1)

    def test_a_full_disk_is_none(self) -> None:
        for cause in (sqlite3.OperationalError(), OSError()):
            error = StoreError("full")
            error.__cause__ = cause
            self.fail_with(error)
        self.assertEqual(self.broken, [])

    def test_a_bug_is_one(self) -> None:
        self.fail_with(ZeroDivisionError())
        self.assertEqual(len(self.broken), 1)


class StopTests(CommitsTestCase):
    def test_commits_what_is_ready(self) -> None:
        torrent = self.torrent()
        self.store.calls.slow.add("commit")
        self.commits.commit(torrent.snapshot())
        torrent.write()
        self.commits.commit(torrent.snapshot())
        stopped = self.commits.stop()
        self.assertNoResult(stopped)
        self.store.calls.turn()
        self.assertNoResult(stopped)
        self.store.calls.turn()
        self.successResultOf(stopped)
        self.assertEqual(self.committed(torrent), 1)

    def test_no_timer_is_left_if_the_store_refuses(self) -> None:
        torrent = self.torrent()
        self.store.calls.failing["commit"] = REFUSED
        self.write(torrent)
        self.clock.advance(DELAY)
        self.successResultOf(self.commits.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.write(torrent)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refused_last_commit(self) -> None:
        torrent = self.torrent()
        self.store.calls.slow.add("commit")
        done = self.commits.commit(torrent.snapshot())
        stopped = self.commits.stop()
        self.store.calls.failing["commit"] = REFUSED
        self.store.calls.turn()
        self.failureResultOf(done, StoreError)
        self.successResultOf(stopped)

    def test_a_sync_that_ends_later(self) -> None:
        torrent = self.torrent()
        torrent.calls.slow.add("sync")
        self.write(torrent)
        self.clock.advance(DELAY)
        self.successResultOf(self.commits.stop())
        self.successResultOf(self.commits.stop())
        torrent.calls.turn()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class MergedTests(SynchronousTestCase):
    """It says what a store would have of both."""

    files = strategies.sets(strategies.integers(0, 4))
    parts = strategies.tuples(
        strategies.dictionaries(strategies.integers(0, 4), strategies.integers(1, 9)), files
    )

    @given(strategies.lists(parts, min_size=1, max_size=4))
    def test_as_the_store(self, history: list[tuple[dict[int, int], set[int]]]) -> None:
        store = MemoryStore()
        store.add(StoredTorrent(b"i" * 20, b"", "/", 0.0, {}))
        together: Progress | None = None
        for number, (sizes, dirty) in enumerate(history):
            stats = {file: FileStat(size, number) for file, size in sizes.items()}
            each = Progress(b"i" * 20, bytes([number]), {}, stats, frozenset(dirty), "boot")
            store.commit([each])
            together = merged(together, each)
        kept = self.successResultOf(store.progress(b"i" * 20))
        assert kept is not None and together is not None
        self.assertEqual((kept.bits, kept.dirty), (together.bits, together.dirty))
        self.assertEqual(kept.stats, {f: s for f, s in together.stats.items() if f not in together.dirty})


class Histories(RuleBasedStateMachine):
    """Whatever happens in whatever order: the store never has more than the disk, in the end everything."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = FakeStore([])
        self.commits = Commits(self.store, self.clock)
        self.torrents = [FakeTorrent(bytes([65 + n]), []) for n in range(2)]
        for torrent in self.torrents:
            self.store.add(StoredTorrent(torrent.infohash, b"", "/", 0.0, {}))
        self.asked: list[Deferred[None]] = []

    @rule(index=strategies.integers(0, 1), length=strategies.sampled_from([0, MIB, 40 * MIB]))
    def write(self, index: int, length: int) -> None:
        self.torrents[index].write()
        self.commits.note(self.torrents[index], length)

    @rule(seconds=strategies.sampled_from([0.3, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(index=strategies.integers(0, 1))
    def slow_disk(self, index: int) -> None:
        self.torrents[index].calls.slow ^= {"sync"}

    @rule(index=strategies.integers(0, 1))
    def disk_answers(self, index: int) -> None:
        self.torrents[index].calls.turn_all()

    @rule()
    def slow_store(self) -> None:
        self.store.calls.slow ^= {"commit"}

    @precondition(lambda self: self.store.calls.waiting)
    @rule()
    def store_answers(self) -> None:
        self.store.calls.turn()

    @rule()
    def store_refuses_or_not(self) -> None:
        if not self.store.calls.failing.pop("commit", None):
            self.store.calls.failing["commit"] = REFUSED

    @rule(index=strategies.integers(0, 1))
    def commit_now(self, index: int) -> None:
        torrent = self.torrents[index]
        if torrent.synced == torrent.written:
            done = self.commits.commit(torrent.snapshot())
            self.asked.append(done.addErrback(lambda failure: failure.trap(StoreError) and None))

    def committed(self, torrent: FakeTorrent) -> int:
        found: list[Progress | None] = []
        MemoryStore.progress(self.store, torrent.infohash).addCallback(found.append)
        return 0 if found[0] is None else found[0].downloaded

    @invariant()
    def never_more_than_is_synced(self) -> None:
        for torrent in self.torrents:
            assert self.committed(torrent) <= torrent.synced

    def teardown(self) -> None:
        self.store.calls.failing.clear()
        for torrent in self.torrents:
            torrent.calls.slow.clear()
        self.store.calls.slow.clear()
        for _ in range(3):
            for torrent in self.torrents:
                torrent.calls.turn_all()
            self.store.calls.turn_all()
            self.clock.advance(RETRY_LAST)
        for torrent in self.torrents:
            assert self.committed(torrent) == torrent.written
        assert all(done.called for done in self.asked)
        assert self.commits.degraded is None
        assert self.commits.may_request()
        assert self.commits.stop().called
        assert not self.clock.getDelayedCalls()


HistoriesTests = Histories.TestCase
