"""What peers get of us: who may ask, what is answered or rejected, turns under a limit, who is dropped."""

from __future__ import annotations

import errno

from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import StorageError
from irontide.peer.peer import MAX_UNREAD
from irontide.peer.uploads import MAX_QUEUED
from irontide.swarm.serving import DRAIN_PATIENCE, MAX_STRIKES
from irontide.wire import messages as m
from tests.storage.fakes import FailingStorage, SlowStorage
from tests.swarm.fakes import KIB16, Piece, Remote, World

PIECES = 40
FIRST = m.Request(0, 0, KIB16)


class ServingTestCase(SynchronousTestCase):
    """We have all but the last piece; a peer that wants something is unchoked if there is a slot."""

    def setUp(self) -> None:
        self.use()

    def use(self, **named: object) -> None:
        self.world = World(total=PIECES * 4 * KIB16, have=range(PIECES - 1), **named)  # type: ignore[arg-type]

    def tearDown(self) -> None:
        self.world.settle()

    def leech(self, host: str = "10.0.0.1", *, interested: bool = True, **named: object) -> Remote:
        remote = self.world.join(host, **named)
        if remote.fast:
            remote.say(m.HaveNone())
        if interested:
            remote.say(m.Interested())
        remote.listen()
        return remote

    def block(self, request: m.Request) -> Piece:
        return Piece(
            request.piece, request.begin, self.world.block(request.piece, request.begin, request.length)
        )


class RequestTests(ServingTestCase):
    def test_what_is_asked_is_sent(self) -> None:
        remote = self.leech()
        remote.say(FIRST)
        self.assertEqual(remote.listen(), [self.block(FIRST)])
        self.assertEqual(self.world.swarm.serving.uploaded, KIB16)

    def test_any_part_of_a_piece_up_to_128_kib(self) -> None:
        self.world = World(total=16 * KIB16, piece_length=16 * KIB16, have=[0])
        remote = self.leech()
        for request in (m.Request(0, 5, 7), m.Request(0, 100, 8 * KIB16)):
            remote.say(request)
            self.assertEqual(remote.listen(), [self.block(request)])
        remote.say(m.Request(0, 0, 8 * KIB16 + 1))
        self.assertEqual(remote.listen(), [])
        self.assertEqual(remote.peer.strikes, 1)

    def test_a_read_of_many_requests_is_one_read_of_the_disk(self) -> None:
        self.use(storage=SlowStorage)
        remote = self.leech()
        remote.peer.upload.add(10 * KIB16 * 8, self.world.clock.seconds())
        requests = [m.Request(0, number * KIB16, KIB16) for number in range(4)]
        remote.say(*requests)
        self.assertEqual(self.world.storage.pending, 1)
        self.world.storage.turn_all()
        self.assertEqual(remote.listen(), list(map(self.block, requests)))

    def test_invalid_requests_are_strikes(self) -> None:
        remote = self.leech()
        bad = [
            m.Request(PIECES, 0, KIB16),
            m.Request(0, 4 * KIB16, 1),
            m.Request(0, 0, 0),
            m.Request(0, 0, 1 << 20),
        ]
        for number in range(MAX_STRIKES):
            remote.say(bad[number % len(bad)])
        self.assertFalse(remote.closed)
        remote.say(bad[0])
        self.assertTrue(remote.closed)
        self.assertIn("invalid", remote.why)

    def test_what_we_do_not_have_is_rejected_and_a_strike(self) -> None:
        remote = self.leech()
        remote.say(m.Request(PIECES - 1, 0, KIB16))
        self.assertEqual(remote.listen(), [m.RejectRequest(PIECES - 1, 0, KIB16)])
        self.assertEqual(remote.peer.strikes, 1)

    def test_while_choked_rejected(self) -> None:
        remote = self.leech(interested=False)
        number = next(piece for piece in range(PIECES - 1) if piece not in remote.peer.offered_fast)
        remote.say(m.Request(number, 0, KIB16))
        self.assertEqual(remote.listen(), [m.RejectRequest(number, 0, KIB16)])

    def test_while_choked_without_the_fast_extension_ignored(self) -> None:
        remote = self.leech(interested=False, fast=False)
        remote.say(FIRST)
        self.assertEqual(remote.listen(), [])
        self.assertFalse(remote.closed)

    def test_while_choked_but_allowed_fast(self) -> None:
        remote = self.world.join()
        allowed = [message.piece for message in remote.hears(m.AllowedFast)]
        self.assertTrue(allowed)
        request = m.Request(allowed[0], 0, KIB16)
        remote.say(m.HaveNone(), request)
        self.assertEqual(remote.listen(), [self.block(request)])

    def test_the_queue_is_bounded(self) -> None:
        self.use(storage=SlowStorage)
        remote = self.leech()
        remote.say(*[FIRST] * (MAX_QUEUED + 3))
        self.assertEqual(remote.listen(), [m.RejectRequest(0, 0, KIB16)] * 3)
        remote.leave()
        self.world.storage.turn_all()

    def test_cancelled_is_rejected_with_the_fast_extension(self) -> None:
        self.use(storage=SlowStorage)
        for fast in (True, False):
            remote = self.leech("10.0.0.2" if fast else "10.0.0.3", fast=fast)
            remote.say(FIRST, m.Request(1, 0, KIB16))
            remote.say(m.Cancel(1, 0, KIB16))
            self.world.storage.turn_all()
            answer = [m.RejectRequest(1, 0, KIB16)] if fast else []
            self.assertEqual(remote.listen(), [*answer, self.block(FIRST)])

    def test_cancelled_too_late(self) -> None:
        """It is sent: each request has one answer."""
        remote = self.leech()
        remote.say(FIRST)
        remote.say(m.Cancel(0, 0, KIB16))
        self.assertEqual(remote.listen(), [self.block(FIRST)])

    def test_rejects_that_nobody_reads_are_bounded(self) -> None:
        remote = self.leech(interested=False, drains=False)
        number = next(piece for piece in range(PIECES - 1) if piece not in remote.peer.offered_fast)
        flood = [m.Request(number, 0, KIB16)] * 10_000
        for _ in range(20):
            remote.say(*flood)
            self.assertLess(remote.transport.queued, MAX_UNREAD + 100)
            if remote.closed:
                break
        self.assertTrue(remote.closed)
        self.assertIn("read", remote.why)


