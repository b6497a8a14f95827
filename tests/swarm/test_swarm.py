"""What peers say of themselves, what follows from it, and what they hear from us."""

from __future__ import annotations

from itertools import product

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from irontide.extensions import EXTENSIONS
from irontide.interfaces import ISwarm
from irontide.metainfo.bitfield import Bitfield
from irontide.swarm.requests import MIN_PIPELINE
from irontide.swarm.serving import MAX_STRIKES
from irontide.swarm.swarm import HAVE_DELAY, KEEP_ALIVE, MAX_ALLOWED_FAST
from irontide.values import PeerAddress
from irontide.wire import messages as m
from irontide.wire.extended import EXTENDED_HANDSHAKE, ExtendedHandshake
from tests.storage.fakes import SlowStorage
from tests.swarm.fakes import KIB16, OUR_ID, OUR_PORT, Remote, World

PIECES = 12
LOWER_ID, HIGHER_ID = b"\0" * 20, b"\xff" * 20


def bits(*pieces: int) -> m.BitfieldMessage:
    field = Bitfield(PIECES)
    for piece in pieces:
        field.set(piece)
    return m.BitfieldMessage(field.to_bytes())


class SwarmTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.use()

    def use(self, **named: object) -> None:
        self.world = World(total=PIECES * KIB16, piece_length=KIB16, **named)  # type: ignore[arg-type]

    def tearDown(self) -> None:
        self.world.check()
        self.world.settle()

    def said(self, remote: Remote) -> ExtendedHandshake:
        """Our extension handshake."""
        (message,) = remote.hears(m.Extended)
        self.assertEqual(message.number, EXTENDED_HANDSHAKE)
        return ExtendedHandshake.from_payload(message.payload)

    def tell(self, remote: Remote, **fields: object) -> None:
        """Its handshake."""
        handshake = ExtendedHandshake(**fields)  # type: ignore[arg-type]
        remote.say(m.Extended(EXTENDED_HANDSHAKE, handshake.to_payload()))


class JoiningTests(SwarmTestCase):
    def test_is_a_swarm(self) -> None:
        self.assertTrue(verifyObject(ISwarm, self.world.swarm))

    def test_we_say_first_what_we_have(self) -> None:
        for have, fast, first in [
            ((), True, m.HaveNone()),
            ((), False, None),
            ((1, 3), True, bits(1, 3)),
            ((1, 3), False, bits(1, 3)),
            (range(PIECES), True, m.HaveAll()),
            (range(PIECES), False, bits(*range(PIECES))),
        ]:
            self.use(have=have)
            heard = self.world.join(fast=fast).listen()
            self.assertEqual(heard[0] if heard else None, first, (have, fast))

    def test_ourselves(self) -> None:
        remote = self.world.join(peer_id=OUR_ID)
        self.assertEqual(remote.why, "that is ourselves")
        self.assertEqual(self.world.told.departures, [], "it never joined")

    def test_the_same_direction_twice(self) -> None:
        first = self.world.join(peer_id=HIGHER_ID)
        second = self.world.join(peer_id=HIGHER_ID, port=50001)
        self.assertEqual((first.closed, second.why), (False, "connected twice"))

    def test_two_that_dial_each_other_keep_the_same_connection(self) -> None:
        """The one that the greater peer id dialled, whichever is first."""
        for their_id, incoming_first in product((LOWER_ID, HIGHER_ID), (True, False)):
            self.use()
            remotes = {
                incoming: self.world.join(peer_id=their_id, incoming=incoming)
                for incoming in (incoming_first, not incoming_first)
            }
            kept = their_id > OUR_ID  # theirs is the incoming one
            self.assertFalse(remotes[kept].closed, (their_id, incoming_first))
            self.assertEqual(remotes[not kept].why, "connected twice")
            self.assertEqual(len(self.world.swarm.peers), 1)

    def test_a_peer_id_claimed_from_elsewhere_throws_nobody_out(self) -> None:
        real = self.world.join("10.0.0.1", peer_id=HIGHER_ID, incoming=False)
        thief = self.world.join("10.0.0.2", peer_id=HIGHER_ID)
        self.assertEqual((real.closed, thief.closed), (False, True))

    def test_the_banned_are_not_welcome(self) -> None:
        self.world.book.ban("10.0.0.1")
        self.assertTrue(self.world.join("10.0.0.1").closed)

    def test_nobody_joins_a_swarm_that_stops(self) -> None:
        waiting = Remote(self.world, "10.0.0.1")
        self.world.swarm.stop("over")
        waiting.shake()
        self.assertTrue(waiting.closed)

    def test_each_departure_is_told_once(self) -> None:
        remote = self.world.seed()
        peer = remote.peer
        remote.leave()
        peer.drop("again")
        self.assertEqual([left for left, _ in self.world.told.departures], [peer])
        self.assertEqual(self.world.picker.seeds, 0)


