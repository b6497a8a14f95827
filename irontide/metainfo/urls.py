"""
Which URLs out of a .torrent file are worth to be kept.

A URL is fetched by us on behalf of whoever wrote the file, so only the schemes that trackers and web seeds
use are let in (``file:`` never), and only what is in one piece: no white space, no control characters, a
host, a possible port.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

TRACKER_SCHEMES = frozenset({"http", "https", "udp"})
WEB_SEED_SCHEMES = frozenset({"http", "https"})
MAX_URL = 4096
MAX_TRACKERS = 100
MAX_WEB_SEEDS = 100
_IMPURE = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ufffd]")


def usable_url(value: Any, schemes: frozenset[str]) -> str | None:
    """Return a URL, given as bytes or text, or None if it is not one of ``schemes`` or is malformed."""
    url = value.decode(errors="replace") if isinstance(value, bytes) else value
    if not isinstance(url, str):
        return None
    url = url.strip()
    if len(url) > MAX_URL or _IMPURE.search(url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        return None
    if parts.scheme == "udp" and port is None:
        return None
    return url


def tracker_tiers(tiers: Iterable[Any], limit: int = MAX_TRACKERS) -> tuple[tuple[str, ...], ...]:
    """
    Return the tiers of ``tiers`` with their usable URLs, each once, at most ``limit`` in all.

    Whatever is no list of URLs is left out, and so is a tier with none.
    """
    seen: set[str] = set()
    found = []
    for tier in tiers:
        kept = []
        for value in tier if isinstance(tier, Sequence) and not isinstance(tier, bytes | str) else [tier]:
            url = usable_url(value, TRACKER_SCHEMES)
            if url is not None and url not in seen and len(seen) < limit:
                seen.add(url)
                kept.append(url)
        if kept:
            found.append(tuple(kept))
    return tuple(found)


def web_seed_urls(values: Any) -> tuple[str, ...]:
    """Return the usable URLs of ``url-list`` (BEP 19), one string or a list of them, each once."""
    urls = values if isinstance(values, list | tuple) else [values]
    kept = (usable_url(url, WEB_SEED_SCHEMES) for url in urls)
    return tuple(dict.fromkeys(url for url in kept if url))[:MAX_WEB_SEEDS]
