"""
Disks that are full or broken, and no descriptors left: the stated reaction, nothing lost, the rest runs.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from tests.conftest import require_client
from tests.live.clients import Irontide, Libtorrent, wait_until
from tests.live.clients.base import Process
from tests.live.conftest import Start
from tests.live.disks import SmallDisk, failing, no_strace
from tests.live.scripted_seed import ScriptedSeed
from tests.live.state import committed, wrong_pieces
from tests.live.torrents import KiB, Made, MiB, differences, single
from tests.live.tracker import StaticTracker

WRITES = "pwrite64,pwritev,pwritev2,write,writev"
SYNCS = "fdatasync,fsync"
NO_SPACE = "No space left on device"
BROKEN = "Input/output error"

SmallDisks = Callable[[Path, int], SmallDisk]


@pytest.fixture
def small_disk(request: pytest.FixtureRequest) -> Iterator[SmallDisks]:
    """Mount tmpfs of given sizes."""
    mounted: list[SmallDisk] = []

    def mount(path: Path, size: int) -> SmallDisk:
        try:
            mounted.append(SmallDisk(path, size))
        except (OSError, subprocess.CalledProcessError):
            require_client(request, "small disks", "may not mount a tmpfs here", always=True)
        return mounted[-1]

    yield mount
    for disk in reversed(mounted):
        disk.remove()


@pytest.fixture
def strace(request: pytest.FixtureRequest) -> None:
    """Skip where there is none."""
    require_client(request, "strace", no_strace(), always=True)


def test_full_disk(start: Start, tmp_path: Path, small_disk: SmallDisks) -> None:
    """The download fails by name, keeps what it has, and the same command goes on when there is room."""
    torrent = single(tmp_path / "made", size=12 * MiB + 1, piece_length=256 * KiB)
    disk = small_disk(tmp_path / "small", 6 * MiB)
    target = start(Irontide)
    with ScriptedSeed(torrent, rate=8 * MiB) as seed:
        target.download(torrent.torrent, disk.path, [seed.address])
        assert target.process.wait() == 1, target.process.tail()
        assert any(NO_SPACE in text for text in target.said()), target.process.tail()
        disk.resize(64 * MiB)
        fetched = len(seed.sent)
        target.download(torrent.torrent, disk.path, [seed.address])
        target.wait_complete()
        again = len(seed.sent) - fetched
    assert differences(torrent, disk.path) == []
    assert again * 16 * KiB < 9 * MiB, "what was there was fetched again"


def test_full_disk_stops_only_its_own_torrents(
    start: Start, made: Callable[[str], Made], tmp_path: Path, small_disk: SmallDisks
) -> None:
    """In a daemon the others go on, and the one that has no room does so by itself when there is some."""
    large, small = made("thousand-files"), made("single")
    downloads, watched = tmp_path / "downloads", tmp_path / "watched"
    watched.mkdir()
    disk = small_disk(downloads / "tree", 1 * MiB)
    seeds = [start(Libtorrent), start(Libtorrent)]
    trackers = []
    for torrent, seed in zip((large, small), seeds, strict=True):
        seed.seed(torrent.torrent, torrent.folder)
        trackers.append(StaticTracker("127.0.0.1", [seed.address]))
        trackers[-1].torrent(torrent.torrent, watched / torrent.torrent.name)
    daemon = Process(
        [
            *(sys.executable, "-m", "twisted", "irontide"),
            *("--listen", "127.0.0.1:0", "--downloads", str(downloads)),
            *("--state", str(tmp_path / "state"), "--watch", str(watched)),
        ],
        tmp_path / "log",
        cwd=tmp_path,
    )
    try:
        wait_until(lambda: NO_SPACE in daemon.tail(100_000), "the disk is full")
        wait_until(lambda: differences(small, downloads) == [], "the other torrent is complete", every=0.5)
        disk.resize(64 * MiB)
        wait_until(lambda: differences(large, downloads) == [], "it goes on by itself", seconds=90, every=1)
    finally:
        daemon.stop()
        for tracker in trackers:
            tracker.stop()


def test_full_state(start: Start, tmp_path: Path, small_disk: SmallDisks) -> None:
    """The store cannot commit for a while: the download goes on, and what came is committed afterwards."""
    torrent = single(tmp_path / "made", size=12 * MiB + 1, piece_length=256 * KiB)
    target = start(Irontide)
    disk = small_disk(target.state, 4 * MiB)
    with ScriptedSeed(torrent, rate=2 * MiB) as seed:
        target.download(torrent.torrent, tmp_path / "got", [seed.address])
        wait_until(lambda: seed.verified, "the first piece")
        ballast = disk.fill()
        verified = len(seed.verified)
        wait_until(lambda: len(seed.verified) >= verified + 16, "it goes on")
        ballast.unlink()
        target.wait_complete()
        assert len({(each.piece, each.begin) for each in seed.sent}) == len(seed.sent)
    assert differences(torrent, tmp_path / "got") == []


@pytest_twisted.ensureDeferred
async def test_broken_disk(start: Start, tmp_path: Path, strace: None) -> None:
    """Writing fails with EIO: the download fails by name, and no piece is claimed that is not there."""
    await fails_then_completes(start, tmp_path, WRITES, "20+")


@pytest_twisted.ensureDeferred
async def test_broken_sync(start: Start, tmp_path: Path, strace: None) -> None:
    """What was written since the last good sync is not believed any more."""
    await fails_then_completes(start, tmp_path, SYNCS, "2+")


async def fails_then_completes(start: Start, tmp_path: Path, calls: str, when: str) -> None:
    """Download while ``calls`` on the file fail, then without that."""
    torrent = single(tmp_path / "made", size=12 * MiB + 1, piece_length=256 * KiB)
    target = start(Irontide)
    got = tmp_path / "got" / torrent.name
    with ScriptedSeed(torrent, rate=4 * MiB) as seed:
        arguments = (str(torrent.torrent), "--to", str(got.parent), "--peer", f"127.0.0.1:{seed.address[1]}")
        target.run("download", *arguments, prefix=failing(calls, got, when=when))
        assert target.process.wait() == 1, target.process.tail()
        assert any(BROKEN in text for text in target.said()), target.process.tail()
        (folder,) = target.state.iterdir()
        kept = await committed(folder, tmp_path / "copy")
        assert kept is not None
        assert wrong_pieces(torrent, got.parent, kept.pieces) == []
        target.run("download", *arguments)
        await deferToThread(target.wait_complete)
    assert differences(torrent, got.parent) == []


@pytest_twisted.ensureDeferred
async def test_broken_state(start: Start, tmp_path: Path, strace: None) -> None:
    """The store's disk fails for a moment: it is tried again, and nothing is lost."""
    torrent = single(tmp_path / "made", size=12 * MiB + 1, piece_length=256 * KiB)
    target = start(Irontide)
    got = tmp_path / "got"
    with ScriptedSeed(torrent, rate=2 * MiB) as seed:
        target.download(torrent.torrent, got, [seed.address])
        wait_until(lambda: seed.verified, "the first piece")
        (log,) = target.state.rglob("*.sqlite-wal")
        tracer = Process(
            [*failing(WRITES, log, when="1..3"), "-p", str(target.process.pid)], tmp_path / "strace"
        )
        try:
            await deferToThread(target.wait_complete)
        finally:
            tracer.stop()
        (folder,) = target.state.iterdir()
        kept = await committed(folder, tmp_path / "copy")
    assert any("trying again" in text for text in target.said()), "the store met no error"
    assert kept is not None and len(kept.pieces) == 49
    assert differences(torrent, got) == []


