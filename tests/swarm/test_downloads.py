"""The way of blocks from peers to the disk, through real connections: rules 1, 3 and 4 of the data path."""

from __future__ import annotations

import errno
from itertools import permutations
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import StorageError
from irontide.metainfo.bitfield import Bitfield
from irontide.peer.peer import MAX_UNREAD
from irontide.swarm.downloads import END_GAME_BATCH, IDLE_PIECE, SAVE_AFTER, SNUB_AFTER, SPILL_AFTER
from irontide.swarm.requests import MIN_PIPELINE
from irontide.wire import messages as m
from tests.storage.fakes import FailingStorage, SlowStorage
from tests.swarm.fakes import KIB16, MIB, Remote, World


def bitfield(world: World, *pieces: int) -> m.BitfieldMessage:
    """Only these pieces."""
    bits = Bitfield(world.layout.pieces)
    for piece in pieces:
        bits.set(piece)
    return m.BitfieldMessage(bits.to_bytes())


class WorldTestCase(SynchronousTestCase):
    """Whatever happens, at the end everything is given back."""

    world: World

    def tearDown(self) -> None:
        self.world.check()
        self.world.settle()

    def partial(self, host: str, *pieces: int, fast: bool = True) -> Remote:
        """A peer that has only some pieces, and unchokes us."""
        remote = self.world.join(host, fast=fast)
        remote.say(bitfield(self.world, *pieces), m.Unchoke())
        remote.listen()
        return remote

    def assertComplete(self) -> None:
        self.world.check()
        self.assertTrue(self.world.complete, self.world.have)
        self.assertEqual(self.world.told.completions, 1)


class PipelineTests(WorldTestCase):
    def test_a_seed_is_asked_for_everything(self) -> None:
        self.world = World()
        remote = self.world.seed()
        remote.answer()
        self.assertComplete()
        self.assertEqual(self.world.told.pieces, [0, 1, 2, 3])
        self.assertEqual(self.world.downloads.downloaded, len(self.world.data))

    def test_nothing_is_asked_for_before_the_unchoke(self) -> None:
        self.world = World()
        remote = self.world.join()
        remote.say(m.HaveAll())
        self.assertEqual(remote.hears(m.Request), [])
        remote.say(m.Unchoke())
        self.assertEqual(len(remote.hears(m.Request)), MIN_PIPELINE)

    def test_a_batch_goes_out_in_one_write(self) -> None:
        self.world = World(total=200 * KIB16)
        remote = self.world.join()
        remote.say(m.HaveAll())
        before = len(remote.transport.writes)
        remote.say(m.Unchoke())
        self.assertEqual(len(remote.transport.writes), before + 1)

    def test_topped_up_once_a_read(self) -> None:
        self.world = World(total=200 * KIB16)
        remote = self.world.seed()
        remote.listen()
        owed, remote.owed = remote.owed[:10], remote.owed[10:]
        before = len(remote.transport.writes)
        remote.raw(b"".join(map(remote.frame, owed)))
        self.assertEqual(len(remote.hears(m.Request)), 10)
        self.assertEqual(len(remote.transport.writes), before + 1)

    def test_the_pipeline_deepens_with_the_rate(self) -> None:
        self.world = World(total=2000 * KIB16, piece_length=64 * KIB16, pool=64 * MIB)
        remote = self.world.seed()
        for _ in range(3):
            remote.answer(100)
            self.world.pass_time(1)
        self.assertGreater(len(remote.requests.asked), 60)

    def test_the_pipeline_deepens_within_the_first_second(self) -> None:
        self.world = World(total=2000 * KIB16, piece_length=64 * KIB16, pool=64 * MIB)
        remote = self.world.seed()
        for _ in range(10):
            remote.answer(100)
            self.world.clock.advance(0.01)
        self.assertGreater(len(remote.requests.asked), 60)

    def test_two_peers_work_on_different_pieces(self) -> None:
        self.world = World(total=64 * KIB16, piece_length=16 * KIB16)
        first, second = self.world.seed("10.0.0.1"), self.world.seed("10.0.0.2")
        pieces = [{request.piece for request in peer.hears(m.Request)} for peer in (first, second)]
        self.assertEqual(pieces, [{0}, {1}])

    def test_nothing_new_while_the_store_refuses(self) -> None:
        self.world = World()
        self.world.may_request = False
        remote = self.world.seed()
        self.assertEqual(remote.hears(m.Request), [])
        self.world.may_request = True
        self.world.pass_time(1)
        remote.answer()
        self.assertComplete()

    def test_unwanted_pieces_are_not_asked_for(self) -> None:
        self.world = World(priorities=[1, 0, 1, 0])
        remote = self.world.seed()
        remote.answer()
        self.assertEqual(self.world.told.pieces, [0, 2])
        self.assertEqual(self.world.told.completions, 1)


