"""
How a command shows what happens: a bar on a terminal, lines in a log, JSON for programs, or nothing.

Sizes for people are in binary units, numbers for programs exact.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from typing import Any, TextIO

from irontide.settings import human_size
from irontide.torrent.status import TorrentStatus

_CLEAR = "\r\x1b[K"
_LEAST_BAR = 10
_MOST_BAR = 40
_MOST_NAME = 30


class Reporter:
    """
    Shows nothing but errors; the base of the others.

    :ivar interval: seconds between two calls of ``progress``.
    """

    interval = 1.0

    def __init__(self, out: TextIO, errors: TextIO) -> None:
        self._out = out
        self._errors = errors

    def started(self, **facts: Any) -> None:
        """What is being done: name, infohash, total, path, listening."""

    def progress(self, status: TorrentStatus) -> None:
        """How far it is."""

    def complete(self, status: TorrentStatus) -> None:
        """All that is wanted is there."""

    def note(self, text: str) -> None:
        """Something worth knowing that is no error."""

    def interrupted(self, again: str) -> None:
        """The user interrupted; ``again`` says how to go on."""

    def error(self, text: str) -> None:
        """Something went wrong."""
        self._errors.write(f"irontide: {text}\n")
        self._errors.flush()

    def log(self, text: str) -> None:
        """What happens inside, for those who asked for it."""
        self._errors.write(text + "\n")
        self._errors.flush()

    def _line(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


class Lines(Reporter):
    """A line every few seconds."""

    interval = 5.0

    def started(self, **facts: Any) -> None:
        """See Reporter."""
        size = human_size(facts["total"])
        self._line(f"{printable(facts['name'])}: {size} in {printable(facts['path'])}")
        self._line(f"listening on {facts['listening']}")

    def progress(self, status: TorrentStatus) -> None:
        """See Reporter."""
        self._line(describe(status))

    def complete(self, status: TorrentStatus) -> None:
        """See Reporter."""
        self._line(f"complete: {human_size(status.wanted_bytes)}")

    def note(self, text: str) -> None:
        """See Reporter."""
        self._line(text)

    def interrupted(self, again: str) -> None:
        """See Reporter."""
        self._line(again)


class Bar(Lines):
    """One line that is drawn again and again, on a terminal; other lines go above it."""

    interval = 0.5

    def __init__(self, out: TextIO, errors: TextIO, width: Callable[[], int]) -> None:
        super().__init__(out, errors)
        self._width = width
        self._name = ""
        self._drawn = False

    def started(self, **facts: Any) -> None:
        """See Reporter."""
        self._name = printable(facts["name"])
        super().started(**facts)

    def progress(self, status: TorrentStatus) -> None:
        """See Reporter."""
        self._out.write(_CLEAR + draw(self._name, status, self._width() - 1))
        self._out.flush()
        self._drawn = True

    def complete(self, status: TorrentStatus) -> None:
        """See Reporter."""
        self.progress(status)
        self._out.write("\n")
        self._drawn = False
        super().complete(status)

    def error(self, text: str) -> None:
        """See Reporter."""
        self._clear()
        super().error(text)

    def log(self, text: str) -> None:
        """See Reporter."""
        self._clear()
        super().log(text)

    def _line(self, text: str) -> None:
        self._clear()
        super()._line(text)

    def _clear(self) -> None:
        if self._drawn:
            self._out.write(_CLEAR)
            self._out.flush()
            self._drawn = False


class Json(Reporter):
    """One object a line; each has an ``event``."""

    def started(self, **facts: Any) -> None:
        """See Reporter."""
        self._event("started", **facts)

    def progress(self, status: TorrentStatus) -> None:
        """See Reporter."""
        self._event("progress", **_facts(status))

    def complete(self, status: TorrentStatus) -> None:
        """See Reporter."""
        self._event("complete", **_facts(status))

    def note(self, text: str) -> None:
        """See Reporter."""
        self._event("note", text=text)

    def interrupted(self, again: str) -> None:
        """See Reporter."""
        self._event("interrupted")

    def error(self, text: str) -> None:
        """See Reporter."""
        self._event("error", text=text)

    def log(self, text: str) -> None:
        """See Reporter."""
        self._event("log", text=text)

    def _event(self, event: str, **facts: Any) -> None:
        self._line(json.dumps({"event": event, **facts}, default=str))


def reporter(*, as_json: bool, quiet: bool) -> Reporter:
    """The one that fits what the user said and where the output goes."""
    out, errors = sys.stdout, sys.stderr
    if as_json:
        return Json(out, errors)
    if quiet:
        return Reporter(out, errors)
    if not out.isatty():
        return Lines(out, errors)
    return Bar(out, errors, lambda: shutil.get_terminal_size().columns)


def _facts(status: TorrentStatus) -> dict[str, Any]:
    return {name: getattr(status, name) for name in (each.name for each in type(status).__attrs_attrs__)}


def share(status: TorrentStatus) -> float:
    """How far the present work is, 0 to 1: the check, or the download."""
    if status.phase == "checking":
        return min(1.0, max(0.0, status.checked))
    if status.wanted_bytes <= 0:
        return 1.0
    return min(1.0, status.have_bytes / status.wanted_bytes)


def percent(status: TorrentStatus) -> str:
    """The same in words; 100% only when nothing is missing."""
    return f"{int(share(status) * 1000) / 10:.1f}%"


def describe(status: TorrentStatus) -> str:
    """Say how things stand in a line."""
    if status.phase == "checking":
        return f"checking {percent(status)}"
    if status.phase == "stopped":
        return f"stopped: {status.error}" if status.error else "stopped"
    peers = f"{status.peers} peer" + ("" if status.peers == 1 else "s")
    up = f"up {human_size(status.upload_rate)}/s"
    if status.complete:
        return f"seeding, {up}, {human_size(status.uploaded)} sent, {peers}"
    got = f"{percent(status)} of {human_size(status.wanted_bytes)}"
    left = "" if status.eta is None else f", {duration(status.eta)} left"
    return f"{got}, down {human_size(status.download_rate)}/s, {up}, {peers}{left}"


def draw(name: str, status: TorrentStatus, width: int) -> str:
    """Draw the bar in at most ``width`` columns: what matters least goes first when room is short."""
    text = describe(status)
    if len(name) > _MOST_NAME:
        name = name[: _MOST_NAME - 1] + "~"
    room = width - len(text) - 3
    if status.phase == "stopped" or status.complete or room < _LEAST_BAR:
        return text[: max(0, width)]
    bar_room = min(_MOST_BAR, room)
    filled = int(bar_room * share(status))
    bar = f"[{'#' * filled}{'.' * (bar_room - filled)}] {text}"
    return f"{name} {bar}" if len(name) + 1 + len(bar) <= width else bar


def duration(seconds: float) -> str:
    """Write a length of time as ``1:02:03`` or ``2:03``; days and more as ``3 d``."""
    whole = round(min(seconds, 10**9))
    if whole >= 2 * 86400:
        return f"{whole // 86400} d"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def printable(text: str) -> str:
    """Take out what could do things to a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