def test_few_descriptors(start: Start, made: Callable[[str], Made], tmp_path: Path) -> None:
    """A thousand files and several peers on 64 descriptors: it takes turns, and finishes."""
    torrent = made("thousand-files")
    seeds = [start(Libtorrent, host=f"127.0.0.{number}") for number in (2, 3, 4)]
    for seed in seeds:
        seed.seed(torrent.torrent, torrent.folder)
    target = start(Irontide)
    peers = [word for seed in seeds for word in ("--peer", f"{seed.host}:{seed.address[1]}")]
    target.run(
        "download",
        *(str(torrent.torrent), "--to", str(tmp_path / "got"), *peers),
        prefix=["sh", "-c", 'ulimit -n 64; exec "$@"', "sh"],
    )
    target.wait_complete()
    assert differences(torrent, tmp_path / "got") == []


def test_stops_in_time_though_trackers_are_dead(start: Start, tmp_path: Path) -> None:
    """SIGINT under load, with a tracker that takes connections and never answers: out within 10 s."""
    torrent = single(tmp_path / "made", size=32 * MiB, piece_length=256 * KiB)
    target = start(Irontide)
    with ScriptedSeed(torrent) as silent, ScriptedSeed(torrent, rate=4 * MiB) as seed:
        tracker = StaticTracker("127.0.0.1", [])
        tracker.url = f"http://127.0.0.1:{silent.address[1]}/announce"  # hears no handshake, says nothing
        announced = tracker.torrent(torrent.torrent, tmp_path / "announced.torrent")
        tracker.stop()
        target.download(announced, tmp_path / "got", [seed.address])
        wait_until(lambda: len(seed.verified) > 4, "it is under way")
        begin = time.monotonic()
        target.process.signal(2)
        assert target.process.wait(15) == 130
        assert time.monotonic() - begin < 10
