"""
The handshake of the extension protocol (BEP 10): which extensions a peer has, and some facts about it.

Also the keys of BEP 9 (``metadata_size``) and BEP 21 (``upload_only``); that a peer knows BEP 54 is the name
``lt_donthave`` among its messages.  Clients get single fields wrong without meaning harm: such a field counts
as not sent.  Only what is no dictionary at all ends the connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from attrs import Factory, evolve, frozen

from irontide.errors import MetainfoError, ProtocolViolation
from irontide.metainfo.bencode import NETWORK_LIMITS, decode, encode

EXTENDED_HANDSHAKE = 0
"""The number of the handshake among Extended messages."""

MAX_EXTENSIONS = 100
MAX_NAME = 64
"""Bytes of the name of an extension; a longer one is left out."""
MAX_CLIENT = 100
"""Characters of a client's name; the rest is cut off."""
MAX_REQQ = 2000
"""More requests than this we never have at a peer, whatever it offers."""
MAX_METADATA_SIZE = 8 * 1024 * 1024


def packed_address(host: str) -> bytes:
    """Return the 4 or 16 bytes of a numeric address, as ``yourip`` has them."""
    return ip_address(host).packed


@frozen
class ExtendedHandshake:
    """
    What a peer says of itself; None is what it did not say.

    :ivar messages: the numbers that it wants to be sent for its extensions, by name; 0 turns one off.
    :ivar port: where it accepts connections.
    :ivar client: its name and version, cut and made printable.
    :ivar reqq: how many requests it queues.
    :ivar yourip: our address as it sees us, 4 or 16 bytes.
    :ivar metadata_size: how long the Info is, in bytes.
    :ivar upload_only: whether it wants nothing more.
    """

    messages: Mapping[str, int] = Factory(dict)
    port: int | None = None
    client: str = ""
    reqq: int | None = None
    yourip: bytes | None = None
    metadata_size: int | None = None
    upload_only: bool | None = None

    @classmethod
    def from_payload(cls, payload: bytes) -> ExtendedHandshake:
        """
        Return what the payload of a handshake says.

        :raises ProtocolViolation: it is no dictionary in bencode.
        """
        try:
            fields = decode(payload, NETWORK_LIMITS, any_order=True)
        except MetainfoError as error:
            raise ProtocolViolation(f"extension handshake: {error}") from error
        if not isinstance(fields, dict):
            raise ProtocolViolation("an extension handshake that is no dictionary")
        reqq = _number(fields.get(b"reqq"), 1, None)
        upload_only = _number(fields.get(b"upload_only"), 0, 1)
        return cls(
            messages=_messages(fields.get(b"m")),
            port=_number(fields.get(b"p"), 1, 65535),
            client=_text(fields.get(b"v")),
            reqq=None if reqq is None else min(reqq, MAX_REQQ),
            yourip=_address(fields.get(b"yourip")),
            metadata_size=_number(fields.get(b"metadata_size"), 1, MAX_METADATA_SIZE),
            upload_only=None if upload_only is None else bool(upload_only),
        )

    def to_payload(self) -> bytes:
        """Return the payload of the message; what is None is left out."""
        fields: dict[bytes, Any] = {
            b"m": {name.encode(): number for name, number in self.messages.items()},
            b"p": self.port,
            b"v": self.client.encode() or None,
            b"reqq": self.reqq,
            b"yourip": self.yourip,
            b"metadata_size": self.metadata_size,
            b"upload_only": None if self.upload_only is None else int(self.upload_only),
        }
        return encode({key: value for key, value in fields.items() if value is not None})

    def followed_by(self, later: ExtendedHandshake) -> ExtendedHandshake:
        """Return what holds after a ``later`` handshake, which need only say what has changed."""
        said: dict[str, Any] = {
            name: value
            for name in ("port", "client", "reqq", "yourip", "metadata_size", "upload_only")
            if (value := getattr(later, name)) not in (None, "")
        }
        messages = dict([*{**self.messages, **later.messages}.items()][:MAX_EXTENSIONS])
        return evolve(self, messages=messages, **said)


def _number(value: object, low: int, high: int | None) -> int | None:
    if not isinstance(value, int) or value < low or (high is not None and value > high):
        return None
    return value


def _messages(value: object) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, number in value.items() if isinstance(value, dict) else ():
        if len(found) == MAX_EXTENSIONS:
            break
        if len(name) <= MAX_NAME and _number(number, 0, 255) is not None:
            found[name.decode("utf-8", "replace")] = number
    return found


def _text(value: object) -> str:
    if not isinstance(value, bytes):
        return ""
    text = value[: 4 * MAX_CLIENT].decode("utf-8", "replace")[:MAX_CLIENT]
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _address(value: object) -> bytes | None:
    return value if isinstance(value, bytes) and len(value) in (4, 16) else None
