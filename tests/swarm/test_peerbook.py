from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from irontide.swarm.peerbook import MAX_BACKOFF, MAX_BANS, REDIAL, RESTS, SHORT, TRUSTED_REDIAL, PeerBook
from irontide.values import PeerAddress

NOW = 5000.0


def far(number: int, port: int = 6881) -> PeerAddress:
    """An address on the internet."""
    return PeerAddress(f"8.{number >> 16}.{number >> 8 & 255}.{number & 255}", port)


A, B, C = far(1), far(2), far(3)


class BookTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.book = PeerBook()

    def all_due(self, now: float = NOW) -> list[PeerAddress]:
        found = []
        while (address := self.book.next(now)) is not None:
            found.append(address)
        return found


class FoundTests(BookTestCase):
    """What is believed."""

    def accepts(self, host: str, source: str, teller: str | None = None, port: int = 6881) -> bool:
        return PeerBook().found([PeerAddress(host, port)], source, NOW, teller=teller) == 1

    def test_news_are_counted(self) -> None:
        self.assertEqual(self.book.found([A, B, A], "tracker", NOW), 2)
        self.assertEqual(self.book.found([B, C], "pex", NOW), 1)
        self.assertEqual(len(self.book), 3)
        self.assertIn(C, self.book)

    def test_no_peer_is_at_port_0(self) -> None:
        for port in (0, -1, 65536):
            self.assertFalse(self.accepts("8.8.8.8", "user", port=port))
        for port in (1, 65535):
            self.assertTrue(self.accepts("8.8.8.8", "tracker", port=port))

    def test_no_peer_is_at_an_address_of_nobody(self) -> None:
        for host in ("0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:0.0.0.0", "a.name"):
            for source in ("user", "lsd", "tracker", "pex", "dht"):
                self.assertFalse(self.accepts(host, source, "127.0.0.1"), (host, source))

    def test_strangers_know_nothing_of_private_networks(self) -> None:
        for host in (
            "127.0.0.1",
            "10.0.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "fe80::1",
            "fd00::1",
            "::1",
            "::ffff:127.0.0.1",
        ):
            for source in ("tracker", "pex", "dht", "something new"):
                for teller in (None, "8.8.4.4", "2001:4860::1", "tracker.example"):
                    self.assertFalse(self.accepts(host, source, teller), (host, source, teller))

    def test_user_and_local_discovery_know_them(self) -> None:
        for host in ("127.0.0.1", "10.0.0.1", "::1", "fd00::1"):
            for source in ("user", "lsd"):
                self.assertTrue(self.accepts(host, source))

    def test_neighbours_know_each_other(self) -> None:
        for source in ("tracker", "pex"):
            self.assertTrue(self.accepts("192.168.1.1", source, "10.0.0.7"))
            self.assertTrue(self.accepts("192.168.1.1", source, "127.0.0.1"))
            self.assertTrue(self.accepts("127.0.0.1", source, "127.0.0.1"))
            self.assertTrue(self.accepts("127.0.0.1", source, "::1"))
            self.assertTrue(self.accepts("8.8.8.8", source, "10.0.0.7"))

    def test_neighbour_knows_nothing_of_this_host(self) -> None:
        self.assertFalse(self.accepts("127.0.0.1", "pex", "192.168.1.7"))

    def test_mapped_address_is_no_other_peer(self) -> None:
        self.book.found([PeerAddress("8.8.8.8", 1), PeerAddress("::ffff:8.8.8.8", 1)], "tracker", NOW)
        self.book.found([PeerAddress("2001:4860:0::1", 1), PeerAddress("2001:4860::1", 1)], "tracker", NOW)
        self.assertEqual(self.all_due(), [PeerAddress("8.8.8.8", 1), PeerAddress("2001:4860::1", 1)])

    def test_we_are_no_peer_of_ours(self) -> None:
        self.book.found([A, B], "tracker", NOW)
        self.book.set_own([A])
        self.assertEqual(self.all_due(), [B])
        self.assertEqual(self.book.found([A], "user", NOW), 0)
        self.book.set_own([B])
        self.assertEqual(self.book.found([A], "user", NOW), 1)

    def test_listening_everywhere_we_are_every_loopback_address(self) -> None:
        for wildcard in ("0.0.0.0", "::"):
            self.book.set_own([PeerAddress(wildcard, 6881)])
            for host in ("127.0.0.1", "127.9.9.9", "::1"):
                self.assertEqual(self.book.found([PeerAddress(host, 6881)], "user", NOW), 0)
            self.assertEqual(self.book.found([far(7)], "user", NOW), wildcard == "0.0.0.0")
        self.assertEqual(self.book.found([PeerAddress("127.0.0.1", 6882)], "user", NOW), 1)