class ChokeTests(ServingTestCase):
    def test_a_slot_is_filled_at_once_and_no_more_than_there_are(self) -> None:
        self.use(slots=2)
        heard = [self.world.join(f"10.0.0.{number}") for number in range(4)]
        for remote in heard:
            remote.say(m.HaveNone(), m.Interested())
        self.world.pass_time(1)
        self.assertEqual(sum(m.Unchoke() in remote.listen() for remote in heard), 2)

    def test_a_slot_that_is_given_up_goes_to_the_next(self) -> None:
        self.use(slots=1)
        first = self.leech("10.0.0.1")
        second = self.leech("10.0.0.2")
        self.assertTrue(second.peer.am_choking)
        first.leave()
        self.world.pass_time(1)
        self.assertEqual(second.listen(), [m.Unchoke()])

    def test_who_wants_nothing_any_more_is_choked(self) -> None:
        self.use(slots=1)
        first, second = self.leech("10.0.0.1"), self.leech("10.0.0.2")
        first.say(m.NotInterested())
        self.world.pass_time(1)
        self.assertEqual(first.listen(), [m.Choke()])
        self.assertEqual(second.listen(), [m.Unchoke()])

    def test_a_choke_clears_the_queue(self) -> None:
        """Choke first, then a reject for each (BEP 6); what is allowed fast stays, what is read is sent."""
        self.use(storage=SlowStorage)
        remote = self.leech()
        allowed = min(remote.peer.offered_fast)
        others = [piece for piece in range(PIECES - 1) if piece not in remote.peer.offered_fast][:3]
        remote.say(*[m.Request(piece, 0, KIB16) for piece in (*others, allowed)])
        remote.say(m.NotInterested())
        self.world.pass_time(1)
        self.assertEqual(
            remote.listen(), [m.Choke(), *(m.RejectRequest(piece, 0, KIB16) for piece in others[1:])]
        )
        self.world.storage.turn_all()
        self.assertEqual(
            remote.listen(), [self.block(m.Request(piece, 0, KIB16)) for piece in (others[0], allowed)]
        )

    def test_a_choke_without_the_fast_extension(self) -> None:
        self.use(storage=SlowStorage)
        remote = self.leech(fast=False)
        remote.say(FIRST, m.Request(1, 0, KIB16), m.NotInterested())
        self.world.pass_time(1)
        self.world.storage.turn_all()
        self.assertEqual(remote.listen(), [m.Choke(), self.block(FIRST)])


