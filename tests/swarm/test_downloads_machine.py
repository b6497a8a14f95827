"""
Peers that join, leave, choke, reject, send late, twice, in pieces and wrong, on any pool, with any order of
the disk's answers: nothing is counted wrong on the way, and with one honest seed it all comes to an end.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from irontide.metainfo.bitfield import Bitfield
from irontide.values import Chunk, Verdict
from irontide.wire import messages as m
from tests.swarm.fakes import KIB16, MIB, Remote, World

T = TypeVar("T")

SHAPES = [
    # total, piece length, pool
    (2 * KIB16 + 5, 2 * KIB16, MIB),
    (9 * KIB16 + 5, 4 * KIB16, MIB),
    (5 * MIB // 2 + 77, MIB // 2, MIB),
    (3 * MIB + 1, 3 * MIB + KIB16, MIB),  # one piece, three times the pool
    (7 * MIB, 2 * MIB + 3 * KIB16, 2 * MIB),
]


class Shuffled:
    """A storage that answers when told, in any order, having looked at the bytes at once or only then."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.jobs: list[Callable[[], None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    @property
    def pending(self) -> int:
        return len(self.jobs)

    def turn(self, which: int = 0) -> None:
        self.jobs.pop(which % len(self.jobs))()

    def _later(self, job: Callable[[], Deferred[T]]) -> Deferred[T]:
        told: Deferred[T] = Deferred()
        self.jobs.append(lambda: job().chainDeferred(told))
        return told

    def write(self, piece: int, chunks: list[Chunk], hasher: Any = None) -> Deferred[None]:
        return self._later(lambda: self._storage.write(piece, chunks, hasher))

    def verify_and_write(self, piece: int, chunks: list[Chunk], **named: Any) -> Deferred[Verdict]:
        before = [bytes(chunk.data) for chunk in chunks]

        def verify() -> Deferred[Verdict]:
            assert before == [bytes(chunk.data) for chunk in chunks], "a worker's bytes were changed"
            return self._storage.verify_and_write(piece, chunks, **named)

        return self._later(verify)


class Stranger:
    """A remote with a mind of its own."""

    def __init__(self, remote: Remote, *, liar: bool) -> None:
        self.remote = remote
        self.liar = liar
        self.seen: list[m.Request] = []  # every request that it may still answer, cancelled or not
        self.rest = b""  # of a frame that it has begun

    def listen(self) -> None:
        for message in self.remote.listen():
            if isinstance(message, m.Request):
                self.seen.append(message)

    def raw(self, data: bytes) -> None:
        if not self.remote.closed:
            self.remote.raw(data)

    def say(self, message: m.Message) -> None:
        if not self.rest:
            self.raw(message.to_bytes())


