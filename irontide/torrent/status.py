"""A torrent at one moment, as users want to see it."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from irontide.metainfo.bitfield import Bitfield
from irontide.metainfo.info import Info
from irontide.torrent.checking import Checking
from irontide.torrent.running import Running, have_bytes
from irontide.torrent.stopped import Stopped


@frozen
class TorrentStatus:
    """
    A torrent at one moment.

    :ivar phase: ``checking``, ``running`` or ``stopped``.
    :ivar error: why it stopped, if that was not the user's wish.
    :ivar have_bytes: of all pieces that are there, wanted or not.
    :ivar downloaded: and ``uploaded``: bytes of payload since the torrent was added.
    :ivar checked: how much of the check is done, 0 to 1.
    :ivar eta: seconds until complete at the present rate; None if that cannot be said.
    """

    phase: str
    error: str | None
    have_bytes: int
    wanted_bytes: int
    total: int
    download_rate: float
    upload_rate: float
    downloaded: int
    uploaded: int
    peers: int
    seeds: int
    checked: float
    complete: bool
    eta: float | None


def status_of(
    info: Info,
    phase: Checking | Running | Stopped,
    have: Bitfield,
    wanted: Sequence[bool],
    *,
    downloaded: int,
    uploaded: int,
    complete: bool,
    now: float,
) -> TorrentStatus:
    """Put together what users want to know."""
    here = have_bytes(info.layout, have)
    wanted_bytes = sum(file.length for file, want in zip(info.files, wanted, strict=True) if want)
    peers = list(phase.swarm.peers) if isinstance(phase, Running) else []
    down = sum(peer.download.value(now) for peer in peers)
    left = phase.picker.left * info.piece_length if isinstance(phase, Running) else 0
    return TorrentStatus(
        phase=phase.name,
        error=str(phase.error) if isinstance(phase, Stopped) and phase.error is not None else None,
        have_bytes=here,
        wanted_bytes=wanted_bytes,
        total=info.total,
        download_rate=down,
        upload_rate=sum(peer.upload.value(now) for peer in peers),
        downloaded=downloaded,
        uploaded=uploaded,
        peers=len(peers),
        seeds=sum(peer.seed for peer in peers),
        checked=phase.progress if isinstance(phase, Checking) else 1.0,
        complete=complete,
        eta=0.0 if complete else left / down if down > 0 else None,
    )
