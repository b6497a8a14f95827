"""
Transfers one torrent within each pair of engines, by turns, and prints what it cost.

    python -m bench --size 1024 --runs 5

Speed and CPU only mean something as ratios within one run, on an otherwise quiet machine: the pairs take
turns, the memory is warmed first, medians are shown, every byte is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.content import Content, make_content, same_bytes, warm
from bench.report import Measured, summarise, table
from bench.sides import ENGINES, SideFailed, transfer

MiB = 1 << 20
PAIRS = [
    ("libtorrent", "libtorrent"),
    ("irontide", "libtorrent"),
    ("libtorrent", "irontide"),
    ("irontide", "irontide"),
]
"""(who seeds, who downloads); all figures are compared with the first pair."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    options = _options(arguments)
    where = Path(tempfile.mkdtemp(prefix="irontide-bench-", dir=options.where))
    try:
        return _run(options, where)
    except SideFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(where, ignore_errors=True)


def _run(options: argparse.Namespace, where: Path) -> int:
    size = options.size * MiB
    warm(where, 2 * size + 256 * MiB)
    content = make_content(where, size, options.piece * 1024)
    measured: list[Measured] = []
    for run in range(options.runs + options.discard):
        for seeder, leecher in options.pairs:
            got = _once(seeder, leecher, content, where, options.timeout)
            if run >= options.discard:
                measured.append(got)
            print(f"{run + 1}/{options.runs + options.discard} {got}", file=sys.stderr, flush=True)
    print(table(measured))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        report = {
            "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "python": platform.python_version(),
            "kernel": platform.release(),
            "cpus": os.cpu_count(),
            "size": size,
            "piece_length": options.piece * 1024,
            "summary": summarise(measured),
            "runs": [one.as_dict() for one in measured],
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
        print(f"written: {options.json}", file=sys.stderr)
    return 0


def _once(seeder: str, leecher: str, content: Content, where: Path, timeout: float) -> Measured:
    target = where / "target"
    try:
        measured = transfer(seeder, leecher, content, target, where, timeout)
        if not same_bytes(content.file, target / content.file.name):
            raise SideFailed(f"{seeder} -> {leecher}: wrong bytes")
    finally:
        shutil.rmtree(target, ignore_errors=True)
    return measured


def _pair(text: str) -> tuple[str, str]:
    seeder, arrow, leecher = text.partition(">")
    if not arrow or seeder not in ENGINES or leecher not in ENGINES:
        raise argparse.ArgumentTypeError(f"not two of {', '.join(ENGINES)}: {text!r}")
    return seeder, leecher


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="of the torrent (1024)")
    parser.add_argument("--piece", type=int, default=1024, metavar="KIB", help="length of a piece (1024)")
    parser.add_argument("--runs", type=int, default=5, help="transfers of each pair that count (5)")
    parser.add_argument("--discard", type=int, default=0, help="transfers of each pair before these (0)")
    parser.add_argument(
        "--pair",
        type=_pair,
        action="append",
        dest="pairs",
        metavar="SEEDER>LEECHER",
        help="only this pair; may be repeated",
    )
    parser.add_argument("--where", type=Path, default=Path("/dev/shm"), help="a tmpfs (/dev/shm)")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds that a transfer may take")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args(arguments)
    options.pairs = options.pairs or PAIRS
    return options


sys.exit(main())
