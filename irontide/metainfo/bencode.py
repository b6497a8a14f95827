"""
Bencode, the encoding of .torrent files, of the DHT and of extension messages (BEP 3).

The decoder is strict, because a dictionary that can be written in two ways has two infohashes: keys are
sorted and unique, numbers have no leading zeros, nothing follows the value.  It is iterative and has two
bounds, depth and tokens, because what it reads comes from strangers.  And it can tell where in the input the
value of a key lies, because an infohash is the hash of bytes as they were sent, not of bytes encoded again.

A dictionary is collected as a flat list of keys and values and judged when it ends: that leaves one way to
take a value in, whatever it belongs to, and is three times faster than to look at each key as it comes.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

from attrs import frozen

from irontide.errors import MetainfoError

Value: TypeAlias = Any
"""bytes, int, a list of values, or a dict of values by bytes: mypy knows no good type for it."""


@frozen
class Limits:
    """
    How much the decoder takes before it gives up.

    :ivar depth: how many lists and dictionaries may lie in each other.
    :ivar tokens: how many strings and integers there may be, keys and the two ends of each list and
        dictionary included.
    """

    depth: int
    tokens: int


FILE_LIMITS = Limits(depth=100, tokens=2_500_000)
"""For .torrent files."""
NETWORK_LIMITS = Limits(depth=16, tokens=10_000)
"""For what peers, trackers and DHT nodes send."""

MAX_INTEGER = 2**64 - 1
MIN_INTEGER = -(2**63)

_LENGTH = re.compile(rb"(0|[1-9][0-9]{0,9}):")
_INTEGER = re.compile(rb"i(0|-?[1-9][0-9]{0,19})e")
_DICT, _END, _INT, _COLON, _ZERO, _NINE = b"dei:09"
_CONTAINERS = b"ld"


def encode(value: Value) -> bytes:
    """
    Return ``value`` in bencode; the keys of dictionaries may come in any order.

    :raises TypeError: for anything but bytes, int, list, tuple and dict with keys of bytes: text has to be
        encoded by the caller, who knows how.
    :raises ValueError: for an integer that the decoder would refuse.
    """
    out: list[bytes] = []
    _encode_into(out, value)
    return b"".join(out)


def _encode_into(out: list[bytes], value: Value) -> None:
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        out.append(b"%d:" % len(data))
        out.append(data)
    elif isinstance(value, int) and not isinstance(value, bool):
        if not MIN_INTEGER <= value <= MAX_INTEGER:
            raise ValueError(f"an integer of {value.bit_length()} bits")
        out.append(b"i%de" % value)
    elif isinstance(value, list | tuple):
        out.append(b"l")
        for each in value:
            _encode_into(out, each)
        out.append(b"e")
    elif isinstance(value, dict):
        out.append(b"d")
        for key in sorted(value):
            if not isinstance(key, bytes):
                raise TypeError(f"a key of {type(key).__name__}")
            out.append(b"%d:%b" % (len(key), key))
            _encode_into(out, value[key])
        out.append(b"e")
    else:
        raise TypeError(f"bencode has no {type(value).__name__}")


def decode(data: bytes, limits: Limits = FILE_LIMITS, *, any_order: bool = False) -> Value:
    """
    Return the one value that ``data`` is.

    :param any_order: accept dictionaries whose keys are not sorted; they must be unique all the same.
    :raises MetainfoError: it is not bencode, or beyond ``limits``.
    """
    value, end, _ = _decode_at(data, 0, limits.depth, limits.tokens, any_order)
    _check_end(data, end)
    return value


def decode_prefix(data: bytes, limits: Limits = NETWORK_LIMITS) -> tuple[Value, int]:
    """
    Return the value that ``data`` begins with, and where it ends.

    :raises MetainfoError: it does not begin with bencode, or is beyond ``limits``.
    """
    value, end, _ = _decode_at(data, 0, limits.depth, limits.tokens, False)
    return value, end


def decode_with_span(
    data: bytes, key: bytes = b"info", limits: Limits = FILE_LIMITS, *, any_order: bool = False
) -> tuple[dict[bytes, Value], tuple[int, int]]:
    """
    Return the dictionary that ``data`` is, and from where to where in it the value of ``key`` lies.

    :raises MetainfoError: it is no dictionary in bencode, has no ``key``, or is beyond ``limits``.
    """
    if data[:1] != b"d":
        raise MetainfoError("not a dictionary in bencode")
    items: list[Value] = []
    span = None
    at, tokens = 1, limits.tokens - 2
    while data[at : at + 1] != b"e":
        name, at, tokens = _decode_at(data, at, 0, tokens, any_order)
        value, end, tokens = _decode_at(data, at, limits.depth - 1, tokens, any_order)
        if name == key:
            span = (at, end)
        items += (name, value)
        at = end
    _check_end(data, at + 1)
    found = _dictionary(items, any_order)
    if span is None:
        raise MetainfoError(f"there is no {key.decode('ascii', 'replace')}")
    return found, span


def _check_end(data: bytes, end: int) -> None:
    if end != len(data):
        raise MetainfoError(f"{len(data) - end} bytes follow the end")


def _decode_at(data: bytes, at: int, depth: int, tokens: int, any_order: bool) -> tuple[Value, int, int]:
    """
    Decode one value at ``at``; return it, where it ends, and how many tokens are left.

    This is the hot loop of adding a torrent with many files, hence one function without calls.
    """
    outer: list[list[Value]] = []  # the lists and dictionaries around ``top``, from the outside in
    kinds: list[int] = []  # what they and ``top`` are
    top: list[Value] = []  # takes the values; at first, and at last, the only one that there is
    try:
        for used in range(1, tokens + 1):
            first = data[at]
            if _ZERO <= first <= _NINE:
                if data[at + 1] == _COLON:
                    start = at + 2
                    at = start + first - _ZERO
                else:
                    start, at = _string(data, at)
                value: Value = data[start:at]
                if at > len(data):
                    break
            elif first == _END and kinds:
                value = _dictionary(top, any_order) if kinds.pop() == _DICT else top
                top = outer.pop()
                at += 1
            elif first == _INT:
                value, at = _integer(data, at)
            elif first in _CONTAINERS:
                if len(kinds) >= depth:
                    raise MetainfoError(f"nested too deep at byte {at}")
                kinds.append(first)
                outer.append(top)
                top = []
                at += 1
                continue
            else:
                raise MetainfoError(f"no bencode at byte {at}")
            top.append(value)
            if not kinds:
                return value, at, tokens - used
        else:
            raise MetainfoError("too many values")
    except IndexError:
        pass
    raise MetainfoError("the data ends too soon")


def _string(data: bytes, at: int) -> tuple[int, int]:
    """Return where the string whose length stands at ``at`` begins and ends."""
    match = _LENGTH.match(data, at)
    if match is None:
        raise MetainfoError(f"not the length of a string at byte {at}")
    start = match.end()
    return start, start + int(match[1])


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """Return the integer at ``at`` and where it ends."""
    match = _INTEGER.match(data, at)
    if match is None:
        raise MetainfoError(f"not an integer at byte {at}")
    value = int(match[1])
    if not MIN_INTEGER <= value <= MAX_INTEGER:
        raise MetainfoError(f"an integer of more than 64 bits at byte {at}")
    return value, match.end()


def _dictionary(items: list[Value], any_order: bool) -> dict[bytes, Value]:
    """Return the dictionary of which ``items`` are the keys and values in turn."""
    keys = items[::2]
    for key in keys:
        if type(key) is not bytes:
            raise MetainfoError("a key that is no string")
    if len(items) % 2:
        raise MetainfoError("a key without a value")
    found = dict(zip(keys, items[1::2], strict=True))
    if len(found) != len(keys):
        raise MetainfoError("a key that stands twice in a dictionary")
    if not any_order and sorted(keys) != keys:
        raise MetainfoError("the keys of a dictionary are not sorted")
    return found
