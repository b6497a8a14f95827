from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from irontide.errors import StorageError
from irontide.interfaces import IBuffer, IDisk, IPieceStorage
from irontide.storage.buffers import BufferPool
from irontide.storage.file_storage import FileStorage
from irontide.storage.files import OpenFiles, Reading
from irontide.storage.memory import MemoryStorage
from irontide.values import Chunk, Verdict
from tests.storage.fakes import (
    KIB16,
    FailingStorage,
    FailingSystem,
    InlineDisk,
    SlowDisk,
    SlowStorage,
    make_info,
    noise,
)

FILES = [("a", 20000), ("d/b", 50000), ("empty", 0), (".pad/1", 12000), ("d/c", 30000), ("last", 1)]
TOTAL = sum(length for _, length in FILES)


def content(files: Sequence[tuple[str, int]] = FILES) -> bytes:
    """The bytes of a torrent of ``files``: noise, and zeros where there is padding."""
    parts = [
        bytes(length) if path.startswith(".pad/") else noise(length, seed)
        for seed, (path, length) in enumerate(files)
    ]
    return b"".join(parts)


class StorageCase(SynchronousTestCase):
    """A torrent of several files, with a storage whose jobs run at once."""

    files: Sequence[tuple[str, int]] = FILES
    piece_length = KIB16

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.data = content(self.files)
        self.info = make_info(self.files, self.data, self.piece_length)
        self.layout = self.info.layout
        self.system = FailingSystem()
        self.open_files = OpenFiles(64, self.system)
        self.pool = BufferPool(4 << 20)
        self.before = len(os.listdir("/proc/self/fd"))
        self.storages: list[FileStorage] = []
        self.addCleanup(self.nothing_left)

    def nothing_left(self) -> None:
        for storage in self.storages:
            storage.close()
        self.assertEqual(self.pool.in_use, 0)
        self.open_files.set_limit(1)
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), self.before + 1)

    def storage(self, disk: IDisk | None = None, **options: Any) -> FileStorage:
        made = FileStorage(
            self.info,
            str(self.root),
            disk=disk or InlineDisk(),
            open_files=self.open_files,
            upload_pool=self.pool,
            **options,
        )
        self.storages.append(made)
        return made

    def prepared(self, **options: Any) -> FileStorage:
        storage = self.storage(**options)
        self.successResultOf(storage.prepare())
        return storage

    def piece(self, piece: int) -> bytes:
        return self.data[piece * self.piece_length : (piece + 1) * self.piece_length]

    def chunks(self, piece: int) -> list[Chunk]:
        return [Chunk(0, memoryview(self.piece(piece)))]

    def put(self, storage: IPieceStorage, pieces: Sequence[int] | None = None) -> None:
        for piece in range(self.layout.pieces) if pieces is None else pieces:
            verdict = self.successResultOf(storage.verify_and_write(piece, self.chunks(piece)))
            self.assertEqual(verdict, Verdict(True))

    def buffer(self, answer: IBuffer | Deferred[IBuffer] | None) -> IBuffer:
        assert answer is not None
        return self.successResultOf(answer) if isinstance(answer, Deferred) else answer

    def read(self, storage: IPieceStorage, piece: int, begin: int, length: int) -> bytes:
        buffer = self.buffer(storage.read(piece, begin, length))
        data = bytes(buffer.view)
        buffer.release()
        return data

    def assertHas(self, storage: IPieceStorage) -> None:
        """Every piece is there and can be read."""
        for piece in range(self.layout.pieces):
            size = self.layout.piece_size(piece)
            self.assertEqual(self.read(storage, piece, 0, size), self.piece(piece))
            self.assertTrue(self.successResultOf(storage.hash(piece)))

    def content_of(self, name: str, files: Sequence[tuple[str, int]] | None = None) -> bytes:
        offset = 0
        for path, length in files or self.files:
            if path == name:
                return self.data[offset : offset + length]
            offset += length
        raise KeyError(name)

    def existing(self, root: Path | None = None) -> set[str]:
        """All files below the root."""
        top = root or self.root
        return {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()}