class DialTests(BookTestCase):
    """Whom to dial, and when again."""

    def dial(self, address: PeerAddress, now: float) -> None:
        self.assertEqual(self.book.next(now), address)

    def test_empty_book_has_nothing(self) -> None:
        self.assertIsNone(self.book.next(NOW))
        self.assertIsNone(self.book.next_time(NOW))

    def test_each_is_given_once(self) -> None:
        self.book.found([A, B, C], "tracker", NOW)
        self.assertEqual(self.book.next_time(NOW), NOW)
        self.assertEqual(self.all_due(), [A, B, C])
        self.book.found([A, B, C], "pex", NOW)
        self.assertEqual(self.all_due(NOW + 10_000), [])
        self.assertIsNone(self.book.next_time(NOW))

    def test_better_sources_come_first(self) -> None:
        for number, source in enumerate(("dht", "pex", "tracker", "lsd", "user")):
            self.book.found([far(number)], source, NOW)
        self.assertEqual(self.all_due(), [far(4), far(3), far(2), far(1), far(0)])

    def test_failures_double_the_wait_up_to_an_hour(self) -> None:
        self.book.found([A], "tracker", NOW)
        now = NOW
        for wait in (60, 120, 240, 480, 960, 1920, 3600, 3600, 3600):
            self.dial(A, now)
            now += 10
            self.book.failed(A, now)
            self.assertEqual(self.book.next_time(now), now + wait)
            self.assertIsNone(self.book.next(now + wait - 0.1))
            now += wait

    def test_backoff_survives_any_number_of_failures(self) -> None:
        self.book.found([A], "tracker", NOW)
        for _ in range(3000):
            self.book.failed(A, NOW)
        self.assertEqual(self.book.next_time(NOW), NOW + MAX_BACKOFF)

    def test_users_address_is_tried_again_soon(self) -> None:
        """The other side may be about to be started."""
        self.book.found([A], "user", NOW)
        self.dial(A, NOW)
        self.book.failed(A, NOW)
        self.assertEqual(self.book.next_time(NOW), NOW + TRUSTED_REDIAL)

    def test_user_who_asks_again_is_not_kept_waiting(self) -> None:
        self.book.found([A, B], "tracker", NOW)
        self.assertEqual(self.all_due(), [A, B])
        self.book.failed(A, NOW)
        self.book.found([A, B], "user", NOW + 1)
        self.assertEqual(self.all_due(NOW + 1), [A], "B is being dialled")

    def test_hearsay_does_not_shorten_the_wait(self) -> None:
        self.book.found([A], "tracker", NOW)
        self.dial(A, NOW)
        self.book.failed(A, NOW)
        for source in ("tracker", "pex", "dht", "lsd"):
            self.book.found([A], source, NOW + 1)
        self.assertEqual(self.book.next_time(NOW + 1), NOW + REDIAL)

    def test_connection_forgives_failures(self) -> None:
        self.book.found([A], "tracker", NOW)
        for _ in range(4):
            self.book.failed(A, NOW)
        self.dial(A, NOW + 9999)
        self.book.connected(A)
        self.assertEqual(self.all_due(NOW + 99999), [])
        self.book.disconnected(A, "idle", NOW + 9999 + SHORT)
        self.assertEqual(self.book.next_time(NOW + 9999 + SHORT), NOW + 9999 + SHORT + REDIAL)

    def test_peer_that_throws_us_out_at_once_has_failed(self) -> None:
        self.book.found([A], "tracker", NOW)
        now = NOW
        for wait in (60, 120, 240):
            self.dial(A, now)
            self.book.connected(A)
            self.book.disconnected(A, "closed", now + 1)
            self.assertEqual(self.book.next_time(now + 1), now + 1 + wait)
            now += 1 + wait

    def test_some_are_not_worth_another_try_soon(self) -> None:
        for reason, rest in RESTS.items():
            self.book = PeerBook()
            self.book.found([A], "tracker", NOW)
            self.dial(A, NOW)
            self.book.connected(A)
            self.book.disconnected(A, reason, NOW + 100)
            self.assertEqual(self.book.next_time(NOW + 100), NOW + 100 + rest)

    def test_those_that_failed_yield_to_those_that_did_not(self) -> None:
        self.book.found([A, B], "tracker", NOW)
        self.assertEqual(self.all_due(), [A, B])
        self.book.failed(A, NOW)
        self.book.connected(B)
        self.book.disconnected(B, "idle", NOW + 100)
        self.book.found([C], "tracker", NOW + 500)
        self.assertEqual(self.all_due(NOW + 500), [B, C, A], "what answered before, news, what failed")

    def test_incoming_peer_is_dialled_back_only_when_it_is_gone(self) -> None:
        listening = PeerAddress("10.0.0.5", 7000)
        self.book.listens_at("10.0.0.5", 7000)
        self.assertIn(listening, self.book)
        self.book.found([listening], "lsd", NOW)
        self.assertEqual(self.all_due(), [])
        self.book.disconnected(listening, "closed", NOW)
        self.assertEqual(self.book.next_time(NOW), NOW + TRUSTED_REDIAL)
        self.dial(listening, NOW + TRUSTED_REDIAL)

    def test_waiting_address_that_connects_is_not_dialled(self) -> None:
        self.book.found([A], "tracker", NOW)
        self.book.listens_at(A.host, A.port)
        self.assertEqual(self.all_due(), [])

    def test_connected_twice_is_connected_until_both_are_gone(self) -> None:
        self.book.found([A], "tracker", NOW)
        self.dial(A, NOW)
        self.book.connected(A)
        self.book.listens_at(A.host, A.port)
        self.book.disconnected(A, "connected twice", NOW + 1)
        self.assertEqual(self.all_due(NOW + 99999), [])
        self.book.disconnected(A, "idle", NOW + 99999)
        self.assertEqual(self.all_due(NOW + 99999 + REDIAL), [A])

    def test_failed_dial_of_a_connected_peer_does_not_have_it_dialled_again(self) -> None:
        self.book.found([A], "tracker", NOW)
        self.dial(A, NOW)
        self.book.listens_at(A.host, A.port)
        self.book.failed(A, NOW + 10)
        self.assertEqual(self.all_due(NOW + 99999), [])

    def test_strangers_to_the_book_may_come_and_go(self) -> None:
        ephemeral = far(9, 50000)
        self.book.connected(ephemeral)
        self.assertEqual(self.book.found([ephemeral], "pex", NOW), 1)
        self.assertEqual(self.all_due(), [], "it is connected")
        self.book.disconnected(ephemeral, "closed", NOW)
        self.book.disconnected(far(10), "closed", NOW)
        self.book.failed(far(10), NOW)
        self.assertEqual(len(self.book), 1)


