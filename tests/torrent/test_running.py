"""The phase with peers: sources, limits of connections, figures, time."""

from __future__ import annotations

from irontide.torrent.changes import Changes
from irontide.torrent.running import KEEP_COUNTS, SETTLED, Running
from irontide.torrent.shared import Notice
from irontide.torrent.torrent import Torrent
from irontide.values import PeerAddress, Transferred
from tests.torrent.fakes import KIB16, deliver
from tests.torrent.test_torrent import TorrentTestCase

ADDRESS = PeerAddress("192.0.2.1", 1)


class RunningTests(TorrentTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.torrent = self.bench.running()

    @property
    def phase(self) -> Running:
        return self.phase_of(self.torrent)

    def phase_of(self, torrent: Torrent) -> Running:
        assert isinstance(torrent.phase, Running)
        return torrent.phase

    def test_announces_from_start_to_stop(self) -> None:
        self.assertEqual(self.bench.source.started, [self.torrent.infohash])
        self.assertEqual(self.bench.source.stopped, [])
        self.successResultOf(self.torrent.stop())
        self.assertEqual(self.bench.source.stopped, [self.torrent.infohash])

    def test_completed_is_told_of_whole_torrents_only(self) -> None:
        torrent = self.bench.running([("a", KIB16), ("b", KIB16)], seed=9)
        self.successResultOf(Changes(torrent).set_priorities([4, 0]))
        deliver(torrent, 0)
        self.assertTrue(torrent.complete)
        self.assertEqual(self.bench.source.complete, [])
        self.successResultOf(Changes(torrent).set_priorities([4, 4]))
        deliver(torrent, 1)
        self.assertEqual(self.bench.source.complete, [torrent.infohash])

    def test_transferred(self) -> None:
        """Of this session, whatever was before; ``left`` is of the whole torrent (BEP 3)."""
        deliver(self.torrent, 0)
        self.assertEqual(self.phase.transferred(), Transferred(0, 0, 3 * KIB16))

    def test_wanted_peers(self) -> None:
        self.assertEqual(self.phase.wanted_peers(), 50)
        phase = self.phase
        self.successResultOf(self.torrent.stop())
        self.assertEqual(phase.wanted_peers(), 0)

    def test_refuses_peers_once_stopped_and_banned_ones_always(self) -> None:
        phase = self.phase
        self.assertIsNotNone(phase.accept(ADDRESS))
        phase.book.ban(ADDRESS.host)
        self.assertIsNone(phase.accept(ADDRESS))
        other = PeerAddress("192.0.2.2", 1)
        self.assertIsNotNone(phase.accept(other))
        self.successResultOf(self.torrent.stop())
        self.assertIsNone(phase.accept(other))

    def test_bans_outlive_a_pause(self) -> None:
        self.phase.book.ban(ADDRESS.host)
        self.successResultOf(self.torrent.pause())
        self.successResultOf(self.torrent.resume())
        self.assertIsNone(self.phase.accept(ADDRESS))

    def test_idle_costs_nothing(self) -> None:
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ticks_until_everything_is_settled(self) -> None:
        """Blocks in memory are written and figures committed, also when the last peer has left."""
        self.phase.swarm.serving.uploaded += 1
        self.torrent.add_peers([])
        self.clock.pump([1.0] * int(KEEP_COUNTS + 2))
        committed = self.bench.progress(self.torrent)
        assert committed is not None
        self.assertEqual(committed.uploaded, 1)
        self.assertNotEqual(self.clock.getDelayedCalls(), [])
        self.clock.pump([1.0] * int(SETTLED))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_wrong_pieces_are_told(self) -> None:
        self.phase.swarm.downloads.failed_bytes += KIB16
        self.torrent.add_peers([])
        self.clock.advance(0)
        self.assertEqual(self.bench.notices.count(Notice.PIECES_FAILED), 1)
