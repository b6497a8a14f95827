"""
What is said to a tracker and what it answers, whichever protocol carries it.

A tracker is a stranger: every number is brought into its bounds here, and of the addresses only those
are kept that could be a peer.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable
from typing import Literal

from attrs import frozen

from irontide.errors import TrackerError
from irontide.values import PeerAddress

MAX_PEERS = 1_000
"""Addresses taken from one reply; the rest is ignored."""
MIN_INTERVAL = 60.0
MAX_INTERVAL = 24 * 3600.0
DEFAULT_INTERVAL = 1800.0
"""Seconds between announces when the tracker does not say."""
MAX_NUMWANT = 200
MAX_TEXT = 200
"""Characters kept of a text that a tracker wrote."""

State = Literal["updating", "working", "not working", "not contacted"]
AnyAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Event(enum.Enum):
    """What an announce tells beside the figures; the value is what stands on the wire (BEP 3)."""

    NONE = ""
    STARTED = "started"
    COMPLETED = "completed"
    STOPPED = "stopped"


@frozen
class AnnounceRequest:
    """
    One announce; figures in bytes.

    :ivar wanted: how many addresses are welcome; 0 for none.
    :ivar key: tells the tracker that we are the same client after a change of address.
    :ivar tracker_id: what the tracker asked us to repeat.
    """

    infohash: bytes
    peer_id: bytes
    port: int
    uploaded: int
    downloaded: int
    left: int
    wanted: int
    event: Event = Event.NONE
    key: str = ""
    tracker_id: bytes | None = None


@frozen
class AnnounceReply:
    """
    What a tracker answered; times in seconds, within MIN_INTERVAL and MAX_INTERVAL.

    :ivar min_interval: how long it wants not to be asked again, even if the user wishes so.
    :ivar external_host: our own address as the tracker sees it (BEP 24).
    :ivar near: the tracker is on this machine or in this network.
    :ivar warning: for the user to read; the announce succeeded nevertheless.
    """

    interval: float
    min_interval: float = MIN_INTERVAL
    peers: tuple[PeerAddress, ...] = ()
    seeds: int | None = None
    leechers: int | None = None
    tracker_id: bytes | None = None
    external_host: str | None = None
    warning: str | None = None
    near: bool = False


@frozen
class Scrape:
    """The size of a swarm (BEP 48); None where the tracker does not say."""

    seeds: int | None
    leechers: int | None
    downloaded: int | None


@frozen
class TrackerStatus:
    """
    One tracker of a torrent, for the user to see.

    :ivar url: scheme, host and port only: the rest of an announce URL is a secret.
    :ivar message: why it does not work, or its warning; empty if all is well.
    :ivar peers: how many addresses its last reply held.
    :ivar next_announce: seconds from now, or None if nothing is planned with this tracker.
    :ivar failures: in a row.
    """

    url: str
    tier: int
    state: State
    message: str
    seeds: int | None
    leechers: int | None
    peers: int
    next_announce: float | None
    failures: int


class TrackerRefusal(TrackerError):
    """
    The tracker answered that it will not serve this torrent.

    :ivar retry_in: seconds after which it may be asked again (BEP 31), ``inf`` for never, or None.
    """

    def __init__(self, message: str, retry_in: float | None = None) -> None:
        super().__init__(message)
        self.retry_in = retry_in


def clamped_interval(seconds: float | None, default: float = DEFAULT_INTERVAL) -> float:
    """Bring an interval that a tracker named within bounds; ``default`` if it named none."""
    return default if seconds is None else min(max(float(seconds), MIN_INTERVAL), MAX_INTERVAL)


def clean_text(raw: bytes) -> str:
    """Make a text that a stranger wrote fit to be shown: one line, bounded, nothing unprintable."""
    text = raw[: 4 * MAX_TEXT].decode("utf-8", "replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:MAX_TEXT]


def told_host(text: str | bytes) -> AnyAddress | None:
    """Read a numeric address, packed (4 or 16 bytes) or written; an IPv4-mapped one as IPv4."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def may_be_peer(host: AnyAddress, *, local: bool) -> bool:
    """
    Tell whether a peer could be at ``host``.

    Loopback and link-local addresses are believed only of a ``local`` tracker.  Private ones always are:
    the name of a tracker does not show that it stands inside the same company.
    """
    if host.is_loopback or host.is_link_local:
        return local
    return not (host.is_unspecified or host.is_multicast or host.is_reserved)


def usable_peers(
    told: Iterable[tuple[str | bytes, int]], *, own: PeerAddress | None = None, local: bool = False
) -> tuple[PeerAddress, ...]:
    """
    Return what of ``told`` (host, port) can be dialled: each once, at most MAX_PEERS, never ``own``.

    :param local: the tracker is on this machine or in this network.
    """
    kept: dict[PeerAddress, None] = {}
    for text, port in told:
        host = told_host(text)
        if host is None or not 0 < port < 65536 or not may_be_peer(host, local=local):
            continue
        address = PeerAddress(str(host), port)
        if address != own:
            kept[address] = None
            if len(kept) == MAX_PEERS:
                break
    return tuple(kept)
