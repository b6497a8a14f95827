"""Valve, TokenBucket and BackpressureQueue: contract B, line by line, and the promises around it."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import Closed, ProtocolViolation, QueueFull
from irontide.flow import (
    COMMAND_BACKLOG,
    EVENT_BACKLOG,
    HELD_PATIENCE,
    BackpressureQueue,
    FlowCounters,
    TokenBucket,
    Valve,
)
from tests.fakes import FakePeerTransport


class Producer:
    """Remembers what it was told; ``then`` runs when it is resumed."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.then: Callable[[], None] = lambda: None

    @property
    def paused(self) -> bool:
        return self.told[-1:] == ["pause"]

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")
        self.then()


class Consumer:
    """
    Takes as many items as there is ``room`` for.

    :ivar fails: the exception to raise out of the next delivery.
    """

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self.got: list[object] = []
        self.fails: Exception | None = None
        self.then: Callable[[], None] = lambda: None

    def full(self) -> bool:
        return self.room <= 0

    def deliver(self, item: object) -> None:
        self.room -= 1
        self.got.append(item)
        self.then()
        if self.fails is not None:
            fails, self.fails = self.fails, None
            raise fails


class ValveTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.producer = Producer()
        self.valve = Valve(self.producer)

    def test_pauses_at_the_first_and_resumes_at_the_last(self) -> None:
        self.valve.hold("disk")
        self.valve.hold("rate")
        self.valve.release("disk")
        self.assertEqual((self.producer.told, self.valve.held), (["pause"], True))
        self.valve.release("rate")
        self.assertEqual((self.producer.told, self.valve.held), (["pause", "resume"], False))

    def test_a_holder_counts_once(self) -> None:
        self.valve.hold("disk")
        self.valve.hold("disk")
        self.valve.release("disk")
        self.assertEqual(self.producer.told, ["pause", "resume"])

    def test_releasing_what_is_not_held_does_nothing(self) -> None:
        self.valve.release("disk")
        self.valve.hold("rate")
        self.valve.release("disk")
        self.assertEqual(self.producer.told, ["pause"])

    def test_again_and_again(self) -> None:
        for _ in range(3):
            self.valve.hold("disk")
            self.valve.release("disk")
        self.assertEqual(self.producer.told, ["pause", "resume"] * 3)

    def test_holds_a_transport(self) -> None:
        transport = FakePeerTransport()
        valve = Valve(transport)
        valve.hold(self)
        self.assertTrue(transport.paused)
        valve.release(self)
        self.assertFalse(transport.paused)

    def test_may_be_held_again_while_it_resumes(self) -> None:
        self.producer.then = lambda: self.valve.hold("again")
        self.valve.hold("disk")
        self.valve.release("disk")
        self.assertEqual((self.producer.told, self.valve.held), (["pause", "resume", "pause"], True))