class ContractTests(StorageCase):
    """What every IPieceStorage promises, of both implementations."""

    def both(self) -> list[IPieceStorage]:
        return [self.prepared(), MemoryStorage(self.info)]

    def test_faithful(self) -> None:
        memory = MemoryStorage(self.info)
        for storage in (*self.both(), SlowStorage(memory), FailingStorage(memory)):
            self.assertTrue(verifyObject(IPieceStorage, storage))

    def test_what_is_written_is_read_and_hashed(self) -> None:
        for storage in self.both():
            self.put(storage)
            self.assertHas(storage)
            self.assertEqual(self.read(storage, 1, 5, 100), self.piece(1)[5:105])
            self.assertIsNone(self.successResultOf(storage.sync()))
            self.assertIsNone(self.successResultOf(storage.close()))

    def test_a_wrong_piece_is_not_written_and_tells_its_blocks(self) -> None:
        for storage in self.both():
            self.put(storage, [1])
            wrong = bytearray(self.piece(1))
            wrong[100] ^= 1
            verdict = self.successResultOf(storage.verify_and_write(1, [Chunk(0, memoryview(wrong))]))
            self.assertFalse(verdict.passed)
            self.assertEqual(len(verdict.digests), self.layout.blocks_in(1))
            self.assertTrue(self.successResultOf(storage.hash(1)))

    def test_digests_on_request(self) -> None:
        for storage in self.both():
            good = self.successResultOf(storage.verify_and_write(1, self.chunks(1), digests=True))
            again = self.successResultOf(storage.verify_and_write(1, self.chunks(1), digests=True))
            self.assertTrue(good.passed)
            self.assertEqual(good, again)
            self.assertEqual(len(good.digests), 1)

    def test_a_piece_that_comes_in_parts(self) -> None:
        for storage in self.both():
            data = memoryview(self.piece(2))
            hasher = sha1()
            self.successResultOf(
                storage.write(2, [Chunk(0, data[:5000]), Chunk(5000, data[5000:9000])], hasher)
            )
            verdict = self.successResultOf(
                storage.verify_and_write(2, [Chunk(9000, data[9000:])], hasher=hasher, hashed=9000)
            )
            self.assertTrue(verdict.passed)
            self.assertTrue(self.successResultOf(storage.hash(2)))

    def test_a_piece_of_which_the_middle_is_on_disk(self) -> None:
        for storage in self.both():
            data = memoryview(self.piece(2))
            self.successResultOf(storage.write(2, [Chunk(3000, data[3000:9000])]))
            verdict = self.successResultOf(
                storage.verify_and_write(2, [Chunk(9000, data[9000:]), Chunk(0, data[:3000])], digests=True)
            )
            self.assertTrue(verdict.passed)
            whole = self.successResultOf(storage.verify_and_write(2, self.chunks(2), digests=True))
            self.assertEqual(verdict.digests, whole.digests)

    def test_what_was_never_written_is_just_not_right(self) -> None:
        for storage in self.both():
            self.assertFalse(self.successResultOf(storage.hash(0)))


