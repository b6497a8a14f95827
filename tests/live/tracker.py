"""A tracker that knows its answer: clients that cannot be told of peers otherwise learn of them here."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import libtorrent


class StaticTracker:
    """Answers each announce with the same peers (BEP 23)."""

    def __init__(self, host: str, peers: Sequence[tuple[str, int]], *, answers: int | None = None) -> None:
        """:param answers: dies after so many: it takes connections then, and says nothing."""
        compact = b"".join(ipaddress.ip_address(h).packed + port.to_bytes(2, "big") for h, port in peers)
        body = b"d8:intervali1800e5:peers%d:%be" % (len(compact), compact)
        self.announces: list[str] = []
        announces = self.announces
        self._dead = dead = threading.Event()

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                announces.append(self.path)
                if answers is not None and len(announces) > answers:
                    dead.wait()
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer((host, 0), Answer)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://{host}:{self._server.server_address[1]}/announce"

    def torrent(self, original: Path, copy: Path) -> Path:
        """Write a copy of a .torrent that names this tracker and no other."""
        decoded = libtorrent.bdecode(original.read_bytes())
        decoded.pop(b"announce-list", None)
        decoded[b"announce"] = self.url.encode()
        copy.write_bytes(libtorrent.bencode(decoded))
        return copy

    def stop(self) -> None:
        """Stop answering."""
        self._dead.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
