"""The programs of the documentation do what it says they do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tests.live.clients import Libtorrent
from tests.live.clients.base import Process
from tests.live.conftest import Start
from tests.live.torrents import Made, differences

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"


def test_embed(start: Start, made: Callable[[str], Made], tmp_path: Path) -> None:
    torrent, seed = made("single"), start(Libtorrent)
    seed.seed(torrent.torrent, torrent.folder)
    host, port = seed.address
    program = Process(
        [
            sys.executable,
            str(EXAMPLES / "embed.py"),
            str(torrent.torrent),
            str(tmp_path / "got"),
            f"{host}:{port}",
        ],
        tmp_path / "log",
        cwd=tmp_path,
    )
    try:
        assert program.wait() == 0, program.tail()
    finally:
        program.stop()
    assert "is complete" in program.tail()
    assert differences(torrent, tmp_path / "got") == []
