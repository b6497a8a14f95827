"""Figures and their medians."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from attrs import asdict, frozen


@frozen
class Measured:
    """
    One transfer.

    :ivar up_cpu: CPU seconds for each GiB (user and system, the whole life of the process) of who seeds;
    :ivar down_cpu: of who downloads;
    :ivar up_start: what of that went by before the process was ready,
    :ivar down_start: and likewise.
    """

    seeder: str
    leecher: str
    megabytes_per_second: float
    up_cpu: float
    down_cpu: float
    up_start: float
    down_start: float

    @property
    def pair(self) -> str:
        """Who to whom."""
        return f"{self.seeder} -> {self.leecher}"

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.pair}: {self.megabytes_per_second:.0f} MB/s,"
            f" CPU s/GiB {self.up_cpu:.2f} up, {self.down_cpu:.2f} down"
        )


FIGURES = ("megabytes_per_second", "up_cpu", "down_cpu", "up_start", "down_start")


def summarise(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return for each pair the median, least and most of each figure, and the ratios to the first pair."""
    rows = []
    for pair in dict.fromkeys(one.pair for one in measured):
        ours = [one for one in measured if one.pair == pair]
        row: dict[str, Any] = {"pair": pair, "runs": len(ours)}
        for figure in FIGURES:
            values = [getattr(one, figure) for one in ours]
            row[figure] = median(values)
            row[f"{figure}_range"] = [min(values), max(values)]
        rows.append(row)
    for row in rows:
        row["speed_ratio"] = row["megabytes_per_second"] / rows[0]["megabytes_per_second"]
        row["up_cpu_ratio"] = row["up_cpu"] / rows[0]["up_cpu"]
        row["down_cpu_ratio"] = row["down_cpu"] / rows[0]["down_cpu"]
    return rows


def table(measured: Sequence[Measured]) -> str:
    """Return the medians as text; a ratio is to the first pair, in brackets is what starting cost."""
    rows = summarise(measured)
    cells = [("seeds -> downloads", "MB/s", "least-most", "ratio", "CPU s/GiB up", "ratio", "down", "ratio")]
    for row in rows:
        least, most = row["megabytes_per_second_range"]
        cells.append(
            (
                row["pair"],
                f"{row['megabytes_per_second']:.0f}",
                f"{least:.0f}-{most:.0f}",
                f"{row['speed_ratio']:.2f}x",
                f"{row['up_cpu']:.2f} ({row['up_start']:.2f})",
                f"{row['up_cpu_ratio']:.2f}x",
                f"{row['down_cpu']:.2f} ({row['down_start']:.2f})",
                f"{row['down_cpu_ratio']:.2f}x",
            )
        )
    note = f"medians of {rows[0]['runs']}; ratios to the first pair; in brackets: spent before it was ready"
    return "\n".join([*_columns(cells), note])


def _columns(cells: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        first, *rest = (
            text.ljust(width) if at == 0 else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join([first, *rest]).rstrip()
