"""The benchmark runs, with every pair, at a size that tells nothing of speed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import FULL

ROOT = Path(__file__).parent.parent.parent


def test_every_pair(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bench",
            "--size",
            "1024" if FULL else "64",
            "--runs",
            "1",
            "--timeout",
            "60",
            "--json",
            str(report),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(report.read_text())["summary"]
    assert [row["pair"] for row in summary] == [
        "libtorrent -> libtorrent",
        "irontide -> libtorrent",
        "libtorrent -> irontide",
        "irontide -> irontide",
    ]
    assert all(row["megabytes_per_second"] > 0 for row in summary)