class LimitTests(ServingTestCase):
    def test_the_rate_is_kept(self) -> None:
        self.use(upload_rate=4 * KIB16)
        remote = self.leech()
        remote.say(*[FIRST] * 100)
        for _ in range(200):
            self.world.clock.advance(0.05)
        self.assertLessEqual(abs(self.world.swarm.serving.uploaded / KIB16 - 44), 2)

    def test_peers_have_their_turns(self) -> None:
        """However much the first has queued, and though it asks again as soon as it was served."""
        self.use(upload_rate=4 * KIB16)
        peers = [self.leech(f"10.0.0.{number}") for number in range(3)]
        for remote in peers:
            remote.say(*[FIRST] * 200)
        for _ in range(300):
            self.world.clock.advance(0.1)
        sent = [len(remote.hears(Piece)) for remote in peers]
        self.assertGreater(sum(sent), 100)
        self.assertLessEqual(max(sent) - min(sent), 4, sent)

    def test_who_left_does_not_use_up_its_turn(self) -> None:
        self.use(upload_rate=KIB16)
        gone = [self.leech(f"10.0.0.{number}") for number in range(3)]
        for remote in gone:
            remote.say(*[FIRST] * 5)
        last = self.leech("10.0.1.1")
        last.say(*[FIRST] * 5)
        for remote in gone:
            remote.leave()
        sent = self.world.swarm.serving.uploaded
        for _ in range(31):
            self.world.clock.advance(0.1)
        self.assertGreaterEqual(self.world.swarm.serving.uploaded - sent, 2 * KIB16)
        self.assertTrue(last.hears(Piece))

    def test_a_limit_that_is_lifted(self) -> None:
        self.use(upload_rate=1)
        remote = self.leech()
        remote.say(*[FIRST] * 5)
        self.world.upload_bucket.set_rate(0, self.world.clock.seconds())
        self.world.clock.advance(1)
        self.world.clock.advance(20_000)
        self.assertEqual(self.world.swarm.serving.uploaded, 5 * KIB16)

    def test_nothing_waits_after_the_end(self) -> None:
        self.use(upload_rate=1)
        self.leech().say(*[FIRST] * 5)


class NeverReadsTests(ServingTestCase):
    def test_dropped_after_a_minute(self) -> None:
        remote = self.leech(drains=False)
        remote.say(FIRST)
        for _ in range(int(DRAIN_PATIENCE)):
            remote.say(m.KeepAlive())
            self.world.pass_time(1)
        self.assertFalse(remote.closed)
        self.world.pass_time(2)
        self.assertTrue(remote.closed)
        self.assertIn("read", remote.why)

    def test_what_we_add_meanwhile_is_no_sign_of_life(self) -> None:
        """A Have a second, more blocks and rejects: nothing of it has left."""
        remote = self.leech(drains=False)
        remote.say(FIRST)
        for number in range(int(DRAIN_PATIENCE) + 3):
            if remote.closed:
                break
            remote.peer.send(m.Have(0))
            remote.say(m.Request(PIECES - 1, 0, KIB16), *[FIRST] * (number % 2))
            self.world.pass_time(1)
        self.assertTrue(remote.closed)

    def test_whoever_reads_a_little_stays(self) -> None:
        remote = self.leech(drains=False)
        remote.say(*[FIRST] * 5)
        for _ in range(3 * int(DRAIN_PATIENCE)):
            remote.say(m.KeepAlive())
            remote.transport.drain(100)
            self.world.pass_time(1)
        self.assertFalse(remote.closed)

    def test_whoever_has_nothing_to_read_stays(self) -> None:
        remote = self.leech(drains=False)
        remote.transport.drain()
        for _ in range(3 * int(DRAIN_PATIENCE)):
            remote.say(m.KeepAlive())
            self.world.pass_time(1)
            remote.transport.drain()
        self.assertFalse(remote.closed)


class DiskTests(ServingTestCase):
    def test_a_disk_that_refuses_stops_the_torrent(self) -> None:
        error = StorageError("gone", errno.EIO)
        self.use(storage=lambda disk: FailingStorage(disk, {"read": error}))
        remote = self.leech()
        remote.say(FIRST, m.Request(1, 0, KIB16))
        self.assertEqual([failure.value for failure in self.world.told.failures], [error])

    def test_read_after_the_peer_has_gone(self) -> None:
        self.use(storage=SlowStorage)
        remote = self.leech()
        remote.say(FIRST)
        remote.leave()
        self.world.storage.turn_all()
        self.assertEqual(self.world.swarm.serving.uploaded, 0)
