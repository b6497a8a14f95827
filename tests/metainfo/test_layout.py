"""Where things lie: known layouts, and any layout against a model that counts bytes one by one."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import ProtocolViolation
from irontide.metainfo.layout import BLOCK_LENGTH, MAX_REQUEST, Block, File, Layout, Span

KIB = 1024
MIB = 1024 * KIB


def laid_out(piece_length: int, *lengths: int) -> Layout:
    files, offset = [], 0
    for index, length in enumerate(lengths):
        files.append(File(("t", str(index)), length, offset))
        offset += length
    return Layout(offset, piece_length, files)


class SingleFileTests(SynchronousTestCase):
    """One file."""

    def test_last_piece_of_one_byte(self) -> None:
        layout = laid_out(16 * KIB, 3 * 16 * KIB + 1)
        self.assertEqual(layout.pieces, 4)
        self.assertEqual([layout.piece_size(i) for i in range(4)], [16 * KIB] * 3 + [1])
        self.assertEqual([layout.blocks_in(i) for i in range(4)], [1, 1, 1, 1])
        self.assertEqual(layout.spans(3, 0, 1), (Span(0, 3 * 16 * KIB, 1),))
        self.assertEqual(layout.block(3, 0, 1), Block(3, 0, 1))

    def test_whole_pieces(self) -> None:
        layout = laid_out(16 * MIB, 32 * MIB)
        self.assertEqual((layout.pieces, layout.piece_size(1), layout.blocks_in(1)), (2, 16 * MIB, 1024))

    def test_less_than_a_piece(self) -> None:
        layout = laid_out(16 * MIB, 5)
        self.assertEqual((layout.pieces, layout.piece_size(0), layout.blocks_in(0)), (1, 5, 1))

    def test_piece_length_that_is_no_multiple_of_blocks(self) -> None:
        layout = laid_out(20_000, 50_000)
        self.assertEqual([layout.blocks_in(i) for i in range(3)], [2, 2, 1])
        self.assertEqual(layout.block(1, BLOCK_LENGTH, 20_000 - BLOCK_LENGTH).length, 3616)
        self.assertEqual(layout.spans(1, BLOCK_LENGTH, 3616), (Span(0, 36384, 3616),))

    def test_files_of(self) -> None:
        layout = laid_out(16 * KIB, 40 * KIB)
        self.assertEqual([layout.files_of(i) for i in range(3)], [range(1)] * 3)
        self.assertEqual(layout.pieces_of(0), range(3))


class StrangersTests(SynchronousTestCase):
    """Indexes that a peer sends, at their ends."""

    def setUp(self) -> None:
        self.layout = laid_out(256 * KIB, 3 * 256 * KIB + 100)

    def test_good_blocks(self) -> None:
        for piece, begin, length in (
            (0, 0, BLOCK_LENGTH),
            (0, 0, MAX_REQUEST),
            (0, 256 * KIB - 1, 1),
            (2, 256 * KIB - MAX_REQUEST, MAX_REQUEST),
            (3, 0, 100),
            (3, 99, 1),
            (1, 7, 13),
        ):
            self.assertEqual(self.layout.block(piece, begin, length), Block(piece, begin, length))

    def test_bad_blocks(self) -> None:
        for piece, begin, length in (
            (4, 0, 1),
            (-1, 0, 1),
            (2**32 - 1, 0, 1),
            (0, 0, 0),
            (0, 0, -1),
            (0, 0, MAX_REQUEST + 1),
            (0, 0, 2**32 - 1),
            (0, 256 * KIB, 1),
            (0, 256 * KIB, 0),
            (0, 256 * KIB - 1, 2),
            (0, -1, 10),
            (0, 2**32 - 1, 1),
            (3, 0, 101),
            (3, 100, 1),
        ):
            self.assertRaises(ProtocolViolation, self.layout.block, piece, begin, length)

    def test_piece(self) -> None:
        self.assertEqual([self.layout.piece(i) for i in (0, 3)], [0, 3])
        for index in (-1, 4, 2**32 - 1):
            self.assertRaises(ProtocolViolation, self.layout.piece, index)

    def test_bitfield(self) -> None:
        self.assertEqual(self.layout.bitfield(b"\x90").count, 2)
        for data in (b"", b"\x90\0", b"\x98"):
            self.assertRaises(ProtocolViolation, self.layout.bitfield, data)


class ManyFilesTests(SynchronousTestCase):
    """Files that begin and end anywhere."""

    def test_piece_across_files_and_empty_ones(self) -> None:
        layout = laid_out(16 * KIB, 0, 10_000, 0, 3_000, 0, 10_000, 0)
        self.assertEqual(layout.pieces, 2)
        self.assertEqual(
            layout.spans(0, 0, 16_384), [Span(1, 0, 10_000), Span(3, 0, 3_000), Span(5, 0, 3_384)]
        )
        self.assertEqual(layout.spans(1, 0, 6_616), (Span(5, 3_384, 6_616),))
        self.assertEqual(layout.spans(0, 9_999, 2), [Span(1, 9_999, 1), Span(3, 0, 1)])
        self.assertEqual([layout.files_of(i) for i in range(2)], [range(1, 6), range(5, 6)])
        self.assertEqual(
            [layout.pieces_of(i) for i in range(7)],
            [range(0), range(1), range(0), range(1), range(0), range(2), range(1, 1)],
        )

    def test_a_thousand_files_in_one_block(self) -> None:
        layout = laid_out(16 * KIB, *[1] * 1000)
        spans = layout.spans(0, 0, 1000)
        self.assertEqual(spans, [Span(i, 0, 1) for i in range(1000)])

    def test_file_that_ends_with_a_piece(self) -> None:
        layout = laid_out(16 * KIB, 16 * KIB, 16 * KIB)
        self.assertEqual([layout.pieces_of(i) for i in range(2)], [range(1), range(1, 2)])
        self.assertEqual([layout.files_of(i) for i in range(2)], [range(1), range(1, 2)])
        self.assertEqual(layout.spans(0, 0, 16 * KIB), (Span(0, 0, 16 * KIB),))


class PropertyTests(SynchronousTestCase):
    """Any small layout; the model is a list of (file, offset), one entry a byte."""

    @given(st.lists(st.integers(0, 12), min_size=1, max_size=8), st.integers(1, 9), st.data())
    def test_like_the_model(self, lengths: list[int], piece_length: int, data: st.DataObject) -> None:
        assume(sum(lengths))
        layout = laid_out(piece_length, *lengths)
        model = [(file, at) for file, length in enumerate(lengths) for at in range(length)]
        self.assertEqual(sum(layout.piece_size(i) for i in range(layout.pieces)), len(model))
        for piece in range(layout.pieces):
            start, size = piece * piece_length, layout.piece_size(piece)
            begin = data.draw(st.integers(0, size - 1))
            length = data.draw(st.integers(1, size - begin))
            spans = layout.spans(piece, begin, length)
            covered = [(s.file, s.offset + i) for s in spans for i in range(s.length)]
            self.assertEqual(covered, model[start + begin : start + begin + length])
            self.assertTrue(all(span.length for span in spans))
            self.assertEqual(len({span.file for span in spans}), len(spans))
            files = {file for file, _ in model[start : start + size]}
            self.assertEqual({f for f in layout.files_of(piece) if lengths[f]}, files)
            self.assertEqual(
                {min(files), max(files)}, {layout.files_of(piece)[0], layout.files_of(piece)[-1]}
            )
        for file in range(len(lengths)):
            pieces = {at // piece_length for at, (of, _) in enumerate(model) if of == file}
            self.assertEqual(set(layout.pieces_of(file)), pieces)
