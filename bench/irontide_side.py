"""
irontide as one side of a transfer (see sides.py).

Like libtorrent in its seed mode, the seed knows that its content is right: it starts from a store in which
the last session left it complete.
"""

from __future__ import annotations

import cProfile
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.python.failure import Failure

from irontide.metainfo.bitfield import Bitfield
from irontide.metainfo.torrent_file import TorrentFile
from irontide.service.process import use_monotonic_clock
from irontide.session.memory_store import MemoryStore
from irontide.session.session import Session
from irontide.settings import defaults
from irontide.values import FileStat, PeerAddress, Progress, StoredTorrent


def say(event: str, **more: Any) -> None:
    """Write one line."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    line = {"event": event, "time": time.monotonic(), "cpu": usage.ru_utime + usage.ru_stime, **more}
    print(json.dumps(line), flush=True)


async def run(role: dict[str, Any]) -> None:
    """Seed or download, as ``role`` says, until stdin ends."""
    torrent_file = TorrentFile.from_bytes(Path(role["torrent"]).read_bytes())
    store = MemoryStore()
    await store.add(StoredTorrent(torrent_file.info.infohash, torrent_file.raw, role["folder"], 0.0, {}))
    if role["role"] == "seed":
        await store.commit([complete(torrent_file, role["folder"])])
    settings = attrs.evolve(defaults(), listen_addresses=(role["listen"],), listen_port=0)
    session = Session(reactor, settings, store)
    await session.start()
    (torrent,) = session.torrents.values()
    await torrent.when_checked()
    say("listening", port=session.listening[0].port)
    if role["peer"] is not None:
        torrent.add_peers([PeerAddress(*role["peer"])])
        await torrent.when_complete()
        say("complete")
    await deferToThread(sys.stdin.read)
    await session.stop()


def complete(torrent_file: TorrentFile, folder: str) -> Progress:
    """Return what a session leaves that has everything."""
    info = torrent_file.info
    stats = {}
    for index, file in enumerate(info.files):
        found = os.stat(Path(folder, *file.path))
        stats[index] = FileStat(found.st_size, found.st_mtime_ns)
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    bits = Bitfield.full(info.layout.pieces).to_bytes()
    return Progress(info.infohash, bits, {}, stats, frozenset(), boot_id)


def main() -> int:
    """Return the exit status."""
    failures: list[Failure] = []
    use_monotonic_clock(reactor)
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    running = Deferred.fromCoroutine(run(json.loads(sys.argv[1])))
    running.addErrback(failures.append).addBoth(lambda _: reactor.callWhenRunning(reactor.stop))
    profile = os.environ.get("IRONTIDE_BENCH_PROFILE")
    if profile:
        profiler = cProfile.Profile()
        profiler.runcall(reactor.run)
        profiler.dump_stats(f"{profile}.{json.loads(sys.argv[1])['role']}")
    else:
        reactor.run()
    for failure in failures:
        failure.printTraceback(sys.stderr)
    return 1 if failures else 0


sys.exit(main())
