"""
A seed that does as the test says: honest or lying, as slow as wanted, and with a memory of all it was asked.

It speaks the protocol by itself, in threads with plain sockets: nothing of irontide is in it that could
share an error with what it tests.  It knows BEP 3 and no more.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading
import time
from hashlib import sha1
from typing import BinaryIO

import libtorrent
from attrs import frozen

from tests.live.torrents import Made

HAVE, BITFIELD, REQUEST, PIECE, UNCHOKE = 4, 5, 6, 7, 1


@frozen
class Sent:
    """A block that was sent, when, and on which connection (counted from 0)."""

    piece: int
    begin: int
    time: float
    connection: int


class ScriptedSeed:
    """
    Seeds a torrent of one file to whoever asks.

    :ivar sent: every block that was sent.
    :ivar verified: (piece, time) of every Have that came: the other side has verified that piece.
    :ivar lies: (piece, begin) of each block that was sent with a wrong byte.
    :ivar connections: how many there have been.
    """

    def __init__(
        self,
        made: Made,
        host: str = "127.0.0.1",
        *,
        lie_every: int | None = None,
        rate: float | None = None,
        random_seed: int = 3,
    ) -> None:
        """
        :param lie_every: one block in so many is wrong; None for an honest seed.
        :param rate: bytes a second, over all connections.
        """
        info = libtorrent.bdecode(made.torrent.read_bytes())[b"info"]
        self._infohash = sha1(libtorrent.bencode(info)).digest()
        self._pieces = len(info[b"pieces"]) // 20
        self._made = made
        self._lie_every = lie_every
        self._rate = rate
        self._random = random.Random(random_seed)
        self._sending = threading.Lock()
        self.sent: list[Sent] = []
        self.verified: list[tuple[int, float]] = []
        self.lies: list[tuple[int, int]] = []
        self.connections = 0
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server((host, 0))
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> ScriptedSeed:
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close everything."""
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):  # closed by the other side already
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(connection)
            number, self.connections = self.connections, self.connections + 1
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with (
            contextlib.suppress(OSError, EOFError),  # the peer has gone, or we were stopped
            connection,
            connection.makefile("rb") as stream,
            self._made.content.open("rb") as file,
        ):
            self._talk(connection, stream, file, number)

    def _talk(self, connection: socket.socket, stream: BinaryIO, file: BinaryIO, number: int) -> None:
        handshake = _exactly(stream, 68)
        if handshake[28:48] != self._infohash:
            return
        prefix = b"\x13BitTorrent protocol" + bytes(8)
        connection.sendall(prefix + self._infohash + b"-SC0001-" + os.urandom(12))
        field = bytearray(b"\xff" * (self._pieces // 8))
        if self._pieces % 8:
            field.append(0xFF << (8 - self._pieces % 8) & 0xFF)
        connection.sendall(_frame(BITFIELD, bytes(field)) + _frame(UNCHOKE))
        while True:
            (length,) = struct.unpack(">I", _exactly(stream, 4))
            message = _exactly(stream, length)
            if not message:
                continue
            if message[0] == HAVE:
                self.verified.append((int.from_bytes(message[1:], "big"), time.monotonic()))
            elif message[0] == REQUEST:
                piece, begin, wanted = struct.unpack(">III", message[1:])
                block = self._block(piece, begin, wanted, file)
                with self._sending:
                    connection.sendall(_frame(PIECE, struct.pack(">II", piece, begin) + block))
                    self.sent.append(Sent(piece, begin, time.monotonic(), number))
                    if self._rate is not None:
                        time.sleep(wanted / self._rate)

    def _block(self, piece: int, begin: int, length: int, file: BinaryIO) -> bytes:
        file.seek(piece * self._made.piece_length + begin)
        block = bytearray(file.read(length))
        # The first lie comes early, so that a peer that asks for little hears one too.
        if self._lie_every and len(self.sent) % self._lie_every == self._lie_every // 4:
            block[self._random.randrange(len(block))] ^= 0x40
            self.lies.append((piece, begin))
        return bytes(block)


def _frame(number: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IB", 1 + len(payload), number) + payload


def _exactly(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data
