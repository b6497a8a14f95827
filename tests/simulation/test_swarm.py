"""Whole swarms on one Clock, without a socket: they finish, byte for byte, whatever happens to them."""

from __future__ import annotations

import os
from hashlib import sha1
from random import Random

from hypothesis import given, settings, strategies
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from irontide.metainfo.create import build
from irontide.metainfo.torrent_file import TorrentFile
from tests.simulation.network import Network
from tests.simulation.node import Node

SEEDS = 300 if os.environ.get("IRONTIDE_FULL") else 6
KIB = 1024


def torrent(data: bytes, piece_length: int) -> TorrentFile:
    """A torrent of one file."""
    hashes = b"".join(sha1(data[at : at + piece_length]).digest() for at in range(0, len(data), piece_length))
    return TorrentFile.from_bytes(build("file", [(("file",), len(data))], piece_length, hashes))


class World:
    """A network, a seed and some leechers."""

    def __init__(
        self, seed: int, *, leechers: int, length: int, piece_length: int, lifetime: float | None = None,
        disk_seconds: float = 0.0, rate: float = 1 << 20, pool: int = 8 << 20, liars: int = 0,
    ) -> None:  # fmt: skip
        self.random = Random(seed)
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.data = self.random.randbytes(length)
        self.network = Network(self.clock, self.random, latency=0.03, jitter=0.1, mean_lifetime=lifetime)
        self.file = torrent(self.data, piece_length)
        self.seed = self.node("10.0.0.1", rate, data=self.data, disk_seconds=disk_seconds)
        self.liars = [
            self.node(f"10.0.2.{n + 1}", rate, data=self.data, disk_seconds=disk_seconds, lies=0.05)
            for n in range(liars)
        ]
        self.leechers = [
            self.node(f"10.0.1.{n + 1}", rate, disk_seconds=disk_seconds, pool=pool) for n in range(leechers)
        ]
        self.all = [self.seed, *self.liars, *self.leechers]

    def node(self, address: str, rate: float, **how: object) -> Node:
        host = self.network.host(address, up=rate, down=4 * rate)
        return Node(host, self.file, self.random, **how)  # type: ignore[arg-type]

    def introduce(self) -> None:
        """Everybody learns of everybody."""
        self.network.run_until(
            lambda: all(node.torrent.phase.name == "running" for node in self.all), seconds=60
        )
        for node in self.all:
            node.meets([other.address for other in self.all])

    def finish(self, seconds: float) -> float:
        return self.network.run_until(lambda: all(node.complete for node in self.leechers), seconds=seconds)

    def close(self) -> None:
        for node in self.all:
            node.stop()
        self.network.run_until(
            lambda: all(node.torrent.phase.name == "stopped" for node in self.all), seconds=60
        )
        self.clock.advance(120)


class SwarmTests(SynchronousTestCase):
    def finish(self, world: World, seconds: float) -> None:
        world.introduce()
        world.finish(seconds)
        for leecher in world.leechers:
            self.assertEqual(bytes(leecher.disk.data), world.data)
        world.close()
        for node in world.all:
            self.assertEqual(node.pool.in_use, 0)
            self.assertEqual(node.slots.used, 0)
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_one_seed_one_leecher(self) -> None:
        self.finish(World(1, leechers=1, length=500 * KIB + 1, piece_length=64 * KIB), 60)

    def test_pieces_larger_than_the_pool(self) -> None:
        """A piece of 4 MiB is downloaded in 2 MiB of memory."""
        self.finish(
            World(2, leechers=2, length=9 << 20, piece_length=4 << 20, pool=2 << 20, rate=4 << 20), 300
        )

    def test_a_swarm_always_finishes(self) -> None:
        """1 seed, 10 leechers, latency, lost connections, a slow disk: for every seed of the dice."""

        @settings(max_examples=SEEDS, deadline=None, derandomize=True)
        @given(strategies.integers(0, 2**32), strategies.sampled_from([16, 64, 256]))
        def run(seed: int, piece: int) -> None:
            self.finish(
                World(
                    seed,
                    leechers=10,
                    length=1 << 20,
                    piece_length=piece * KIB,
                    lifetime=40.0,
                    disk_seconds=2.0,
                ),
                1800,
            )

        run()

    def test_a_liar_is_banned_and_nobody_else(self) -> None:
        """One of the two seeds sends wrong blocks: everybody finishes, and only it is banned."""

        @settings(max_examples=SEEDS, deadline=None, derandomize=True)
        @given(strategies.integers(0, 2**32))
        def run(seed: int) -> None:
            world = World(seed, leechers=3, length=3 << 20, piece_length=64 * KIB, liars=1)
            world.introduce()
            world.finish(1200)
            liar = world.liars[0].host.address
            for leecher in world.leechers:
                self.assertEqual(bytes(leecher.disk.data), world.data)
                banned = {n.host.address for n in world.all if leecher.running.book.banned(n.host.address)}
                self.assertLessEqual(banned, {liar})
            world.close()

        run()
