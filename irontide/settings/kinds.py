"""
What kinds of values a setting can have: how each is written, checked and shown.

A value comes as a TOML value, as text (the environment, a command line) or from a program.  ``parse``
takes all three and returns the one type that the rest of irontide sees, or raises ValueError with a
text for the user.  Nothing is coerced silently: ``true`` is no number and ``"yes"`` no switch in a file.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import ClassVar

from attrs import frozen

KIB, MIB, GIB, TIB = (1 << shift for shift in (10, 20, 30, 40))

_MULTIPLES: Mapping[str, int] = {
    "": 1, "B": 1,
    "KIB": KIB, "MIB": MIB, "GIB": GIB, "TIB": TIB,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
}  # fmt: skip
_QUANTITY = re.compile(r"(\d{1,20}(?:\.\d{1,9})?) ?([A-Za-z]*)", re.ASCII)
_UNLIMITED = "unlimited"


class Kind:
    """The base: what every kind of value can do."""

    _word: ClassVar[str]

    @property
    def placeholder(self) -> str:
        """What stands for a value in the help of a command line."""
        return self._word

    def parse(self, value: object) -> object:
        """
        Return the value in its one type, checked.

        :raises ValueError: it is none of this kind; the text is for the user.
        """
        raise NotImplementedError

    def parse_text(self, text: str) -> object:
        """As ``parse``, for a value that can come as text only."""
        return self.parse(text)

    def resolve(self, value: object, base: str) -> object:
        """Make a parsed value independent of ``base``, the directory that it was written in."""
        return value

    def show(self, value: object) -> str:
        """Write the value as a person would."""
        return str(value)


def _number(value: object, what: str) -> int:
    """Take an int as it is; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{_shown(value)} is not {what}")
    return value


def _within(value: float, least: float, most: float, show: Callable[[object], str]) -> None:
    if value < least:
        raise ValueError(f"{_short(show(value))} is less than {show(least)}")
    if value > most:
        raise ValueError(f"{_short(show(value))} is more than {show(most)}")


def _shown(value: object) -> str:
    """A stranger's value for an error text: never long."""
    return _short(repr(value))


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


@frozen
class Whole(Kind):
    """
    A whole number of something.

    :ivar unlimited: the number that ``"unlimited"`` stands for, allowed beside least...most; None where
        there has to be a limit.
    """

    _word: ClassVar[str] = "N"
    least: int = 0
    most: int = 2**31 - 1
    unlimited: int | None = None

    def parse(self, value: object) -> int:
        if self.unlimited is not None and value == _UNLIMITED:
            return self.unlimited
        number = _number(value, "a whole number")
        if number == self.unlimited:
            return number
        _within(number, self.least, self.most, str)
        return number

    def parse_text(self, text: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,20}", text, re.ASCII):
            return self.parse(text)
        return self.parse(int(text))

    def show(self, value: object) -> str:
        return _UNLIMITED if value == self.unlimited else str(value)


@frozen
class Size(Kind):
    """A number of bytes: 67108864 or ``"64 MiB"``."""

    _word: ClassVar[str] = "SIZE"
    least: int = 0
    most: int = TIB

    def parse(self, value: object) -> int:
        number = _bytes(value, "a size such as 67108864 or '64 MiB'")
        _within(number, self.least, self.most, self.show)
        return number

    def show(self, value: object) -> str:
        return human_size(value) if isinstance(value, int) else str(value)


@frozen
class Rate(Kind):
    """Bytes in a second: 1048576 or ``"1 MiB/s"``; 0, or ``"unlimited"``, is no limit."""

    _word: ClassVar[str] = "RATE"
    most: int = TIB

    def parse(self, value: object) -> int:
        if value == _UNLIMITED:
            return 0
        if isinstance(value, str):
            value = value.removesuffix("/s").rstrip()
        number = _bytes(value, "a rate such as 1048576 or '1 MiB/s'")
        _within(number, 0, self.most, self.show)
        return number

    def show(self, value: object) -> str:
        return f"{human_size(value)}/s" if isinstance(value, int) and value else _UNLIMITED