class WritingTests(StorageCase):
    def test_files_have_their_bytes(self) -> None:
        storage = self.prepared()
        self.put(storage)
        for name in ("a", "d/b", "d/c", "last", "empty"):
            self.assertEqual((self.root / "t" / name).read_bytes(), self.content_of(name))

    def test_padding_is_neither_made_nor_written(self) -> None:
        storage = self.prepared()
        self.put(storage)
        self.assertEqual(self.existing(), {"t/a", "t/d/b", "t/d/c", "t/last", "t/empty"})

    def test_partial_writes_are_continued(self) -> None:
        self.system.longest["pwritev"] = 1000
        storage = self.prepared()
        self.put(storage)
        self.assertHas(storage)

    def test_partial_reads_are_continued(self) -> None:
        storage = self.prepared()
        self.put(storage)
        self.system.longest["preadv"] = 777
        self.assertHas(storage)

    def test_adjacent_memory_goes_out_in_one_call(self) -> None:
        storage = self.prepared()
        data = memoryview(self.piece(3))  # in the middle of d/b
        chunks = [Chunk(at, data[at : at + 1000]) for at in range(0, KIB16, 1000)]
        self.system.calls.clear()
        self.assertTrue(self.successResultOf(storage.verify_and_write(3, chunks)).passed)
        self.assertEqual(self.system.calls.count("pwritev"), 1)

    def test_more_buffers_than_one_call_takes(self) -> None:
        storage = self.prepared()
        data = memoryview(self.piece(3))
        chunks = [Chunk(at, data[at : at + 8]) for at in range(0, KIB16, 8)]
        self.assertTrue(self.successResultOf(storage.verify_and_write(3, chunks)).passed)
        self.assertTrue(self.successResultOf(storage.hash(3)))

    def test_a_write_that_writes_nothing_does_not_go_on_for_ever(self) -> None:
        storage = self.prepared()
        self.system.longest["pwritev"] = 0
        failure = self.failureResultOf(storage.verify_and_write(3, self.chunks(3)), StorageError)
        self.assertEqual(failure.value.errno, errno.EIO)

    def test_full_disk(self) -> None:
        """Durability 8: said with its number and the file's name; nothing is taken for written."""
        storage = self.prepared()
        self.system.fail("pwritev", errno.ENOSPC)
        failure = self.failureResultOf(storage.verify_and_write(1, self.chunks(1)), StorageError)
        self.assertEqual(failure.value.errno, errno.ENOSPC)
        self.assertIn(failure.value.path, {str(self.root / "t" / "a"), str(self.root / "t" / "d" / "b")})
        del self.system.failing["pwritev"]
        self.put(storage, [1])
        self.assertTrue(self.successResultOf(storage.hash(1)))

    def test_writing_never_makes_the_root(self) -> None:
        """Where a disk is not mounted nothing is put in its place."""
        storage = self.storage()
        failure = self.failureResultOf(storage.verify_and_write(1, self.chunks(1)), StorageError)
        self.assertEqual(failure.value.errno, errno.ENOENT)
        self.assertFalse(self.root.exists())

    def test_a_planted_link_is_not_followed(self) -> None:
        outside = Path(self.mktemp()).absolute()
        outside.mkdir()
        (self.root / "t").mkdir(parents=True)
        (self.root / "t" / "d").symlink_to(outside)
        storage = self.storage()
        self.failureResultOf(storage.prepare(), StorageError)
        self.failureResultOf(storage.verify_and_write(3, self.chunks(3)), StorageError)
        self.assertEqual(os.listdir(outside), [])

    def test_the_root_may_be_a_link(self) -> None:
        real = Path(self.mktemp()).absolute()
        real.mkdir()
        self.root.symlink_to(real)
        self.put(self.prepared())
        self.assertIn("t/a", self.existing(real))


