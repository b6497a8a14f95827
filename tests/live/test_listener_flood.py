"""
Strangers in numbers: a real listener under loads that come from other processes.

In CI with reduced numbers; IRONTIDE_FULL=1 runs 10,000 silent connections and 2,000 handshakes a second.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from irontide.interfaces import IConnectionRouter, ISlot
from irontide.transport.identify import PeerFactory
from irontide.transport.listen import Listener
from irontide.transport.slots import Refusal, Slots
from irontide.values import PeerAddress
from irontide.wire.preamble import Preamble
from tests.conftest import FULL

SILENT = 10_000 if FULL else 1500
RATE = 2000 if FULL else 400
SECONDS = 10 if FULL else 2
CAP = 500
FLOOD = Path(__file__).with_name("flood.py")

Result = dict[str, float]


class Answers(Protocol):
    """Answers the handshake; after that it is quiet."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


@implementer(IConnectionRouter)
class KnowsOne:
    """Serves one torrent, and keeps an eye on the cap."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.served = 0
        self.most = 0

    def route(self, preamble: Preamble, address: PeerAddress, slot: ISlot) -> Answers | None:
        self.served += 1
        self.most = max(self.most, self.slots.used)
        return Answers() if preamble.infohash == b"k" * 20 else None


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def load(*arguments: object) -> Deferred[Result]:
    """Run flood.py beside us; fires with what it reports."""

    def run() -> Result:
        command = [sys.executable, str(FLOOD), *map(str, arguments)]
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=120, check=True)
        result: Result = json.loads(done.stdout)
        return result

    return deferToThread(run)


class Site:
    """A listener, and how many descriptors it had open at the most."""

    def __init__(self) -> None:
        self.slots = Slots(CAP)
        self.router = KnowsOne(self.slots)
        self.listener = Listener(reactor, PeerFactory(self.router, self.slots, reactor, lambda host: False))
        self.most_descriptors = 0

    def look(self) -> None:
        self.most_descriptors = max(self.most_descriptors, descriptors() - self.before)

    @property
    def port(self) -> int:
        assert self.listener.port is not None
        return self.listener.port


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    """A site that, in the end, has to leave nothing behind: no slot, no descriptor, no timed call."""
    await deferToThread(int)  # the reactor's threads have descriptors of their own
    made = Site()
    made.before = descriptors()
    calls = set(reactor.getDelayedCalls())
    await made.listener.listen(["127.0.0.1"], 0)
    watch = LoopingCall(made.look)
    watching = watch.start(0.01)
    try:
        yield made
    finally:
        watch.stop()
        await watching
        waited = 0.0
        while made.slots.used and waited < 2.0:
            await deferLater(reactor, 0.05)
            waited += 0.05
        await made.listener.stop()
    assert made.slots.used == 0
    assert abs(descriptors() - made.before) <= 5
    assert not set(reactor.getDelayedCalls()) - calls


@pytest_twisted.ensureDeferred
async def test_silent_strangers_do_not_shut_an_honest_peer_out():
    """
    All of the silent are closed within 6 s; meanwhile each honest peer is served within 1 s.

    One that the flood pushed out between its connect() and its first byte tries again in that time.
    """
    async with site() as here:
        honest = load("handshakes", here.port, 20, 7, 0.05, 3)
        silent = load("silent", here.port, SILENT)
        silent_result, honest_result = await gatherResults([silent, honest], consumeErrors=True)
        assert silent_result["made"] == silent_result["closed"] == SILENT
        assert silent_result["longest"] < 6.0
        assert honest_result["answered"] == honest_result["made"] == 140
        assert honest_result["longest"] < 1.0
        assert here.most_descriptors <= CAP + 20
        assert here.slots.refusals.keys() <= {Refusal.CROWDED, Refusal.TIMEOUT}
        assert SILENT <= here.slots.refusals.total() <= SILENT + 7


@pytest_twisted.ensureDeferred
async def test_good_handshakes_at_a_high_rate():
    """2,000 a second (in CI fewer), each answered, the cap never exceeded."""
    async with site() as here:
        result = await load("handshakes", here.port, RATE, SECONDS, 0.01, 1)
        assert result["answered"] == result["made"] == RATE * SECONDS
        assert result["took"] < SECONDS * 1.1 + 0.5
        assert here.router.most <= CAP
        assert not here.slots.refusals


@pytest_twisted.ensureDeferred
async def test_more_good_peers_than_the_cap():
    """Those that are held are exactly the cap, and everybody else is refused, and counted."""
    async with site() as here:
        here.slots.set_limit(50)
        result = await load("handshakes", here.port, RATE, 1, 5.0, 1)
        assert here.router.most == 50
        assert here.most_descriptors <= 50 + 20
        assert result["answered"] == 50
        assert result["refused"] == RATE - 50
        assert here.slots.refusals.total() == RATE - 50
