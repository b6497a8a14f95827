"""The contract of IStore, for each implementation of it."""

from __future__ import annotations

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from zope.interface.verify import verifyObject

from irontide.errors import StoreError
from irontide.interfaces import IStore
from irontide.session.store import MemoryStore, SQLiteStore
from irontide.values import FileStat, Progress, StoredTorrent
from tests.session.fakes import ImmediateWriter
from tests.temporary import FolderTestCase

ONE = StoredTorrent(b"1" * 20, b"metainfo of one", "/downloads", 1.5, {"paused": False, "limit": 7})
TWO = StoredTorrent(b"\0" * 20, b"\0\xff", "/down loads/\u00fc", 2.0, {})
NOTHING = Progress(ONE.infohash, b"\0\0", {}, {}, frozenset(), "boot")
SOME = Progress(
    ONE.infohash,
    b"\xf0\x01",
    {5: b"\x80", 6: b"\xff\xfe"},
    {0: FileStat(10, 1_700_000_000_123_456_789), 2: FileStat(0, -1)},
    frozenset({1}),
    "boot",
    uploaded=1 << 40,
    downloaded=3,
)


class StoreContract:
    """What every store does; mixed into a TestCase that says how to make one."""

    def make(self) -> IStore:
        raise NotImplementedError

    def setUp(self) -> None:
        self.store = self.make()
        self.addCleanup(lambda: self.get(self.store.close(clean=True)))

    def get(self, result: Deferred):
        return self.successResultOf(result)

    def assertKept(self, *torrents: StoredTorrent) -> None:
        self.assertEqual(self.get(self.store.torrents()), list(torrents))

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IStore, self.store))

    def test_new_store_is_empty_and_clean(self) -> None:
        self.assertKept()
        self.assertTrue(self.store.clean)
        self.assertEqual(list(self.store.repairs), [])
        self.assertIsNone(self.get(self.store.progress(ONE.infohash)))

    def test_added_in_order(self) -> None:
        for torrent in (ONE, TWO):
            self.get(self.store.add(torrent))
        self.assertKept(ONE, TWO)

    def test_replaced_in_place_with_its_progress(self) -> None:
        for torrent in (ONE, TWO):
            self.get(self.store.add(torrent))
        self.get(self.store.commit([SOME]))
        moved = attrs.evolve(
            ONE, save_path="/elsewhere", options={"paused": True}, metainfo=b"other trackers"
        )
        self.get(self.store.add(moved))
        self.assertKept(moved, TWO)
        self.assertEqual(self.get(self.store.progress(ONE.infohash)), SOME)

    def test_removed_with_its_progress(self) -> None:
        self.get(self.store.add(ONE))
        self.get(self.store.commit([SOME]))
        self.get(self.store.remove(ONE.infohash))
        self.assertKept()
        self.assertIsNone(self.get(self.store.progress(ONE.infohash)))
        self.get(self.store.add(ONE))
        self.assertIsNone(self.get(self.store.progress(ONE.infohash)))

    def test_removing_a_stranger_does_nothing(self) -> None:
        self.get(self.store.add(ONE))
        self.get(self.store.remove(TWO.infohash))
        self.assertKept(ONE)

    def test_added_anew_goes_to_the_end(self) -> None:
        for torrent in (ONE, TWO):
            self.get(self.store.add(torrent))
        self.get(self.store.remove(ONE.infohash))
        self.get(self.store.add(ONE))
        self.assertKept(TWO, ONE)

    def test_options_come_back_as_json(self) -> None:
        self.get(self.store.add(attrs.evolve(ONE, options={"a": (1, None), "b": {"c": 1.5}})))
        self.assertKept(attrs.evolve(ONE, options={"a": [1, None], "b": {"c": 1.5}}))

    def test_options_that_are_no_json_are_refused(self) -> None:
        for options in ({"a": object()}, {"a": float("nan")}):
            self.failureResultOf(self.store.add(attrs.evolve(ONE, options=options)), TypeError, ValueError)
        self.assertKept()

    def test_progress_is_what_was_committed(self) -> None:
        self.get(self.store.add(ONE))
        self.get(self.store.commit([SOME]))
        self.assertEqual(self.get(self.store.progress(ONE.infohash)), SOME)

    def test_masks_and_bits_are_replaced(self) -> None:
        self.get(self.store.add(ONE))
        self.get(self.store.commit([SOME]))
        later = attrs.evolve(SOME, bits=b"\xff\xff", masks={6: b"\xff\xff", 9: b"\x01"}, boot_id="next")
        self.get(self.store.commit([later]))
        self.assertEqual(self.get(self.store.progress(ONE.infohash)), later)

    def test_stats_are_added_to(self) -> None:
        """Files that are not named are unchanged; what comes to rest is dirty no more, and the reverse."""
        self.get(self.store.add(ONE))
        self.get(self.store.commit([SOME]))
        self.get(
            self.store.commit([attrs.evolve(NOTHING, stats={1: FileStat(5, 5)}, dirty=frozenset({2, 3}))])
        )
        got = self.get(self.store.progress(ONE.infohash))
        self.assertEqual(got.stats, {0: SOME.stats[0], 1: FileStat(5, 5)})
        self.assertEqual(got.dirty, {2, 3})

    def test_dirty_wins(self) -> None:
        self.get(self.store.add(ONE))
        self.get(self.store.commit([attrs.evolve(NOTHING, stats={1: FileStat(5, 5)}, dirty=frozenset({1}))]))
        got = self.get(self.store.progress(ONE.infohash))
        self.assertEqual((got.stats, got.dirty), ({}, {1}))

    def test_many_in_one_commit(self) -> None:
        for torrent in (ONE, TWO):
            self.get(self.store.add(torrent))
        other = attrs.evolve(SOME, infohash=TWO.infohash, bits=b"")
        self.get(self.store.commit([SOME, other]))
        self.assertEqual(self.get(self.store.progress(ONE.infohash)), SOME)
        self.assertEqual(self.get(self.store.progress(TWO.infohash)), other)

    def test_progress_of_a_removed_torrent_is_left_out(self) -> None:
        """Its last commit may come after the removal: neither an error nor a ghost."""
        self.get(self.store.add(ONE))
        self.get(self.store.commit([attrs.evolve(SOME, infohash=TWO.infohash), SOME]))
        self.assertIsNone(self.get(self.store.progress(TWO.infohash)))
        self.assertEqual(self.get(self.store.progress(ONE.infohash)), SOME)

    def test_why_it_was_rebuilt_is_not_kept(self) -> None:
        self.get(self.store.add(attrs.evolve(ONE, rebuilt="damaged")))
        self.assertKept(ONE)

    def test_closed_store_takes_nothing(self) -> None:
        self.get(self.store.add(ONE))
        self.get(self.store.close(clean=True))
        for refused in (
            self.store.torrents(),
            self.store.add(TWO),
            self.store.remove(ONE.infohash),
            self.store.progress(ONE.infohash),
            self.store.commit([SOME]),
        ):
            self.failureResultOf(refused, StoreError)
        self.get(self.store.close(clean=True))


