"""
Load on a listener, from a process of its own: ``python flood.py KIND PORT ...``.

Prints one line of JSON when it is done.  Every connection comes from an address of its own in 127.0.0.0/8.
Kinds: ``silent COUNT`` connects and says nothing; ``handshakes RATE SECONDS HOLD TRIES`` opens RATE good
connections a second, waits for an answer to each, holds it for HOLD seconds and closes it.
"""

from __future__ import annotations

import heapq
import json
import resource
import selectors
import socket
import struct
import sys
import time

RESET = struct.pack("ii", 1, 0)
HANDSHAKE = b"\x13BitTorrent protocol" + bytes(8) + b"k" * 20 + b"-FL0000-flooooooooood"[:20]
GIVE_UP = 15.0
BATCH = 50
MOST_UNANSWERED = 100
"""A generator that was not scheduled for a while must not make a burst of it: that is not what is tested."""


def source(number: int) -> str:
    """An address of 127.0.0.0/8 for each number."""
    return f"127.{1 + (number >> 16) % 200}.{number >> 8 & 255}.{number & 255}"


def connect(number: int, port: int) -> socket.socket:
    """Begin to connect."""
    opened = socket.socket()
    opened.setblocking(False)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    opened.bind((source(number), 0))
    opened.connect_ex(("127.0.0.1", port))
    return opened


def silent(port: int, count: int) -> dict[str, float]:
    """Connect ``count`` times as fast as can be; tell how long the server kept each once connected."""
    selector = selectors.DefaultSelector()
    kept: list[float] = []
    started = time.monotonic()
    made = 0
    while (made < count or selector.get_map()) and time.monotonic() - started < GIVE_UP:
        for _ in range(min(BATCH, count - made)):
            selector.register(connect(made, port), selectors.EVENT_WRITE)
            made += 1
        for key, events in selector.select(0 if made < count else 0.1):
            if events & selectors.EVENT_WRITE:
                selector.modify(key.fileobj, selectors.EVENT_READ, time.monotonic())
            else:
                selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]
                kept.append(time.monotonic() - key.data)
    return {
        "made": made,
        "closed": len(kept),
        "longest": max(kept, default=0.0),
        "took": time.monotonic() - started,
    }


class Handshakes:
    """Good connections at a steady rate, whatever becomes of them."""

    def __init__(self, port: int, rate: float, seconds: float, hold: float, tries: float) -> None:
        self.port = port
        self.tries = tries
        self.unanswered = 0
        self.rate = rate
        self.total = int(rate * seconds)
        self.hold = hold
        self.selector = selectors.DefaultSelector()
        self.made = 0
        self.refused = 0
        self.latencies: list[float] = []
        self.held: list[tuple[float, int, socket.socket]] = []

    def run(self) -> dict[str, float]:
        started = time.monotonic()
        while self.made < self.total or self.selector.get_map():
            now = time.monotonic()
            if now - started > self.total / self.rate + GIVE_UP:
                break
            due = min(int((now - started) * self.rate) + 1, self.total) - self.made
            for _ in range(min(due, BATCH, MOST_UNANSWERED - self.unanswered)):
                self.open(self.made, now, 1)
                self.made += 1
            while self.held and self.held[0][0] <= now:
                self.close(heapq.heappop(self.held)[2])
            for key, events in self.selector.select(0.002):
                self.proceed(key, events)
        latencies = sorted(self.latencies) or [0.0]
        return {
            "made": self.made,
            "answered": len(self.latencies),
            "refused": self.refused,
            "median": latencies[len(latencies) // 2],
            "longest": latencies[-1],
            "took": time.monotonic() - started,
        }

    def open(self, number: int, began: float, tries: int) -> None:
        self.unanswered += 1
        self.selector.register(connect(number, self.port), selectors.EVENT_WRITE, (number, began, tries))

    def close(self, each: socket.socket) -> None:
        if each.fileno() != -1:
            self.selector.unregister(each)
            each.close()

    def proceed(self, key: selectors.SelectorKey, events: int) -> None:
        each = key.fileobj
        assert isinstance(each, socket.socket)
        number, began, tries = key.data
        try:
            if events & selectors.EVENT_WRITE:
                each.send(HANDSHAKE)
                self.selector.modify(each, selectors.EVENT_READ, key.data)
            elif each.recv(4096):
                self.unanswered -= 1
                self.latencies.append(time.monotonic() - began)
                heapq.heappush(self.held, (time.monotonic() + self.hold, number, each))
            else:
                raise ConnectionResetError
        except OSError:
            self.close(each)
            if any(each is held for _, _, held in self.held):
                return
            self.unanswered -= 1
            if tries < self.tries:
                self.open(number, began, tries + 1)
            else:
                self.refused += 1


def main() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kind, port, *numbers = sys.argv[1:]
    match kind:
        case "silent":
            result = silent(int(port), int(numbers[0]))
        case "handshakes":
            result = Handshakes(int(port), *map(float, numbers)).run()
        case _:
            raise SystemExit(f"unknown kind of load: {kind}")
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
