"""The queue of each tracker host."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import FetchError, TrackerError
from irontide.tracker.hosts import (
    BURST,
    FIRST_BACKOFF,
    IN_ALL,
    LONGEST_BACKOFF,
    PER_HOST,
    SPACING,
    HostLeftAlone,
    HostQueues,
    Priority,
    blames_host,
)

REGULAR, STARTED, USER = Priority.REGULAR, Priority.STARTED, Priority.USER


class HostQueuesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.queues: HostQueues[str] = HostQueues(Random(1))

    def put(self, *requests: str, host: str = "h", priority: Priority = REGULAR) -> None:
        for request in requests:
            self.queues.put(host, request, priority)

    def taken(self, now: float = 0.0) -> list[str]:
        return list(iter(lambda: self.queues.take(now), None))

    def test_first_come_first_served(self) -> None:
        self.put("z", "a")
        self.assertEqual(self.taken(), ["z", "a"])

    def test_few_at_once(self) -> None:
        self.put("a", "b", "c")
        self.assertEqual(self.taken(), ["a", "b"])
        self.assertIsNone(self.queues.next_time())
        self.queues.answered("a")
        self.assertEqual(self.taken(), ["c"])

    def test_hosts_do_not_wait_for_each_other(self) -> None:
        self.put("a", "b", "c", host="one")
        self.put("x", host="two")
        self.assertEqual(sorted(self.taken()), ["a", "b", "x"])

    def test_bounded_in_all(self) -> None:
        for n in range(IN_ALL + 5):
            self.put(f"r{n}", host=f"h{n}")
        self.assertEqual(len(self.taken()), IN_ALL)
        self.assertIsNone(self.queues.next_time())
        self.queues.withdraw("r0")
        self.assertEqual(self.taken(), [f"r{IN_ALL}"])

    def test_users_first(self) -> None:
        self.put("regular")
        self.put("started", priority=STARTED)
        self.put("user", priority=USER)
        order = []
        while request := self.queues.take(0.0):
            order.append(request)
            self.queues.answered(request)
        self.assertEqual(order, ["user", "started", "regular"])

    def test_bounded_rate(self) -> None:
        """After a burst, one each SPACING."""
        self.put(*(f"r{n}" for n in range(100)))
        times = []
        now = 0.0
        while len(times) < 100:
            while request := self.queues.take(now):
                times.append(now)
                self.queues.answered(request)
            now = self.queues.next_time() or now
        self.assertEqual(times[:BURST], [0.0] * BURST)
        self.assertAlmostEqual(times[-1], (100 - BURST) * SPACING)

    def test_no_spacing_for_goodbyes(self) -> None:
        self.queues.spacing = 0.0
        self.put(*(f"r{n}" for n in range(100)))
        for n in range(100):
            self.assertEqual(self.queues.take(0.0), f"r{n}")
            self.queues.answered(f"r{n}")

    def test_failing_host_is_left_alone(self) -> None:
        self.put("a", "b", "c", "d")
        self.taken()
        self.assertEqual(self.queues.failed("a", 5.0), ["c", "d"])
        until = self.queues.blocked_until("h")
        self.assertTrue(0.8 * FIRST_BACKOFF <= until - 5.0 <= 1.2 * FIRST_BACKOFF)
        self.put("e")
        self.assertEqual(self.taken(until - 0.1), [])
        self.assertEqual(self.queues.next_time(), until)
        self.assertEqual(self.taken(until), ["e"])

    def test_backoff_grows_to_a_limit_and_ends_with_an_answer(self) -> None:
        now, waits = 0.0, []
        for n in range(12):
            self.put(f"r{n}")
            self.assertEqual(self.taken(now), [f"r{n}"])
            self.queues.failed(f"r{n}", now)
            waits.append(self.queues.blocked_until("h") - now)
            now += waits[-1]
        for n in range(6):
            self.assertApproximates(waits[n] / (FIRST_BACKOFF * 2**n), 1.0, 0.2)
        self.assertLessEqual(max(waits), 1.2 * LONGEST_BACKOFF)
        self.put("good", "next")
        self.taken(now)
        self.queues.answered("good")
        self.queues.failed("next", now + 1)
        self.assertLess(self.queues.blocked_until("h") - now, 1.3 * FIRST_BACKOFF)

    def test_what_fails_together_counts_once(self) -> None:
        self.put("a", "b")
        self.taken(0.0)
        self.queues.failed("a", 5.0)
        until = self.queues.blocked_until("h")
        self.queues.failed("b", 5.1)
        self.assertEqual(self.queues.blocked_until("h"), until)

    def test_another_host_is_not_blamed(self) -> None:
        self.put("a", host="bad")
        self.put("x", "y", "z", host="good")
        self.taken()
        self.assertEqual(self.queues.failed("a", 1.0), [])
        self.assertLess(self.queues.blocked_until("good"), 0)

    def test_forgiven(self) -> None:
        self.put("a")
        self.taken()
        self.queues.failed("a", 1.0)
        self.put("b")
        self.queues.forgive("h")
        self.assertEqual(self.taken(1.0), ["b"])
        self.queues.failed("b", 1.0)
        self.assertGreater(self.queues.blocked_until("h"), 1.0 + 1.5 * FIRST_BACKOFF)
        self.queues.forgive("never heard of")

    def test_withdrawn(self) -> None:
        """From the front, from the middle, under way, and what was never there."""
        self.put("a", "b", "c", "d", "e")
        self.assertEqual(self.taken(), ["a", "b"])
        for request in "cdax":
            self.queues.withdraw(request)
        self.assertEqual(self.taken(), ["e"])
        for request in "be":
            self.queues.withdraw(request)
        self.assertEqual(len(self.queues), 0)
        self.assertEqual(self.queues._hosts, {})

    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=80), st.randoms())
    def test_never_too_many(self, steps: list[tuple[int, int]], random: Random) -> None:
        """Whatever happens in whatever order, the bounds hold and nothing is lost."""
        queues: HostQueues[int] = HostQueues(Random(1), in_all=4)
        under_way: dict[int, str] = {}
        waiting: set[int] = set()
        now = 0.0
        for number, (action, host) in enumerate(steps):
            now += random.choice((0.0, 0.05, 20.0))
            if action <= 1:
                queues.put(f"h{host}", number, Priority(host))
                waiting.add(number)
            elif under_way and action <= 4:
                request = random.choice(list(under_way))
                del under_way[request]
                if action == 2:
                    queues.answered(request)
                elif action == 3:
                    waiting -= set(queues.failed(request, now))
                else:
                    queues.withdraw(request)
            elif waiting:
                request = random.choice(list(waiting))
                waiting.remove(request)
                queues.withdraw(request)
            while (request := queues.take(now)) is not None:
                waiting.remove(request)
                under_way[request] = f"h{steps[request][1]}"
            hosts = list(under_way.values())
            self.assertTrue(len(hosts) <= 4 and all(hosts.count(host) <= PER_HOST for host in hosts))
            self.assertEqual(len(queues), len(waiting) + len(under_way))
        for _ in range(10 * len(steps)):
            for request in list(under_way):
                del under_way[request]
                queues.answered(request)
            now = max(now, queues.next_time() or now)
            while (request := queues.take(now)) is not None:
                waiting.remove(request)
                under_way[request] = ""
        self.assertEqual((waiting, len(queues)), (set(), 0))


class BlameTests(SynchronousTestCase):
    def test_whose_fault(self) -> None:
        for error, host in [
            (FetchError("connection refused"), True),
            (FetchError("HTTP status 500", 500), True),
            (FetchError("HTTP status 429", 429), True),
            (FetchError("HTTP status 404", 404), False),
            (TrackerError("garbage"), False),
            (HostLeftAlone("not now"), True),
        ]:
            self.assertEqual(blames_host(error), host, error)
