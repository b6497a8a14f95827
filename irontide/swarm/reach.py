"""
How far an address reaches, and so whose word for it is worth anything.

A stranger on the internet who tells us of ``127.0.0.1:22`` or ``192.168.1.1:80`` knows no peer there: at best
it repeats what means something in another network, at worst it has us dial what it cannot reach itself.
"""

from __future__ import annotations

from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_IP = IPv4Address | IPv6Address

_PRIVATE = [
    ip_network(network)
    for network in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",  # behind the NAT of a provider
        "169.254.0.0/16",
        "fc00::/7",
        "fe80::/10",
    )
]
_NOBODY = [ip_network(network) for network in ("0.0.0.0/8", "240.0.0.0/4")]


class Reach(IntEnum):
    """Where an address means the same: an address is believed of those who are at least as near."""

    EVERYWHERE = 0
    NETWORK = 1
    HOST = 2
    NOWHERE = 3  # nobody can be a peer there: unspecified, multicast, reserved


def parse(host: str) -> _IP | None:
    """Return the address that ``host`` spells, IPv4 mapped into IPv6 as IPv4; None if it is a name."""
    try:
        ip = ip_address(host)
    except ValueError:
        return None
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return mapped or ip


def reach_of(ip: _IP) -> Reach:
    """Return how far ``ip`` reaches."""
    if ip.is_unspecified or ip.is_multicast or any(ip in network for network in _NOBODY):
        return Reach.NOWHERE
    if ip.is_loopback:
        return Reach.HOST
    if any(ip in network for network in _PRIVATE):
        return Reach.NETWORK
    return Reach.EVERYWHERE


def trust_in(teller: str | None) -> Reach:
    """
    Return the nearest addresses that are believed of ``teller``.

    A name, or None, counts as far away; but ``localhost`` is this host wherever one is (RFC 6761).
    """
    if teller == "localhost":
        return Reach.HOST
    ip = parse(teller) if teller is not None else None
    reach = reach_of(ip) if ip is not None else Reach.EVERYWHERE
    return Reach.EVERYWHERE if reach is Reach.NOWHERE else reach
