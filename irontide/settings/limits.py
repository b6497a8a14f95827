"""Settings that limit what is sent and received."""

from __future__ import annotations

from attrs import frozen

from irontide.settings.kinds import MIB, Rate, Size, Whole
from irontide.settings.option import option


@frozen(slots=False)
class LimitSettings:
    """See the help of each."""

    download_rate: int = option(
        Rate(),
        0,
        unit="B/s",
        help="How fast all torrents together download, at most; 0 is unlimited.",
    )
    upload_rate: int = option(
        Rate(),
        0,
        unit="B/s",
        help="How fast all torrents together upload, at most; 0 is unlimited.",
    )
    upload_slots: int = option(
        Whole(1, 10_000),
        8,
        help="To how many peers a torrent uploads at a time.",
    )
    max_torrent_file: int = option(
        Size(1024, 64 * MIB),
        10 * MIB,
        unit="B",
        help="How large a .torrent file can be.",
    )