class HavingTests(SwarmTestCase):
    def availability(self) -> list[int]:
        return [self.world.picker.availability(piece) for piece in range(PIECES)]

    def test_a_bitfield_counts_and_is_taken_back(self) -> None:
        remote = self.world.join()
        remote.say(bits(0, 3))
        self.assertEqual(self.availability(), [1, 0, 0, 1] + [0] * 8)
        remote.leave()
        self.assertEqual(self.availability(), [0] * PIECES)

    def test_all_and_none(self) -> None:
        self.world.join("10.0.0.1").say(m.HaveAll())
        none = self.world.join("10.0.0.2")
        none.say(m.HaveNone())
        self.assertEqual((self.world.picker.seeds, none.peer.seed), (1, False))

    def test_haves_without_a_bitfield(self) -> None:
        remote = self.world.join(fast=False)
        remote.say(m.Have(2), m.Have(2), m.Have(5))
        self.assertEqual(self.availability(), [0, 0, 1, 0, 0, 1] + [0] * 6)

    def test_haves_make_a_seed(self) -> None:
        remote = self.world.join(fast=False)
        for piece in range(PIECES):
            remote.say(m.Have(piece))
        self.assertEqual(self.world.picker.seeds, 1)
        remote.leave()
        self.assertEqual((self.world.picker.seeds, self.availability()), (0, [0] * PIECES))

    def test_what_does_not_exist(self) -> None:
        for message in (
            m.Have(PIECES),
            m.AllowedFast(PIECES),
            m.BitfieldMessage(b"\0"),
            m.BitfieldMessage(b"\0\1"),
        ):
            remote = self.world.join()
            remote.say(m.HaveNone() if not isinstance(message, m.BitfieldMessage) else m.KeepAlive(), message)
            self.assertTrue(remote.closed, message)

    def test_twice_without_news(self) -> None:
        for first, second in [
            (bits(1), bits(1)),
            (bits(1, 2), bits(1)),
            (m.HaveAll(), m.HaveAll()),
            (m.HaveAll(), m.HaveNone()),
            (m.HaveAll(), bits(*range(PIECES))),
        ]:
            remote = self.world.join()
            remote.say(first)
            self.assertFalse(remote.closed)
            remote.say(second)
            self.assertTrue(remote.closed, (first, second))
            self.assertEqual(self.availability(), [0] * PIECES, (first, second))
            self.assertEqual(self.world.picker.seeds, 0)

    def test_a_second_bitfield_with_news_is_as_many_haves(self) -> None:
        remote = self.world.join()
        remote.say(bits(1))
        remote.say(bits(1, 2))
        self.assertEqual(self.availability(), [0, 1, 1] + [0] * 9)
        remote.say(m.HaveAll())
        self.assertEqual(self.world.picker.seeds, 1)
        remote.leave()
        self.assertEqual((self.world.picker.seeds, self.availability()), (0, [0] * PIECES))

    def test_a_peer_that_loses_a_piece(self) -> None:
        """BEP 54, also for a seed."""
        remote = self.world.seed(extended=True)
        dont_have = EXTENSIONS["lt_donthave"]
        remote.say(m.Extended(dont_have, b"\0\0\0\4"))
        self.assertEqual((self.world.picker.seeds, remote.peer.seed), (0, False))
        self.assertEqual(self.availability(), [1] * 4 + [0] + [1] * 7)
        remote.say(m.Extended(dont_have, b"\0\0\0\4"))
        remote.say(m.Have(4))
        self.assertEqual(self.world.picker.seeds, 1)
        remote.say(m.Extended(dont_have, b"\0\0\0\x0c"))
        self.assertTrue(remote.closed)

    def test_losing_and_finding_without_end(self) -> None:
        remote = self.world.seed(extended=True)
        for _ in range(MAX_STRIKES + 1):
            remote.say(m.Extended(EXTENSIONS["lt_donthave"], b"\0\0\0\4"), m.Have(4))
        self.assertTrue(remote.closed)

    def test_allowed_fast_is_bounded(self) -> None:
        self.world = World(total=2 * MAX_ALLOWED_FAST * KIB16, piece_length=KIB16)
        remote = self.world.join()
        remote.say(m.HaveNone(), *[m.AllowedFast(piece) for piece in range(2 * MAX_ALLOWED_FAST)])
        self.assertEqual(len(remote.peer.allowed_fast), MAX_ALLOWED_FAST)