class TokenBucketTests(SynchronousTestCase):
    def test_unlimited(self) -> None:
        bucket = TokenBucket(0)
        self.assertTrue(all(bucket.take(10**12, 0) for _ in range(10)))
        self.assertEqual((bucket.wait(10**12, 0), bucket.available(0)), (0, float("inf")))

    def test_is_full_at_first(self) -> None:
        self.assertEqual(TokenBucket(10, 25, now=100).available(100), 25)

    def test_a_second_is_saved_by_default(self) -> None:
        self.assertEqual(TokenBucket(10).burst, 10)
        self.assertEqual(TokenBucket(0.1).burst, 1)  # else nothing could ever be taken

    def test_fills_at_its_rate_up_to_its_burst(self) -> None:
        bucket = TokenBucket(10, 20)
        self.assertTrue(bucket.take(20, 0))
        self.assertEqual([bucket.available(now) for now in (0, 0.5, 1, 2, 99)], [0, 5, 10, 20, 20])

    def test_one_at_a_time(self) -> None:
        """Dials: ten at once, then no more than ten a second."""
        bucket = TokenBucket(10)
        self.assertEqual(sum(bucket.take(1, 0) for _ in range(50)), 10)
        self.assertEqual(sum(bucket.take(1, 0.5) for _ in range(50)), 5)

    def test_debt(self) -> None:
        """Who finds a token may take a burst; the next one waits until that is paid."""
        bucket = TokenBucket(100, 100)
        self.assertTrue(bucket.take(99, 0))
        self.assertTrue(bucket.take(100, 0))
        self.assertEqual(bucket.available(0), -99)
        self.assertFalse(bucket.take(1, 0.9))
        self.assertAlmostEqual(bucket.wait(1, 0.9), 0.1)
        self.assertTrue(bucket.take(1, 1.0))

    def test_a_refused_take_costs_nothing(self) -> None:
        bucket = TokenBucket(10, 10)
        bucket.take(20, 0)
        before = bucket.available(0)
        self.assertFalse(bucket.take(1, 0))
        self.assertEqual(bucket.available(0), before)

    def test_more_than_a_burst_has_to_be_saved_for(self) -> None:
        bucket = TokenBucket(10, 10)
        bucket.take(10, 0)
        self.assertEqual(bucket.wait(15, 0), 0.5)
        self.assertFalse(bucket.take(15, 0.4))
        self.assertTrue(bucket.take(15, 0.5))
        self.assertEqual(bucket.available(0.5), -10)

    def test_more_than_there_can_ever_be_waits_for_a_full_bucket(self) -> None:
        """A block of 16 KiB at a limit of 1 kB/s must pass, at 1 kB/s."""
        bucket, now = TokenBucket(1000), 0.0
        for _ in range(5):
            now += bucket.wait(16384, now)
            self.assertTrue(bucket.take(16384, now))
        self.assertAlmostEqual(now, 4 * 16.384, delta=0.1)

    def test_changed_rate(self) -> None:
        bucket = TokenBucket(100)
        bucket.take(100, 0)
        bucket.set_rate(10, 0.5)
        self.assertEqual((bucket.rate, bucket.burst), (10, 10))
        self.assertEqual(bucket.available(0.5), 10)  # 50 were saved, and no more fit
        bucket.set_rate(1000, 1.0)
        self.assertEqual(bucket.available(1.0), 10)
        self.assertEqual(bucket.available(1.5), 510)

    def test_a_debt_of_a_fast_past_is_bounded_by_the_new_burst(self) -> None:
        bucket = TokenBucket(1_000_000)
        bucket.take(2_000_000, 0)
        bucket.set_rate(10, 0)
        self.assertEqual(bucket.available(0), -10)

    def test_a_given_burst_stays(self) -> None:
        bucket = TokenBucket(100, 16384)
        bucket.set_rate(10, 0)
        self.assertEqual(bucket.burst, 16384)

    def test_to_unlimited_and_back(self) -> None:
        bucket = TokenBucket(100)
        bucket.set_rate(0, 1)
        self.assertTrue(bucket.take(10**9, 1))
        bucket.set_rate(100, 2)
        self.assertFalse(bucket.take(1000, 2))

    def test_a_clock_that_goes_back_gives_nothing(self) -> None:
        bucket = TokenBucket(10, now=100)
        bucket.take(10, 100)
        self.assertEqual([bucket.available(now) for now in (50, 100, 100.5)], [0, 0, 5])

    def test_no_such_rate(self) -> None:
        for rate in (-1, float("inf"), float("nan")):
            with self.assertRaises(ValueError):
                TokenBucket(rate)
            with self.assertRaises(ValueError):
                TokenBucket(1).set_rate(rate, 0)

    @given(
        st.floats(0.5, 1e9),
        st.floats(1, 1e7),
        st.lists(st.tuples(st.floats(0, 1e7), st.floats(0, 3)), max_size=30),
    )
    def test_rate_and_debt_are_kept(
        self, rate: float, burst: float, takes: list[tuple[float, float]]
    ) -> None:
        """Nobody gets more than the rate and two bursts; no debt is more than a burst."""
        bucket, now, taken = TokenBucket(rate, burst), 0.0, 0.0
        for share, pause in takes:
            n = share % (2 * burst)
            now += pause
            if bucket.take(n, now):
                taken += n
            self.assertGreaterEqual(bucket.available(now), -burst * 1.001 - 1)
            self.assertLessEqual(taken, (rate * now + 2 * burst) * 1.001 + 1)

    @given(st.floats(0.5, 1e6), st.floats(1, 1e6), st.lists(st.floats(0, 1e7), max_size=20))
    def test_after_the_wait_it_is_there(self, rate: float, burst: float, takes: list[float]) -> None:
        bucket, now = TokenBucket(rate, burst), 0.0
        for n in takes:
            wait = bucket.wait(n, now)
            self.assertEqual(wait == 0, bucket.take(n, now))
            if wait:
                self.assertTrue(bucket.take(n, now + wait))
                now += wait


class BackpressureTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.producer = Producer()
        self.valve = Valve(self.producer)
        self.consumer = Consumer()
        self.queue = self.make(3)

    def make(self, cap: int, counters: FlowCounters | None = None) -> BackpressureQueue[object]:
        return BackpressureQueue(
            cap, self.consumer.deliver, full=self.consumer.full, valve=self.valve,
            seconds=self.clock.seconds, counters=counters,
        )  # fmt: skip

    def put(self, *items: object) -> None:
        for item in items:
            self.queue.put(item)

    def test_room_means_delivered_directly(self) -> None:
        """B1."""
        self.consumer.room = 2
        self.put("a", "b")
        self.assertEqual((self.consumer.got, self.queue.depth), (["a", "b"], 0))
        self.assertEqual(self.producer.told, [])

    def test_a_full_consumer_gets_them_later_in_order(self) -> None:
        """B2."""
        self.put("a", "b", "c")
        self.assertEqual((self.consumer.got, self.queue.depth), ([], 3))
        self.consumer.room = 9
        self.queue.drain()
        self.assertEqual((self.consumer.got, self.queue.depth), (["a", "b", "c"], 0))

    def test_nothing_overtakes(self) -> None:
        """B2: room that comes between two puts is first for those who wait."""
        self.put("a", "b")
        self.consumer.room = 1
        self.put("c")
        self.assertEqual(self.consumer.got, ["a"])
        self.consumer.room = 9
        self.put("d")
        self.assertEqual(self.consumer.got, ["a", "b", "c", "d"])

    def test_room_that_comes_in_the_middle_of_a_put_changes_nothing(self) -> None:
        """B2: a consumer that was full a moment ago does not get the newest item first."""
        answers = iter([True, True, False, False, False])
        queue: BackpressureQueue[object] = BackpressureQueue(
            3, self.consumer.deliver, full=lambda: next(answers)
        )
        queue.put("a")
        queue.put("b")
        self.assertEqual((self.consumer.got, queue.depth), ([], 2))
        queue.drain()
        self.assertEqual(self.consumer.got, ["a", "b"])

    def test_full_at_the_cap(self) -> None:
        """B3: and what is refused is not taken."""
        self.put("a", "b", "c")
        with self.assertRaises(QueueFull):
            self.put("d")
        self.assertEqual((self.queue.depth, self.queue.counters.refused), (3, 1))
        self.consumer.room = 9
        self.queue.drain()
        self.assertEqual(self.consumer.got, ["a", "b", "c"])

    def test_closed_on_putting_and_draining(self) -> None:
        """B4."""
        self.put("a")
        self.queue.close()
        self.consumer.room = 9
        for call in (lambda: self.put("b"), self.queue.drain):
            with self.assertRaises(Closed):
                call()
        self.assertEqual((self.consumer.got, self.queue.depth, self.queue.closed), ([], 0, True))

    def test_a_consumer_that_says_it_is_closed(self) -> None:
        """B4: found out by delivering, directly or while draining."""
        for waiting in ((), ("a", "b")):
            self.setUp()
            self.put(*waiting)
            self.consumer.room, self.consumer.fails = 9, Closed("gone")
            with self.assertRaises(Closed):
                self.put("c")
            with self.assertRaises(Closed):
                self.queue.drain()
            self.assertEqual((len(self.consumer.got), self.queue.depth, self.valve.held), (1, 0, False))

    def test_draining_a_full_consumer_leaves_the_first_first(self) -> None:
        """B5."""
        self.put("a", "b")
        self.queue.drain()
        self.assertEqual(self.consumer.got, [])
        self.consumer.room = 1
        self.queue.drain()
        self.assertEqual(self.consumer.got, ["a"])

    def test_draining_nothing_does_nothing(self) -> None:
        """B5."""
        self.queue.drain()
        self.consumer.room = 1
        self.queue.drain()
        self.assertEqual((self.consumer.got, self.producer.told), ([], []))

    def test_cap_zero(self) -> None:
        """B6."""
        self.queue = self.make(0)
        with self.assertRaises(QueueFull):
            self.put("a")
        self.consumer.room = 1
        self.put("b")
        with self.assertRaises(QueueFull):
            self.put("c")
        self.assertEqual(self.consumer.got, ["b"])

    def test_no_cap_below_zero(self) -> None:
        with self.assertRaises(ValueError):
            self.make(-1)

    def test_named_caps(self) -> None:
        """B7, and the patience of B3."""
        self.assertEqual((COMMAND_BACKLOG, EVENT_BACKLOG, HELD_PATIENCE), (8, 32, 5.0))

    def test_drained_before_it_is_judged_full(self) -> None:
        """Beyond: room that came unnoticed saves the producer."""
        self.put("a", "b", "c")
        self.consumer.room = 1
        self.put("d")
        self.assertEqual((self.consumer.got, self.queue.depth), (["a"], 3))

    def test_one_wake_up_drains_all_that_fits(self) -> None:
        """Beyond."""
        self.put("a", "b", "c")
        self.consumer.room = 2
        self.queue.drain()
        self.assertEqual((self.consumer.got, self.queue.depth), (["a", "b"], 1))

    def test_paused_as_long_as_something_waits(self) -> None:
        """Beyond."""
        self.put("a", "b")
        self.assertEqual(self.producer.told, ["pause"])
        self.consumer.room = 1
        self.queue.drain()
        self.assertEqual(self.producer.told, ["pause"])
        self.consumer.room = 1
        self.queue.drain()
        self.assertEqual(self.producer.told, ["pause", "resume"])

    def test_a_refused_item_alone_does_not_pause(self) -> None:
        self.queue = self.make(0)
        with self.assertRaises(QueueFull):
            self.put("a")
        self.assertEqual(self.producer.told, [])

    def test_closing_lets_go(self) -> None:
        self.put("a")
        self.queue.close()
        self.queue.close()
        self.assertEqual(self.producer.told, ["pause", "resume"])

    def test_held_for(self) -> None:
        """Beyond: whoever owns the queue can tell when patience ends."""
        self.assertEqual(self.queue.held_for(), 0)
        self.put("a")
        self.clock.advance(2)
        self.put("b")
        self.clock.advance(3)
        self.assertEqual(self.queue.held_for(), 5)
        self.consumer.room = 9
        self.queue.drain()
        self.assertEqual(self.queue.held_for(), 0)

    def test_counters(self) -> None:
        """Beyond: depth, holds, hold time and disconnects, in sum over the queues that share them."""
        counters = FlowCounters()
        first, second = self.make(3, counters), self.make(3, counters)
        first.put("a")
        first.put("b")
        second.put("c")
        self.assertEqual((counters.depth, counters.holds), (3, 2))
        self.clock.advance(2)
        self.consumer.room = 2
        first.drain()
        self.assertEqual((counters.depth, counters.held_seconds, counters.disconnects), (1, 2, 0))
        self.clock.advance(3)
        second.give_up()
        self.assertEqual(counters, FlowCounters(depth=0, holds=2, held_seconds=7, disconnects=1, refused=0))
        self.assertTrue(second.closed)

    def test_a_failing_delivery_counts_and_lets_go(self) -> None:
        """The last item that waits ends the connection: the valve must not stay closed for ever."""
        self.put("a")
        self.consumer.room, self.consumer.fails = 9, ProtocolViolation("a lie")
        with self.assertRaises(ProtocolViolation):
            self.queue.drain()
        self.assertEqual((self.consumer.got, self.queue.depth), (["a"], 0))
        self.assertEqual(self.producer.told, ["pause", "resume"])

    def test_a_failing_delivery_leaves_the_others(self) -> None:
        self.put("a", "b")
        self.consumer.room, self.consumer.fails = 9, ProtocolViolation("a lie")
        with self.assertRaises(ProtocolViolation):
            self.queue.drain()
        self.queue.drain()
        self.assertEqual(self.consumer.got, ["a", "b"])

    def test_a_producer_that_answers_at_once_overtakes_nothing(self) -> None:
        """The valve opens only when the item in hand has its place."""
        self.put("a")
        self.consumer.room = 9
        self.producer.then = lambda: self.put("c")
        self.put("b")
        self.assertEqual(self.consumer.got, ["a", "b", "c"])

    def test_closed_by_its_consumer(self) -> None:
        """While it drains: nothing more is delivered, and what was about to be put is refused."""
        self.put("a", "b")
        self.consumer.room, self.consumer.then = 9, self.queue.close
        with self.assertRaises(Closed):
            self.put("c")
        self.assertEqual((self.consumer.got, self.queue.counters.depth), (["a"], 0))

    def test_drained_by_its_consumer(self) -> None:
        """Draining from inside of a delivery keeps the order."""
        self.put("a", "b", "c")
        self.consumer.room, self.consumer.then = 9, self.queue.drain
        self.queue.drain()
        self.assertEqual(self.consumer.got, ["a", "b", "c"])

    def test_without_a_valve_or_a_clock(self) -> None:
        queue: BackpressureQueue[object] = BackpressureQueue(
            1, self.consumer.deliver, full=self.consumer.full
        )
        queue.put("a")
        self.assertEqual((queue.depth, queue.held_for()), (1, 0))