class ReadingTests(StorageCase):
    def setUp(self) -> None:
        super().setUp()
        self.disk = SlowDisk()
        writer = self.prepared()
        self.put(writer)
        self.slow = self.storage(disk=self.disk)
        self.slow.hash(0)
        self.disk.turn_all()
        self.device = self.slow.device
        self.system.calls.clear()

    def warm(self, piece: int) -> None:
        self.slow.hash(piece)
        self.disk.turn_all()
        self.system.calls.clear()

    def as_device(self, reading: Reading) -> None:
        self.open_files.reading[self.device] = reading

    def test_memory_is_read_at_once(self) -> None:
        self.as_device(Reading.DIRECT)
        self.warm(1)
        self.assertEqual(self.read(self.slow, 1, 0, KIB16), self.piece(1))
        self.assertIn("preadv", self.system.calls)
        self.assertEqual(self.disk.pending, 0)

    def test_what_the_page_cache_has_is_read_at_once(self) -> None:
        self.as_device(Reading.NOWAIT)
        self.warm(1)
        answer = self.slow.read(1, 0, KIB16)
        assert answer is not None
        if isinstance(answer, Deferred):  # this file system does not know RWF_NOWAIT, or dropped the page
            self.disk.turn_all()
        self.assertEqual(bytes(self.buffer(answer).view), self.piece(1))
        self.buffer(answer).release()
        self.assertIn("preadv_nowait", self.system.calls)

    def test_a_cold_page_is_read_by_a_worker(self) -> None:
        self.as_device(Reading.NOWAIT)
        self.warm(1)
        self.system.fail("preadv_nowait", errno.EAGAIN)
        answer = self.slow.read(1, 0, KIB16)
        assert isinstance(answer, Deferred)
        self.assertNoResult(answer)
        self.disk.turn()
        buffer = self.successResultOf(answer)
        self.assertEqual(bytes(buffer.view), self.piece(1))
        buffer.release()
        self.assertIs(self.open_files.reading[self.device], Reading.NOWAIT)

    def test_not_supported_is_remembered(self) -> None:
        """Data path 5: asked once, then read by workers."""
        self.as_device(Reading.NOWAIT)
        self.warm(1)
        self.system.fail("preadv_nowait", errno.EOPNOTSUPP)
        for _ in range(3):
            answer = self.slow.read(1, 0, KIB16)
            assert isinstance(answer, Deferred)
            self.disk.turn_all()
            self.successResultOf(answer).release()
        self.assertEqual(self.system.calls.count("preadv_nowait"), 1)
        self.assertIs(self.open_files.reading[self.device], Reading.WORKER)

    def test_the_reactor_opens_no_file(self) -> None:
        self.as_device(Reading.DIRECT)
        answer = self.slow.read(4, 0, 100)
        assert isinstance(answer, Deferred)
        self.assertEqual(self.system.calls, [])
        self.disk.turn()
        self.successResultOf(answer).release()

    def test_no_room_is_none_and_tells_when(self) -> None:
        held = [self.pool.take(1 << 20) for _ in range(4)]
        self.assertIsNone(self.slow.read(1, 0, KIB16))
        woken: list[int] = []
        self.slow.when_room(lambda: woken.append(1))
        for buffer in held:
            assert buffer is not None
            buffer.release()
        self.assertEqual(woken, [1])

    def test_a_file_that_became_shorter_is_an_error(self) -> None:
        for reading in (Reading.DIRECT, Reading.WORKER):
            self.as_device(reading)
            self.warm(1)
            os.truncate(self.root / "t" / "a", 17000)
            answer = self.slow.read(1, 0, KIB16)
            assert isinstance(answer, Deferred)
            self.disk.turn_all()
            failure = self.failureResultOf(answer, StorageError)
            self.assertEqual(failure.value.path, str(self.root / "t" / "a"))
            self.assertEqual(self.pool.in_use, 0)

    def test_a_read_error_gives_the_buffer_back(self) -> None:
        self.as_device(Reading.DIRECT)
        self.warm(1)
        self.system.fail("preadv", errno.EIO)
        answer = self.slow.read(1, 0, KIB16)
        assert isinstance(answer, Deferred)
        self.assertEqual(self.failureResultOf(answer, StorageError).value.errno, errno.EIO)
        self.assertEqual(self.pool.in_use, 0)

    def test_a_buffer_is_not_given_back_under_a_worker(self) -> None:
        """Cancelling does not stop a worker, which writes into the buffer until it is done."""
        self.as_device(Reading.WORKER)
        answer = self.slow.read(1, 0, KIB16)
        assert isinstance(answer, Deferred)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(self.pool.in_use, KIB16)
        self.disk.turn_all()
        self.assertEqual(self.pool.in_use, 0)


class PreparingTests(StorageCase):
    def test_sparse_makes_directories_and_empty_files_only(self) -> None:
        self.prepared()
        self.assertEqual(self.existing(), {"t/empty"})
        self.assertTrue((self.root / "t" / "d").is_dir())

    def test_files_get_their_size_when_complete(self) -> None:
        storage = self.prepared()
        self.put(storage, [0])
        self.assertEqual(self.successResultOf(storage.stats())[0].size, KIB16)
        self.put(storage)
        sizes = {file: stat.size for file, stat in self.successResultOf(storage.stats()).items()}
        self.assertEqual(sizes, {0: 20000, 1: 50000, 2: 0, 4: 30000, 5: 1})

    def test_full_has_the_space_allocated(self) -> None:
        self.prepared(preallocate="full")
        for name, length in (("a", 20000), ("d/b", 50000), ("d/c", 30000), ("last", 1)):
            found = (self.root / "t" / name).stat()
            self.assertEqual(found.st_size, length)
            self.assertGreaterEqual(found.st_blocks * 512, length)

    def test_full_disk_is_told_before_the_download(self) -> None:
        self.system.fail("allocate", errno.ENOSPC)
        failure = self.failureResultOf(self.storage(preallocate="full").prepare(), StorageError)
        self.assertEqual(failure.value.errno, errno.ENOSPC)

    def test_what_exists_stays(self) -> None:
        """Names and paths: a file that was there before is never overwritten."""
        (self.root / "t").mkdir(parents=True)
        for name, data in (("a", b"mine"), ("empty", b"not empty"), ("last", b"longer than it should be")):
            (self.root / "t" / name).write_bytes(data)
        for preallocate in ("sparse", "full"):
            self.prepared(preallocate=preallocate)
            self.assertTrue((self.root / "t" / "a").read_bytes().startswith(b"mine"))
            self.assertEqual((self.root / "t" / "empty").read_bytes(), b"not empty")
            self.assertEqual((self.root / "t" / "last").read_bytes(), b"longer than it should be")

    def test_missing_root(self) -> None:
        storage = self.storage()
        self.assertTrue(self.successResultOf(storage.missing_root()))
        self.successResultOf(storage.prepare())
        self.put(storage, [0])
        self.assertFalse(self.successResultOf(storage.missing_root()))
        self.root.rename(f"{self.root}.gone")
        self.assertTrue(self.successResultOf(storage.missing_root()))
        self.root.mkdir()  # the empty mount point
        self.assertTrue(self.successResultOf(storage.missing_root()))