class InterestTests(SwarmTestCase):
    def interest(self, remote: Remote) -> list[type]:
        return [type(message) for message in remote.hears(m.Interested, m.NotInterested)]

    def test_in_what_we_lack(self) -> None:
        self.use(have=[0, 1])
        remote = self.world.join()
        remote.say(bits(0, 1))
        self.assertEqual(self.interest(remote), [])
        remote.say(m.Have(2))
        remote.say(m.Have(3))
        self.assertEqual(self.interest(remote), [m.Interested])

    def test_no_more_when_we_have_it(self) -> None:
        remote = self.world.join()
        remote.say(bits(0), m.Unchoke())
        self.assertEqual(self.interest(remote), [m.Interested])
        remote.owed.append(m.Request(0, 0, KIB16))
        remote.answer(1)
        self.world.pass_time(1)
        self.assertEqual(self.interest(remote), [m.NotInterested])

    def test_only_in_what_is_wanted(self) -> None:
        self.use(priorities=[1] + [0] * 11)
        remote = self.world.join()
        remote.say(bits(1, 2))
        self.assertEqual(self.interest(remote), [])
        self.world.picker.set_priorities([1] * PIECES)
        self.world.swarm.wanted_changed()
        self.assertEqual(self.interest(remote), [m.Interested])
        self.world.picker.set_priorities([1] + [0] * 11)
        self.world.swarm.wanted_changed()
        self.assertEqual(self.interest(remote), [m.NotInterested])

    def test_two_seeds_part(self) -> None:
        self.use(have=range(PIECES))
        self.assertEqual(self.world.seed("10.0.0.1").why, "both have everything")
        late = self.world.join("10.0.0.2", fast=False)
        for piece in range(PIECES):
            self.assertFalse(late.closed)
            late.say(m.Have(piece))
        self.assertTrue(late.closed)
        self.assertFalse(self.world.join("10.0.0.3").closed)

    def test_seeds_stay_while_we_want_only_a_part(self) -> None:
        """What is wanted may change; and a part is not everything."""
        self.use(have=[0], priorities=[1] + [0] * 11)
        self.assertFalse(self.world.seed().closed)

    def test_all_seeds_part_when_we_become_one(self) -> None:
        seeds = [self.world.seed(f"10.0.0.{number}") for number in range(3)]
        leech = self.world.join("10.0.1.1")
        leech.say(m.HaveNone())
        for _ in range(PIECES):
            for seed in seeds:
                seed.answer(1)
        self.assertTrue(self.world.complete)
        self.assertEqual([remote.closed for remote in (*seeds, leech)], [True, True, True, False])
        self.assertEqual(self.world.told.completions, 1)


class HaveTests(SwarmTestCase):
    def test_haves_go_to_all_in_one_write(self) -> None:
        watcher = self.world.join("10.0.0.2")
        seed = self.world.seed("10.0.0.1")
        watcher.listen()
        before = len(watcher.transport.writes)
        seed.answer(3)
        self.assertEqual(watcher.listen(), [])
        self.world.clock.advance(HAVE_DELAY)
        self.assertEqual(watcher.listen(), [m.Have(0), m.Have(1), m.Have(2)])
        self.assertEqual(len(watcher.transport.writes), before + 1)

    def test_at_the_end_at_once_and_each_once(self) -> None:
        watcher = self.world.join("10.0.0.2")
        self.world.seed("10.0.0.1").answer()
        self.assertEqual(watcher.hears(m.Have), [m.Have(piece) for piece in range(PIECES)])
        self.world.clock.advance(1)
        self.assertEqual(watcher.hears(m.Have), [])

    def test_whoever_joins_between_passing_and_telling(self) -> None:
        """It hears of the piece twice, which is no fault; it must not hear of it never."""
        self.world.seed("10.0.0.1").answer(1)
        late = self.world.join("10.0.0.2")
        self.assertEqual(late.hears(m.BitfieldMessage), [bits(0)])
        self.world.clock.advance(HAVE_DELAY)
        self.assertEqual(late.hears(m.Have), [m.Have(0)])

    def test_a_piece_that_passes_after_the_end_leaves_no_timer(self) -> None:
        self.use(storage=SlowStorage)
        self.world.seed().answer(1)
        self.world.swarm.stop("over")
        self.world.storage.turn_all()
        self.assertEqual(self.world.told.pieces, [0])
        self.world.clock.advance(0)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])


