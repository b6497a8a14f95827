"""
The name of a torrent on the network: hashes of the raw bytes of its Info.

A v1 torrent has a SHA-1 hash, a v2 torrent (BEP 52) a SHA-256 hash, a hybrid both.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class InfoHashes:
    """
    The hashes of one Info; at least one is there.

    :ivar v1: 20 bytes, or None for a torrent that is v2 only.
    :ivar v2: 32 bytes, or None for a torrent that is v1 only.
    """

    v1: bytes | None = None
    v2: bytes | None = None

    def __attrs_post_init__(self) -> None:
        if self.v1 is None and self.v2 is None:
            raise ValueError("no hash at all")
        if self.v1 is not None and len(self.v1) != 20:
            raise ValueError(f"a v1 infohash of {len(self.v1)} bytes")
        if self.v2 is not None and len(self.v2) != 32:
            raise ValueError(f"a v2 infohash of {len(self.v2)} bytes")

    @property
    def best(self) -> bytes:
        """The 20 bytes that stand for the torrent in handshakes and announces: v1, else v2 cut short."""
        if self.v1 is not None:
            return self.v1
        assert self.v2 is not None  # held by the constructor; for mypy
        return self.v2[:20]

    def __str__(self) -> str:
        return self.best.hex()