class BanTests(BookTestCase):
    def test_banned_host_is_gone_with_all_its_ports(self) -> None:
        other_port = PeerAddress(A.host, 1)
        self.book.found([A, other_port, B], "tracker", NOW)
        self.book.ban(A.host)
        self.assertTrue(self.book.banned(A.host))
        self.assertFalse(self.book.banned(B.host))
        self.assertEqual(self.all_due(), [B])
        self.assertEqual(self.book.found([A, other_port], "user", NOW), 0)

    def test_ban_holds_in_any_spelling(self) -> None:
        self.book.ban("::ffff:8.8.8.8")
        self.assertTrue(self.book.banned("8.8.8.8"))
        self.assertTrue(self.book.banned("::ffff:8.8.8.8"))
        self.book.ban("2001:4860:0:0::1")
        self.assertTrue(self.book.banned("2001:4860::1"))

    def test_dial_under_way_is_forgotten(self) -> None:
        self.book.found([A], "tracker", NOW)
        self.book.next(NOW)
        self.book.ban(A.host)
        self.book.failed(A, NOW)
        self.assertIsNone(self.book.next_time(NOW))

    def test_bans_are_bounded(self) -> None:
        for number in range(MAX_BANS + 1):
            self.book.ban(far(number).host)
        self.assertFalse(self.book.banned(far(0).host))
        self.assertTrue(self.book.banned(far(1).host))
        self.assertTrue(self.book.banned(far(MAX_BANS).host))


