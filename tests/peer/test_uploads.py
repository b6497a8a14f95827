"""What goes out to one peer: adjacent blocks in one read, buffers released once, and whatever holds it up."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from irontide.errors import StorageError
from irontide.metainfo.layout import Block
from irontide.peer.peer import Peer
from irontide.peer.uploads import MAX_QUEUED, MAX_READ_AHEAD, Uploads
from irontide.values import PeerAddress
from irontide.wire.codec import piece_header
from irontide.wire.preamble import OUR_RESERVED, Preamble
from tests.fakes import HIGH_WATER, FakePeerTransport
from tests.storage.fakes import noise

KIB16 = 16384
DATA = noise(8 << 20)


class Buffer:
    """Counts itself."""

    def __init__(self, disk: FakeDisk, data: bytes) -> None:
        self.view = memoryview(data)
        self._disk = disk
        disk.out += 1

    def release(self) -> None:
        self._disk.out -= 1
        self.view = memoryview(b"")
        self.release = self._again  # type: ignore[method-assign]

    def _again(self) -> None:
        raise RuntimeError("released twice")


class FakeDisk:
    """
    Reads at once, later, never, or in vain.

    :ivar out: buffers that were not released.
    """

    def __init__(self) -> None:
        self.out = 0
        self.reads: list[tuple[int, int, int]] = []
        self.later: deque[tuple[Deferred[Any], Callable[[], Buffer]]] | None = None
        self.fired = False
        self.no_room = False
        self.waiting: list[Callable[[], None]] = []
        self.error: StorageError | None = None

    def read(self, piece: int, begin: int, length: int) -> Any:
        if self.no_room:
            return None
        self.reads.append((piece, begin, length))
        if self.error is not None:
            return fail(self.error)

        def made() -> Buffer:
            return Buffer(self, DATA[begin : begin + length])

        if self.later is None and not self.fired:
            return made()
        answer: Deferred[Buffer] = Deferred()
        if self.fired:
            answer.callback(made())
        elif self.later is not None:
            self.later.append((answer, made))
        return answer

    def turn(self) -> None:
        assert self.later is not None
        answer, made = self.later.popleft()
        answer.callback(made())

    def when_room(self, wake: Callable[[], None]) -> None:
        self.waiting.append(wake)

    def room(self) -> None:
        self.no_room = False
        waiting, self.waiting = self.waiting, []
        for wake in waiting:
            wake()


class UploadsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.storage = FakeDisk()
        self.allowance: int | None = None
        self.asked: list[tuple[int, Callable[[], None]]] = []
        self.failures: list[Failure] = []
        self.counted = 0
        self.transport = FakePeerTransport(drains=True)
        self.peer = Peer(
            self,
            PeerAddress("10.0.0.1", 1),
            Preamble(OUR_RESERVED, bytes(20)),
            bytes(20),
            incoming=True,
            now=0.0,
        )
        self.uploads = Uploads(self.peer, self)

    # --- the connection of the peer, and the source of its uploads

    def revoke_claim(self) -> None:
        """Nothing is received."""

    def drop(self, reason: str) -> None:
        self.transport.abortConnection()

    def may_send(self, length: int, wake: Callable[[], None]) -> bool:
        if self.allowance is None:
            return True
        if self.allowance >= length:
            self.allowance -= length
            return True
        self.asked.append((length, wake))
        return False

    def when_room(self, wake: Callable[[], None]) -> None:
        self.storage.when_room(wake)

    def read_failed(self, failure: Failure) -> None:
        self.failures.append(failure)

    def sent(self, peer: Peer, length: int) -> None:
        self.counted += length

    # --- helpers

    def add(self, *blocks: int, piece: int = 0) -> None:
        for block in blocks:
            self.assertTrue(self.uploads.add(Block(piece, block * KIB16, KIB16)))

    def stream(self, *blocks: int, piece: int = 0) -> bytes:
        """The bytes that carry these."""
        return b"".join(
            piece_header(piece, block * KIB16, KIB16) + DATA[block * KIB16 : (block + 1) * KIB16]
            for block in blocks
        )

    # --- tests

    def test_is_a_producer(self) -> None:
        self.assertTrue(verifyObject(IPushProducer, self.uploads))
        self.assertIs(self.transport.producer, self.uploads)

    def test_a_block_is_a_header_and_a_slice(self) -> None:
        self.add(3)
        self.uploads.pump()
        self.assertEqual(self.transport.value(), self.stream(3))
        (vector,) = self.transport.vectors
        self.assertEqual(vector[0], piece_header(0, 3 * KIB16, KIB16))
        self.assertIsInstance(vector[1], memoryview)
        self.assertEqual((self.storage.out, self.counted), (0, KIB16))

    def test_adjacent_blocks_are_one_read_and_one_write(self) -> None:
        self.peer.upload_rate = 2 * 5 * KIB16
        self.add(0, 1, 2, 3, 4, 5)
        self.uploads.pump()
        self.assertEqual(self.storage.reads, [(0, 0, 5 * KIB16), (0, 5 * KIB16, KIB16)])
        self.assertEqual([len(vector) for vector in self.transport.vectors], [10, 2])
        self.assertEqual(self.transport.value(), self.stream(0, 1, 2, 3, 4, 5))

    def test_what_is_not_adjacent_is_read_apart_and_in_order(self) -> None:
        self.peer.upload_rate = 1e9
        self.add(0, 1, 3, 2)
        self.add(3, piece=1)
        self.uploads.pump()
        self.assertEqual(
            self.storage.reads,
            [(0, 0, 2 * KIB16), (0, 3 * KIB16, KIB16), (0, 2 * KIB16, KIB16), (1, 3 * KIB16, KIB16)],
        )

    def test_the_read_ahead_is_bounded(self) -> None:
        self.peer.upload_rate = 1e12
        self.add(*range(100))
        self.uploads.pump()
        self.assertEqual(self.storage.reads[0], (0, 0, MAX_READ_AHEAD))
        self.peer.upload_rate = 0
        self.add(*range(3))
        self.uploads.pump()
        self.assertEqual(self.storage.reads[-1], (0, 2 * KIB16, KIB16))

    def test_a_long_request_is_read_whole(self) -> None:
        self.uploads.add(Block(0, 0, 8 * KIB16))
        self.uploads.pump()
        self.assertEqual(self.storage.reads, [(0, 0, 8 * KIB16)])

    def test_the_queue_is_bounded(self) -> None:
        self.uploads.pauseProducing()
        self.add(*range(MAX_QUEUED))
        self.assertFalse(self.uploads.add(Block(0, 0, KIB16)))

    def test_cancelled_blocks_are_not_sent(self) -> None:
        self.uploads.pauseProducing()
        self.add(0, 1, 2)
        self.assertTrue(self.uploads.cancel(Block(0, KIB16, KIB16)))
        self.assertFalse(self.uploads.cancel(Block(0, KIB16, KIB16)))
        self.uploads.resumeProducing()
        self.assertEqual(self.transport.value(), self.stream(0, 2))

    def test_clear_keeps_what_is_allowed_fast(self) -> None:
        self.uploads.pauseProducing()
        self.add(0)
        self.add(0, 1, piece=5)
        self.assertEqual(self.uploads.clear(frozenset({5})), [Block(0, 0, KIB16)])
        self.assertEqual(list(self.uploads.queue), [Block(5, 0, KIB16), Block(5, KIB16, KIB16)])
        self.assertEqual(len(self.uploads.clear()), 2)

    # --- the transport

    def test_paused_by_the_transport_above_its_mark(self) -> None:
        self.transport.drains = False
        self.add(*range(100))
        self.uploads.pump()
        queued = self.transport.queued
        self.assertGreater(queued, HIGH_WATER)
        self.assertLess(queued, HIGH_WATER + 2 * KIB16)
        self.assertGreater(self.storage.out, 30)
        self.transport.drain(queued // 4)
        self.assertLess(self.transport.queued, queued)
        while self.transport.queued:
            self.transport.drain()
        self.assertEqual(self.transport.value(), self.stream(*range(100)))
        self.assertEqual(self.storage.out, 0)

    def test_buffers_come_back_when_the_connection_is_lost(self) -> None:
        for end in (self.transport.abortConnection, self.transport.lose):
            self.setUp()
            self.transport.drains = False
            self.add(*range(10))
            self.uploads.pump()
            self.assertEqual(self.storage.out, 10)
            getattr(self.transport, end.__name__)()
            self.assertEqual(self.storage.out, 0)
            self.assertFalse(self.uploads.queue)

    def test_writing_to_a_lost_connection_gives_the_buffer_back(self) -> None:
        self.transport.loses = False
        self.transport.abortConnection()
        self.add(0)
        self.uploads.pump()
        self.assertEqual(self.storage.out, 0)

    # --- the disk

    def test_a_read_that_takes_its_time(self) -> None:
        self.storage.later = deque()
        self.add(0, 2)
        self.uploads.pump()
        self.uploads.pump()
        self.assertEqual(len(self.storage.reads), 1, "one at a time")
        self.storage.turn()
        self.storage.turn()
        self.assertEqual(self.transport.value(), self.stream(0, 2))

    def test_closed_during_a_read(self) -> None:
        self.storage.later = deque()
        self.add(0, 2)
        self.uploads.pump()
        self.uploads.close()
        self.storage.turn()
        self.assertEqual((self.storage.out, self.transport.value()), (0, b""))
        self.assertEqual(len(self.storage.reads), 1)

    def test_lost_during_a_read(self) -> None:
        self.storage.later = deque()
        self.add(0)
        self.uploads.pump()
        self.transport.lose()
        self.storage.turn()
        self.assertEqual(self.storage.out, 0)

    def test_cleared_during_a_read(self) -> None:
        """What was read already is sent: each request is answered or rejected, never both."""
        self.storage.later = deque()
        self.add(0, 2)
        self.uploads.pump()
        self.assertEqual(self.uploads.clear(), [Block(0, 2 * KIB16, KIB16)])
        self.storage.turn()
        self.assertEqual(self.transport.value(), self.stream(0))

    def test_many_reads_that_are_done_at_once_need_no_deep_stack(self) -> None:
        self.storage.fired = True
        self.add(*range(0, 2 * MAX_QUEUED, 2))
        self.uploads.pump()
        self.assertEqual((len(self.storage.reads), self.storage.out), (MAX_QUEUED, 0))

    def test_a_disk_that_refuses_is_told_once(self) -> None:
        self.storage.error = StorageError("gone", errno.EIO)
        self.add(0, 2, 4)
        self.uploads.pump()
        self.uploads.pump()
        self.assertEqual([failure.value for failure in self.failures], [self.storage.error])

    def test_a_refusal_after_the_end_is_nobodys_business(self) -> None:
        self.storage.later = deque()
        self.add(0)
        self.uploads.pump()
        self.uploads.close()
        self.storage.later[0][0].errback(StorageError("closed"))
        self.assertEqual(self.failures, [])

    def test_without_memory_it_waits_and_goes_on(self) -> None:
        self.storage.no_room = True
        self.add(0, 1)
        self.uploads.pump()
        self.uploads.pump()
        self.assertEqual((len(self.storage.waiting), self.transport.value()), (1, b""))
        self.storage.room()
        self.assertEqual(self.transport.value(), self.stream(0, 1))

    # --- the limits

    def test_what_the_limits_owe_is_not_asked_for_again(self) -> None:
        self.allowance = KIB16
        self.add(0, 1)
        self.uploads.pump()
        self.uploads.pump()
        self.assertEqual(self.transport.value(), self.stream(0))
        ((length, wake),) = self.asked
        self.assertEqual(length, KIB16)
        wake()
        self.assertEqual(self.transport.value(), self.stream(0, 1))
        self.assertEqual(len(self.asked), 1)

    def test_waiting_for_memory_costs_the_limits_nothing(self) -> None:
        self.allowance = KIB16
        self.storage.no_room = True
        self.add(0)
        self.uploads.pump()
        self.storage.waiting.pop()()
        self.storage.waiting.pop()()
        self.storage.room()
        self.assertEqual(self.transport.value(), self.stream(0))
        self.assertEqual(self.allowance, 0)

    def test_what_was_allowed_for_a_cancelled_block_is_for_the_next(self) -> None:
        self.allowance = 0
        self.add(0)
        self.uploads.pump()
        self.uploads.cancel(Block(0, 0, KIB16))
        self.asked.pop()[1]()
        self.add(1)
        self.uploads.pump()
        self.assertEqual(self.transport.value(), self.stream(1))

    def test_allowed_after_the_end(self) -> None:
        self.allowance = 0
        self.add(0)
        self.uploads.pump()
        self.uploads.close()
        self.asked.pop()[1]()
        self.assertEqual(self.transport.value(), b"")
