"""A directory of .torrent files to be added (contract S2: best effort)."""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred, execute, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from zope.interface.verify import verifyObject

from irontide.errors import DuplicateTorrent, StoreError
from irontide.interfaces import IService
from irontide.metainfo.torrent_file import TorrentFile
from irontide.service.watch import INTERVAL, MAX_AT_ONCE, WatchedDirectory
from tests.session.fakes import torrent_file
from tests.temporary import FolderTestCase


class WatchTests(FolderTestCase):
    """WatchedDirectory on a Clock, with its thread's work done in place."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.makedirs(self.directory)
        self.clock = Clock()
        self.added: list[str] = []
        self.answer: Deferred = succeed(None)
        self.watch = WatchedDirectory(self.clock, self.directory, self.add, execute, 2000)
        self.addCleanup(self.watch.stop)

    def add(self, torrent: TorrentFile) -> Deferred:
        self.added.append(torrent.info.name)
        return self.answer

    def put(self, name: str, data: bytes | None = None) -> None:
        with open(os.path.join(self.directory, name), "wb") as file:
            file.write(torrent_file(name.encode())[0] if data is None else data)

    def look(self, times: int = 2) -> None:
        """Let it look; a file is taken at the second look."""
        for _ in range(times):
            self.clock.advance(INTERVAL)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.directory))

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IService, self.watch))

    def test_added_and_renamed(self) -> None:
        self.put("a.torrent")
        self.put("readme.txt")
        self.watch.start()
        self.look()
        self.assertEqual(self.added, ["a.torrent"])
        self.assertEqual(self.names(), ["a.torrent.added", "readme.txt"])
        self.look(5)
        self.assertEqual(self.added, ["a.torrent"])

    def test_file_that_still_grows_is_waited_for(self) -> None:
        data = torrent_file(b"a")[0]
        self.watch.start()
        for end in (5, 20, 60):
            self.put("a.torrent", data[:end])
            self.look(1)
        self.assertEqual(self.names(), ["a.torrent"])
        self.put("a.torrent", data)
        self.look()
        self.assertEqual(self.added, ["a"])

    def test_bad_ones_are_marked_with_the_reason_logged(self) -> None:
        self.put("junk.torrent", b"junk")
        self.put("empty.torrent", b"")
        self.put("large.torrent", b"d" * 3000)
        with capturedLogs() as events:
            self.watch.start()
            self.look()
        self.assertEqual(self.names(), ["empty.torrent.bad", "junk.torrent.bad", "large.torrent.bad"])
        self.assertEqual(len([event for event in events if event["log_level"] is LogLevel.warn]), 3)

    def test_duplicate_is_no_error(self) -> None:
        self.answer = fail(DuplicateTorrent("there"))
        self.put("a.torrent")
        self.watch.start()
        self.look()
        self.assertEqual(self.names(), ["a.torrent.added"])

    def test_full_disk_is_tried_again_and_said_once(self) -> None:
        self.put("a.torrent")
        with capturedLogs() as events:
            self.watch.start()
            for _ in range(3):
                self.answer = fail(StoreError("full"))
                self.look(1)
            self.answer = succeed(None)
            self.look()
        self.assertEqual(self.names(), ["a.torrent.added"])
        self.assertEqual(len([event for event in events if event["log_level"] is LogLevel.warn]), 1)

    def test_symlinks_and_directories_are_left_alone(self) -> None:
        os.symlink("/etc/passwd", os.path.join(self.directory, "link.torrent"))
        os.mkdir(os.path.join(self.directory, "folder.torrent"))
        self.watch.start()
        self.look(3)
        self.assertEqual(self.names(), ["folder.torrent", "link.torrent"])

    def test_missing_directory_is_said_once_and_looked_for_again(self) -> None:
        os.rmdir(self.directory)
        with capturedLogs() as events:
            self.watch.start()
            self.look(3)
        self.assertEqual(len(events), 1)
        os.mkdir(self.directory)
        self.put("a.torrent")
        self.look()
        self.assertEqual(self.added, ["a.torrent"])

    def test_many_at_once_are_bounded(self) -> None:
        for number in range(MAX_AT_ONCE + 1):
            self.put(f"{number:03}.torrent")
        self.watch.start()
        self.look(1)
        self.assertEqual(len(self.added), MAX_AT_ONCE)
        self.look()
        self.assertEqual(len(self.added), MAX_AT_ONCE + 1)

    def test_stop_waits_for_what_is_under_way(self) -> None:
        """And leaves no timed call."""
        self.answer = waiting = Deferred()
        self.put("a.torrent")
        self.watch.start()
        self.look()
        stopped = self.watch.stop()
        self.assertNoResult(stopped)
        waiting.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(self.watch.stop())
