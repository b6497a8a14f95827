"""
Announces and scrapes over HTTP, as URLs to ask for and bodies to read (BEP 3, 7, 23, 24, 31, 48).

Nothing is sent from here.  The percent-encoded infohash is part of the URL itself: an HTTP library that is
given it as a parameter writes a ``+`` for the byte 0x20, which some trackers take for a plus.

Keys that a tracker got wrong cost only themselves; a body that is no bencoded dictionary, or peers that
cannot be read, are TrackerError.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from irontide.errors import MetainfoError, TrackerError
from irontide.metainfo.bencode import NETWORK_LIMITS, decode
from irontide.tracker.announce import (
    MAX_NUMWANT,
    AnnounceReply,
    AnnounceRequest,
    Event,
    Scrape,
    TrackerRefusal,
    clamped_interval,
    clean_text,
    told_host,
    usable_peers,
)
from irontide.tracker.urls import http_url
from irontide.values import PeerAddress

MAX_TRACKER_ID = 256
MAX_COUNT = 2**31
"""Seeds, leechers or downloads above this are taken for a lie."""


def announce_url(url: str, request: AnnounceRequest) -> str:
    """
    Return the URL that says ``request`` to the tracker at ``url``.

    :raises TrackerError: ``url`` is no URL of an HTTP tracker.
    """
    wanted = 0 if request.event is Event.STOPPED else min(max(request.wanted, 0), MAX_NUMWANT)
    fields: list[tuple[str, str | bytes | int]] = [
        ("info_hash", request.infohash),
        ("peer_id", request.peer_id),
        ("port", request.port),
        ("uploaded", request.uploaded),
        ("downloaded", request.downloaded),
        ("left", request.left),
        ("compact", 1),
        ("no_peer_id", 1),
        ("numwant", wanted),
    ]
    if request.key:
        fields.append(("key", request.key))
    if request.event is not Event.NONE:
        fields.append(("event", request.event.value))
    if request.tracker_id is not None:
        fields.append(("trackerid", request.tracker_id))
    return _with_query(http_url(url), fields)


def scrape_url(url: str, infohash: bytes) -> str:
    """
    Return the URL to ask for the size of a swarm: ``announce`` replaced by ``scrape`` (BEP 48).

    :raises TrackerError: by that convention the tracker has none.
    """
    url = http_url(url)
    head, slash, tail = url.rpartition("/")
    if not tail.startswith("announce"):
        raise TrackerError("this tracker does not offer scraping")
    return _with_query(f"{head}{slash}scrape{tail.removeprefix('announce')}", [("info_hash", infohash)])


def parse_announce(body: bytes, *, port: int = 0, local: bool = False) -> AnnounceReply:
    """
    Read the answer to an announce.

    :param port: our own, so that our own address is not taken for a peer's.
    :param local: whether the tracker is on this machine or in this network.
    :raises TrackerRefusal: the tracker gave a reason why not.
    :raises TrackerError: the body cannot be read.
    """
    reply = _dictionary(body)
    own = told_host(reply[b"external ip"]) if isinstance(reply.get(b"external ip"), bytes) else None
    warning, tracker_id = reply.get(b"warning message"), reply.get(b"tracker id")
    return AnnounceReply(
        near=local,
        interval=clamped_interval(_number(reply, b"interval")),
        min_interval=clamped_interval(_number(reply, b"min interval"), clamped_interval(0)),
        peers=usable_peers(
            _peers(reply), own=PeerAddress(str(own), port) if own is not None else None, local=local
        ),
        seeds=_number(reply, b"complete"),
        leechers=_number(reply, b"incomplete"),
        tracker_id=tracker_id
        if isinstance(tracker_id, bytes) and 0 < len(tracker_id) <= MAX_TRACKER_ID
        else None,
        external_host=str(own) if own is not None else None,
        warning=clean_text(warning) if isinstance(warning, bytes) else None,
    )


def parse_scrape(body: bytes, infohash: bytes) -> Scrape:
    """
    Read the answer to a scrape.

    :raises TrackerError: the body cannot be read, or does not name this torrent.
    """
    files = _dictionary(body).get(b"files")
    entry = files.get(infohash) if isinstance(files, dict) else None
    if not isinstance(entry, dict):
        raise TrackerError("the tracker does not know this torrent")
    return Scrape(_number(entry, b"complete"), _number(entry, b"incomplete"), _number(entry, b"downloaded"))


def _with_query(url: str, fields: list[tuple[str, str | bytes | int]]) -> str:
    query = "&".join(
        f"{name}={value if isinstance(value, int) else quote(value, safe='')}" for name, value in fields
    )
    if "?" not in url:
        return f"{url}?{query}"
    return f"{url}{query}" if url.endswith(("?", "&")) else f"{url}&{query}"


def _dictionary(body: bytes) -> dict[bytes, Any]:
    try:
        reply = decode(body.rstrip(), NETWORK_LIMITS, any_order=True)  # trackers are often careless
    except MetainfoError:
        raise TrackerError("the tracker's answer is not bencoded") from None
    if not isinstance(reply, dict):
        raise TrackerError("the tracker's answer is no dictionary")
    if b"failure reason" in reply:
        reason = reply[b"failure reason"]
        text = clean_text(reason) if isinstance(reason, bytes) else ""
        raise TrackerRefusal(text or "the tracker refuses without a reason", _retry_in(reply))
    return reply


def _retry_in(reply: dict[bytes, Any]) -> float | None:
    """BEP 31: minutes, or the word never; as seconds."""
    told = reply.get(b"retry in")
    if told == b"never":
        return math.inf
    if isinstance(told, bytes) and told.isdigit() and len(told) < 9:
        told = int(told)
    return clamped_interval(60.0 * min(told, 10**6)) if isinstance(told, int) and told >= 0 else None


def _number(reply: dict[bytes, Any], key: bytes) -> int | None:
    value = reply.get(key)
    return value if isinstance(value, int) and 0 <= value <= MAX_COUNT else None


def _peers(reply: dict[bytes, Any]) -> Iterator[tuple[str | bytes, int]]:
    told = reply.get(b"peers", b"")
    if isinstance(told, list):
        yield from _listed(told)
    elif isinstance(told, bytes):
        yield from _compact(told, 4)
    else:
        raise TrackerError("the tracker's answer holds no readable peers")
    six = reply.get(b"peers6", b"")
    if isinstance(six, bytes):
        yield from _compact(six, 16)


def _compact(told: bytes, host: int) -> Iterator[tuple[bytes, int]]:
    """BEP 23 and BEP 7: addresses of ``host`` bytes, each with a port of two."""
    size = host + 2
    if len(told) % size:
        raise TrackerError(f"{len(told)} bytes of peers are no multiple of {size}")
    for at in range(0, len(told), size):
        yield told[at : at + host], int.from_bytes(told[at + host : at + size], "big")


def _listed(told: list[Any]) -> Iterator[tuple[str, int]]:
    """BEP 3: a dictionary a peer; host names are not followed."""
    for peer in told:
        if not isinstance(peer, dict):
            continue
        host, port = peer.get(b"ip"), peer.get(b"port")
        if isinstance(host, bytes) and isinstance(port, int) and len(host) <= 45:
            yield host.decode("ascii", "replace"), port
