"""What a session wants to know of the machine that it runs on."""

from __future__ import annotations

import time
from pathlib import Path
from secrets import token_hex

from twisted.internet.interfaces import IReactorTime

SAME_CLOCK = 3600.0
"""Seconds.  A monotonic clock counts from the start of the machine, never near the time of day."""


def boot_id() -> str:
    """What the kernel calls this boot; another one means that the machine went down in between."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"unknown {token_hex(8)}"  # two that are not known are not the same


def on_wall_clock(clock: IReactorTime) -> bool:
    """Whether the clock is the time of day, which somebody may set: that stalls or fires every timer."""
    return abs(clock.seconds() - time.time()) < SAME_CLOCK
