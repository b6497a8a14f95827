"""BEP 21, as a message: a peer that has all it wants says so, or that it wants more again."""

from __future__ import annotations

from irontide.errors import ProtocolViolation

NAME = "upload_only"


def parse(payload: bytes) -> bool:
    """Return whether the peer downloads nothing."""
    if len(payload) != 1:
        raise ProtocolViolation(f"upload_only of {len(payload)} bytes")
    return payload != b"\0"


def build(upload_only: bool) -> bytes:
    """Return the payload that says whether we download nothing."""
    return b"\x01" if upload_only else b"\0"
