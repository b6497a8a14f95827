"""What is believed at start: every rule of hardening.md, 'Durability' 4, without a disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from attrs import evolve
from hypothesis import given, strategies
from twisted.trial.unittest import SynchronousTestCase

from irontide.metainfo.bitfield import Bitfield
from irontide.metainfo.info import Info
from irontide.torrent.resume import SAMPLE, Plan, dirty_files, has_all, plan, written_blocks
from irontide.values import FileStat, Progress
from tests.storage.fakes import KIB16, make_info

K = KIB16
FILES = (("a", 2 * K), ("empty", 0), ("b", K // 2), (".pad/1", K // 2), ("c", 3 * K))
"""Pieces 0-1 are a, 2 is b and padding, 3-5 are c."""
WHOLE = {0: FileStat(2 * K, 1), 1: FileStat(0, 1), 2: FileStat(K // 2, 1), 4: FileStat(3 * K, 1)}


def info_of(files: Sequence[tuple[str, int]] = FILES, piece_length: int = K) -> Info:
    return make_info(files, bytes(sum(length for _, length in files)), piece_length)


def bits(pieces: int, *ones: int) -> Bitfield:
    field = Bitfield(pieces)
    for piece in ones:
        field.set(piece)
    return field


def progress(
    have: Bitfield,
    stats: Mapping[int, FileStat] = WHOLE,
    dirty: Sequence[int] = (),
    masks: Mapping[int, bytes] | None = None,
) -> Progress:
    return Progress(b"i" * 20, have.to_bytes(), masks or {}, stats, frozenset(dirty), "this boot")


class PlanTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.info = info_of()
        self.all = Bitfield.full(6)

    def plan(
        self,
        before: Progress | None,
        found: Mapping[int, FileStat] = WHOLE,
        *,
        boot_id: str = "this boot",
        info: Info | None = None,
        wanted: Sequence[bool] | None = None,
    ) -> Plan:
        return plan(info or self.info, before, found, boot_id=boot_id, random=Random(1), wanted=wanted)

    def have(self, made: Plan) -> list[int]:
        return list(made.have.ones())

    def test_nothing_there_nothing_to_check(self) -> None:
        made = self.plan(None, {})
        self.assertEqual((self.have(made), made.check, dict(made.samples)), ([], (), {}))

    def test_added_with_files_there_checks_what_they_hold(self) -> None:
        """Only the pieces of files that exist and are not empty."""
        made = self.plan(None, {0: FileStat(5, 1), 1: FileStat(0, 1), 4: FileStat(0, 1)})
        self.assertEqual((self.have(made), made.check), ([], (0, 1)))

    def test_clean_is_trusted(self) -> None:
        made = self.plan(progress(self.all))
        self.assertEqual((self.have(made), made.check, dict(made.samples)), ([0, 1, 2, 3, 4, 5], (), {}))

    def test_another_boot_does_not_matter_to_files_at_rest(self) -> None:
        made = self.plan(progress(self.all), boot_id="another")
        self.assertEqual((made.check, dict(made.samples)), ((), {}))

    def test_other_mtime_is_rechecked_and_no_other_file(self) -> None:
        made = self.plan(progress(self.all), {**WHOLE, 0: FileStat(2 * K, 2)})
        self.assertEqual((self.have(made), made.check), ([2, 3, 4, 5], (0, 1)))

    def test_other_size_is_rechecked(self) -> None:
        made = self.plan(progress(self.all), {**WHOLE, 4: FileStat(3 * K + 1, 1)})
        self.assertEqual((self.have(made), made.check), ([0, 1, 2], (3, 4, 5)))

    def test_missing_file(self) -> None:
        """Only what was had of it is looked for."""
        found = {file: stat for file, stat in WHOLE.items() if file != 4}
        made = self.plan(progress(bits(6, 0, 1, 4)), found)
        self.assertEqual((self.have(made), made.check), ([0, 1], (4,)))

    def test_file_that_appeared_is_checked(self) -> None:
        before = progress(bits(6), {})
        self.assertEqual(self.plan(before, {0: FileStat(2 * K, 1)}).check, (0, 1))

    def test_bits_of_another_size_are_not_believed(self) -> None:
        before = evolve(progress(self.all), bits=b"\xff\xff")
        made = self.plan(before)
        self.assertEqual((self.have(made), made.check), ([], (0, 1, 2, 3, 4, 5)))

    def test_spare_bits_are_not_believed(self) -> None:
        self.assertEqual(self.have(self.plan(evolve(progress(self.all), bits=b"\xff"))), [])

    def test_pad_and_empty_files_are_never_asked_for(self) -> None:
        """They need not exist, whatever the store says of them."""
        stats = {**WHOLE, 1: FileStat(7, 7), 3: FileStat(7, 7)}
        made = self.plan(progress(self.all, stats), {f: s for f, s in WHOLE.items() if f != 1})
        self.assertEqual(made.check, ())

    # --- the dirty set -----------------------------------------------------------------------------------

    def test_dirty_file_is_expected_to_be_newer(self) -> None:
        """The same boot: what is committed was synced, so go on."""
        stats = {file: stat for file, stat in WHOLE.items() if file != 4}
        made = self.plan(progress(bits(6, 3), stats, [4]), {**WHOLE, 4: FileStat(3 * K, 99)})
        self.assertEqual((self.have(made), made.check, dict(made.samples)), ([3], (), {}))

    def test_dirty_file_after_a_power_cut_is_sampled(self) -> None:
        made = self.plan(progress(bits(6, 0, 3, 5), WHOLE, [4]), boot_id="another")
        self.assertEqual(self.have(made), [0, 3, 5])
        self.assertEqual({file: sorted(pieces) for file, pieces in made.samples.items()}, {4: [3, 5]})

    def test_sample_is_bounded(self) -> None:
        info = info_of([("a", 1000 * K)])
        before = progress(Bitfield.full(1000), {}, [0])
        made = self.plan(before, {0: FileStat(1000 * K, 9)}, boot_id="another", info=info)
        self.assertEqual(len(set(made.samples[0])), SAMPLE)
        self.assertEqual(SAMPLE, 64)

    def test_nothing_believed_nothing_sampled(self) -> None:
        made = self.plan(progress(bits(6), WHOLE, [4]), boot_id="another")
        self.assertEqual(dict(made.samples), {})

    def test_what_is_checked_anyway_is_not_sampled(self) -> None:
        """A piece of two files, of which one has changed."""
        info = info_of([("a", K // 2), ("b", K // 2 + K)])
        found = {0: FileStat(K // 2, 2), 1: FileStat(K // 2 + K, 9)}
        before = progress(Bitfield.full(2), {0: FileStat(K // 2, 1)}, [1])
        made = self.plan(before, found, boot_id="another", info=info)
        self.assertEqual((made.check, dict(made.samples)), ((0,), {1: (1,)}))

    def test_dirty_file_that_is_too_short(self) -> None:
        """Shorter than its pieces need: then nothing of it is believed, the same boot or not."""
        made = self.plan(progress(bits(6, 0, 3, 4), WHOLE, [4]), {**WHOLE, 4: FileStat(2 * K - 1, 9)})
        self.assertEqual((self.have(made), made.check), ([0], (3, 4, 5)))

    def test_dirty_file_that_is_just_long_enough(self) -> None:
        made = self.plan(progress(bits(6, 0, 3, 4), WHOLE, [4]), {**WHOLE, 4: FileStat(2 * K, 9)})
        self.assertEqual((self.have(made), made.check), ([0, 3, 4], ()))

    def test_short_file_is_checked_even_if_it_was_committed_so(self) -> None:
        short = {**WHOLE, 4: FileStat(K, 1)}
        self.assertEqual(self.plan(progress(bits(6, 4), short), short).check, (3, 4, 5))

    # --- files that are not wanted -----------------------------------------------------------------------

    def test_unwanted_file_in_the_part_file(self) -> None:
        """It does not exist: of it only the pieces that are had are looked at, at most two."""
        info = info_of([("a", K + K // 2), ("b", 8 * K), ("c", K // 2)])
        stats = {0: FileStat(K + K // 2, 1), 2: FileStat(K // 2, 1)}
        before = progress(bits(10, 0, 1, 9), stats)
        made = self.plan(before, stats, info=info, wanted=(True, False, True))
        self.assertEqual((self.have(made), made.check), ([0], (1, 9)))

    def test_masks_survive_an_unwanted_neighbour(self) -> None:
        """The first piece of an unwanted file is had, the last has a block of the wanted one behind it."""
        length = 2 * K
        info = info_of([("a", K), ("b", length), ("c", length - K)], piece_length=length)
        stats = {0: FileStat(K, 1), 2: FileStat(length - K, 1)}
        for mask in (b"\x40", b"\xc0"):  # the block behind it; and that which is in the part file
            before = progress(bits(2, 0), stats, masks={1: mask})
            made = self.plan(before, stats, info=info, wanted=(True, False, True))
            self.assertEqual(dict(made.masks), {1: mask})

    # --- masks of unfinished pieces ----------------------------------------------------------------------

    def masks(
        self, found: Mapping[int, FileStat], mask: bytes = b"\xc0", dirty: Sequence[int] = (0,), have: int = 0
    ) -> dict[int, bytes]:
        info = info_of([("a", 4 * K)], piece_length=2 * K)
        field = bits(2, *([1] if have else []))
        before = progress(field, {} if dirty else found, dirty, {1: mask, 7: mask, -1: mask})
        return dict(self.plan(before, found, info=info).masks)

    def test_masks_are_kept(self) -> None:
        self.assertEqual(self.masks({0: FileStat(4 * K, 1)}), {1: b"\xc0"})
        self.assertEqual(self.masks({0: FileStat(3 * K, 1)}, b"\x80"), {1: b"\x80"})

    def test_mask_of_blocks_that_the_file_does_not_reach(self) -> None:
        self.assertEqual(self.masks({0: FileStat(3 * K, 1)}, b"\x40"), {})
        self.assertEqual(self.masks({}, b"\x80"), {})

    def test_mask_of_a_piece_that_is_had(self) -> None:
        self.assertEqual(self.masks({0: FileStat(4 * K, 1)}, have=1), {})

    def test_masks_of_a_file_that_changed(self) -> None:
        info = info_of([("a", 4 * K)], piece_length=2 * K)
        before = progress(bits(2), {0: FileStat(4 * K, 1)}, (), {1: b"\x80"})
        self.assertEqual(dict(self.plan(before, {0: FileStat(4 * K, 2)}, info=info).masks), {})

    def test_mask_with_too_many_or_too_few_bits(self) -> None:
        layout = info_of([("a", 3 * K)], piece_length=2 * K).layout
        self.assertEqual(written_blocks(layout, 1, b"\xff\xff"), [0])
        self.assertEqual(written_blocks(layout, 0, b""), [])


class DirtyFilesTests(SynchronousTestCase):
    def test_files_of_missing_pieces(self) -> None:
        self.assertEqual(dirty_files(info_of(), bits(6, 0, 1, 2, 3, 4)), {4})
        self.assertEqual(dirty_files(info_of(), Bitfield(6)), {0, 2, 4})
        self.assertEqual(dirty_files(info_of(), Bitfield.full(6)), frozenset())


class HasAllTests(SynchronousTestCase):
    def test_wanted_files_only(self) -> None:
        wanted = (True, True, True, True, False)
        self.assertTrue(has_all(info_of(), bits(6, 0, 1, 2), wanted))
        self.assertFalse(has_all(info_of(), bits(6, 0, 2), wanted))
        self.assertFalse(has_all(info_of(), bits(6, 0, 1, 2), (True,) * 5))

    def test_padding_alone_is_nothing_to_want(self) -> None:
        self.assertTrue(has_all(info_of(), Bitfield(6), (False, False, False, True, False)))


class AnyPlanTests(SynchronousTestCase):
    """Whatever the store and the disk say."""

    @given(strategies.data())
    def test_invariants(self, data: strategies.DataObject) -> None:
        draw = data.draw
        lengths = draw(strategies.lists(strategies.integers(0, 3 * K), min_size=1, max_size=5))
        lengths[0] += 1
        info = info_of([(f"f{index}", length) for index, length in enumerate(lengths)])
        pieces = info.layout.pieces
        had = draw(strategies.sets(strategies.integers(0, pieces - 1)))
        stat = strategies.builds(FileStat, strategies.integers(0, 3 * K + 1), strategies.integers(1, 2))
        stats = strategies.dictionaries(strategies.integers(0, len(lengths) - 1), stat)
        dirty = draw(strategies.sets(strategies.integers(0, len(lengths) - 1)))
        found = draw(stats)
        before = progress(bits(pieces, *had), draw(stats), sorted(dirty), {0: b"\x80", 1: b"\x80"})
        made = plan(
            info, before, found, boot_id=draw(strategies.sampled_from(["this boot", "b"])), random=Random(1)
        )
        believed = set(made.have.ones())
        self.assertLessEqual(believed, had)
        self.assertEqual(believed & set(made.check), set())
        self.assertLessEqual(had - believed, set(made.check))
        for piece in believed:  # all its bytes are within files that exist
            for span in info.layout.spans(piece, 0, info.layout.piece_size(piece)):
                self.assertGreaterEqual(found[span.file].size, span.offset + span.length)
        for pieces_of in made.samples.values():
            self.assertLessEqual(set(pieces_of), believed)
        self.assertEqual(set(made.masks) & (believed | set(made.check)), set())
