from __future__ import annotations

from hashlib import sha1
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.swarm.smart_ban import MAX_ATTEMPTS, MAX_BLOCKS, MAX_PIECES, SmartBan

GOOD = (b"a", b"b", b"c", b"d")


class SmartBanTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ban = SmartBan()

    def test_piece_of_a_single_host_convicts_it_at_once(self) -> None:
        self.assertEqual(self.ban.failed(7, (b"a", b"x"), ("liar", "liar")), {"liar"})

    def test_nobody_is_banned_on_suspicion(self) -> None:
        self.assertEqual(self.ban.failed(7, (b"a", b"x"), ("honest", "liar")), set())

    def test_block_of_unknown_origin_protects_the_other(self) -> None:
        """A block that was on disk before may be the bad one."""
        self.assertEqual(self.ban.failed(7, (b"a", b"x"), ("somebody", None)), set())
        self.assertEqual(self.ban.failed(8, (b"a", b"x"), (None, None)), set())
        self.assertEqual(self.ban.passed(7, (b"a", b"b")), set())
        self.assertEqual(self.ban.passed(8, (b"a", b"b")), set())

    def test_good_copy_convicts_who_sent_something_else(self) -> None:
        self.ban.failed(7, (b"a", b"x", b"c", b"y"), ("h", "liar", "h", "other liar"))
        self.assertEqual(self.ban.passed(7, GOOD), {"liar", "other liar"})

    def test_all_failed_copies_are_compared(self) -> None:
        self.ban.failed(7, (b"x", b"b"), ("first", "h"))
        self.ban.failed(7, (b"a", b"x"), ("h", "second"))
        self.assertEqual(self.ban.passed(7, (b"a", b"b")), {"first", "second"})

    def test_digests_are_wanted_of_failed_pieces_only(self) -> None:
        self.assertFalse(self.ban.wants_digests(7))
        self.ban.failed(7, (b"a", b"x"), ("h", "liar"))
        self.assertTrue(self.ban.wants_digests(7))
        self.assertFalse(self.ban.wants_digests(8))
        self.ban.passed(7, (b"a", b"b"))
        self.assertFalse(self.ban.wants_digests(7))

    def test_piece_that_never_failed_accuses_nobody(self) -> None:
        self.assertEqual(self.ban.passed(7, ()), set())
        self.assertEqual(self.ban.passed(7, GOOD), set())

    def test_good_copy_without_digests_accuses_nobody(self) -> None:
        self.ban.failed(7, (b"a", b"x"), ("h", "liar"))
        self.assertEqual(self.ban.passed(7, ()), set())

    def test_each_block_has_a_sender(self) -> None:
        self.assertRaises(ValueError, self.ban.failed, 7, (b"a", b"b"), ("h",))

    def test_piece_without_blocks_is_nothing(self) -> None:
        self.assertEqual(self.ban.failed(7, (), ()), set())
        self.assertFalse(self.ban.wants_digests(7))

    def test_pieces_remembered_are_bounded(self) -> None:
        for piece in range(MAX_PIECES + 1):
            self.ban.failed(piece, (b"x", b"b"), ("liar", "h"))
        self.assertFalse(self.ban.wants_digests(0))
        self.assertTrue(all(self.ban.wants_digests(piece) for piece in range(1, MAX_PIECES + 1)))

    def test_piece_that_fails_again_is_not_the_oldest(self) -> None:
        for piece in range(MAX_PIECES):
            self.ban.failed(piece, (b"x", b"b"), ("liar", "h"))
        self.ban.failed(0, (b"x", b"b"), ("liar", "h"))
        self.ban.failed(MAX_PIECES, (b"x", b"b"), ("liar", "h"))
        self.assertTrue(self.ban.wants_digests(0))
        self.assertEqual(self.ban.passed(0, (b"a", b"b")), {"liar"})

    def test_copies_remembered_are_bounded(self) -> None:
        for copy in range(MAX_ATTEMPTS + 2):
            self.ban.failed(7, (b"x", b"b"), (f"liar {copy}", "h"))
        self.assertEqual(
            self.ban.passed(7, (b"a", b"b")), {f"liar {copy}" for copy in range(2, MAX_ATTEMPTS + 2)}
        )

    def test_blocks_remembered_are_bounded(self) -> None:
        """Large pieces use the room up sooner; what failed last stays."""
        blocks = MAX_BLOCKS // 4
        for piece in range(6):
            self.ban.failed(piece, [b"x"] * blocks, ["h", "liar"] * (blocks // 2))
        self.assertEqual(
            [self.ban.wants_digests(piece) for piece in range(6)], [False, False, True, True, True, True]
        )
        for piece in range(6):
            self.ban.passed(piece, [b"x"] * blocks)
        for piece in range(6, 10):
            self.ban.failed(piece, [b"x"] * blocks, ["h", "liar"] * (blocks // 2))
        self.assertTrue(all(self.ban.wants_digests(piece) for piece in range(6, 10)))

    @given(st.data())
    def test_honest_hosts_are_never_banned_and_liars_are_at_last(self, data: st.DataObject) -> None:
        """Liars lie in some blocks of some copies; in the end everything passes."""
        random = Random(data.draw(st.integers()))
        honest = [f"honest {number}" for number in range(data.draw(st.integers(1, 5)))]
        liars = [f"liar {number}" for number in range(data.draw(st.integers(0, 5)))]
        lying = data.draw(st.floats(0, 1))
        caught: set[str] = set()
        lied: set[str] = set()
        for piece in range(data.draw(st.integers(1, 10))):
            good = [b"%d %d" % (piece, block) for block in range(data.draw(st.integers(1, 6)))]
            for _ in range(MAX_ATTEMPTS):
                hosts = [random.choice(honest + liars) for _ in good]
                sent = [
                    b"lie %d" % random.randrange(3) if host in liars and random.random() < lying else block
                    for host, block in zip(hosts, good, strict=True)
                ]
                if sent == good:
                    break
                known = [None if random.random() < 0.1 else host for host in hosts]
                lied |= {
                    host
                    for host, block, right in zip(known, sent, good, strict=True)
                    if host is not None and block != right
                }
                caught |= self.ban.failed(piece, [sha1(block).digest()[:8] for block in sent], known)
            caught |= self.ban.passed(piece, [sha1(block).digest()[:8] for block in good])
        self.assertEqual(caught, lied)
        self.assertEqual(caught & set(honest), set())
