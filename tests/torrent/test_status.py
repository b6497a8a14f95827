"""What users see."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from irontide.metainfo.bitfield import Bitfield
from irontide.peer.rates import Rate
from irontide.torrent.changes import Changes
from irontide.torrent.options import TorrentOptions
from irontide.torrent.running import Running, have_bytes
from tests.torrent.fakes import BROKEN, KIB16, deliver, torrent_file
from tests.torrent.test_torrent import TorrentTestCase


class StatusTests(TorrentTestCase):
    def test_running(self) -> None:
        torrent = self.bench.running([("a", 2 * KIB16), ("b", KIB16 + 1)])
        deliver(torrent, 0, 3)
        status = torrent.status()
        self.assertEqual((status.phase, status.error), ("running", None))
        self.assertEqual(
            (status.have_bytes, status.wanted_bytes, status.total), (KIB16 + 1,) + (3 * KIB16 + 1,) * 2
        )
        self.assertEqual((status.peers, status.seeds, status.checked), (0, 0, 1.0))
        self.assertFalse(status.complete)
        self.assertIsNone(status.eta)

    def test_complete(self) -> None:
        torrent = self.bench.running()
        deliver(torrent, 0, 1, 2, 3)
        status = torrent.status()
        self.assertTrue(status.complete)
        self.assertEqual((status.have_bytes, status.eta), (4 * KIB16, 0.0))

    def test_time_left_is_that_of_what_is_wanted(self) -> None:
        """What is had of unwanted files does not shorten it."""
        torrent = self.bench.running([("a", 3 * KIB16), ("b", KIB16)])
        deliver(torrent, 0, 1, 2)
        self.successResultOf(Changes(torrent).set_priorities([0, 4]))
        assert isinstance(torrent.phase, Running)

        class Quick:
            """A peer that sends a piece a second."""

            def __init__(self, now: float) -> None:
                self.download, self.upload, self.seed = Rate(), Rate(), True
                self.download.add(KIB16, now)
                self.upload.add(5, now)

        torrent.phase.swarm.peers[Quick(self.bench.clock.seconds())] = None  # type: ignore[index, assignment]
        status = torrent.status()
        torrent.phase.swarm.peers.clear()
        self.assertEqual(status.eta, 1.0)
        self.assertEqual((status.peers, status.seeds, status.upload_rate), (1, 1, 5.0))

    def test_complete_means_what_is_wanted_in_every_phase(self) -> None:
        torrent = self.bench.running([("a", KIB16), ("b", KIB16)], options=TorrentOptions(priorities=(4, 0)))
        self.assertFalse(torrent.complete)
        deliver(torrent, 0)
        self.assertTrue(torrent.status().complete)
        self.successResultOf(torrent.pause())
        self.assertTrue(torrent.status().complete)
        self.successResultOf(Changes(torrent).set_priorities([4, 4]))
        self.assertFalse(torrent.status().complete)

    def test_checking(self) -> None:
        torrent = self.bench.torrent()
        disk = self.bench.disk(torrent)
        disk.put(range(4))
        disk.hold_checks = True
        started: Deferred[None] = torrent.start(None)
        disk.checks[0].go_on(1)
        status = torrent.status()
        self.assertEqual((status.phase, status.checked, status.complete), ("checking", 0.25, False))
        disk.checks[0].go_on()
        self.successResultOf(started)

    def test_stopped(self) -> None:
        torrent = self.bench.running()
        self.bench.disk(torrent).failing["verify_and_write"] = BROKEN
        deliver(torrent, 0)
        status = torrent.status()
        self.assertEqual((status.phase, status.error, status.eta), ("stopped", "input/output error", None))


class HaveBytesTests(TorrentTestCase):
    def test_the_last_piece_may_be_short(self) -> None:
        layout = torrent_file([("a", 2 * KIB16 + 1)])[0].info.layout
        have = Bitfield(3)
        self.assertEqual(have_bytes(layout, have), 0)
        have.set(2)
        self.assertEqual(have_bytes(layout, have), 1)
        have.set(0)
        self.assertEqual(have_bytes(layout, have), KIB16 + 1)
