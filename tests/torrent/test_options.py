"""What a user sets for one torrent, and how it comes back from the store."""

from __future__ import annotations

import json

from hypothesis import given, strategies
from twisted.trial.unittest import SynchronousTestCase

from irontide.torrent.options import NORMAL_PRIORITY, TorrentOptions
from tests.torrent.fakes import KIB16, torrent_file

names = strategies.lists(strategies.text(min_size=1, max_size=5), min_size=1, max_size=3).map(tuple)
some_options = strategies.builds(
    TorrentOptions,
    paused=strategies.booleans(),
    sequential=strategies.booleans(),
    priorities=strategies.none() | strategies.lists(strategies.integers(0, 7)).map(tuple),
    download_rate=strategies.integers(0, 2**60),
    upload_rate=strategies.integers(0, 2**60),
    renamed=strategies.dictionaries(strategies.integers(0, 9), names).map(lambda d: tuple(sorted(d.items()))),
)


class OptionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.info = torrent_file([("a", KIB16), ("sub/b", KIB16)])[0].info

    @given(some_options)
    def test_json_and_back(self, options: TorrentOptions) -> None:
        kept = json.loads(json.dumps(options.to_json(), allow_nan=False))
        self.assertEqual(TorrentOptions.from_json(kept), options)

    def test_an_older_and_a_newer_version(self) -> None:
        self.assertEqual(TorrentOptions.from_json({}), TorrentOptions())
        self.assertEqual(TorrentOptions.from_json({"paused": True, "super": 1}), TorrentOptions(paused=True))

    def test_values_that_are_none_are_errors(self) -> None:
        """Whoever loads them says so, and keeps the row."""
        for values in ({"download_rate": "fast"}, {"priorities": 3}, {"renamed": [1]}, {"upload_rate": None}):
            self.assertRaises((TypeError, ValueError), TorrentOptions.from_json, values)

    def test_priorities(self) -> None:
        self.assertEqual(TorrentOptions().file_priorities(self.info), (NORMAL_PRIORITY,) * 2)
        self.assertEqual(TorrentOptions(priorities=(0, 7)).file_priorities(self.info), (0, 7))
        self.assertEqual(TorrentOptions(priorities=(0, 7)).wanted(self.info), (False, True))

    def test_priorities_of_another_torrent_are_none(self) -> None:
        self.assertEqual(TorrentOptions(priorities=(0,)).wanted(self.info), (True, True))

    def test_paths(self) -> None:
        own = TorrentOptions().paths(self.info)
        self.assertEqual(own, [("t", "a"), ("t", "sub", "b")])
        renamed = TorrentOptions(renamed=((1, ("t", "c")), (9, ("x",)))).paths(self.info)
        self.assertEqual(renamed, [("t", "a"), ("t", "c")])