class SyncTests(StorageCase):
    def synced(self) -> int:
        return self.system.calls.count("fdatasync")

    def test_every_file_written_since_the_last_time(self) -> None:
        storage = self.prepared()
        self.successResultOf(storage.sync())
        self.system.calls.clear()
        self.put(storage, [0, 1, 2])
        self.successResultOf(storage.sync())
        self.assertEqual(self.synced(), 2)  # a and d/b
        self.successResultOf(storage.sync())
        self.assertEqual(self.synced(), 2)

    def test_directories_of_new_files(self) -> None:
        storage = self.prepared()
        self.put(storage)
        self.successResultOf(storage.sync())
        self.assertGreaterEqual(self.system.calls.count("sync_directory"), 3)  # root, t, t/d
        self.system.calls.clear()
        self.put(storage)
        self.successResultOf(storage.sync())
        self.assertNotIn("sync_directory", self.system.calls)

    def test_a_failure_leaves_nothing_clean(self) -> None:
        """Durability 6: what failed is never taken for done, and neither is what came with it."""
        storage = self.prepared()
        self.put(storage)
        self.system.fail("fdatasync", errno.EIO, after=1)
        failure = self.failureResultOf(storage.sync(), StorageError)
        self.assertEqual(failure.value.errno, errno.EIO)
        self.assertIsNotNone(failure.value.path)
        del self.system.failing["fdatasync"]
        self.system.calls.clear()
        self.successResultOf(storage.sync())
        self.assertEqual(self.synced(), 5)

    def test_a_write_during_a_sync_is_synced_the_next_time(self) -> None:
        """Durability 3: the sync that a commit waits for covers what was written before it."""
        storage = self.prepared()
        self.put(storage, [0])
        sync = self.system.fdatasync

        def write_meanwhile(fd: int) -> None:
            self.system.fdatasync = sync  # type: ignore[method-assign]
            sync(fd)
            self.put(storage, [1])

        self.system.fdatasync = write_meanwhile  # type: ignore[method-assign]
        self.successResultOf(storage.sync())
        self.system.calls.clear()
        self.successResultOf(storage.sync())
        self.assertEqual(self.synced(), 2)

    def test_a_failed_write_is_synced_as_well(self) -> None:
        storage = self.prepared()
        self.successResultOf(storage.sync())
        self.system.fail("pwritev", errno.EIO)
        self.failureResultOf(storage.verify_and_write(3, self.chunks(3)), StorageError)
        self.system.calls.clear()
        self.successResultOf(storage.sync())
        self.assertEqual(self.synced(), 1)


class ClosingTests(StorageCase):
    def test_close_waits_for_what_runs(self) -> None:
        disk = SlowDisk()
        storage = self.storage(disk=disk)
        storage.prepare()
        disk.turn_all()
        write = storage.verify_and_write(0, self.chunks(0))
        closed = storage.close()
        self.assertNoResult(closed)
        disk.turn()
        self.successResultOf(write)
        disk.turn_all()
        self.successResultOf(closed)
        self.failureResultOf(storage.hash(0), StorageError)
        answer = storage.read(0, 0, 100)
        assert isinstance(answer, Deferred)
        self.failureResultOf(answer, StorageError)

    def test_close_closes_the_files(self) -> None:
        storage = self.prepared()
        self.put(storage)
        self.assertGreater(len(self.open_files), 0)
        self.successResultOf(storage.close())
        self.assertEqual(len(self.open_files), 0)

    def test_a_cancelled_job_still_holds_the_gate(self) -> None:
        disk = SlowDisk()
        storage = self.storage(disk=disk)
        storage.prepare()
        disk.turn_all()
        write = storage.verify_and_write(0, self.chunks(0))
        write.cancel()
        self.failureResultOf(write, CancelledError)
        deleted = storage.delete()
        disk.turn()
        self.assertNoResult(deleted)
        disk.turn_all()
        self.successResultOf(deleted)