class TimeTests(SwarmTestCase):
    def test_keep_alives(self) -> None:
        remote = self.world.join()
        remote.listen()
        self.world.pass_time(KEEP_ALIVE)
        self.assertEqual(remote.listen(), [])
        self.world.pass_time(1)
        self.assertEqual(remote.listen(), [m.KeepAlive()])
        remote.say(m.KeepAlive())
        self.world.pass_time(KEEP_ALIVE + 1)
        self.assertEqual(remote.listen(), [m.KeepAlive()])

    def test_silence_is_not_endured(self) -> None:
        quiet, talker = self.world.join("10.0.0.1"), self.world.join("10.0.0.2")
        for _ in range(13):
            talker.say(m.KeepAlive())
            self.world.pass_time(10)
        self.assertEqual((quiet.why, talker.closed), ("silent for too long", False))

    def test_rates_are_those_of_the_last_tick(self) -> None:
        remote = self.world.seed()
        remote.answer(4)
        self.assertEqual(remote.peer.download_rate, 0)
        self.world.pass_time(1)
        self.assertAlmostEqual(remote.peer.download_rate, 4 * KIB16, delta=KIB16)


class ExtensionTests(SwarmTestCase):
    def test_what_we_say(self) -> None:
        said = self.said(self.world.join("10.0.0.9", extended=True))
        self.assertEqual(dict(said.messages), EXTENSIONS)
        self.assertEqual((said.port, said.reqq, said.upload_only), (OUR_PORT, 500, False))
        self.assertEqual(said.yourip, bytes([10, 0, 0, 9]))
        self.assertTrue(said.client.startswith("irontide"))

    def test_yourip_of_ipv6(self) -> None:
        said = self.said(self.world.join("2001:db8::1", extended=True))
        self.assertEqual(said.yourip, bytes.fromhex("20010db8000000000000000000000001"))

    def test_a_seed_only_uploads(self) -> None:
        self.use(have=range(PIECES))
        self.assertTrue(self.said(self.world.join(extended=True)).upload_only)

    def test_nothing_is_said_to_who_has_no_extensions(self) -> None:
        self.assertEqual(self.world.join().hears(m.Extended), [])

    def test_where_an_incoming_peer_listens(self) -> None:
        remote = self.world.join("20.0.0.1", extended=True)
        self.tell(remote, port=7000)
        self.assertEqual(remote.peer.listens, PeerAddress("20.0.0.1", 7000))
        self.assertIn(PeerAddress("20.0.0.1", 7000), self.world.book)

    def test_an_outgoing_one_listens_where_it_was_dialled(self) -> None:
        remote = self.world.join("20.0.0.1", extended=True, incoming=False, port=6000)
        self.tell(remote, port=7000)
        self.assertEqual(remote.peer.listens, PeerAddress("20.0.0.1", 6000))

    def test_a_second_handshake_says_what_has_changed(self) -> None:
        remote = self.world.seed(extended=True)
        self.tell(remote, reqq=3, client="x", port=7000)
        self.tell(remote, upload_only=True)
        handshake = remote.peer.handshake
        assert handshake is not None
        self.assertEqual((handshake.reqq, handshake.client, handshake.port), (3, "x", 7000))
        self.assertTrue(remote.peer.upload_only)
        self.tell(remote, reqq=300)
        self.assertEqual(remote.peer.reqq, 300)

    def test_the_depth_of_its_queue_counts_at_once(self) -> None:
        remote = self.world.join(extended=True)
        self.tell(remote, reqq=5)
        remote.say(m.HaveAll(), m.Unchoke())
        self.assertEqual(len(remote.hears(m.Request)), 5)
        self.assertLess(5, MIN_PIPELINE)

    def test_upload_only_as_a_message(self) -> None:
        remote = self.world.join(extended=True)
        number = EXTENSIONS["upload_only"]
        remote.say(m.Extended(number, b"\1"))
        self.assertTrue(remote.peer.upload_only)
        remote.say(m.Extended(number, b"\0"))
        self.assertFalse(remote.peer.upload_only)
        remote.say(m.Extended(number, b""))
        self.assertTrue(remote.closed)

    def test_what_nobody_knows_is_ignored(self) -> None:
        remote = self.world.join(extended=True)
        remote.say(m.Extended(200, b"whatever"), m.Port(6881))
        self.assertFalse(remote.closed)

    def test_a_handshake_that_is_none(self) -> None:
        remote = self.world.join(extended=True)
        remote.say(m.Extended(EXTENDED_HANDSHAKE, b"i1e"))
        self.assertTrue(remote.closed)


class StopTests(SwarmTestCase):
    def test_all_connections_are_closed_with_the_reason(self) -> None:
        remotes = [self.world.seed(f"10.0.0.{number}") for number in range(3)]
        self.successResultOf(self.world.swarm.stop("paused"))
        self.assertEqual([remote.why for remote in remotes], ["paused"] * 3)
        self.assertEqual(self.world.swarm.peers, {})
