"""``twistd -n irontide`` as a user and as systemd see it."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted

from tests.live.clients.base import Process, accepts, free_port, wait_until
from tests.live.scripted_seed import ScriptedSeed
from tests.live.state import committed, wrong_pieces
from tests.live.torrents import single
from tests.live.tracker import StaticTracker
from tests.session.fakes import torrent_file

Daemon = Callable[..., Process]

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile="]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """Start daemons, each on a port of its own with everything it keeps below ``tmp_path``."""
    running: list[Process] = []

    def start(*options: str, port: int | None = None, **environment: str) -> Process:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("IRONTIDE_")}
        process = Process(
            [
                *[*TWISTD, "irontide"],
                f"--listen=127.0.0.1:{free_port() if port is None else port}",
                f"--downloads={tmp_path / 'downloads'}",
                f"--state={tmp_path / 'state'}",
                *options,
            ],
            tmp_path / f"log-{len(running)}",
            environment={**clean, "XDG_CONFIG_HOME": str(tmp_path / "config"), **environment},
            cwd=Path(__file__).parents[2],
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.stop()


def started(process: Process) -> None:
    """Wait until the daemon has said all that it says at its start."""
    wait_until(lambda: "state is kept in" in process.tail() or process.status is not None, "started")
    assert process.status is None, process.tail()


def clean_flag(state: Path) -> int:
    """Whether the store was closed in order."""
    connection = sqlite3.connect(state / "irontide.sqlite")
    try:
        (value,) = connection.execute("SELECT value FROM facts WHERE name = 'clean'").fetchone()
        return int(value)
    finally:
        connection.close()


def assert_one_line(process: Process, text: str) -> None:
    """The daemon ended with 1 and one clear line."""
    assert process.wait(20) == 1, process.tail()
    said = process.tail()
    assert "Traceback" not in said
    assert len([line for line in said.splitlines() if text in line]) == 1, said


def test_life(daemon: Daemon, tmp_path: Path) -> None:
    """It says where it is, survives SIGHUP, and SIGTERM stops it in order."""
    port = free_port()
    process = daemon(port=port)
    started(process)
    said = process.tail()
    for text in (f"listening on 127.0.0.1:{port}", str(tmp_path / "downloads"), str(tmp_path / "state")):
        assert text in said
    assert accepts(("127.0.0.1", port))
    process.signal(signal.SIGHUP)
    wait_until(lambda: "SIGHUP ignored" in process.tail(), "SIGHUP is survived")
    assert clean_flag(tmp_path / "state") == 0
    process.signal(signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM
    assert clean_flag(tmp_path / "state") == 1
    assert "Traceback" not in process.tail()


@pytest_twisted.ensureDeferred
async def test_stops_in_time_under_load(daemon: Daemon, tmp_path: Path) -> None:
    """Contract S8: in the middle of a transfer, the tracker being dead by then; nothing is lost."""
    made = single(tmp_path / "made", size=64 << 20, piece_length=256 << 10)
    (watched := tmp_path / "watched").mkdir()
    with ScriptedSeed(made, rate=8 << 20) as seed:
        tracker = StaticTracker("127.0.0.1", [seed.address], answers=1)
        try:
            tracker.torrent(made.torrent, watched / "one.torrent")
            process = daemon(f"--watch={watched}")
            wait_until(lambda: len(seed.verified) > 20, "a part is here", seconds=60)
            process.signal(signal.SIGTERM)
            assert process.wait(10) == -signal.SIGTERM
            assert len(tracker.announces) == 2, "it said goodbye"
        finally:
            tracker.stop()
        assert clean_flag(tmp_path / "state") == 1
        assert "Traceback" not in process.tail()
    kept = await committed(tmp_path / "state", tmp_path / "copy")
    assert kept is not None
    assert {piece for piece, _ in seed.verified} <= kept.pieces
    assert wrong_pieces(made, tmp_path / "downloads", kept.pieces) == []


def test_port_in_use(daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_one_line(daemon(port=port), f"irontide cannot start: port {port} is in use")


def test_state_in_use(daemon: Daemon, tmp_path: Path) -> None:
    first = daemon()
    started(first)
    assert_one_line(daemon(), f"irontide cannot start: {tmp_path / 'state'} is in use by process {first.pid}")
    assert first.status is None


def test_bad_settings(daemon: Daemon) -> None:
    process = daemon("--disk-threads=0", IRONTIDE_UPLOAD_RATE="fast")
    assert process.wait(20) == 1
    assert sorted(process.tail().splitlines()) == [
        "irontide: disk_threads: 0 is less than 1",
        "irontide: upload_rate: 'fast' is not a rate such as 1048576 or '1 MiB/s'",
    ]


def test_systemd_is_told(daemon: Daemon, tmp_path: Path) -> None:
    """By path and in the abstract namespace."""
    for address, name in (
        (str(tmp_path / "notify"), str(tmp_path / "notify")),
        (f"\0irontide-test-{os.getpid()}", f"@irontide-test-{os.getpid()}"),
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(address)
            manager.settimeout(20)
            process = daemon(NOTIFY_SOCKET=name)
            ready = manager.recv(4096).decode().splitlines()
            assert ready[0] == "READY=1"
            assert ready[1].startswith("STATUS=Listening on 127.0.0.1:")
            process.signal(signal.SIGTERM)
            assert manager.recv(4096).decode().startswith("STOPPING=1\n")
            process.wait(10)


def test_socket_activation(daemon: Daemon, tmp_path: Path) -> None:
    """The socket that systemd has opened is the one it listens on."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        port = opened.getsockname()[1]
        code = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3, inheritable=True);"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
            "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
        )
        log = tmp_path / "log"
        with log.open("wb") as output:
            child = subprocess.Popen(
                [
                    *[sys.executable, "-c", code, str(opened.fileno()), *TWISTD[1:], "irontide"],
                    *["--listen=127.0.0.1:1", f"--state={tmp_path / 's'}", f"--downloads={tmp_path}"],
                ],
                pass_fds=[opened.fileno()],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parents[2],
            )
        try:
            wait_until(lambda: b"state is kept" in log.read_bytes() or child.poll() is not None, "started")
            assert f"listening on 127.0.0.1:{port}" in log.read_text()
        finally:
            child.terminate()
            child.wait(20)


def test_second_term_ends_it_at_once(daemon: Daemon, tmp_path: Path) -> None:
    """S8: whatever the first one waits for, and the state is consistent."""
    process = daemon()
    started(process)
    for _ in range(2):
        process.signal(signal.SIGTERM)
    assert process.wait(5) in (-signal.SIGTERM, 128 + signal.SIGTERM)
    again = daemon()
    started(again)


def test_watched_directory(daemon: Daemon, tmp_path: Path) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    process = daemon(f"--watch={watched}")
    started(process)
    (watched / "good.torrent").write_bytes(torrent_file(b"good")[0])
    (watched / "bad.torrent").write_bytes(b"bad")
    wait_until(
        lambda: sorted(path.name for path in watched.iterdir()) == ["bad.torrent.bad", "good.torrent.added"],
        "both are taken",
    )
    process.stop()
    again = daemon()
    started(again)
    connection = sqlite3.connect(tmp_path / "state" / "irontide.sqlite")
    assert connection.execute("SELECT infohash FROM torrents").fetchall() == [(torrent_file(b"good")[1],)]
    connection.close()