class Walk:
    """A world and its strangers, led by steps: what to do, who does it, and a number to do it with."""

    def __init__(self, shape: tuple[int, int, int], rate: float, seed: int) -> None:
        total, piece_length, pool = shape
        self.random = Random(seed)
        self.world = World(
            total=total,
            piece_length=piece_length,
            pool=pool,
            storage=Shuffled,
            sequential=False,
            random=self.random,
            download_rate=rate,
        )
        self.steps = 0
        self.strangers: list[Stranger] = []
        self.verbs = [getattr(self, name) for name, weight in VERBS.items() for _ in range(weight)]
        for _ in range(3):
            self.join(None, 0)

    def step(self, verb: int, who: int, number: int) -> None:
        alive = [stranger for stranger in self.strangers if not stranger.remote.closed]
        stranger = alive[who % len(alive)] if alive else None
        if stranger is not None:
            stranger.listen()
        self.steps += 1
        act = self.verbs[verb % len(self.verbs)]
        if stranger is not None or act in (self.join, self.disk, self.time):
            act(stranger, number)
        if self.world.layout.total < MIB or not self.steps % 8:  # counting many blocks takes its time
            self.check()

    # --- the verbs

    def join(self, _: Stranger | None, number: int) -> None:
        if len([stranger for stranger in self.strangers if not stranger.remote.closed]) > 6:
            return
        remote = self.world.join(f"10.0.0.{len(self.strangers)}", fast=bool(number & 1))
        stranger = Stranger(remote, liar=self.random.random() < 0.3)
        share = self.random.choice([0.5, 1, 1])
        bits = Bitfield(self.world.layout.pieces)
        for index in range(self.world.layout.pieces):
            if self.random.random() < share:
                bits.set(index)
        stranger.say(m.BitfieldMessage(bits.to_bytes()))
        stranger.say(m.Unchoke())
        self.strangers.append(stranger)

    def leave(self, stranger: Stranger, _: int) -> None:
        stranger.remote.leave()

    def choke(self, stranger: Stranger, _: int) -> None:
        stranger.say(m.Choke())
        if not stranger.remote.fast and self.random.random() < 0.5:
            stranger.seen.clear()

    def unchoke(self, stranger: Stranger, _: int) -> None:
        stranger.say(m.Unchoke())

    def have(self, stranger: Stranger, number: int) -> None:
        stranger.say(m.Have(number % self.world.layout.pieces))

    def allow(self, stranger: Stranger, number: int) -> None:
        if stranger.remote.fast:
            stranger.say(m.AllowedFast(number % self.world.layout.pieces))

    def lies(self, stranger: Stranger) -> bool:
        return stranger.liar and self.random.random() < 0.5

    def answer(self, stranger: Stranger, number: int) -> None:
        if stranger.rest:
            self.go_on(stranger, 1 << 20)
        if number & 1:
            self.random.shuffle(stranger.seen)
        now, stranger.seen = stranger.seen[:number], stranger.seen[number:]
        stranger.raw(b"".join(stranger.remote.frame(request, lie=self.lies(stranger)) for request in now))

    def begin_block(self, stranger: Stranger, number: int) -> None:
        """Of those asked for earliest: so others are likely to be at the same."""
        if not stranger.rest and stranger.seen:
            stranger.seen.sort(key=lambda request: (request.piece, request.begin))
            frame = stranger.remote.frame(stranger.seen.pop(0), lie=self.lies(stranger))
            at = 1 + number * 300 % (len(frame) - 1)
            stranger.rest = frame[at:]
            stranger.raw(frame[:at])

    def go_on(self, stranger: Stranger, number: int) -> None:
        count = number * 600
        part, stranger.rest = stranger.rest[:count], stranger.rest[count:]
        if part:
            stranger.raw(part)

    def reject(self, stranger: Stranger, number: int) -> None:
        if not stranger.remote.fast or stranger.rest:
            return
        for request in stranger.seen[:number]:
            stranger.say(m.RejectRequest(request.piece, request.begin, request.length))
        del stranger.seen[:number]

    def send_again(self, stranger: Stranger, number: int) -> None:
        """What was never requested, or was answered: the connection may end, nothing else."""
        if not stranger.rest and number == 7:
            stranger.raw(stranger.remote.frame(m.Request(0, 0, min(KIB16, self.world.layout.total))))

    def disk(self, _: Stranger | None, number: int) -> None:
        for _ in range(min(1 + number % 4, self.world.storage.pending)):
            self.world.storage.turn(number)

    def time(self, _: Stranger | None, number: int) -> None:
        self.world.pass_time((0.1, 1, 1, 6, 31)[number % 5])

    # --- what must be

    def check(self) -> None:
        world = self.world
        world.check()
        assert world.pool.in_use <= world.pool.capacity
        for index, mask in world.downloads.masks().items():
            self.check_on_disk(index, mask)

    def check_on_disk(self, index: int, mask: bytes) -> None:
        """What a mask claims was written by somebody: it is the truth, or a lie, but not nothing."""
        layout = self.world.layout
        for block in range(layout.blocks_in(index)):
            if mask[block >> 3] & (0x80 >> (block & 7)):
                at = index * layout.piece_length + block * KIB16
                end = min(at + KIB16, index * layout.piece_length + layout.piece_size(index))
                truth = self.world.data[at:end]
                lie = bytes(byte ^ 0xFF for byte in truth)
                assert self.world.disk.data[at:end] in (truth, lie), "a mask claims too much"

    def end(self) -> None:
        """One honest seed, and it comes to an end."""
        world = self.world
        seed = world.seed("10.1.0.1")
        for _ in range(600):
            seed.answer()
            while world.storage.pending:
                world.storage.turn(self.random.randrange(world.storage.pending))
            if world.complete:
                break
            world.pass_time(1)
            seed.say(m.KeepAlive())
            world.check()
        assert world.complete, "one honest seed is not enough"
        assert not world.pool.in_use
        honest = {stranger.remote.host for stranger in self.strangers if not stranger.liar} | {"10.1.0.1"}
        assert not honest & set(world.told.hosts), "an honest peer was banned"
        world.settle()


VERBS = {
    "answer": 8, "begin_block": 6, "go_on": 6, "disk": 4, "time": 3, "unchoke": 2, "join": 2, "choke": 1,
    "reject": 1, "leave": 1, "have": 1, "allow": 1, "send_again": 1,
}  # fmt: skip
STEPS = st.lists(
    st.tuples(st.integers(0, sum(VERBS.values()) - 1), st.integers(0, 6), st.integers(0, 31)),
    min_size=20,
    max_size=200,
)


class RandomWalkTests(SynchronousTestCase):
    @settings(max_examples=40, deadline=None)
    @given(st.sampled_from(SHAPES), st.sampled_from([0, 0, 40 * KIB16]), st.integers(0, 10**6), STEPS)
    def test_whatever_peers_do(
        self, shape: tuple[int, int, int], rate: float, seed: int, steps: list[tuple[int, int, int]]
    ) -> None:
        walk = Walk(shape, rate, seed)
        for step in steps:
            walk.step(*step)
        walk.end()

    def test_long_walks(self) -> None:
        for seed in range(10):
            random = Random(seed)
            walk = Walk(SHAPES[seed % len(SHAPES)], 0, seed)
            for _ in range(300):
                walk.step(random.randrange(100), random.randrange(7), random.randrange(32))
            walk.end()
