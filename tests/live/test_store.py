"""
The store in a process of its own, killed at random moments and on a disk that is full.

What was acknowledged is there afterwards; what was refused is not.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from irontide.session.state_directory import StateDirectory
from irontide.values import StoredTorrent
from tests.conftest import FULL

KILLS = 100 if FULL else 8

ADDER = """
import resource, sys
from hashlib import sha1
from twisted.internet import reactor, task
from irontide.errors import StoreError
from irontide.values import Progress, StoredTorrent
from irontide.session.store import SQLiteStore

directory, first, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

async def main():
    store = await SQLiteStore.open(reactor, directory)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    for number in range(first, first + 10000):
        infohash = sha1(b"%d" % number).digest()
        torrent = StoredTorrent(infohash, b"x" * 5000, "/d", float(number), {})
        try:
            await store.add(torrent)
        except StoreError as error:
            print("refused", number, flush=True)
            break
        print("added", number, flush=True)
        await store.commit([Progress(infohash, b"%d" % number, {}, {}, frozenset(), "boot")])
        print("committed", number, flush=True)
    await store.close(clean=True)

from twisted.internet.defer import ensureDeferred
task.react(lambda reactor: ensureDeferred(main()))
"""


def adder(state: Path, first: int = 0, limit: int = 0) -> subprocess.Popen[str]:
    """Start to add torrents, a line of output for each answer of the store."""
    return subprocess.Popen(
        [sys.executable, "-c", ADDER, str(state), str(first), str(limit)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check(state: Path, lines: Sequence[str]) -> list[StoredTorrent]:
    """Hold the store to what it has answered; return its torrents."""
    store = StateDirectory(str(state))
    try:
        torrents = store.torrents()
        assert store.repairs == []
        kept = {int(torrent.added): torrent.infohash for torrent in torrents}
        for line in lines:
            verb, number = line.split()
            assert (int(number) in kept) == (verb != "refused"), line
            if verb == "committed":
                progress = store.progress(kept[int(number)])
                assert progress is not None and progress.bits == number.encode()
        return torrents
    finally:
        store.close(clean=False)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Durability 1 and 2."""
    rng = random.Random(7)
    state, lines = tmp_path / "state", list[str]()
    for _ in range(KILLS):
        child = adder(state, first=len(lines))
        assert child.stdout is not None
        lines.append(child.stdout.readline().strip())
        time.sleep(rng.uniform(0, 0.3))
        child.kill()
        rest, _ = child.communicate()
        # A line that the kill has cut in two says nothing.
        lines += [line for line in rest.split("\n")[:-1] if line]
        check(state, lines)
    assert len(lines) > KILLS


def test_disk_that_is_full(tmp_path: Path) -> None:
    """Durability 7: the add is refused, and what was acknowledged before is whole."""
    state = tmp_path / "state"
    out, errors = adder(state, limit=300_000).communicate(timeout=60)
    lines = out.split("\n")[:-1]
    assert lines[-1].startswith("refused"), (lines[-3:], errors)
    assert len(lines) > 10
    torrents = check(state, lines)
    out, errors = adder(state, first=len(torrents) + 1, limit=10_000_000).communicate(timeout=60)
    check(state, lines + out.split("\n")[:-1])
    assert out.startswith("added"), errors