class InterleavedTests(WorldTestCase):
    """End game: two peers send the same block at the same time, byte by byte, and one lies."""

    def setUp(self) -> None:
        self.world = World(total=KIB16, piece_length=KIB16)

    def race(self, order: tuple[str, str], claims: tuple[str, str]) -> None:
        world = self.world = World(total=KIB16, piece_length=KIB16)
        peers = {"honest": world.seed("10.0.0.1"), "liar": world.seed("10.0.0.2")}
        world.pass_time(IDLE_PIECE + 1)
        frames = {}
        for name, peer in peers.items():
            peer.listen()
            self.assertEqual(peer.owed, [m.Request(0, 0, KIB16)], name)
            frames[name] = peer.frame(peer.owed.pop(), lie=name == "liar")
        for name in claims:
            peers[name].raw(frames[name][:13])
        for at in range(13, len(frames["honest"])):
            for name in order:
                if not peers[name].closed:
                    peers[name].raw(frames[name][at : at + 1])
        if order[0] == "honest":
            self.assertComplete()
            self.assertEqual(world.told.hosts, [])
            return
        self.assertEqual(world.told.hosts, ["10.0.0.2"])
        self.assertTrue(peers["liar"].closed)
        peers["honest"].answer()
        self.assertComplete()

    def test_every_order(self) -> None:
        for order in permutations(("honest", "liar")):
            for claims in permutations(("honest", "liar")):
                self.race(order, claims)
                self.tearDown()

    def test_the_loser_can_go_on_talking(self) -> None:
        """The rest of its block is thrown away, and what comes behind it is understood."""
        world = self.world
        first, second = world.seed("10.0.0.1"), world.seed("10.0.0.2")
        world.pass_time(IDLE_PIECE + 1)
        second.listen()
        frame = second.frame(second.owed.pop())
        second.raw(frame[:5000])
        first.answer()
        self.assertComplete()
        second.raw(frame[5000:] + b"\0\0\0\0")
        self.assertTrue(second.closed, "both have everything")
        self.assertEqual(second.why, "both have everything")


