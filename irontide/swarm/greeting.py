"""What we tell a peer first: the pieces that we have, then (BEP 10) what we can."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from irontide.extensions import EXTENSIONS
from irontide.metainfo.bitfield import Bitfield
from irontide.peer.peer import Peer
from irontide.peer.uploads import MAX_QUEUED
from irontide.wire import messages as m
from irontide.wire.extended import EXTENDED_HANDSHAKE, ExtendedHandshake, packed_address

CLIENT = "irontide"


@frozen
class Us:
    """
    What we tell peers of ourselves.

    :ivar port: where we accept connections, if we do.
    :ivar peer_timeout: seconds of silence after which a peer is given up.
    """

    peer_id: bytes
    port: Callable[[], int | None]
    peer_timeout: float = 120.0


def what_we_have(peer: Peer, have: Bitfield) -> list[m.Message]:
    """Return what has to be said first; without BEP 6 that we have nothing is said by saying nothing."""
    if peer.fast and have.complete:
        return [m.HaveAll()]
    if have.count:
        return [m.BitfieldMessage(have.to_bytes())]
    return [m.HaveNone()] if peer.fast else []


def what_we_can(peer: Peer, us: Us, *, seeding: bool) -> m.Message:
    """Return our handshake of the extension protocol."""
    handshake = ExtendedHandshake(
        messages=EXTENSIONS,
        port=us.port(),
        client=CLIENT,
        reqq=MAX_QUEUED,
        yourip=packed_address(peer.host),
        upload_only=seeding,
    )
    return m.Extended(EXTENDED_HANDSHAKE, handshake.to_payload())
