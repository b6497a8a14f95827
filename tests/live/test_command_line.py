"""The command line as a shell sees it; downloads from real clients are tested in test_interop_*."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.clients.base import wait_until
from tests.session.fakes import torrent_file

Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def irontide(tmp_path: Path) -> Iterator[Run]:
    """Start ``irontide`` with all that it keeps below ``tmp_path``."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "irontide", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={
                **os.environ,
                "XDG_STATE_HOME": str(tmp_path / "state"),
                "IRONTIDE_LISTEN_ADDRESSES": "127.0.0.1",
                **environment,
            },
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def torrent(tmp_path: Path) -> str:
    """A .torrent of which nobody has the data."""
    path = tmp_path / "t.torrent"
    path.write_bytes(torrent_file(b"data")[0])
    return str(path)


def first_event(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    event: dict[str, Any] = json.loads(process.stdout.readline())
    return event


def test_interrupted_and_continued(irontide: Run, torrent: str, tmp_path: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        process = irontide("download", torrent, "--to", str(tmp_path / "got"), "--json")
        assert first_event(process)["event"] == "started"
        process.send_signal(number)
        out, errors = process.communicate(timeout=20)
        assert process.returncode == 130, errors
        assert json.loads(out.splitlines()[-1]) == {"event": "interrupted"}
        assert errors == ""


def test_second_of_the_same_is_refused_others_take_the_next_port(
    irontide: Run, torrent: str, tmp_path: Path
) -> None:
    first = irontide("download", torrent, "--to", str(tmp_path), "--json")
    port = first_event(first)["listening"]
    second = irontide("download", torrent, "--to", str(tmp_path))
    _, errors = second.communicate(timeout=20)
    assert second.returncode == 1
    assert errors.count("\n") == 1 and f"is in use by process {first.pid}" in errors
    other = tmp_path / "other.torrent"
    other.write_bytes(torrent_file(b"other")[0])
    third = irontide("download", str(other), "--to", str(tmp_path), "--json")
    assert first_event(third)["listening"] != port


def test_nobody_reads_the_output(irontide: Run, torrent: str, tmp_path: Path) -> None:
    """``irontide download x | head -1`` ends, and says nothing."""
    process = irontide("download", torrent, "--to", str(tmp_path), "--json")
    first_event(process)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(20) == 1
    assert process.stderr.read() == ""
    process.stdout = None


def test_failures_are_one_line(irontide: Run, tmp_path: Path, torrent: str) -> None:
    junk = tmp_path / "junk.torrent"
    junk.write_bytes(b"junk")
    for arguments, said in (
        (("download", str(tmp_path / "no.torrent")), "No such file"),
        (("download", str(junk)), "not a usable .torrent file"),
        (("download", "http://127.0.0.1:1/x"), ""),
        (("download", torrent, "--to", str(junk / "below")), "not a directory"),
        (("seed", torrent, "--from", str(tmp_path)), "not complete"),
    ):
        process = irontide(*arguments)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 1, (arguments, errors)
        assert errors.startswith("irontide: ") and errors.count("\n") == 1, errors
        assert said.lower() in errors.lower()


def test_bar_on_a_terminal(irontide: Run, torrent: str, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "irontide", "download", torrent, "--to", str(tmp_path)],
            stdout=theirs,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
        )
        shown = b""

        def drawn() -> bool:
            nonlocal shown
            shown += os.read(ours, 4096)
            return b"\r\x1b[K" in shown and b"0.0%" in shown

        wait_until(drawn, "a bar", seconds=20)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        os.close(ours)
        os.close(theirs)