@frozen
class Seconds(Kind):
    """A length of time in seconds, with a fraction if need be."""

    _word: ClassVar[str] = "SECONDS"
    least: float = 0.0
    most: float = 86400.0

    def parse(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{_shown(value)} is not a number of seconds")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number of seconds")
        _within(value, self.least, self.most, str)
        return float(value)

    def parse_text(self, text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise ValueError(f"{_shown(text)} is not a number of seconds") from None
        return self.parse(number)


@frozen
class Flag(Kind):
    """Yes or no: a boolean in a file; true, false, yes, no, on, off, 1 or 0 as text."""

    _word: ClassVar[str] = "yes|no"
    _words: ClassVar[Mapping[str, bool]] = {
        "true": True, "yes": True, "on": True, "1": True,
        "false": False, "no": False, "off": False, "0": False,
    }  # fmt: skip

    def parse(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"{_shown(value)} is neither true nor false")
        return value

    def parse_text(self, text: str) -> bool:
        word = self._words.get(text.lower())
        if word is None:
            raise ValueError(f"{_shown(text)} is neither yes nor no")
        return word

    def show(self, value: object) -> str:
        return "yes" if value else "no"


@frozen
class Choice(Kind):
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def placeholder(self) -> str:
        return "|".join(self.words)

    def parse(self, value: object) -> str:
        if not isinstance(value, str) or value not in self.words:
            raise ValueError(f"{_shown(value)} is none of {', '.join(self.words)}")
        return value


@frozen
class Path(Kind):
    """
    A directory.  ``~`` is the user's home; a relative path counts from the file that it stands in.

    :ivar optional: whether it can be left out; None, or empty text, says so.
    """

    _word: ClassVar[str] = "DIR"
    optional: bool = False

    def parse(self, value: object) -> str | None:
        if self.optional and (value is None or value == ""):
            return None
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError(f"{_shown(value)} is not a path")
        return value

    def resolve(self, value: object, base: str) -> object:
        if not isinstance(value, str):
            return value
        return os.path.normpath(os.path.join(base, os.path.expanduser(value)))

    def show(self, value: object) -> str:
        return "none" if value is None else str(value)


@frozen
class Addresses(Kind):
    """A few numeric IPv4 and IPv6 addresses of this host: a list, or text with commas between."""

    _word: ClassVar[str] = "ADDRESS,..."
    most: int = 64

    def parse(self, value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, Sequence):
            raise ValueError(f"{_shown(value)} is not a list of addresses")
        if not 1 <= len(value) <= self.most:
            raise ValueError(f"{len(value)} addresses; there have to be 1 to {self.most}")
        return tuple(dict.fromkeys(_address(each) for each in value))

    def show(self, value: object) -> str:
        return ", ".join(value) if isinstance(value, tuple) else str(value)


def _address(value: object) -> str:
    try:
        if not isinstance(value, str):
            raise ValueError
        return str(ip_address(value))
    except ValueError:
        raise ValueError(f"{_shown(value)} is not a numeric IPv4 or IPv6 address") from None


def _bytes(value: object, what: str) -> int:
    """A count of bytes from an exact number or from text with a unit."""
    if not isinstance(value, str):
        return _number(value, what)
    match = _QUANTITY.fullmatch(value.strip())
    multiple = None if match is None else _MULTIPLES.get(match[2].upper())
    if match is None or multiple is None:
        raise ValueError(f"{_shown(value)} is not {what}")
    whole, _, fraction = match[1].partition(".")
    scale: int = 10 ** len(fraction)
    return int(whole + fraction) * multiple // scale


def human_size(count: float) -> str:
    """Write a number of bytes with a binary unit: ``1.5 MiB``."""
    for multiple, unit in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if abs(count) >= multiple:
            return f"{count / multiple:.1f}".removesuffix(".0") + f" {unit}"
    return f"{count:.0f} B"
