"""
What may be known, shown and followed of a URL.

The path and the query of an announce URL often hold the user's passkey.  So nothing that a person, a
log or an API sees is made from more than scheme, host and port, and a text that comes back from a
tracker has whatever it repeats of the URL taken out.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from irontide.errors import TrackerError

MAX_URL = 2048
SECRET_LENGTH = 8
"""Parts of a path or query at least this long are taken for secrets when a tracker repeats them."""
SAFE = "/?:@!$&'()*+,;=%-._~[]"
DEFAULT_PORTS = {"http": 80, "https": 443}
LOCAL_SUFFIXES = (".localhost", ".local", ".lan", ".internal", ".home.arpa")


def shown_url(url: str) -> str:
    """Return scheme, host and port of a URL, which is all of it that may be shown."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{_netloc(parts)}"
    except ValueError:
        return "(an invalid URL)"


def host_of(url: str) -> str:
    """
    Return host and port that serve a URL, in one spelling.

    The port belongs to it: that nobody listens on one does not say that the host fails on another.
    """
    parts = urlsplit(url)
    return f"{_host(parts)}:{parts.port or DEFAULT_PORTS.get(parts.scheme, 0)}"


def http_url(url: str) -> str:
    """
    Return ``url`` in ASCII and without its fragment, as it can be asked for.

    :raises TrackerError: it is no http or https URL that we would ever ask for.
    """
    _check_text(url)
    try:
        parts = urlsplit(url)
        netloc = _netloc(parts)
    except ValueError:
        raise TrackerError("the URL is not valid") from None
    if parts.scheme not in ("http", "https"):
        raise TrackerError(f"{parts.scheme[:10] or 'no'}: URLs are not supported")
    if "@" in parts.netloc:
        raise TrackerError("user names in URLs are not supported")
    if not parts.hostname:
        raise TrackerError("the URL names no host")
    path, query = quote(parts.path or "/", safe=SAFE), quote(parts.query, safe=SAFE)
    return f"{parts.scheme}://{netloc}{path}" + (f"?{query}" if query else "")


def redirected(url: str, location: str) -> str:
    """
    Return the URL that a redirect from ``url`` leads to.

    :raises TrackerError: it leads where no redirect may.
    """
    try:
        _check_text(location)  # before urljoin, which drops what it does not like without a word
        return http_url(urljoin(url, location))
    except ValueError:
        raise TrackerError("redirected, but the URL is not valid") from None
    except TrackerError as error:
        raise TrackerError(f"redirected, but {error}") from None


def is_public(host: str) -> bool:
    """Tell whether a *numeric* address belongs to the Internet at large; False for names too."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is not None:
            return inner.is_global and not inner.is_multicast
        if address in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
    return address.is_global and not address.is_multicast


def is_local(url: str) -> bool:
    """Tell whether a URL plainly names this machine or this network."""
    host = _host(urlsplit(url))
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith(LOCAL_SUFFIXES)


def without_secrets(text: str, url: str) -> str:
    """Take out of ``text`` whatever it repeats of the secret parts of ``url``."""
    parts = urlsplit(url)
    tail = f"{parts.path}?{parts.query}"
    words = {word for part in (tail, unquote(tail)) for word in re.split(r"[/?&=;]", part)}
    for word in sorted(words, key=len, reverse=True):
        if len(word) >= SECRET_LENGTH and not word.startswith("announce"):
            text = text.replace(word, "(secret)")
    return text


_HOST = re.compile(r"[A-Za-z0-9._-]*|[0-9A-Fa-f:.]+")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def _check_text(url: str) -> None:
    if len(url) > MAX_URL:
        raise TrackerError(f"the URL is longer than {MAX_URL} characters")
    if any(c <= " " or c == "\x7f" for c in url):
        raise TrackerError("the URL has spaces or control characters")


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").rstrip(".")
    host = host if host.isascii() else host.encode("idna").decode("ascii")
    if not _HOST.fullmatch(host):  # what IDNA makes of a character may be anything, a blank too
        raise ValueError("the name of the host is not valid")
    return host


def _netloc(parts: SplitResult) -> str:
    host = _host(parts)
    shown = f"[{host}]" if ":" in host else host
    return shown if parts.port is None else f"{shown}:{parts.port}"