class EndGameTests(WorldTestCase):
    def test_a_peer_that_never_answers_does_not_hold_up_the_end(self) -> None:
        self.world = World()
        dead = self.world.seed("10.0.0.1")
        dead.listen()
        self.assertEqual(len(dead.owed), 16, "all there is")
        alive = self.world.seed("10.0.0.2")
        alive.answer()
        self.assertComplete()

    def test_what_came_is_cancelled_at_the_others(self) -> None:
        self.world = World()
        first, second = self.world.seed("10.0.0.1"), self.world.seed("10.0.0.2")
        second.answer(1)
        self.assertIn(m.Cancel(0, 0, KIB16), first.listen())
        self.assertEqual(len(first.owed), 15)

    def test_few_are_asked_twice_at_once(self) -> None:
        self.world = World(total=64 * KIB16, piece_length=64 * KIB16)
        first = self.world.seed("10.0.0.1")
        first.peer.download.add(100 * MIB, self.world.clock.seconds())
        self.world.swarm.tick(self.world.clock.seconds())
        first.listen()
        self.assertEqual(len(first.owed), 64)
        second = self.world.seed("10.0.0.2")
        self.assertEqual(len(second.hears(m.Request)), END_GAME_BATCH)

    def test_no_end_game_while_there_is_fresh_work(self) -> None:
        self.world = World(total=64 * KIB16, piece_length=4 * KIB16)
        first = self.world.seed("10.0.0.1")
        second = self.world.seed("10.0.0.2")
        asked = [{(r.piece, r.begin) for r in peer.hears(m.Request)} for peer in (first, second)]
        self.assertFalse(asked[0] & asked[1])

    def test_many_dead_peers_and_one_alive(self) -> None:
        """Those who take the places of all askers give them back when they are snubbed."""
        self.world = World()
        dead = [self.world.seed(f"10.0.0.{number}") for number in range(8)]
        self.world.pass_time(IDLE_PIECE + 1)
        alive = self.world.seed("10.0.1.1")
        for _ in range(int(2 * SNUB_AFTER)):
            alive.answer()
            self.world.pass_time(1)
            self.world.check()
        self.assertComplete()
        self.assertEqual([peer for peer in dead if not peer.closed], [])

    def test_a_piece_that_hangs_is_asked_of_others_before_the_end(self) -> None:
        self.world = World(total=20 * 4 * KIB16)
        slow = self.partial("10.0.0.1", 0)
        slow.answer(1)
        fast = self.partial("10.0.0.2", 0, 1, 2)
        fast.answer()
        self.assertEqual(self.world.told.pieces, [1, 2])
        self.world.pass_time(IDLE_PIECE + 1)
        fast.answer()
        self.assertEqual(self.world.told.pieces, [1, 2, 0])


class SnubTests(WorldTestCase):
    def test_who_owes_us_and_sends_nothing_is_snubbed(self) -> None:
        self.world = World(total=64 * KIB16)
        remote = self.world.seed()
        self.world.pass_time(SNUB_AFTER)
        self.assertFalse(remote.peer.snubbed)
        self.world.pass_time(1)
        self.assertTrue(remote.peer.snubbed)
        heard = remote.listen()
        self.assertEqual(len([message for message in heard if isinstance(message, m.Cancel)]), MIN_PIPELINE)
        self.assertEqual(len(remote.owed), 1, "one block, to see whether it is alive")

    def test_others_are_asked_instead(self) -> None:
        self.world = World(total=40 * KIB16)
        dead = self.world.seed("10.0.0.1")
        alive = self.world.seed("10.0.0.2")
        alive.answer()
        self.world.pass_time(SNUB_AFTER + 1)
        alive.answer()
        self.world.check()
        self.assertTrue(dead.closed or dead.peer.snubbed)
        self.assertComplete()

    def test_a_block_ends_it(self) -> None:
        self.world = World(total=64 * KIB16)
        remote = self.world.seed()
        self.world.pass_time(SNUB_AFTER + 1)
        remote.answer(1)
        self.assertFalse(remote.peer.snubbed)
        self.assertGreaterEqual(len(remote.hears(m.Request)) + 1, MIN_PIPELINE)

    def test_who_was_not_asked_for_long_is_not_late(self) -> None:
        """The time to answer begins with the first request, not with the last block."""
        self.world = World(total=64 * KIB16)
        self.world.may_request = False
        remote = self.world.seed()
        self.world.pass_time(2 * SNUB_AFTER)
        self.world.may_request = True
        self.world.pass_time(2)
        self.assertFalse(remote.peer.snubbed)
        self.assertEqual(len(remote.hears(m.Request)), MIN_PIPELINE)

    def test_late_answers_of_a_snubbed_peer_are_welcome(self) -> None:
        self.world = World()
        remote = self.world.seed()
        requests = remote.hears(m.Request)
        self.world.pass_time(SNUB_AFTER + 1)
        for request in requests:
            remote.send(request)
        self.assertComplete()


