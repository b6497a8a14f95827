"""
The pieces that a peer may ask for while it is choked (BEP 6).

They follow from its address and the infohash, so that a peer gains nothing by connecting again: it is
offered the same few pieces each time.
"""

from __future__ import annotations

from hashlib import sha1
from ipaddress import IPv4Address, ip_address

ALLOWED_FAST_COUNT = 10
_DRAWS = 5  # numbers of 4 bytes in a SHA-1


def allowed_fast_set(infohash: bytes, host: str, pieces: int, count: int = ALLOWED_FAST_COUNT) -> list[int]:
    """
    Return ``count`` different pieces, or all if there are fewer, in the order in which they are drawn.

    :param host: the peer's numeric address.
    """
    count = min(count, pieces)
    found: dict[int, None] = {}
    digest = _network(host) + infohash
    while len(found) < count:
        digest = sha1(digest).digest()
        for draw in range(_DRAWS):
            if len(found) == count:
                break
            found[int.from_bytes(digest[4 * draw : 4 * draw + 4], "big") % pieces] = None
    return list(found)


def _network(host: str) -> bytes:
    """
    Return the part of an address that a peer cannot choose: /24, or for IPv6 (where BEP 6 is silent) /64.
    """
    address = ip_address(host)
    if not isinstance(address, IPv4Address):
        if address.ipv4_mapped is None:
            return address.packed[:8] + bytes(8)
        address = address.ipv4_mapped
    return address.packed[:3] + b"\0"
