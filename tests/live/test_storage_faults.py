"""
Real faults of a disk: a file system that is full, and system calls that fail with EIO.

Each runs in a process of its own, in a mount namespace with a small tmpfs or under strace, which injects the
error.  The process tells by its output what the storage said.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 60

SCRIPT = """
import errno, sys, os
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from irontide.errors import StorageError
from irontide.values import Chunk
from irontide.storage.buffers import BufferPool
from irontide.storage.disk import Disk
from irontide.storage.file_storage import FileStorage
from irontide.storage.files import OpenFiles
from tests.storage.fakes import make_info, noise

PIECE = 1 << 18
data = noise(16 * PIECE)
info = make_info([("one", 9 * PIECE + 5), ("two", 7 * PIECE - 5)], data, PIECE)

async def main(storage):
    await storage.prepare()
    written = []
    for piece in range(info.layout.pieces):
        chunk = Chunk(0, memoryview(data)[piece * PIECE : (piece + 1) * PIECE])
        try:
            assert (await storage.verify_and_write(piece, [chunk])).passed
            written.append(piece)
        except StorageError as error:
            print("write", errno.errorcode[error.errno], os.path.basename(error.path))
            break
    try:
        await storage.sync()
        print("synced")
    except StorageError as error:
        print("sync", errno.errorcode[error.errno], os.path.basename(error.path))
    for piece in written:
        assert await storage.hash(piece), piece
    print("whole", len(written))
    await storage.delete()
    print("deleted", os.listdir(sys.argv[1]))

async def run():
    disk = Disk(reactor, threads=1)  # strace counts the calls of each thread
    storage = FileStorage(
        info, sys.argv[1], disk=disk, open_files=OpenFiles(), upload_pool=BufferPool(1 << 20),
        preallocate=sys.argv[2],
    )
    try:
        await main(storage)
    except StorageError as error:
        print("failed", errno.errorcode[error.errno])
    finally:
        await storage.close()
        await disk.stop()
        reactor.stop()

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(run()))
reactor.run()
"""


class StorageFaultsTests(SynchronousTestCase):
    def lines(self, *command: str) -> list[str]:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        self.assertNotIn("Traceback", done.stderr)
        return done.stdout.splitlines()

    def script(self) -> str:
        path = Path(self.mktemp()).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{SCRIPT}")
        return str(path)

    def full(self, preallocate: str) -> list[str]:
        """Run with 2 MiB of space for 4 MiB of data."""
        if shutil.which("unshare") is None:
            self.skipTest("MISSING: unshare (util-linux)")
        probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
        if probe.returncode:
            self.skipTest("MISSING: the right to make a mount namespace (run as root)")
        mount = Path(self.mktemp()).absolute()
        mount.mkdir(parents=True)
        command = 'mount -t tmpfs -o size=2m none "$1" && exec "$2" "$3" "$1" "$4"'
        return self.lines(
            "unshare", "-m", "sh", "-c", command, "sh", str(mount), sys.executable, self.script(), preallocate
        )

    def injected(self, *faults: str) -> list[str]:
        """Run under strace, which has system calls fail."""
        if shutil.which("strace") is None:
            self.skipTest("MISSING: strace")
        root = Path(self.mktemp()).absolute()
        options = [option for fault in faults for option in ("-e", f"inject={fault}")]
        trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwritev2,fdatasync"]
        return self.lines(*trace, *options, sys.executable, self.script(), str(root), "sparse")

    def test_a_full_disk(self) -> None:
        """Durability 8: said by name; what was written before is whole, and can be deleted."""
        lines = self.full("sparse")
        self.assertEqual(lines[0], "write ENOSPC one")
        self.assertEqual(lines[1], "synced")
        written = int(lines[2].removeprefix("whole "))
        self.assertTrue(6 <= written <= 8, lines)
        self.assertEqual(lines[3], "deleted []")

    def test_a_full_disk_is_known_beforehand(self) -> None:
        self.assertEqual(self.full("full"), ["failed ENOSPC"])

    def test_an_error_while_writing(self) -> None:
        lines = self.injected("pwritev2:error=EIO:when=5")  # what os.pwritev calls
        self.assertEqual(lines[0], "write EIO one")
        self.assertEqual(lines[-2:], ["whole 4", "deleted []"])

    def test_an_error_while_syncing(self) -> None:
        """Durability 6: said, and not tried again by itself."""
        lines = self.injected("fdatasync:error=EIO:when=1")
        self.assertEqual(lines, ["sync EIO one", "whole 16", "deleted []"])

    def test_an_error_of_the_second_file(self) -> None:
        lines = self.injected("fdatasync:error=EIO:when=2")
        self.assertEqual(lines[0], "sync EIO two")

    def test_no_error(self) -> None:
        self.assertEqual(self.injected(), ["synced", "whole 16", "deleted []"])
