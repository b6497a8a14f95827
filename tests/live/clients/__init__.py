"""Real clients, each behind the same few verbs, so that a test can pair any with any."""

from __future__ import annotations

from tests.live.clients.aria2 import Aria2
from tests.live.clients.base import Client, wait_until
from tests.live.clients.irontide import Irontide
from tests.live.clients.libtorrent import Libtorrent
from tests.live.clients.transmission import Transmission

__all__ = ["Aria2", "Client", "Irontide", "Libtorrent", "Transmission", "wait_until"]