class ChokeTests(WorldTestCase):
    def test_without_the_fast_extension_a_choke_drops_requests(self) -> None:
        self.world = World()
        remote = self.world.seed("10.0.0.1", fast=False)
        remote.listen()
        remote.say(m.Choke())
        self.world.check()
        self.assertFalse(remote.requests.asked)
        self.assertEqual(self.world.pool.in_use, 0, "nobody is asked: nothing is reserved")
        remote.owed.clear()
        remote.say(m.Unchoke())
        remote.answer()
        self.assertComplete()

    def test_with_it_requests_stand_until_rejected(self) -> None:
        self.world = World()
        remote = self.world.seed()
        owed = remote.hears(m.Request)
        remote.say(m.Choke())
        self.assertEqual(len(remote.requests.asked), 16)
        remote.send(owed[0])
        for request in owed[1:]:
            remote.say(m.RejectRequest(request.piece, request.begin, request.length))
            self.world.check()
        self.assertFalse(remote.requests.asked)
        remote.owed.clear()
        remote.say(m.Unchoke())
        remote.answer()
        self.assertComplete()

    def test_a_peer_that_rejects_nothing_after_a_choke_is_snubbed(self) -> None:
        self.world = World()
        remote = self.world.seed("10.0.0.1")
        remote.say(m.Choke())
        other = self.world.join("10.0.0.2")
        self.world.pass_time(SNUB_AFTER + 1)
        self.assertFalse(remote.requests.asked)
        other.say(m.HaveAll(), m.Unchoke())
        other.answer()
        self.assertComplete()

    def test_blocks_that_cross_with_a_choke(self) -> None:
        self.world = World()
        remote = self.world.seed("10.0.0.1", fast=False)
        owed = remote.hears(m.Request)
        remote.say(m.Choke())
        remote.send(owed[0])
        remote.say(m.Unchoke())
        remote.owed.clear()
        self.assertEqual(len(remote.hears(m.Request)), 15)
        remote.answer()
        self.assertComplete()

    def test_both_the_crossing_and_the_new_answer(self) -> None:
        self.world = World()
        remote = self.world.seed("10.0.0.1", fast=False)
        owed = remote.hears(m.Request)
        remote.say(m.Choke(), m.Unchoke())
        remote.send(owed[0])
        remote.listen()
        self.assertFalse(remote.closed)
        remote.answer()
        self.assertComplete()

    def test_allowed_fast_pieces_while_choked(self) -> None:
        self.world = World()
        remote = self.world.join()
        remote.say(m.HaveAll(), m.AllowedFast(2))
        remote.answer()
        self.assertEqual(self.world.told.pieces, [2])

    def test_an_allowed_fast_piece_that_is_rejected_is_not_allowed(self) -> None:
        self.world = World()
        remote = self.world.join()
        remote.say(m.HaveAll(), m.AllowedFast(2))
        for request in remote.hears(m.Request):
            remote.say(m.RejectRequest(request.piece, request.begin, request.length))
        self.assertEqual(remote.hears(m.Request), [])
        self.world.check()

    def test_who_chokes_and_unchokes_and_never_reads(self) -> None:
        """Each round would be another batch of requests in the send buffer."""
        self.world = World(total=400 * KIB16)
        remote = self.world.join(fast=False, drains=False)
        remote.say(bitfield(self.world, *range(self.world.layout.pieces)))
        most = 0
        for _ in range(20_000):
            remote.say(m.Choke(), m.Unchoke())
            most = max(most, remote.transport.queued)
        self.assertGreater(most, MAX_UNREAD)
        self.assertLess(most, MAX_UNREAD + 10_000)
        self.world.pass_time(1)
        self.assertTrue(remote.closed)

    def test_rejecting_all_is_no_endless_conversation(self) -> None:
        """Who rejects though it does not choke us has a rest until the next tick."""
        self.world = World()
        remote = self.world.seed()
        rounds = 0
        while (requests := remote.hears(m.Request)) and rounds < 10:
            rounds += 1
            for request in requests:
                remote.say(m.RejectRequest(request.piece, request.begin, request.length))
        self.assertEqual(rounds, 1)
        self.world.check()
        self.world.pass_time(1)
        remote.owed.clear()
        remote.answer()
        self.assertComplete()

    def test_a_piece_that_the_peer_lost_is_asked_of_others(self) -> None:
        self.world = World()
        remote = self.world.seed(extended=True)
        remote.say(m.Extended(2, b"\0\0\0\1"))
        self.assertNotIn(1, {piece.index for piece in remote.requests.asked.values()})
        self.world.check()
        other = self.world.seed("10.0.0.2")
        other.answer()
        self.assertComplete()