class QueueMachine(RuleBasedStateMachine):
    """Puts, drains and room in any order: the order is kept, nothing is lost, the cap holds."""

    CAP = 3

    def __init__(self) -> None:
        super().__init__()
        self.consumer = Consumer()
        self.producer = Producer()
        self.now = 0.0
        self.queue: BackpressureQueue[object] = BackpressureQueue(
            self.CAP, self.consumer.deliver, full=self.consumer.full, valve=Valve(self.producer),
            seconds=lambda: self.now,
        )  # fmt: skip
        self.taken: list[object] = []
        self.refused = 0
        self.closed_with: list[object] | None = None

    @rule()
    def put(self) -> None:
        item = len(self.taken) + self.refused
        try:
            self.queue.put(item)
        except QueueFull:
            self.refused += 1
            assert self.queue.depth == self.CAP and self.consumer.full()
        except Closed:
            assert self.closed_with is not None
        else:
            self.taken.append(item)

    @rule()
    def drain(self) -> None:
        try:
            self.queue.drain()
        except Closed:
            assert self.closed_with is not None
        else:
            assert not self.queue.depth or self.consumer.full()

    @rule(room=st.integers(0, 5))
    def make_room(self, room: int) -> None:
        self.consumer.room = room

    @rule(seconds=st.floats(0, 10))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.closed_with is None and len(self.taken) > 5)
    @rule()
    def close(self) -> None:
        self.queue.close()
        self.closed_with = self.consumer.got.copy()

    @invariant()
    def order_is_kept_and_nothing_lost(self) -> None:
        got = self.consumer.got
        assert got == self.taken[: len(got)]
        if self.closed_with is None:
            assert len(got) + self.queue.depth == len(self.taken)
        else:
            assert got == self.closed_with

    @invariant()
    def cap_is_held(self) -> None:
        assert 0 <= self.queue.depth <= self.CAP

    @invariant()
    def paused_exactly_while_something_waits(self) -> None:
        assert self.producer.paused == (self.queue.depth > 0)

    @invariant()
    def counters_are_right(self) -> None:
        counters = self.queue.counters
        assert (counters.depth, counters.refused) == (self.queue.depth, self.refused)
        assert counters.holds == self.producer.told.count("pause")
        assert counters.held_seconds + self.queue.held_for() <= self.now + 1e-6


QueueMachineTests = QueueMachine.TestCase
