"""
One torrent in one libtorrent session, driven by JSON lines: commands on stdin, one answer each on stdout.

``start`` adds the torrent, ``status`` tells how it is, the end of the input ends the process.  Nothing
is found but the peers that are told, nothing is encrypted, and it speaks TCP only.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import libtorrent as lt

SETTINGS = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "in_enc_policy": 2,
    "out_enc_policy": 2,
    "allow_multiple_connections_per_ip": True,
    "auto_manage_interval": 1,
    "alert_mask": lt.alert.category_t.error_notification | lt.alert.category_t.status_notification,
    "connections_limit": 500,
    "unchoke_slots_limit": 100,
    "min_reconnect_time": 1,
    "max_failcount": 20,
}


class Session:
    """The session and its one torrent."""

    def __init__(self) -> None:
        self._session: Any = None
        self._torrent: Any = None

    def start(self, line: dict[str, Any]) -> dict[str, Any]:
        """Listen, add the torrent, dial the peers."""
        self._session = lt.session({**SETTINGS, "listen_interfaces": line["listen"], **line["settings"]})
        parameters = lt.add_torrent_params()
        parameters.ti = lt.torrent_info(line["torrent"])
        parameters.save_path = line["folder"]
        parameters.flags &= ~lt.torrent_flags.auto_managed
        parameters.flags &= ~lt.torrent_flags.paused
        if line["seed"]:
            parameters.flags |= lt.torrent_flags.seed_mode
        parameters.peers = [(host, port) for host, port in line["peers"]]
        parameters.upload_limit = line["upload_limit"]  # the session's own limit leaves out local peers
        self._torrent = self._session.add_torrent(parameters)
        deadline = time.monotonic() + 5
        while not (self._session.is_listening() and self._session.listen_port()):
            if time.monotonic() > deadline:
                raise TimeoutError("does not listen")
            time.sleep(0.01)
        return {"port": self._session.listen_port()}

    def connect(self, line: dict[str, Any]) -> dict[str, Any]:
        """Dial one more peer."""
        self._torrent.connect_peer((line["host"], line["port"]))
        return {}

    def status(self, line: dict[str, Any]) -> dict[str, Any]:
        """How far the torrent is."""
        status = self._torrent.status()
        peers = self._torrent.get_peer_info()
        return {
            "progress": 1.0 if status.is_seeding else min(status.progress, 0.999999),
            "state": str(status.state),
            "error": status.errc.message() if status.errc.value() else "",
            "peers": status.num_peers,
            "clients": [peer.client.decode("utf-8", "replace") for peer in peers],
            "downloaded": status.total_payload_download,
            "uploaded": status.total_payload_upload,
            "failed": status.total_failed_bytes,
        }


def main() -> None:
    """Answer lines until there are no more."""
    session = Session()
    verbs = {"start": session.start, "status": session.status, "connect": session.connect}
    for text in iter(sys.stdin.readline, ""):
        line = json.loads(text)
        sys.stdout.write(json.dumps(verbs[line["do"]](line)) + "\n")
        sys.stdout.flush()


main()
