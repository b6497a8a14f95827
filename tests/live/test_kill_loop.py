"""
kill -9 at random moments of a download, again and again.

After each: no wrong byte, the torrent still there, every piece that was verified more than a second (or
32 MiB) before is committed; in the next run nothing committed is fetched again.  In the end it completes.
"""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest_twisted
from twisted.internet.threads import deferToThread

from tests.conftest import FULL
from tests.live.clients import Irontide, wait_until
from tests.live.conftest import Start
from tests.live.scripted_seed import ScriptedSeed, Sent
from tests.live.state import Committed, committed, wrong_pieces
from tests.live.torrents import KiB, Made, MiB, single

KILLS = 200 if FULL else 8
RATE = 4 * MiB
COMMIT_AFTER = 1.0 + 1.5
"""A commit comes at the latest 1 s after a piece; syncing and a busy machine get the rest."""
LOSABLE = 32 * MiB
SPILL_AFTER = 30.0 + 5.0


def lost_blocks(seed: ScriptedSeed, kept: Committed, before: float, first: int) -> list[Sent]:
    """Return the blocks, sent from number ``first`` on and before a time, that are not committed."""
    return [
        sent for sent in seed.sent[first:] if sent.time < before and not kept.covers(sent.piece, sent.begin)
    ]


@pytest_twisted.ensureDeferred
async def test_kill_loop(start: Start, tmp_path: Path) -> None:
    rng = random.Random(5)
    size = (1024 if FULL else 48) * MiB
    torrent = single(tmp_path / "made", size=size + 1, piece_length=256 * KiB)
    target = start(Irontide)
    kept = Committed(frozenset(), frozenset(), False)
    kills = 0
    with ScriptedSeed(torrent, rate=RATE) as seed:
        while kills < KILLS:
            fetched, told = len(seed.sent), len(seed.verified)
            target.download(torrent.torrent, tmp_path / "got", [seed.address])
            await deferToThread(time.sleep, rng.uniform(0.2, 3.0))
            if target.process.status is not None:
                break  # done before we got to it
            target.process.signal(signal.SIGKILL)
            killed_at = time.monotonic()
            target.process.wait()
            kills += 1
            again = [each for each in seed.sent[fetched:] if kept.covers(each.piece, each.begin)]
            assert again == [], "a committed block was fetched again"
            kept = await _check(target, torrent, tmp_path, kept)
            _assert_little_lost(seed, torrent, kept, killed_at, told)
        fetched = len(seed.sent)
        target.download(torrent.torrent, tmp_path / "got", [seed.address])
        await deferToThread(target.wait_complete, 600)
        again = [each for each in seed.sent[fetched:] if kept.covers(each.piece, each.begin)]
        assert again == []
    assert kills >= KILLS // 2
    assert (tmp_path / "got" / torrent.name).read_bytes() == torrent.content.read_bytes()


async def _check(target: Irontide, torrent: Made, tmp_path: Path, before: Committed) -> Committed:
    """Look at what is left after a kill."""
    folders = list(target.state.iterdir()) if target.state.is_dir() else []
    if not folders:
        assert not before.pieces, "the state has gone"
        return before
    kept = await committed(folders[0], tmp_path / "copy")
    if kept is None:
        assert not before.pieces, "the torrent has gone"
        return before
    assert before.pieces <= kept.pieces, "a committed piece was forgotten"
    assert wrong_pieces(torrent, tmp_path / "got", kept.pieces) == []
    return kept


def _assert_little_lost(
    seed: ScriptedSeed, torrent: Made, kept: Committed, killed_at: float, told: int
) -> None:
    """Verified pieces of the last second or 32 MiB may be lost, and blocks of the last 30 s."""
    lost = [(piece, at) for piece, at in seed.verified[told:] if piece not in kept.pieces]
    old = [(piece, killed_at - at) for piece, at in lost if killed_at - at > COMMIT_AFTER]
    assert old == [], "verified long ago, and not committed"
    assert len(lost) * torrent.piece_length <= LOSABLE + torrent.piece_length


@pytest_twisted.ensureDeferred
async def test_clean_stop_loses_nothing(start: Start, tmp_path: Path) -> None:
    """Neither a piece, nor a block of an unfinished piece that had arrived."""
    torrent = single(tmp_path / "made", size=24 * MiB + 1, piece_length=4 * MiB)
    target = start(Irontide)
    with ScriptedSeed(torrent, rate=RATE) as seed:
        target.download(torrent.torrent, tmp_path / "got", [seed.address])
        wait_until(lambda: len(seed.sent) > 600, "a part of it")
        stopped_at = time.monotonic()
        target.process.signal(signal.SIGINT)
        assert target.process.wait(15) == 130, target.process.tail()
        (folder,) = target.state.iterdir()
        kept = await committed(folder, tmp_path / "copy")
        assert kept is not None and kept.clean
        assert wrong_pieces(torrent, tmp_path / "got", kept.pieces) == []
        assert {piece for piece, _ in seed.verified} <= kept.pieces
        assert lost_blocks(seed, kept, stopped_at - 0.3, 0) == []
        fetched = len(seed.sent)
        target.download(torrent.torrent, tmp_path / "got", [seed.address])
        await deferToThread(target.wait_complete)
        assert [each for each in seed.sent[fetched:] if kept.covers(each.piece, each.begin)] == []
    assert (tmp_path / "got" / torrent.name).read_bytes() == torrent.content.read_bytes()


@pytest_twisted.ensureDeferred
async def test_blocks_of_unfinished_pieces_are_kept_after_30_s(start: Start, tmp_path: Path) -> None:
    """At a trickle no piece is ever finished; kill -9 costs the blocks of the last 30 s, no more."""
    torrent = single(tmp_path / "made", size=64 * MiB, piece_length=16 * MiB)
    target = start(Irontide)
    with ScriptedSeed(torrent, rate=128 * KiB) as seed:
        target.download(torrent.torrent, tmp_path / "got", [seed.address])
        await deferToThread(time.sleep, SPILL_AFTER + 10)
        target.process.signal(signal.SIGKILL)
        killed_at = time.monotonic()
        target.process.wait()
        (folder,) = target.state.iterdir()
        kept = await committed(folder, tmp_path / "copy")
        assert kept is not None
        assert lost_blocks(seed, kept, killed_at - SPILL_AFTER, 0) == []
        data = (tmp_path / "got" / torrent.name).read_bytes()
        original = torrent.content.read_bytes()
        for piece, begin in kept.blocks:
            at = piece * torrent.piece_length + begin
            assert data[at : at + 16 * KiB] == original[at : at + 16 * KiB]
