"""
irontide downloads from, and seeds to, real clients: every kind of torrent, every byte compared.

All kinds of torrent are transferred at the same time, each between two processes of its own: most of
the time is spent waiting for the other clients' timers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import FULL
from tests.live.clients import Aria2, Client, Irontide, Libtorrent, Transmission
from tests.live.clients.base import TookTooLong
from tests.live.conftest import Start
from tests.live.torrents import KINDS, Made, differences

PAIRS = [
    (Libtorrent, Irontide),
    (Transmission, Irontide),
    (Aria2, Irontide),
    (Irontide, Libtorrent),
    (Irontide, Transmission),
    (Irontide, Aria2),
    (Irontide, Irontide),
]
PATIENCE = 1800.0 if FULL else 90.0


@pytest.mark.parametrize(("seeder", "leecher"), PAIRS, ids=lambda cls: cls.name)
def test_every_kind_of_torrent(
    start: Start, made: Callable[[str], Made], tmp_path: Path, seeder: type[Client], leecher: type[Client]
) -> None:
    on_lan = Transmission in (seeder, leecher)
    pairs = {kind: (start(seeder, on_lan=on_lan), start(leecher, on_lan=on_lan)) for kind in KINDS}
    for kind, (source, _) in pairs.items():
        source.seed(made(kind).torrent, made(kind).folder)
    for kind, (source, target) in pairs.items():
        target.download(made(kind).torrent, tmp_path / kind, [source.address])
    deadline = time.monotonic() + PATIENCE
    wrong: dict[str, object] = {}
    for kind, (_, target) in pairs.items():
        try:
            target.wait_complete(max(1.0, deadline - time.monotonic()))
        except (AssertionError, TookTooLong) as error:
            wrong[kind] = error
        target.stop()
        found = differences(made(kind), tmp_path / kind, empty_files=leecher.makes_empty_files)
        if found and kind not in wrong:
            wrong[kind] = found
    assert wrong == {}
