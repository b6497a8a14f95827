"""Several peers at once, one of them lying: it finishes, the liar is banned, nobody else is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.conftest import FULL
from tests.live.clients import Aria2, Irontide, Libtorrent
from tests.live.conftest import Start
from tests.live.scripted_seed import ScriptedSeed
from tests.live.torrents import Made, MiB, differences, single


def test_the_liar_is_banned_and_nobody_else(start: Start, tmp_path: Path) -> None:
    """
    The honest ones are slow, so that the liar is asked for much.

    Each has an address of its own: a ban is by address.
    """
    torrent = single(tmp_path / "made", size=(256 if FULL else 12) * MiB + 5, piece_length=128 * 1024)
    rate = 512 * 1024 if not FULL else 4 * MiB
    honest = [start(Libtorrent, host=f"127.0.0.{number}", upload_limit=rate) for number in (3, 4)]
    for each in honest:
        each.seed(torrent.torrent, torrent.folder)
    target = start(Irontide)
    with (
        ScriptedSeed(torrent, "127.0.0.5", rate=rate) as scripted,
        ScriptedSeed(torrent, "127.0.0.6", rate=2 * rate, lie_every=100) as liar,
    ):
        target.download(
            torrent.torrent,
            tmp_path / "got",
            [*(each.address for each in honest), scripted.address, liar.address],
        )
        target.wait_complete(600 if FULL else 60)
    assert differences(torrent, tmp_path / "got") == []
    assert liar.lies
    banned = {text.split(":")[0] for text in target.said() if text.startswith("banned ")}
    assert banned == {"banned 127.0.0.6"}
    assert liar.connections == 1, "dialled again after it was banned"
    assert scripted.connections == 1


def test_all_clients_at_once(start: Start, made: Callable[[str], Made], tmp_path: Path) -> None:
    torrent = made("thousand-files")
    seeds = [start(Libtorrent), start(Aria2), start(Irontide), start(Libtorrent, host="127.0.0.2")]
    for seed in seeds:
        seed.seed(torrent.torrent, torrent.folder)
    target = start(Irontide)
    target.download(torrent.torrent, tmp_path / "got", [seed.address for seed in seeds])
    target.wait_complete()
    assert differences(torrent, tmp_path / "got") == []