class RoomTests(BookTestCase):
    """What gives way when the book is full."""

    def setUp(self) -> None:
        self.book = PeerBook(limit=4)

    def test_limit(self) -> None:
        book = PeerBook()
        book.found([far(number) for number in range(5000)], "tracker", NOW)
        self.assertEqual(len(book), 2000)

    def test_oldest_hearsay_gives_way_to_news(self) -> None:
        self.book.found([far(number) for number in range(4)], "tracker", NOW)
        self.assertEqual(self.book.found([far(10), far(11)], "tracker", NOW), 2)
        self.assertEqual(self.all_due(), [far(2), far(3), far(10), far(11)])

    def test_what_failed_most_gives_way_first(self) -> None:
        self.book.found([far(number) for number in range(4)], "tracker", NOW)
        self.all_due()
        for number, failures in enumerate((1, 3, 2, 1)):
            for _ in range(failures):
                self.book.failed(far(number), NOW)
        self.book.found([far(10), far(11)], "dht", NOW)
        self.assertNotIn(far(1), self.book)
        self.assertNotIn(far(2), self.book)
        self.assertEqual(len(self.book), 4)

    def test_what_answered_before_is_kept(self) -> None:
        self.book.found([far(number) for number in range(4)], "tracker", NOW)
        self.all_due()
        self.book.connected(far(0))
        self.book.disconnected(far(0), "idle", NOW + 100)
        for number in (1, 2, 3):
            self.book.failed(far(number), NOW)
        self.book.found([far(10), far(11), far(12), far(13)], "tracker", NOW)
        self.assertIn(far(0), self.book)
        self.assertNotIn(far(13), self.book)

    def test_users_addresses_and_those_in_use_are_kept(self) -> None:
        self.book.found([far(0)], "user", NOW)
        self.book.found([far(1), far(2)], "tracker", NOW)
        self.all_due()
        self.book.failed(far(0), NOW)
        self.book.connected(far(1))
        self.book.found([far(number) for number in range(10, 20)], "tracker", NOW)
        for number in (0, 1, 2, 10):
            self.assertIn(far(number), self.book)

    def test_address_is_worth_as_much_as_the_best_who_told_it(self) -> None:
        self.book.found([far(0), far(1)], "dht", NOW)
        self.book.found([far(0)], "user", NOW)
        self.book.found([far(1)], "tracker", NOW)
        self.book.found([far(1)], "dht", NOW)
        self.book.found([far(number) for number in range(10, 20)], "pex", NOW)
        self.assertIn(far(0), self.book)
        self.assertIn(far(1), self.book)

    def test_flood_of_gossip_does_not_displace_what_the_tracker_said(self) -> None:
        self.book.found([far(number) for number in range(4)], "tracker", NOW)
        self.assertEqual(self.book.found([far(number) for number in range(10, 60)], "pex", NOW), 0)
        self.assertEqual(self.all_due(), [far(number) for number in range(4)])

    def test_address_that_gave_way_is_not_dialled_twice_in_a_minute(self) -> None:
        """Or else a flood of gossip could have us knock on one door again and again."""
        self.book.found([A], "pex", NOW)
        self.assertEqual(self.all_due(), [A])
        self.book.failed(A, NOW + 1)
        self.book.found([far(number) for number in range(10, 14)], "pex", NOW + 1)
        self.assertNotIn(A, self.book)
        self.book.found([A], "pex", NOW + 2)
        self.assertIn(A, self.book)
        self.assertNotIn(A, self.all_due(NOW + REDIAL - 0.1))
        self.assertIn(A, self.all_due(NOW + REDIAL))

    def test_queues_do_not_grow_without_bound(self) -> None:
        self.book.found([A], "user", NOW)
        for again in range(10_000):
            self.book.found([A], "user", NOW + again)
        self.assertLess(len(self.book._waiting) + len(self.book._ready), 200)
        self.assertEqual(self.all_due(NOW + 10_000), [A])


