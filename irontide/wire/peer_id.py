"""Peer ids: ours, and what program another one belongs to (BEP 20)."""

from __future__ import annotations

import re
from secrets import token_bytes

from irontide.wire.preamble import PEER_ID_LENGTH

PEER_ID_PREFIX = b"-IT0100-"

_AZUREUS = re.compile(rb"-([A-Za-z~]{2})([0-9A-Za-z]{3,4}).?-?")
_CLIENTS = {
    b"7T": "aTorrent",
    b"A2": "aria2",
    b"AZ": "Vuze",
    b"BC": "BitComet",
    b"BI": "BiglyBT",
    b"BT": "BitTorrent",
    b"DE": "Deluge",
    b"FD": "Free Download Manager",
    b"FL": "Folx",
    b"FW": "FrostWire",
    b"GT": "rtorrent",
    b"IT": "irontide",
    b"KT": "KTorrent",
    b"LT": "libtorrent",
    b"LW": "LimeWire",
    b"PI": "PicoTorrent",
    b"RN": "rain",
    b"SD": "Thunder",
    b"TL": "Tribler",
    b"TR": "Transmission",
    b"TX": "Tixati",
    b"UM": "uTorrent Mac",
    b"UT": "uTorrent",
    b"WW": "WebTorrent",
    b"XL": "Xunlei",
    b"lt": "rTorrent",
    b"qB": "qBittorrent",
    b"rQ": "rqbit",
}
_ODD = (
    (re.compile(rb"A2-(\d+)-(\d+)-(\d+)-"), "aria2"),
    (re.compile(rb"M(\d+)-(\d+)-(\d+)-"), "BitTorrent"),
    (re.compile(rb"-G3"), "G3 Torrent"),
)
"""Those that chose a form of their own."""


def make_peer_id(rand: bytes | None = None) -> bytes:
    """Return an id of ours; ``rand`` are its last 12 bytes, by default from the system's randomness."""
    length = PEER_ID_LENGTH - len(PEER_ID_PREFIX)
    if rand is None:
        rand = token_bytes(length)
    if len(rand) != length:
        raise ValueError(f"{len(rand)} bytes of randomness, not {length}")
    return PEER_ID_PREFIX + rand


def client_name(peer_id: bytes) -> str:
    """
    Return program and version for people to read: ``qBittorrent 4.5.2``; never more than they can.

    It is as true as the peer is honest.  An id of no known form is ``unknown``.
    """
    for form, name in _ODD:
        match = form.match(peer_id)
        if match is not None:
            return " ".join([name, ".".join(part.decode() for part in match.groups())]).strip()
    match = _AZUREUS.match(peer_id)
    if match is None:
        return "unknown"
    code, digits = match.groups()
    name = _CLIENTS.get(code) or code.decode()
    return f"{name} {_version(digits)}"


def _version(digits: bytes) -> str:
    """Each character is a number, 10 is A; zeros behind the second are not worth saying."""
    numbers = [str(int(chr(digit), 36)) for digit in digits[:4]]
    while len(numbers) > 2 and numbers[-1] == "0":
        numbers.pop()
    return ".".join(numbers)
