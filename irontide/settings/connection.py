"""Settings of connections: where irontide listens, and with how many peers it talks."""

from __future__ import annotations

from attrs import frozen

from irontide.settings.kinds import Addresses, Flag, Seconds, Whole
from irontide.settings.option import option


@frozen(slots=False)
class ConnectionSettings:
    """See the help of each."""

    listen_addresses: tuple[str, ...] = option(
        Addresses(),
        ("0.0.0.0", "::"),
        help="The addresses of this host that peers can connect to.",
    )
    listen_port: int = option(
        Whole(0, 65535),
        6881,
        help="The TCP port that peers connect to; 0 takes any free one.",
    )
    listen_next_port: bool = option(
        Flag(),
        False,
        help="Take the next free port if the listen port is in use.",
    )
    max_connections: int = option(
        Whole(1, 1_000_000, unlimited=-1),
        500,
        help="How many connections there can be in all, both ways; -1 is unlimited.",
    )
    max_connections_per_torrent: int = option(
        Whole(1, 1_000_000, unlimited=-1),
        100,
        help="How many connections one torrent can have; -1 is unlimited.",
    )
    max_unidentified_per_address: int = option(
        Whole(1, 10_000),
        8,
        help="How many connections of one address can wait to say what they want.",
    )
    dial_rate: int = option(
        Whole(1, 1000),
        10,
        unit="1/s",
        help="How many connections to peers are begun in a second, at most.",
    )
    peer_timeout: float = option(
        Seconds(10, 3600),
        120.0,
        unit="s",
        help="A peer that was silent for so long is disconnected.",
    )
    tracker_goodbye: float = option(
        Seconds(0, 60),
        2.0,
        unit="s",
        help="How long stopping waits for trackers to take our goodbye.",
    )
    stop_deadline: float = option(
        Seconds(0.5, 600),
        8.0,
        unit="s",
        help="How long stopping takes in all, at most.",
    )
