"""libtorrent as one side of a transfer (see sides.py)."""

from __future__ import annotations

import json
import resource
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
    "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification,
    # What its manual advises for fast links:
    "send_buffer_watermark": 3 * 1024 * 1024,
    "send_buffer_low_watermark": 512 * 1024,
    "send_buffer_watermark_factor": 150,
    "max_out_request_queue": 1500,
    "max_allowed_in_request_queue": 2000,
    "request_queue_time": 3,
}


def say(event: str, **more: Any) -> None:
    """Write one line."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    line = {"event": event, "time": time.monotonic(), "cpu": usage.ru_utime + usage.ru_stime, **more}
    print(json.dumps(line), flush=True)


def main() -> None:
    """Seed or download, as the argument says, until stdin ends."""
    role = json.loads(sys.argv[1])
    session = lt.session({**SETTINGS, "listen_interfaces": f"{role['listen']}:0"})
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(role["torrent"])
    parameters.save_path = role["folder"]
    parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    if role["role"] == "seed":
        parameters.flags |= lt.torrent_flags.seed_mode
    torrent = session.add_torrent(parameters)
    while not session.listen_port():
        time.sleep(0.005)
    wait_for(session, lt.torrent_checked_alert if role["role"] == "download" else None)
    say("listening", port=session.listen_port())
    if role["peer"] is not None:
        torrent.connect_peer(tuple(role["peer"]))
        wait_for(session, lt.torrent_finished_alert)
        say("complete")
    sys.stdin.read()


def wait_for(session: Any, kind: Any) -> None:
    """Return once an alert of ``kind`` came."""
    while kind is not None:
        session.wait_for_alert(1000)
        for alert in session.pop_alerts():
            if isinstance(alert, kind):
                return
            if "error" in alert.what():
                sys.exit(f"libtorrent: {alert.message()}")


main()