class Life(RuleBasedStateMachine):
    """Whatever is told and however dials go, what the book promises holds."""

    LIMIT = 6
    numbers = st.integers(0, 11)

    def __init__(self) -> None:
        super().__init__()
        self.book = PeerBook(self.LIMIT)
        self.now = NOW
        self.dialling: set[PeerAddress] = set()
        self.connected: set[PeerAddress] = set()
        self.dialled_at: dict[PeerAddress, float] = {}
        self.trusted: set[PeerAddress] = set()

    @rule(
        numbers=st.lists(numbers, max_size=8),
        source=st.sampled_from(["user", "lsd", "tracker", "pex", "dht"]),
    )
    def hear(self, numbers: list[int], source: str) -> None:
        addresses = [far(number) for number in numbers]
        if source in ("user", "lsd"):
            self.trusted.update(addresses)
        self.book.found(addresses, source, self.now)

    @rule(seconds=st.sampled_from([0.5, 5.0, 31.0, 61.0, 700.0, 4000.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def dial(self) -> None:
        due = self.book.next_time(self.now)
        address = self.book.next(self.now)
        assert (address is not None) == (due is not None and due <= self.now)
        if address is None:
            return
        assert address not in self.dialling | self.connected
        assert not self.book.banned(address.host)
        if address not in self.trusted:
            assert self.now - self.dialled_at.get(address, 0.0) >= REDIAL
        self.dialled_at[address] = self.now
        self.dialling.add(address)

    @precondition(lambda self: self.dialling)
    @rule(data=st.data(), answered=st.booleans())
    def hear_of_dial(self, data: st.DataObject, answered: bool) -> None:
        address = data.draw(st.sampled_from(sorted(self.dialling, key=str)))
        self.dialling.discard(address)
        if answered:
            self.book.connected(address)
            self.connected.add(address)
        else:
            self.book.failed(address, self.now)

    @precondition(lambda self: self.connected)
    @rule(data=st.data())
    def part(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(sorted(self.connected, key=str)))
        self.connected.discard(address)
        self.book.disconnected(address, "closed", self.now)

    @rule(number=numbers)
    def come_in(self, number: int) -> None:
        if far(number) not in self.connected | self.dialling:
            self.book.listens_at(far(number).host, far(number).port)
            self.connected.add(far(number))

    @rule(number=numbers)
    def ban(self, number: int) -> None:
        if number > 8:
            self.book.ban(far(number).host)

    @invariant()
    def is_bounded(self) -> None:
        assert len(self.book) <= self.LIMIT

    @invariant()
    def forgets_nobody_for_ever(self) -> None:
        """Whoever is in the book and not in use will be dialled one day."""
        idle = [
            address
            for address in map(far, range(12))
            if address in self.book and address not in self.dialling | self.connected
        ]
        assert (self.book.next_time(self.now) is not None) == bool(idle)


LifeTests = Life.TestCase
LifeTests.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
