"""Download a torrent from within a Twisted program: python embed.py FILE.torrent FOLDER [HOST:PORT ...]"""

import sys
from pathlib import Path

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from irontide.metainfo.torrent_file import TorrentFile
from irontide.session.memory_store import MemoryStore
from irontide.session.session import Session
from irontide.settings import defaults
from irontide.values import PeerAddress


async def main(reactor, torrent, folder, *peers):
    session = Session(reactor, evolve(defaults(), listen_next_port=True), MemoryStore())
    await session.start()
    addresses = [PeerAddress(host, int(port)) for host, _, port in (peer.rpartition(":") for peer in peers)]
    torrent_file = TorrentFile.from_bytes(Path(torrent).read_bytes())
    added = await session.add(torrent_file, save_path=folder, peers=addresses)
    await added.when_complete()
    print(f"{added.name} is complete")
    await session.stop()


if __name__ == "__main__":
    react(lambda reactor, *args: Deferred.fromCoroutine(main(reactor, *args)), sys.argv[1:])
