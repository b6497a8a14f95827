"""The harness itself: the real clients transfer among each other, without irontide."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import FULL
from tests.live.clients import Aria2, Client, Libtorrent, Transmission, wait_until
from tests.live.conftest import Start
from tests.live.scripted_seed import ScriptedSeed
from tests.live.torrents import Made, differences

PAIRS = [(Libtorrent, Aria2), (Aria2, Libtorrent)]
if FULL:  # Transmission begins to talk only every 10 s
    PAIRS += [(Libtorrent, Transmission), (Transmission, Libtorrent)]


@pytest.mark.parametrize(("seeder", "leecher"), PAIRS, ids=lambda cls: cls.name)
def test_transfer(
    start: Start, made: Callable[[str], Made], tmp_path: Path, seeder: type[Client], leecher: type[Client]
) -> None:
    torrent = made("thousand-files")
    on_lan = Transmission in (seeder, leecher)
    source, target = start(seeder, on_lan=on_lan), start(leecher, on_lan=on_lan)
    source.seed(torrent.torrent, torrent.folder)
    target.download(torrent.torrent, tmp_path / "got", [source.address])
    target.wait_complete()
    target.stop()
    assert differences(torrent, tmp_path / "got", empty_files=leecher.makes_empty_files) == []


def test_a_liar_is_found_out(start: Start, made: Callable[[str], Made], tmp_path: Path) -> None:
    """libtorrent refuses what the liar tells it, so the liar does lie, and serves the rest rightly."""
    torrent = made("single")
    honest, target = start(Libtorrent), start(Libtorrent)
    honest.seed(torrent.torrent, torrent.folder)
    with ScriptedSeed(torrent, lie_every=100) as liar:
        target.download(torrent.torrent, tmp_path / "got", [liar.address])
        wait_until(lambda: target.status()["failed"] > 0, "a failed piece")
        target.connect(honest.address)
        target.wait_complete()
    target.stop()
    assert liar.lies
    assert differences(torrent, tmp_path / "got") == []
