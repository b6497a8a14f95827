"""One torrent through its phases: what leads where, what waits for what, what survives."""

from __future__ import annotations

import errno
from typing import Any

from hypothesis import strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import Closed, StorageError, StoreError
from irontide.session.commits import RETRY_LAST
from irontide.torrent.changes import Changes
from irontide.torrent.options import TorrentOptions
from irontide.torrent.retry import SPACE_RETRY, SPACE_RETRY_LAST
from irontide.torrent.running import Running
from irontide.torrent.shared import Notice
from irontide.torrent.stopped import Stopped
from irontide.torrent.torrent import Torrent
from irontide.values import PeerAddress
from tests.torrent.fakes import BROKEN, KIB16, NO_SPACE, REFUSED, Bench, FakeDisk, deliver

PAUSED = TorrentOptions(paused=True)


class TorrentTestCase(SynchronousTestCase):
    """After each test nothing is left over: no call, no buffer, no open file, no wrong bit in the store."""

    def setUp(self) -> None:
        self.bench = Bench()

    @property
    def clock(self) -> Clock:
        return self.bench.clock

    def tearDown(self) -> None:
        bench = self.bench
        bench.store.calls.slow.clear()
        bench.store.calls.turn_all()
        for torrent in bench.torrents:
            disk = bench.disk(torrent)
            disk.slow.clear()
            disk.turn_all()
            self.successResultOf(torrent.close("the test ends"))
        self.successResultOf(bench.commits.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(bench.pool.in_use, 0)
        self.assertEqual([disk.open_storages for disk in bench.disks.values() if disk.open_storages], [])
        self.assertEqual(bench.store.wrong, [])

    def again(self, torrent: Torrent, *, crash: bool = False, boot_id: str = "this boot") -> Torrent:
        """The same torrent in the next process."""
        if crash:
            self.bench.crash()
            if boot_id != "this boot":
                self.bench.disk(torrent).lose_power()
        else:
            self.successResultOf(torrent.close("the session stops"))
            self.bench.restart()
        self.bench.boot_id = boot_id
        files = [("/".join(file.path[1:]), file.length) for file in torrent.info.files]
        following = self.bench.torrent(files, options=torrent.options)
        self.assertEqual(following.infohash, torrent.infohash)
        following.start(self.bench.progress(torrent))
        return following

    def fail_with(self, torrent: Torrent, name: str, error: Exception) -> FakeDisk:
        disk = self.bench.disk(torrent)
        disk.failing[name] = error
        return disk

    def assertStopped(self, torrent: Torrent, error: Exception | None = None) -> None:
        self.assertIsInstance(torrent.phase, Stopped)
        assert isinstance(torrent.phase, Stopped)
        self.assertIs(torrent.phase.error, error)


class PhaseTests(TorrentTestCase):
    """Every row of the table."""

    def test_checking_to_running(self) -> None:
        torrent = self.bench.torrent()
        disk = self.bench.disk(torrent)
        disk.put([1, 2])
        disk.hold_checks = True
        started = torrent.start(None)
        self.assertEqual(torrent.phase.name, "checking")
        self.assertNoResult(started)
        disk.checks[0].go_on()
        self.successResultOf(started)
        self.assertEqual(torrent.phase.name, "running")
        self.assertEqual(list(torrent.have.ones()), [1, 2])
        self.assertEqual(self.bench.source.started, [torrent.infohash])

    def test_checking_to_stopped_by_pause(self) -> None:
        torrent = self.bench.torrent()
        disk = self.bench.disk(torrent)
        disk.put([1, 2])
        disk.hold_checks = True
        torrent.start(None)
        self.successResultOf(torrent.pause())
        self.assertStopped(torrent)
        self.assertEqual(disk.made, [])
        self.assertEqual(self.bench.source.started, [])

    def test_checking_to_stopped_by_the_session(self) -> None:
        torrent = self.bench.torrent()
        disk = self.bench.disk(torrent)
        disk.put([1])
        disk.hold_checks = True
        torrent.start(None)
        self.successResultOf(torrent.stop())
        self.assertStopped(torrent)

    def test_checking_to_error(self) -> None:
        torrent = self.bench.torrent()
        disk = self.bench.disk(torrent)
        disk.put([1])
        disk.failing["check"] = BROKEN
        self.successResultOf(torrent.start(None))
        self.assertStopped(torrent, BROKEN)
        self.assertEqual(torrent.status().error, "input/output error")

    def test_running_to_stopped(self) -> None:
        torrent = self.bench.running()
        self.successResultOf(torrent.stop())
        self.assertStopped(torrent)
        self.assertEqual(self.bench.source.stopped, [torrent.infohash])

    def test_running_to_error(self) -> None:
        torrent = self.bench.running()
        self.fail_with(torrent, "verify_and_write", BROKEN)
        deliver(torrent, 0)
        self.assertStopped(torrent, BROKEN)

    def test_running_to_checking(self) -> None:
        torrent = self.bench.running()
        deliver(torrent, 0, 2)
        disk = self.bench.disk(torrent)
        disk.cache.discard(2)  # somebody wrote to it
        disk.medium.discard(2)
        disk.hold_checks = True
        done = torrent.recheck()
        self.assertEqual(torrent.phase.name, "checking")
        disk.checks[-1].go_on()
        self.successResultOf(done)
        self.assertEqual(torrent.phase.name, "running")
        self.assertEqual(list(torrent.have.ones()), [0])
        self.assertEqual(self.bench.committed(torrent), {0})

    def test_stopped_to_running(self) -> None:
        torrent = self.bench.running()
        deliver(torrent, 0)
        self.successResultOf(torrent.pause())
        self.successResultOf(torrent.resume())
        self.assertEqual(torrent.phase.name, "running")
        self.assertEqual(list(torrent.have.ones()), [0])
        self.assertEqual(self.bench.disk(torrent).checked, [])

    def test_phases_are_told(self) -> None:
        torrent = self.bench.running()
        self.successResultOf(torrent.stop())
        self.assertEqual(self.bench.notices, [Notice.PHASE, Notice.PHASE, Notice.CHECKED, Notice.PHASE])

    def test_added_paused(self) -> None:
        """It is checked, and what is found is kept: it does not run."""
        torrent = self.bench.torrent(options=PAUSED)
        self.bench.disk(torrent).put([0, 1])
        checked = torrent.when_checked()
        self.successResultOf(torrent.start(None))
        self.successResultOf(checked)
        self.assertStopped(torrent)
        self.assertEqual(self.bench.disk(torrent).made, [])
        self.assertEqual(self.bench.committed(torrent), {0, 1})
        checks = len(self.bench.disk(torrent).checked)
        self.successResultOf(torrent.resume())
        self.assertEqual(torrent.phase.name, "running")
        self.assertEqual(len(self.bench.disk(torrent).checked), checks)

    def test_recheck_of_a_paused_torrent_is_kept(self) -> None:
        """Resuming believes what the check found, and not what was believed before it."""
        torrent = self.bench.running()
        deliver(torrent, 0, 1)
        self.successResultOf(torrent.pause())
        disk = self.bench.disk(torrent)
        disk.cache.discard(1)
        disk.medium.discard(1)
        self.successResultOf(torrent.recheck())
        self.assertStopped(torrent)
        self.assertEqual(self.bench.committed(torrent), {0})
        self.successResultOf(torrent.resume())
        self.assertEqual(list(torrent.have.ones()), [0])

    def test_peers_are_accepted_only_while_running(self) -> None:
        address = PeerAddress("192.0.2.1", 1)
        torrent = self.bench.torrent()
        self.assertIsNone(torrent.accept(address))
        torrent.start(None)
        self.assertIsNotNone(torrent.accept(address))
        self.successResultOf(torrent.stop())
        self.assertIsNone(torrent.accept(address))
        torrent.add_peers([address])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_source_that_fails_does_no_harm(self) -> None:
        """Contract S3."""
        self.bench.source.error = ZeroDivisionError()
        torrent = self.bench.running()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(torrent.phase.name, "running")

    def test_a_bug_while_starting(self) -> None:
        torrent = self.bench.torrent()
        self.fail_with(torrent, "stats", ZeroDivisionError("oops"))
        self.successResultOf(torrent.start(None))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIn("oops", torrent.status().error or "")

    def test_each_step_of_starting_may_fail(self) -> None:
        for name in ("missing_root", "stats", "prepare"):
            torrent = self.bench.torrent(seed=len(name))
            disk = self.bench.disk(torrent)
            disk.put([0])
            self.successResultOf(torrent.start(None))
            self.successResultOf(torrent.stop())
            disk.failing[name] = BROKEN
            self.successResultOf(torrent.resume())
            self.assertStopped(torrent, BROKEN)
            disk.failing.clear()
            self.successResultOf(torrent.resume())
            self.assertEqual(torrent.phase.name, "running")

    def test_files_that_cannot_be_closed(self) -> None:
        torrent = self.bench.running()
        disk = self.fail_with(torrent, "close", BROKEN)
        self.successResultOf(torrent.stop())
        self.assertStopped(torrent)
        disk.opened[0].closed = True


class TurnTests(TorrentTestCase):
    """What is asked for during a change of phase waits, but for checks."""

    def test_stop_interrupts_a_start_before_its_check(self) -> None:
        torrent = self.bench.torrent()
        disk = self.bench.disk(torrent)
        disk.put([0])
        disk.slow.add("stats")
        disk.hold_checks = True
        torrent.start(None)
        stopped = torrent.stop()
        self.assertNoResult(stopped)
        disk.turn()
        self.successResultOf(stopped)
        self.assertEqual(disk.checked, [])

    def test_stop_interrupts_what_is_in_line(self) -> None:
        torrent = self.bench.running()
        deliver(torrent, 0)
        disk = self.bench.disk(torrent)
        disk.slow.add("sync")
        disk.hold_checks = True
        first, again, last = torrent.stop(), torrent.recheck(), torrent.stop()
        disk.turn_all()
        for each in (first, again, last):
            self.successResultOf(each)
        self.assertStopped(torrent)

    def test_recheck_during_a_check_begins_anew(self) -> None:
        torrent = self.bench.torrent()
        disk = self.bench.disk(torrent)
        disk.put([0, 1])
        disk.hold_checks = True
        started = torrent.start(None)
        disk.checks[0].go_on(1)
        again = torrent.recheck()
        self.successResultOf(started)
        disk.checks[1].go_on()
        self.successResultOf(again)
        self.assertEqual(disk.checked, [0, 0, 1, 2, 3])

    def test_resume_waits_for_the_pause(self) -> None:
        torrent = self.bench.running()
        disk = self.bench.disk(torrent)
        disk.slow.add("sync")
        paused, resumed = torrent.pause(), torrent.resume()
        self.assertNoResult(paused)
        self.assertNoResult(resumed)
        disk.slow.clear()
        disk.turn_all()
        self.successResultOf(paused)
        self.successResultOf(resumed)
        self.assertEqual(torrent.phase.name, "running")
        self.assertFalse(torrent.options.paused)

    def test_the_last_wish_counts(self) -> None:
        """However slow the store is."""
        for wishes, name in ((("pause", "resume"), "running"), (("pause", "resume", "pause"), "stopped")):
            torrent = self.bench.running(seed=len(wishes))
            self.bench.store.calls.slow.add("add")
            done = [getattr(torrent, wish)() for wish in wishes]
            self.bench.store.calls.slow.clear()
            self.bench.store.calls.turn_all()
            for each in done:
                self.successResultOf(each)
            self.assertEqual(torrent.phase.name, name)
            self.assertEqual(torrent.options.paused, name == "stopped")
            (stored,) = (
                row
                for row in self.successResultOf(self.bench.store.torrents())
                if row.infohash == torrent.infohash
            )
            self.assertEqual(stored.options["paused"], name == "stopped")

    def test_pause_and_another_change_lose_neither(self) -> None:
        torrent = self.bench.running()
        self.bench.store.calls.slow.add("add")
        done = [Changes(torrent).set_limits(1, 2), torrent.pause(), Changes(torrent).set_sequential(True)]
        while self.bench.store.calls.waiting:
            self.bench.store.calls.turn()
        for each in done:
            self.successResultOf(each)
        wanted = TorrentOptions(paused=True, sequential=True, download_rate=1, upload_rate=2)
        self.assertEqual(torrent.options, wanted)

    def test_pause_that_cannot_be_kept(self) -> None:
        """It fails and nothing changes: the torrent runs, and a check goes on."""
        torrent = self.bench.torrent()
        disk = self.bench.disk(torrent)
        disk.put([0])
        disk.hold_checks = True
        torrent.start(None)
        self.bench.store.calls.failing["add"] = REFUSED
        self.failureResultOf(torrent.pause(), StoreError)
        disk.checks[0].go_on()
        self.assertEqual(torrent.phase.name, "running")
        self.failureResultOf(torrent.pause(), StoreError)
        self.assertEqual(torrent.phase.name, "running")
        self.assertFalse(torrent.options.paused)

    def test_resume_that_cannot_be_kept(self) -> None:
        torrent = self.bench.torrent(options=PAUSED)
        torrent.start(None)
        self.bench.store.calls.failing["add"] = REFUSED
        self.failureResultOf(torrent.resume(), StoreError)
        self.assertStopped(torrent)

    def test_resume_when_the_store_cannot_be_read(self) -> None:
        torrent = self.bench.running()
        self.successResultOf(torrent.stop())
        self.bench.store.calls.failing["progress"] = REFUSED
        self.failureResultOf(torrent.resume(), StoreError)
        self.assertStopped(torrent)

    def test_resume_of_what_runs(self) -> None:
        torrent = self.bench.running()
        phase = torrent.phase
        self.successResultOf(torrent.resume())
        self.assertIs(torrent.phase, phase)

    def test_closed_for_good(self) -> None:
        torrent = self.bench.running()
        self.successResultOf(torrent.close("removed"))
        self.failureResultOf(torrent.resume(), Closed)
        self.failureResultOf(torrent.pause(), Closed)
        self.successResultOf(torrent.recheck())
        self.successResultOf(torrent.start(None))
        self.assertStopped(torrent)
        self.failureResultOf(torrent.when_complete(), Closed)

    def test_start_and_close_at_once(self) -> None:
        torrent = self.bench.torrent()
        disk = self.bench.disk(torrent)
        disk.slow.add("stats")
        torrent.start(None)
        closed = torrent.close("removed")
        resumed = torrent.recheck()
        disk.slow.clear()
        disk.turn_all()
        self.successResultOf(closed)
        self.successResultOf(resumed)
        self.assertStopped(torrent)
        self.assertEqual(self.bench.source.started, [])


class WhenTests(TorrentTestCase):
    def test_complete_is_told_after_the_sync_and_the_commit(self) -> None:
        torrent = self.bench.running()
        disk = self.bench.disk(torrent)
        disk.slow.add("sync")
        done = torrent.when_complete()
        deliver(torrent, 0, 1, 2, 3)
        self.assertTrue(torrent.complete)
        self.assertNoResult(done)
        self.assertNoResult(torrent.when_complete())
        disk.slow.clear()
        disk.turn_all()
        self.successResultOf(done)
        self.successResultOf(torrent.when_complete())
        self.assertEqual(self.bench.committed(torrent), {0, 1, 2, 3})
        self.assertEqual(self.bench.notices.count(Notice.COMPLETE), 1)
        self.assertEqual(self.bench.source.complete, [torrent.infohash])

    def test_complete_from_the_start(self) -> None:
        torrent = self.bench.torrent()
        self.bench.disk(torrent).put(range(4))
        done = torrent.when_complete()
        torrent.start(None)
        self.successResultOf(done)
        self.assertEqual(self.bench.source.complete, [])
        self.assertEqual(self.bench.notices.count(Notice.COMPLETE), 0)

    def test_complete_though_the_store_refuses(self) -> None:
        """It is there and synced; the commit follows."""
        torrent = self.bench.running()
        done = torrent.when_complete()
        self.bench.store.calls.failing["commit"] = REFUSED
        deliver(torrent, 0, 1, 2, 3)
        self.successResultOf(done)
        self.bench.store.calls.failing.clear()
        self.clock.pump([1.0] * 5)
        self.assertEqual(self.bench.committed(torrent), {0, 1, 2, 3})

    def test_what_stops_it_is_told(self) -> None:
        torrent = self.bench.running()
        done = torrent.when_complete()
        self.fail_with(torrent, "verify_and_write", BROKEN)
        deliver(torrent, 0)
        self.assertIs(self.failureResultOf(done).value, BROKEN)
        self.assertIs(self.failureResultOf(torrent.when_complete()).value, BROKEN)
        self.successResultOf(torrent.when_checked())

    def test_a_sync_that_fails_at_the_end(self) -> None:
        torrent = self.bench.running()
        done = torrent.when_complete()
        self.fail_with(torrent, "sync", BROKEN)
        deliver(torrent, 0, 1, 2, 3)
        self.assertIs(self.failureResultOf(done).value, BROKEN)
        self.assertStopped(torrent, BROKEN)
        self.assertFalse(torrent.complete)

    def test_a_pause_is_no_error(self) -> None:
        torrent = self.bench.running()
        done = torrent.when_complete()
        self.successResultOf(torrent.pause())
        self.assertNoResult(done)
        self.successResultOf(torrent.resume())
        deliver(torrent, 0, 1, 2, 3)
        self.successResultOf(done)

    def test_removed(self) -> None:
        torrent = self.bench.torrent()
        waiting = [torrent.when_complete(), torrent.when_checked()]
        self.successResultOf(torrent.close("removed"))
        for each in waiting:
            self.failureResultOf(each, Closed)

    def test_checked(self) -> None:
        torrent = self.bench.torrent()
        disk = self.bench.disk(torrent)
        disk.put([0])
        disk.hold_checks = True
        checked = torrent.when_checked()
        torrent.start(None)
        self.assertNoResult(checked)
        disk.checks[0].go_on()
        self.successResultOf(checked)
        again = torrent.recheck()
        checked = torrent.when_checked()
        self.assertNoResult(checked)
        self.successResultOf(torrent.stop())
        self.successResultOf(again)
        self.assertNoResult(checked)
        disk.hold_checks = False
        self.successResultOf(torrent.resume())
        self.successResultOf(checked)

    def test_cannot_be_checked(self) -> None:
        torrent = self.bench.torrent()
        self.fail_with(torrent, "stats", BROKEN)
        checked = torrent.when_checked()
        torrent.start(None)
        self.failureResultOf(checked, StorageError)
        self.failureResultOf(torrent.when_checked(), StorageError)


class DurabilityTests(TorrentTestCase):
    def test_order(self) -> None:
        """Durability 3: written, synced, committed; and the commit is of what that sync was for."""
        torrent = self.bench.running()
        self.bench.log.clear()
        deliver(torrent, 0, 1)
        self.clock.advance(1)
        self.assertEqual(
            self.bench.log,
            [
                ("write", 0),
                ("write", 1),
                ("sync", {0, 1}),
                ("synced", {0, 1}),
                ("commit", torrent.infohash),
            ],
        )
        self.assertEqual(self.bench.committed(torrent), {0, 1})

    def test_what_comes_during_the_last_sync_is_not_in_its_commit(self) -> None:
        """All that is wanted is there, and a piece of a file that no longer is comes on top."""
        torrent = self.bench.running([("a", KIB16), ("b", KIB16)])
        self.bench.disk(torrent).slow.update({"verify_and_write", "sync"})
        deliver(torrent, 0, 1)
        disk = self.bench.disk(torrent)
        self.successResultOf(Changes(torrent).set_priorities([4, 0]))
        disk.turn()  # piece 0: all that is wanted
        self.assertEqual(disk.waiting[-1][0], "sync")
        disk.waiting.rotate(1)
        disk.waiting.rotate(-2)
        name, job, waiting = disk.waiting.pop()
        disk._run(name, job).chainDeferred(waiting)  # piece 1 overtakes the sync
        disk.turn_all()
        self.clock.advance(1)
        disk.turn_all()
        self.assertEqual(self.bench.store.wrong, [])

    def test_an_older_commit_never_comes_after_the_last(self) -> None:
        """The sync under way when the download is complete is waited for: the last word is the last."""
        torrent = self.bench.running()
        disk = self.bench.disk(torrent)
        disk.slow.add("sync")
        deliver(torrent, 0)
        self.clock.advance(1)
        deliver(torrent, 1, 2, 3)
        self.assertEqual(len(disk.waiting), 1)
        disk.turn_all()
        self.assertEqual(self.bench.committed(torrent), {0, 1, 2, 3})
        disk.slow.clear()

    def test_files_are_dirty_before_they_are_written(self) -> None:
        """Durability 4: the dirty set is in the store before the first write, whatever is wanted by then."""
        torrent = self.bench.torrent(
            [("a", KIB16), ("b", KIB16), ("c", KIB16)], options=TorrentOptions(priorities=(0, 4, 4))
        )
        self.bench.disk(torrent).put([2])
        torrent.start(None)
        progress = self.bench.progress(torrent)
        assert progress is not None
        self.assertEqual(progress.dirty, {0, 1})
        self.assertEqual(set(progress.stats), {2})
        self.successResultOf(Changes(torrent).set_priorities([4, 4, 4]))
        deliver(torrent, 1)
        self.clock.advance(1)
        progress = self.bench.progress(torrent)
        assert progress is not None
        self.assertEqual(progress.dirty, {0, 1})

    def test_complete_files_are_at_rest(self) -> None:
        torrent = self.bench.running([("a", KIB16), ("b", KIB16)])
        self.successResultOf(Changes(torrent).set_priorities([4, 0]))
        deliver(torrent, 0)
        progress = self.bench.progress(torrent)
        assert progress is not None
        self.assertEqual((progress.dirty, set(progress.stats)), ({1}, {0}))

    def test_clean_stop_loses_nothing(self) -> None:
        torrent = self.bench.running()
        deliver(torrent, 0, 1)
        following = self.again(torrent)
        self.assertEqual(list(following.have.ones()), [0, 1])
        self.assertEqual(self.bench.disk(torrent).checked, [])
        self.assertTrue(torrent.kept)

    def test_crash_loses_what_was_not_committed(self) -> None:
        torrent = self.bench.running()
        deliver(torrent, 0)
        self.clock.advance(1)
        deliver(torrent, 1)
        following = self.again(torrent, crash=True)
        self.assertEqual(list(following.have.ones()), [0])
        self.assertEqual(self.bench.disk(torrent).checked, [])

    def test_power_cut_samples_what_was_being_written(self) -> None:
        torrent = self.bench.running()
        deliver(torrent, 0)
        self.clock.advance(1)
        deliver(torrent, 1)
        following = self.again(torrent, crash=True, boot_id="the next")
        self.assertEqual(list(following.have.ones()), [0])
        self.assertEqual(self.bench.disk(torrent).checked, [0])

    def test_totals_survive(self) -> None:
        torrent = self.bench.torrent()
        torrent.start(None)
        for _ in range(3):
            assert isinstance(torrent.phase, Running)
            torrent.phase.swarm.downloads.downloaded += 5
            torrent.phase.swarm.serving.uploaded += 7
            torrent = self.again(torrent)
        self.assertEqual((torrent.status().downloaded, torrent.status().uploaded), (15, 21))

    def test_totals_are_kept_while_running(self) -> None:
        """Class C: with the next pieces, else every 30 s; also when all peers are gone by then."""
        torrent = self.bench.running()
        assert isinstance(torrent.phase, Running)
        torrent.add_peers([PeerAddress("192.0.2.1", 1)])
        torrent.phase.swarm.serving.uploaded += 7
        self.clock.pump([1.0] * 30)
        progress = self.bench.progress(torrent)
        assert progress is not None
        self.assertEqual(progress.uploaded, 7)

    def test_an_idle_torrent_has_no_timer(self) -> None:
        self.bench.running()
        self.clock.pump([1.0] * 60)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_a_check_found_is_synced_first(self) -> None:
        """A process before this one was killed: what it wrote may be in the cache only."""
        torrent = self.bench.running()
        deliver(torrent, 0, 1)
        following = self.again(torrent, crash=True)
        self.successResultOf(following.recheck())
        self.assertEqual(self.bench.committed(following), {0, 1})
        self.assertEqual(self.bench.disk(following).medium, {0, 1})

    # --- the disk refuses --------------------------------------------------------------------------------

    def test_failed_sync(self) -> None:
        """Durability 6: what came since the last good commit is not had, now and after resuming."""
        torrent = self.bench.running()
        deliver(torrent, 0)
        self.clock.advance(1)
        deliver(torrent, 1)
        disk = self.fail_with(torrent, "sync", BROKEN)
        self.clock.advance(1)
        self.assertStopped(torrent, BROKEN)
        self.assertEqual(list(torrent.have.ones()), [0])
        self.assertFalse(torrent.kept)
        disk.failing.clear()
        self.successResultOf(torrent.resume())
        self.assertEqual(list(torrent.have.ones()), [0])
        self.assertEqual(self.bench.committed(torrent), {0})

    def test_failed_sync_for_want_of_space(self) -> None:
        """Delayed allocation: a sync that failed proves nothing, whatever its error; it goes on by itself."""
        torrent = self.bench.running()
        deliver(torrent, 0)
        disk = self.fail_with(torrent, "sync", NO_SPACE)
        self.clock.advance(1)
        self.assertStopped(torrent, NO_SPACE)
        self.assertEqual(list(torrent.have.ones()), [])
        disk.failing.clear()
        self.clock.advance(SPACE_RETRY)
        self.assertEqual(torrent.phase.name, "running")
        self.assertEqual(self.bench.committed(torrent), set())

    def test_nothing_is_committed_between_the_failure_and_the_stop(self) -> None:
        """The torrent is busy when its sync fails; pieces come, and a second sync would go well."""
        torrent = self.bench.running()
        disk = self.bench.disk(torrent)
        disk.slow.add("set_wanted")
        changing = Changes(torrent).set_priorities([3])
        deliver(torrent, 0)
        disk.failing["sync"] = BROKEN
        self.clock.advance(1)
        disk.failing.clear()
        deliver(torrent, 1)
        self.clock.pump([1.0] * 5)
        self.assertEqual(self.bench.committed(torrent), set())
        disk.turn_all()
        self.successResultOf(changing)
        self.assertStopped(torrent, BROKEN)
        self.assertEqual(self.bench.committed(torrent), set())

    def test_what_was_noted_before_the_failure_is_not_committed_after_it(self) -> None:
        torrent = self.bench.running()
        disk = self.bench.disk(torrent)
        disk.slow.update({"set_wanted", "sync"})
        changing = Changes(torrent).set_priorities([3])
        deliver(torrent, 0)
        self.clock.advance(1)
        deliver(torrent, 1)
        disk.failing["sync"] = BROKEN
        disk.slow.discard("sync")
        disk.waiting.rotate(-1)  # the sync before the change
        disk.turn()
        disk.failing.clear()
        self.clock.pump([1.0] * 5)
        self.assertEqual(self.bench.committed(torrent), set())
        disk.turn_all()
        self.successResultOf(changing)
        self.assertEqual(self.bench.committed(torrent), set())

    def test_failed_write(self) -> None:
        """EIO on a write: as with a sync."""
        torrent = self.bench.running()
        deliver(torrent, 0)
        self.fail_with(torrent, "verify_and_write", BROKEN)
        deliver(torrent, 1)
        self.assertStopped(torrent, BROKEN)
        self.assertEqual(list(torrent.have.ones()), [])
        self.assertEqual(self.bench.committed(torrent), set())
        self.clock.advance(SPACE_RETRY_LAST)
        self.assertStopped(torrent, BROKEN)

    def test_failed_last_sync(self) -> None:
        torrent = self.bench.running()
        deliver(torrent, 0)
        self.fail_with(torrent, "sync", BROKEN)
        self.successResultOf(torrent.stop())
        self.assertStopped(torrent, BROKEN)
        self.assertFalse(torrent.kept)

    def test_no_space(self) -> None:
        """Durability 8: only this torrent stops, with all it has, and goes on when there is space."""
        other = self.bench.running(seed=1)
        torrent = self.bench.running()
        deliver(torrent, 0)
        disk = self.fail_with(torrent, "verify_and_write", NO_SPACE)
        deliver(torrent, 1)
        self.assertStopped(torrent, NO_SPACE)
        self.assertEqual(self.bench.committed(torrent), {0})
        self.assertEqual(other.phase.name, "running")
        disk.failing["prepare"] = NO_SPACE
        self.clock.advance(SPACE_RETRY)
        self.assertStopped(torrent, NO_SPACE)
        disk.failing.clear()
        self.clock.advance(2 * SPACE_RETRY)
        self.assertEqual(torrent.phase.name, "running")
        self.assertEqual(list(torrent.have.ones()), [0, 1])  # the blocks of 1 were there

    def test_no_space_and_paused(self) -> None:
        torrent = self.bench.running()
        self.fail_with(torrent, "verify_and_write", NO_SPACE)
        deliver(torrent, 1)
        self.successResultOf(torrent.pause())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertStopped(torrent)

    def test_stop_while_it_stops_for_want_of_space(self) -> None:
        """No timer outlives the session."""
        torrent = self.bench.running()
        disk = self.fail_with(torrent, "verify_and_write", NO_SPACE)
        disk.slow.add("sync")
        deliver(torrent, 1)
        stopped = torrent.stop()
        disk.turn_all()
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_space_when_the_store_has_none_either(self) -> None:
        """Resuming cannot read the store: it is tried again."""
        torrent = self.bench.running()
        disk = self.fail_with(torrent, "verify_and_write", NO_SPACE)
        deliver(torrent, 1)
        self.bench.store.calls.failing["progress"] = REFUSED
        self.clock.advance(SPACE_RETRY)
        disk.failing.clear()
        self.bench.store.calls.failing.clear()
        self.clock.advance(SPACE_RETRY_LAST)
        self.assertEqual(torrent.phase.name, "running")

    def test_a_bug_in_the_storage(self) -> None:
        torrent = self.bench.running()
        self.fail_with(torrent, "verify_and_write", ZeroDivisionError("oops"))
        deliver(torrent, 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIn("internal error", torrent.status().error or "")

    # --- the store refuses -------------------------------------------------------------------------------

    def test_the_store_refuses_while_running(self) -> None:
        """Durability 7: nothing stops, nothing is lost."""
        torrent = self.bench.running()
        self.bench.store.calls.failing["commit"] = REFUSED
        deliver(torrent, 0)
        self.clock.pump([1.0] * 10)
        self.assertEqual(torrent.phase.name, "running")
        self.bench.store.calls.failing.clear()
        self.clock.pump([1.0] * 10)
        self.assertEqual(self.bench.committed(torrent), {0})

    def test_pause_and_resume_while_the_store_refuses(self) -> None:
        """What could not be committed is not forgotten by the same process."""
        torrent = self.bench.running()
        self.bench.store.calls.failing["commit"] = REFUSED
        deliver(torrent, 0)
        self.successResultOf(torrent.pause())
        self.assertFalse(torrent.kept)
        self.bench.store.calls.failing.clear()
        self.successResultOf(torrent.resume())
        self.assertEqual(list(torrent.have.ones()), [0])
        self.assertEqual(self.bench.disk(torrent).checked, [])

    def test_nothing_is_written_before_the_store_knows(self) -> None:
        torrent = self.bench.torrent()
        self.bench.store.calls.failing["commit"] = REFUSED
        self.successResultOf(torrent.start(None))
        self.assertEqual(torrent.phase.name, "stopped")
        self.assertIn("the store refused", torrent.status().error or "")
        self.bench.store.calls.failing.clear()
        self.clock.advance(SPACE_RETRY)
        self.assertEqual(torrent.phase.name, "running")

    def test_seeding_goes_on(self) -> None:
        """What writes nothing needs no store."""
        torrent = self.bench.torrent()
        self.bench.disk(torrent).put(range(4))
        self.bench.store.calls.failing["commit"] = REFUSED
        self.successResultOf(torrent.start(None))
        self.assertEqual(torrent.phase.name, "running")

    def test_files_that_were_dirty_before(self) -> None:
        """After a crash the store knows enough already."""
        torrent = self.bench.running()
        deliver(torrent, 0)
        self.clock.advance(1)
        self.bench.store.calls.failing["commit"] = REFUSED
        following = self.again(torrent, crash=True)
        self.assertEqual(following.phase.name, "running")

    # --- storage missing ---------------------------------------------------------------------------------

    def test_storage_missing(self) -> None:
        """Durability 4: parked; bits are not cleared, no empty tree is made; back it is there again."""
        torrent = self.bench.running()
        deliver(torrent, 0)
        disk = self.bench.disk(torrent)
        self.successResultOf(torrent.stop())
        disk.mounted = False
        disk.made.clear()
        following = self.again(torrent)
        self.assertEqual(following.status().error, "storage missing")
        assert isinstance(following.phase, Stopped) and following.phase.error is not None
        self.assertEqual(following.phase.error.errno, errno.ENOENT)
        self.assertEqual(disk.made, [])
        self.assertEqual(self.bench.committed(torrent), {0})
        self.clock.advance(SPACE_RETRY_LAST)
        disk.mounted = True
        self.successResultOf(following.resume())
        self.assertEqual(following.phase.name, "running")
        self.assertEqual(list(following.have.ones()), [0])

    def test_storage_missing_with_nothing_but_blocks(self) -> None:
        torrent = self.bench.running(piece_length=2 * KIB16)
        disk = self.bench.disk(torrent)
        assert isinstance(torrent.phase, Running)
        torrent.phase.swarm.downloads.resume({0: b"\x80"})
        disk.sizes[0], disk.mtimes[0] = KIB16, 1
        self.successResultOf(torrent.stop())
        disk.mounted = False
        self.successResultOf(torrent.resume())
        self.assertEqual(torrent.status().error, "storage missing")

    def test_nothing_there_yet_is_not_missing(self) -> None:
        torrent = self.bench.running()
        following = self.again(torrent)
        self.assertEqual(following.phase.name, "running")

    def test_blocks_survive(self) -> None:
        torrent = self.bench.running(piece_length=2 * KIB16)
        disk = self.bench.disk(torrent)
        assert isinstance(torrent.phase, Running)
        torrent.phase.swarm.downloads.resume({0: b"\x80"})
        disk.sizes[0], disk.mtimes[0] = KIB16, 1
        self.successResultOf(torrent.stop())
        self.successResultOf(torrent.resume())
        assert isinstance(torrent.phase, Running)
        self.assertEqual(torrent.phase.swarm.downloads.masks(), {0: b"\x80"})


class PowerCuts(RuleBasedStateMachine):
    """
    Whatever is done in whatever order: at no commit has the store a bit whose piece is not on the medium.

    That is to say: the power may go at any moment.  Now and then it does.  (Left out: a recheck after a sync
    that failed.  The cache has what the medium has not, and reading does not tell.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.torrent = self.bench.torrent([("a", 4 * KIB16), ("b", 4 * KIB16)])
        self.torrent.start(None)
        self.disk = self.bench.disk(self.torrent)
        self.asked: list[Deferred[Any]] = []

    def ask(self, done: Deferred[Any]) -> None:
        self.asked.append(done)
        done.addErrback(lambda failure: failure.trap(StoreError, StorageError, Closed) and None)

    @rule(pieces=strategies.sets(strategies.integers(0, 7), min_size=1, max_size=3))
    def pieces_come(self, pieces: set[int]) -> None:
        phase = self.torrent.phase
        if isinstance(phase, Running) and not phase.swarm.downloads.stopped:
            deliver(self.torrent, *pieces)

    @rule(piece=strategies.integers(0, 7), other=strategies.integers(0, 7))
    def pieces_come_during_a_sync(self, piece: int, other: int) -> None:
        self.disk.slow.add("sync")
        self.pieces_come({piece})
        self.wait(1.0)
        self.pieces_come({other})
        self.disk_answers()

    @rule(seconds=strategies.sampled_from([0.5, 1.0, 16.0]))
    def wait(self, seconds: float) -> None:
        self.bench.clock.advance(seconds)

    @rule(name=strategies.sampled_from(["sync", "verify_and_write", "stats", "set_wanted", "close"]))
    def slow_disk(self, name: str) -> None:
        self.disk.slow ^= {name}

    @rule()
    def disk_answers(self) -> None:
        if self.disk.waiting:
            self.disk.turn()

    @rule(
        name=strategies.sampled_from(["sync", "verify_and_write"]),
        error=strategies.sampled_from([BROKEN, NO_SPACE]),
    )
    def broken_disk(self, name: str, error: Exception) -> None:
        self.disk.failing[name] = error

    @rule()
    def all_is_well(self) -> None:
        for calls in (self.disk, self.bench.store.calls):
            calls.failing.clear()
            calls.slow.clear()
            calls.turn_all()
        self.user("resume")

    @rule()
    def slow_store(self) -> None:
        self.bench.store.calls.slow ^= {"commit", "add"}

    @rule()
    def store_answers(self) -> None:
        if self.bench.store.calls.waiting:
            self.bench.store.calls.turn()

    @rule()
    def store_refuses_or_not(self) -> None:
        if not self.bench.store.calls.failing.pop("commit", None):
            self.bench.store.calls.failing["commit"] = REFUSED

    @rule(what=strategies.sampled_from(["pause", "resume", "stop", "recheck"]))
    def user(self, what: str) -> None:
        if what != "recheck" or not self.disk.lost:
            self.ask(getattr(self.torrent, what)())

    @rule(priorities=strategies.tuples(strategies.sampled_from([0, 4]), strategies.sampled_from([0, 4])))
    def wants(self, priorities: tuple[int, int]) -> None:
        self.ask(Changes(self.torrent).set_priorities(priorities))

    @rule(power=strategies.booleans())
    def crash(self, power: bool) -> None:
        """The process is killed, or the power goes."""
        bench, old = self.bench, self.torrent
        bench.crash()
        if power:
            self.disk.lose_power()
            bench.boot_id += "'"
        self.asked.clear()
        self.torrent = bench.torrent([("a", 4 * KIB16), ("b", 4 * KIB16)], options=old.options)
        self.torrent.start(bench.progress(old))
        assert bench.committed(old) <= self.disk.medium

    @invariant()
    def the_store_is_right(self) -> None:
        assert self.bench.store.wrong == []

    @invariant()
    def the_phase_is_one(self) -> None:
        assert sum(not storage.closed for storage in self.disk.opened) <= 1

    def teardown(self) -> None:
        bench = self.bench
        bench.store.calls.failing.clear()
        bench.store.calls.slow.clear()
        self.disk.failing.clear()
        self.disk.slow.clear()
        for _ in range(3):
            self.disk.turn_all()
            bench.store.calls.turn_all()
            bench.clock.advance(RETRY_LAST)
        assert all(done.called for done in self.asked)
        closed = self.torrent.close("the end")
        self.disk.turn_all()
        assert closed.called
        assert bench.commits.stop().called
        assert not bench.clock.getDelayedCalls()
        assert bench.store.wrong == []
        if self.torrent.kept:
            assert bench.committed(self.torrent) == set(self.torrent.have.ones())


class PowerCutsTests(SynchronousTestCase):
    def test_any_history(self) -> None:
        run_state_machine_as_test(PowerCuts)