class MemoryTests(WorldTestCase):
    def test_a_piece_larger_than_the_pool(self) -> None:
        """16 MiB through 1 MiB and through 3."""
        for pool in (MIB, 3 * MIB):
            self.world = World(total=16 * MIB, piece_length=16 * MIB, pool=pool)
            remote = self.world.seed()
            while remote.answer(50):
                self.assertLessEqual(self.world.pool.in_use, pool)
            self.assertComplete()
            self.world.settle()

    def test_out_of_order_and_with_a_slow_disk(self) -> None:
        self.world = World(total=4 * MIB, piece_length=4 * MIB, pool=2 * MIB, storage=SlowStorage)
        random = Random(3)
        remote = self.world.seed()
        for step in range(4000):
            remote.listen()
            if remote.owed:
                remote.send(remote.owed.pop(random.randrange(len(remote.owed))))
            elif self.world.storage.pending:
                self.world.storage.turn()
            elif self.world.complete:
                break
            if step % 50 == 0:
                self.world.check()
        self.assertComplete()

    def test_several_large_pieces_at_once(self) -> None:
        self.world = World(total=12 * MIB, piece_length=4 * MIB, pool=2 * MIB)
        peers = [self.world.seed(f"10.0.0.{number}") for number in range(4)]
        for _ in range(1000):
            if not sum(peer.answer(7) for peer in peers):
                break
        self.assertComplete()

    def test_memory_of_a_peer_that_left_is_for_others(self) -> None:
        """The only segment was promised to a peer that had another piece, and sent nothing."""
        self.world = World(total=2 * MIB, piece_length=MIB, pool=MIB)
        gone = self.partial("10.0.0.1", 0)
        other = self.partial("10.0.0.2", 1)
        self.assertEqual(len(other.owed), 0, "there is no memory")
        gone.leave()
        other.listen()
        self.assertEqual(len(other.owed), MIN_PIPELINE)
        self.world.check()

    def test_memory_of_a_dead_peer_is_for_others(self) -> None:
        self.world = World(total=2 * MIB, piece_length=MIB, pool=MIB)
        self.partial("10.0.0.1", 0)
        other = self.partial("10.0.0.2", 1)
        self.world.pass_time(SNUB_AFTER + 2)
        self.assertGreater(len(other.hears(m.Request)), 0)

    def test_without_memory_open_pieces_are_finished_by_whoever_can(self) -> None:
        self.world = World(total=2 * MIB, piece_length=MIB, pool=MIB)
        slow = self.world.seed("10.0.0.1")
        fast = self.world.seed("10.0.0.2")
        fast.listen()
        self.assertEqual({request.piece for request in fast.owed}, {0})
        fast.answer()
        self.assertComplete()
        self.assertTrue(slow.closed)

    def test_without_memory_a_fast_peer_takes_over_what_a_slow_one_was_asked_for(self) -> None:
        self.world = World(total=4 * MIB, piece_length=MIB // 4, pool=MIB)
        slow = [self.partial(f"10.0.0.{number}", number) for number in range(4)]
        fast = self.world.seed("10.0.1.1")
        fast.answer()
        self.assertTrue(all(self.world.have[number] for number in range(4)))
        self.assertEqual([peer.closed for peer in slow], [False] * 4)

    def test_free_blocks_without_memory_do_not_hide_those_that_can_be_taken_over(self) -> None:
        """The only segment waits for a dead peer, of whose blocks others are asked; the rest has no place."""
        self.world = World(total=3 * MIB, piece_length=4 * MIB, pool=MIB)
        dead = self.world.seed("10.0.0.1")
        dead.peer.download.add(100 * MIB, self.world.clock.seconds())
        self.world.pass_time(1)
        self.assertEqual(len(dead.hears(m.Request)), 64)
        self.world.seed("10.0.0.2").answer()
        self.assertComplete()

    def test_a_piece_whose_next_segment_has_no_memory_does_not_hide_one_that_has(self) -> None:
        """Both are open; the first has free blocks, but no place for them."""
        self.world = World(total=4 * MIB, piece_length=2 * MIB, pool=2 * MIB)
        first = self.partial("10.0.0.1", 0)
        first.peer.download.add(100 * MIB, self.world.clock.seconds())
        self.world.pass_time(1)
        first.listen()
        asked = {(request.piece, request.begin // MIB) for request in first.owed}
        self.assertEqual(asked, {(0, 0), (0, 1)})
        for request in first.owed[:64]:
            first.send(request)
        second = self.partial("10.0.0.2", 1)
        third = self.world.seed("10.0.0.3")
        third.listen()
        second.listen()
        self.assertTrue(second.owed)
        self.assertTrue(third.owed)

    def test_a_piece_of_which_nothing_came_is_not_open_for_ever(self) -> None:
        self.world = World()
        self.partial("10.0.0.1", 0).leave()
        self.assertEqual(self.world.pool.in_use, 0)
        self.world.pass_time(SPILL_AFTER + 1)
        self.assertEqual(len(self.world.downloads.open), 0)
        self.world.seed("10.0.0.2").answer()
        self.assertComplete()

    def test_another_torrent_gives_memory_back(self) -> None:
        self.world = World(total=MIB, piece_length=MIB, pool=MIB)
        other = self.world.pool.take(MIB)
        assert other is not None
        remote = self.world.seed()
        self.assertEqual(remote.hears(m.Request), [])
        self.assertEqual(len(self.world.downloads.open), 0, "nothing is opened that has no place")
        other.release()
        remote.answer()
        self.assertComplete()


class SpillTests(WorldTestCase):
    def setUp(self) -> None:
        self.world = World(total=8 * 4 * KIB16, storage=SlowStorage)

    def mask(self, index: int) -> bytes:
        return self.world.downloads.masks().get(index, b"")

    def test_a_piece_that_hangs_is_written_and_gives_its_memory_back(self) -> None:
        remote = self.partial("10.0.0.1", 0)
        remote.answer(2)
        self.world.pass_time(SAVE_AFTER)
        self.assertEqual(self.world.storage.pending, 0)
        self.world.pass_time(1)
        self.assertEqual(self.world.storage.pending, 1, "written in time to be committed")
        self.assertEqual(self.mask(0), b"")
        self.world.storage.turn_all()
        self.assertEqual(self.mask(0), b"\xc0")
        self.assertEqual(self.world.disk.data[: 2 * KIB16], self.world.data[: 2 * KIB16])
        self.assertTrue(self.world.pool.in_use, "the rest is expected still")
        remote.say(m.Choke())
        self.world.pass_time(SPILL_AFTER)
        self.world.storage.turn_all()
        self.assertEqual(self.world.pool.in_use, 0)

    def test_and_is_finished_later(self) -> None:
        remote = self.partial("10.0.0.1", 0)
        remote.answer(2)
        self.world.pass_time(SPILL_AFTER + 2)
        self.world.storage.turn_all()
        remote.leave()
        self.world.check()
        other = self.world.seed("10.0.0.2")
        self.assertNotIn(m.Request(0, 0, KIB16), other.listen())
        for _ in range(100):
            if not other.answer():
                self.world.storage.turn_all()
        self.assertComplete()

    def test_whoever_is_asked_for_the_rest_has_time_to_answer(self) -> None:
        """A piece that hung for long is not given up again with the next tick."""
        self.partial("10.0.0.1", 0).answer(2)
        self.world.pass_time(SPILL_AFTER + 2)
        self.world.storage.turn_all()
        other = self.partial("10.0.0.2", 0)
        self.assertTrue(other.owed)
        self.world.pass_time(SPILL_AFTER - 2)
        self.assertEqual(other.hears(m.Cancel), [])
        other.answer()
        self.world.pass_time(1)
        other.answer()
        self.world.storage.turn_all()
        self.assertEqual(self.world.told.pieces, [0])

    def test_a_piece_that_hangs_does_not_cancel_each_second(self) -> None:
        remote = self.partial("10.0.0.1", 0)
        remote.answer(2)
        remote.peer.last_block += 1000  # it would be snubbed before
        self.world.pass_time(SPILL_AFTER + 1)
        self.assertEqual(len(remote.hears(m.Cancel)), 2)
        self.world.pass_time(10)
        self.assertEqual(remote.hears(m.Cancel), [])

    def test_in_the_middle_of_a_block(self) -> None:
        """The rest of the block is thrown away; nobody writes to memory that went back."""
        remote = self.partial("10.0.0.1", 0)
        remote.answer(2)
        remote.peer.last_block += 1000
        remote.listen()
        frame = remote.frame(remote.owed[0])
        remote.raw(frame[:9000])
        self.world.pass_time(SPILL_AFTER + 1)
        self.world.storage.turn_all()
        self.world.check()
        remote.raw(frame[9000:])
        self.assertFalse(remote.closed)
        remote.owed.clear()
        self.world.pass_time(1)
        remote.answer()
        self.world.pass_time(SPILL_AFTER)
        remote.answer()
        self.world.storage.turn_all()
        self.assertEqual(self.world.told.pieces, [0])

    def test_masks_are_resumed(self) -> None:
        self.partial("10.0.0.1", 0, 1).answer(6)
        self.world.swarm.stop("restart")
        self.world.storage.turn_all()
        masks = self.world.downloads.masks()
        self.assertEqual(masks, {1: b"\xc0"})
        world = World(total=8 * 4 * KIB16, have=[0])
        world.disk.data[:] = self.world.disk.data
        world.downloads.resume(masks)
        remote = world.seed()
        remote.answer()
        self.assertTrue(world.complete)
        self.assertEqual(world.downloads.downloaded, len(world.data) - 6 * KIB16)
        world.settle()

    def test_a_mask_of_a_whole_piece_is_judged_at_once(self) -> None:
        self.world.disk.data[: 4 * KIB16] = self.world.data[: 4 * KIB16]
        self.world.downloads.resume({0: b"\xf0", 1: b"\xf0", 2: b"", 3: b"\0"})
        self.world.storage.turn_all()
        self.assertEqual(self.world.told.pieces, [0])
        self.assertEqual(self.world.told.hosts, [], "nobody is to blame for what the disk had")
        self.assertEqual(len(self.world.downloads.open), 0)


class LiarTests(WorldTestCase):
    def test_who_sent_all_of_a_wrong_piece_is_banned(self) -> None:
        self.world = World()
        liar = self.world.seed("10.0.0.1")
        liar.answer(4, lie=True)
        self.assertTrue(liar.closed)
        self.assertEqual(self.world.told.hosts, ["10.0.0.1"])
        self.assertTrue(self.world.book.banned("10.0.0.1"))
        self.assertEqual(self.world.downloads.failed_bytes, 4 * KIB16)
        self.world.seed("10.0.0.2").answer()
        self.assertComplete()

    def test_who_sent_one_wrong_block_is_found_when_the_piece_passes(self) -> None:
        self.world = World(total=4 * KIB16)
        liar = self.world.seed("10.0.0.1")
        honest = self.world.seed("10.0.0.2")
        liar.answer(1, lie=True)
        honest.answer(3)
        self.assertEqual(self.world.told.hosts, [], "either may have lied")
        liar.owed.clear()
        self.world.check()
        self.world.pass_time(1)
        honest.answer()
        self.assertComplete()
        self.assertEqual(self.world.told.hosts, ["10.0.0.1"])
        self.assertTrue(liar.closed)

    def test_a_banned_host_is_not_let_in_again(self) -> None:
        self.world = World()
        self.world.seed("10.0.0.1").answer(4, lie=True)
        self.assertTrue(self.world.join("10.0.0.1").closed)


class RateTests(WorldTestCase):
    def test_the_bucket_is_kept(self) -> None:
        self.world = World(total=400 * KIB16, download_rate=10 * KIB16)
        remote = self.world.seed()
        for _ in range(100):
            self.world.clock.advance(0.1)
            remote.answer()
        got = self.world.downloads.downloaded / KIB16
        self.assertLessEqual(abs(got - 110), 3, "10 seconds and a burst of one")

    def test_blocks_are_dealt_in_turn(self) -> None:
        self.world = World(total=800 * KIB16, download_rate=7 * KIB16)
        peers = [self.world.seed(f"10.0.0.{number}") for number in range(5)]
        for _ in range(300):
            self.world.clock.advance(0.1)
            for peer in peers:
                peer.answer()
        got = [peer.peer.download.total // KIB16 for peer in peers]
        self.assertGreater(sum(got), 200)
        self.assertLessEqual(max(got) - min(got), 2, got)

    def test_one_that_does_not_answer_takes_no_more_than_its_pipeline(self) -> None:
        self.world = World(total=800 * KIB16, download_rate=20 * KIB16)
        dead, alive = self.world.seed("10.0.0.1"), self.world.seed("10.0.0.2")
        for _ in range(100):
            self.world.clock.advance(0.1)
            alive.answer()
        self.assertLessEqual(len(dead.hears(m.Request)), MIN_PIPELINE)
        self.assertGreater(alive.peer.download.total, 150 * KIB16)

    def test_nobody_to_ask_means_no_timer(self) -> None:
        self.world = World(total=800 * KIB16, download_rate=KIB16)
        remote = self.world.seed()
        self.world.clock.advance(0)
        remote.say(m.Choke())
        self.world.clock.advance(100)
        self.world.clock.advance(100)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_a_rate_far_below_a_block_still_moves(self) -> None:
        self.world = World(total=8 * KIB16, download_rate=1024)
        remote = self.world.seed()
        for _ in range(100):
            self.world.pass_time(1)
            remote.answer()
        self.assertLessEqual(abs(self.world.downloads.downloaded / KIB16 - 100 / 16), 1.5)

    def test_without_the_store_nothing_is_dealt(self) -> None:
        self.world = World(total=800 * KIB16, download_rate=20 * KIB16)
        remote = self.world.seed()
        self.world.clock.advance(0)
        remote.answer(10)
        self.world.may_request = False
        remote.listen()
        self.world.clock.advance(5)
        self.assertEqual(remote.hears(m.Request), [])


class EndTests(WorldTestCase):
    def test_the_disk_refuses(self) -> None:
        """It is told once, and nothing more is asked for."""
        error = StorageError("full", errno.ENOSPC)
        self.world = World(
            total=64 * KIB16,
            download_rate=20 * KIB16,
            storage=lambda disk: FailingStorage(disk, {"verify_and_write": error}),
        )
        remote = self.world.seed()
        self.world.clock.advance(0)
        remote.answer(12)
        self.assertEqual([failure.value for failure in self.world.told.failures], [error])
        remote.listen()
        self.world.clock.advance(10)
        self.assertEqual(remote.hears(m.Request), [])

    def test_stop_keeps_what_came(self) -> None:
        self.world = World(total=4 * MIB, piece_length=2 * MIB, storage=SlowStorage)
        remote = self.world.seed()
        remote.answer(70)
        done = self.world.swarm.stop("over")
        self.assertNoResult(done)
        self.world.storage.turn_all()
        self.successResultOf(done)
        (mask,) = self.world.downloads.masks().values()
        self.assertEqual(sum(byte.bit_count() for byte in mask), 70)
        self.assertEqual(bytes(self.world.disk.data[: 70 * KIB16]), self.world.data[: 70 * KIB16])

    def test_stop_while_a_piece_is_judged(self) -> None:
        self.world = World(storage=SlowStorage)
        remote = self.world.seed()
        remote.answer(5)
        done = self.world.swarm.stop("over")
        self.world.storage.turn_all()
        self.successResultOf(done)
        self.assertEqual(self.world.told.pieces, [0])
        self.assertEqual(self.world.downloads.masks(), {1: b"\x80"})
