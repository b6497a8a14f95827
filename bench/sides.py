"""
One transfer: two processes, one seeding and one downloading, and what the kernel says they used.

A side is a program that takes its role as JSON in its argument and speaks in lines of JSON on stdout:
``listening`` (with its port) when it is ready for peers, and ``complete`` when it has everything.  Each
line carries the monotonic clock and the CPU time so far.  It ends, in order, when its stdin does.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.content import Content
from bench.report import Measured

HERE = Path(__file__).parent
ENGINES = {"libtorrent": "libtorrent_side.py", "irontide": "irontide_side.py"}
HOST = "127.0.0.1"
READY = 30.0
GiB = 1 << 30


class SideFailed(Exception):
    """A side ended early, or something took too long; the text says which and why."""


class Side:
    """One engine in a process of its own."""

    def __init__(self, engine: str, role: dict[str, Any], where: Path) -> None:
        self.engine = engine
        self._errors = where / f"{engine}-{role['role']}.log"
        with self._errors.open("wb") as errors:
            self._child = subprocess.Popen(
                [sys.executable, "-P", str(HERE / ENGINES[engine]), json.dumps(role)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                env={**os.environ, "PYTHONPATH": str(HERE.parent)},
            )
        self._rest = b""

    def expect(self, event: str, timeout: float) -> dict[str, Any]:
        """Return the next line, which has to say ``event``."""
        assert self._child.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._rest:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._child.stdout], [], [], left)[0]:
                raise SideFailed(f"{self.engine}: no {event!r} within {timeout} s{self._tail()}")
            data = self._child.stdout.read(65536)
            if not data:
                raise SideFailed(f"{self.engine}: ended before {event!r}{self._tail()}")
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\n")
        line: dict[str, Any] = json.loads(text)
        if line["event"] != event:
            raise SideFailed(f"{self.engine}: {line} instead of {event!r}{self._tail()}")
        return line

    def end(self, timeout: float = 20.0) -> float:
        """Make it end, by force if it takes too long; return the CPU seconds of its whole life."""
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.close()
        self._child.stdout.close()
        deadline = time.monotonic() + timeout
        while True:
            pid, status, usage = os.wait4(self._child.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                self._child.kill()
                deadline += timeout
            time.sleep(0.01)
        self._child.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_utime + usage.ru_stime

    @property
    def status(self) -> int | None:
        """The exit status, once it has ended."""
        return self._child.returncode

    def _tail(self) -> str:
        text = self._errors.read_text("utf-8", "replace")[-2000:]
        return f"\n{text}" if text else ""


def transfer(
    seeder: str, leecher: str, content: Content, target: Path, where: Path, timeout: float
) -> Measured:
    """
    Have ``leecher`` fetch the content from ``seeder`` into the folder ``target``.

    :raises SideFailed: one of them could not.
    """
    sides: list[Side] = []
    cpu: dict[str, float] = {}
    try:
        up = Side(seeder, _role("seed", content, content.file.parent, where), where)
        sides.append(up)
        offered = up.expect("listening", READY)
        down = Side(leecher, _role("download", content, target, where, offered["port"]), where)
        sides.append(down)
        started = down.expect("listening", READY)
        complete = down.expect("complete", timeout)
    finally:
        for side, role in zip(reversed(sides), ("down", "up")[-len(sides) :], strict=True):
            cpu[role] = side.end()
    for side in sides:
        if side.status != 0:
            raise SideFailed(f"{side.engine}: exit status {side.status}{side._tail()}")
    gib = content.size / GiB
    return Measured(
        seeder=seeder,
        leecher=leecher,
        megabytes_per_second=content.size / 1e6 / (complete["time"] - started["time"]),
        up_cpu=cpu["up"] / gib,
        down_cpu=cpu["down"] / gib,
        up_start=offered["cpu"] / gib,
        down_start=started["cpu"] / gib,
    )


def _role(role: str, content: Content, folder: Path, where: Path, port: int | None = None) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return {
        "role": role,
        "torrent": str(content.torrent),
        "folder": str(folder),
        "state": str(where / f"state-{role}"),
        "listen": HOST,
        "peer": None if port is None else [HOST, port],
    }