_files = st.integers(0, 5)
_progress = st.builds(
    Progress,
    infohash=st.sampled_from([ONE.infohash, TWO.infohash]),
    bits=st.binary(max_size=4),
    masks=st.dictionaries(st.integers(0, 5), st.binary(min_size=1, max_size=2), max_size=3),
    stats=st.dictionaries(_files, st.builds(FileStat, st.integers(0, 9), st.integers(0, 9)), max_size=3),
    dirty=st.frozensets(_files, max_size=3),
    boot_id=st.sampled_from(["a", "b"]),
    uploaded=st.integers(0, 2**62),
    downloaded=st.integers(0, 2**62),
)
_steps = st.lists(
    st.one_of(
        st.sampled_from([("add", ONE), ("add", TWO), ("remove", ONE.infohash), ("remove", TWO.infohash)]),
        st.lists(_progress, max_size=3).map(lambda batch: ("commit", batch)),
    ),
    max_size=12,
)


class MemoryStoreTests(StoreContract, FolderTestCase):
    """The one in memory."""

    def make(self) -> IStore:
        return MemoryStore()


class SQLiteStoreTests(StoreContract, FolderTestCase):
    """The one on disk, without its thread."""

    def make(self) -> IStore:
        return self.get(SQLiteStore.open(MemoryReactorClock(), self.mktemp(), ImmediateWriter()))

    @settings(deadline=None, max_examples=25)
    @given(_steps)
    def test_they_agree(self, steps: list[tuple[str, object]]) -> None:
        """Whatever is done, both stores say the same afterwards."""
        stores = [MemoryStore(), self.make()]
        for verb, argument in steps:
            for store in stores:
                self.get(getattr(store, verb)(argument))
        memory, disk = stores
        self.assertEqual(self.get(memory.torrents()), self.get(disk.torrents()))
        for torrent in (ONE, TWO):
            self.assertEqual(
                self.get(memory.progress(torrent.infohash)), self.get(disk.progress(torrent.infohash))
            )
        self.get(disk.close(clean=True))
