"""
A whole life of a torrent's files, made up by hypothesis, against a flat row of bytes.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from irontide.storage.buffers import BufferPool
from irontide.storage.file_storage import FileStorage
from irontide.storage.files import OpenFiles
from irontide.storage.places import Places
from irontide.storage.writes import runs
from irontide.values import Chunk
from tests.storage.fakes import KIB16, InlineDisk, make_info, noise

_LENGTHS = st.lists(
    st.tuples(st.sampled_from([0, 1, 100, KIB16 - 1, KIB16, KIB16 + 1, 40000, 70000]), st.booleans()),
    min_size=1,
    max_size=8,
).filter(lambda files: any(length and not pad for length, pad in files))


def result(answer: Any) -> Any:
    """What a Deferred that has fired fired with."""
    outcome: list[Any] = []
    if not isinstance(answer, Deferred):
        return answer
    answer.addBoth(outcome.append)
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]


def named(lengths: list[tuple[int, bool]]) -> list[tuple[str, int]]:
    """Files with these lengths; True makes a pad file."""
    return [
        (f".pad/{number}" if pad else f"d{number % 3}/{number}", length)
        for number, (length, pad) in enumerate(lengths)
    ]


class Life(RuleBasedStateMachine):
    """Blocks are written, files become wanted or not, move, are renamed; all is opened again."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp())
        self.roots = 0
        self.open_files = OpenFiles(3)
        self.pool = BufferPool(1 << 20)

    @initialize(lengths=_LENGTHS, seed=st.integers(0, 1000), wanted=st.integers(0, 255))
    def begin(self, lengths: list[tuple[int, bool]], seed: int, wanted: int) -> None:
        files = named(lengths)
        data = b"".join(
            bytes(length) if path.startswith(".pad") else noise(length, seed + number)
            for number, (path, length) in enumerate(files)
        )
        self.files, self.data = files, data
        self.info = make_info(files, data)
        self.written = bytearray(len(data))  # 1 for each byte that is on disk
        offset = 0
        for path, length in files:
            if path.startswith(".pad"):
                self.written[offset : offset + length] = b"\1" * length
            offset += length
        self.wanted = self.marks(wanted)
        self.paths: tuple[tuple[str, ...], ...] | None = None
        self.root = str(self.base / "0")
        self.open()

    def marks(self, bits: int) -> list[bool]:
        return [bool(bits >> number & 1) for number in range(len(self.files))]

    def open(self) -> None:
        self.storage = FileStorage(
            self.info,
            self.root,
            disk=InlineDisk(),
            open_files=self.open_files,
            upload_pool=self.pool,
            wanted=self.wanted,
            paths=self.paths,
        )
        result(self.storage.prepare())

    def piece(self, number: int) -> tuple[int, memoryview]:
        piece = number % self.info.layout.pieces
        return piece, memoryview(self.data)[piece * KIB16 : (piece + 1) * KIB16]

    def mark(self, piece: int, begin: int, length: int) -> None:
        self.written[piece * KIB16 + begin : piece * KIB16 + begin + length] = b"\1" * length

    @rule(number=st.integers(0, 100))
    def write_piece(self, number: int) -> None:
        piece, data = self.piece(number)
        assert result(self.storage.verify_and_write(piece, [Chunk(0, data)])).passed
        self.mark(piece, 0, len(data))

    @rule(number=st.integers(0, 100), begin=st.integers(0, KIB16), length=st.integers(1, KIB16))
    def write_part(self, number: int, begin: int, length: int) -> None:
        piece, data = self.piece(number)
        part = data[begin : begin + length]
        if len(part):
            result(self.storage.write(piece, [Chunk(begin, part)]))
            self.mark(piece, begin, len(part))

    @rule(number=st.integers(0, 100), at=st.integers(0, KIB16 - 1))
    def write_wrong_piece(self, number: int, at: int) -> None:
        piece, data = self.piece(number)
        wrong = bytearray(data)
        wrong[at % len(wrong)] ^= 1
        assert not result(self.storage.verify_and_write(piece, [Chunk(0, memoryview(wrong))])).passed

    @rule(bits=st.integers(0, 255))
    def want(self, bits: int) -> None:
        self.wanted = self.marks(bits)
        result(self.storage.set_wanted(self.wanted))

    @rule()
    def move(self) -> None:
        self.roots += 1
        self.root = str(self.base / str(self.roots))
        result(self.storage.move(self.root))

    @rule(number=st.integers(0, 100), name=st.integers(0, 1_000_000))
    def rename(self, number: int, name: int) -> None:
        file = number % len(self.files)
        new = ("renamed", str(name))
        if new not in self.storage.paths and not self.files[file][0].startswith(".pad"):
            result(self.storage.rename(file, new))
            self.paths = self.storage.paths

    @rule()
    def sync(self) -> None:
        result(self.storage.sync())

    @rule()
    def open_again(self) -> None:
        result(self.storage.close())
        self.open()

    @invariant()
    def what_was_written_is_there(self) -> None:
        for number in range(self.info.layout.pieces):
            piece, data = self.piece(number)
            written = self.written[piece * KIB16 : piece * KIB16 + len(data)]
            if all(written):
                buffer = result(self.storage.read(piece, 0, len(data)))
                assert bytes(buffer.view) == data
                buffer.release()
                assert result(self.storage.hash(piece))
            elif any(data[at] for at, known in enumerate(written) if not known):
                assert not result(self.storage.hash(piece))
        assert self.pool.in_use == 0

    @invariant()
    def nothing_else_is_there(self) -> None:
        top = Path(self.root)
        own = {"/".join(path) for path in self.storage.paths}
        for path in top.rglob("*"):
            if path.is_file():
                name = str(path.relative_to(top))
                assert name in own or name.endswith(".parts"), name

    def teardown(self) -> None:
        if hasattr(self, "storage"):
            result(self.storage.delete())
            left = list(Path(self.root).rglob("*"))
            result(self.storage.close())
            assert left == []
            assert len(self.open_files) == 0
        shutil.rmtree(self.base)


Life.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
LifeTests = Life.TestCase


class RunsTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(_LENGTHS, st.data())
    def test_runs_hold_every_byte_once_and_are_as_long_as_can_be(
        self, lengths: list[tuple[int, bool]], data: st.DataObject
    ) -> None:
        files = named(lengths)
        content = noise(sum(length for _, length in files))
        info = make_info(files, content)
        places = Places(info, "/nowhere", OpenFiles(1), None, None)
        piece = data.draw(st.integers(0, info.layout.pieces - 1))
        size = info.layout.piece_size(piece)
        cuts = sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=10))})
        memory = memoryview(content)[piece * KIB16 :]
        chunks = [
            Chunk(begin, memory[begin:end]) for begin, end in zip(cuts, cuts[1:], strict=False) if begin < end
        ]
        found = list(runs(places, piece, chunks))
        flat = {}
        for run in found:
            self.assertEqual(run.length, sum(len(view) for view in run.views))
            joined = b"".join(bytes(view) for view in run.views)
            start = info.files[run.file].offset + run.offset
            self.assertEqual(joined, content[start : start + run.length])
            self.assertEqual(start, piece * KIB16 + run.begin)
            for at in range(start, start + run.length):
                self.assertNotIn(at, flat)
                flat[at] = True
        padded = sum(span.length for span in info.layout.spans(piece, 0, size) if info.files[span.file].pad)
        self.assertEqual(len(flat), size - padded)
        self.assertEqual(len(found), len({run.file for run in found}))
