"""
A seed that lies: one block in a hundred has a wrong byte.

It speaks the protocol by itself, in threads with plain sockets: nothing of irontide is in it that could
share an error with what it tests.  It knows BEP 3 and no more.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from hashlib import sha1
from pathlib import Path
from typing import BinaryIO

import libtorrent

from tests.live.torrents import Made

EVERY = 100
BITFIELD, REQUEST, PIECE, UNCHOKE = 5, 6, 7, 1


class Liar:
    """
    Seeds a torrent of one file to whoever asks.

    :ivar lies: (piece, begin) of each wrong block that was sent.
    :ivar served: how many blocks were sent in all.
    """

    def __init__(self, made: Made, host: str = "127.0.0.1", *, every: int = EVERY, seed: int = 3) -> None:
        info = libtorrent.bdecode(made.torrent.read_bytes())[b"info"]
        self._infohash = sha1(libtorrent.bencode(info)).digest()
        self._pieces = len(info[b"pieces"]) // 20
        self._made = made
        self._every = every
        self._random = random.Random(seed)
        self.lies: list[tuple[int, int]] = []
        self.served = 0
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server((host, 0))
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

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
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as stream, Path(self._made.content).open("rb") as file:
                self._talk(connection, stream, file)
        except (OSError, EOFError):
            pass  # the peer has gone, or we were stopped

    def _talk(self, connection: socket.socket, stream: BinaryIO, file: BinaryIO) -> None:
        handshake = _exactly(stream, 68)
        if handshake[28:48] != self._infohash:
            return
        prefix = b"\x13BitTorrent protocol" + bytes(8)
        connection.sendall(prefix + self._infohash + b"-LI0001-" + self._random.randbytes(12))
        field = bytearray(b"\xff" * (self._pieces // 8))
        if self._pieces % 8:
            field.append(0xFF << (8 - self._pieces % 8) & 0xFF)
        connection.sendall(_frame(BITFIELD, bytes(field)) + _frame(UNCHOKE))
        while True:
            (length,) = struct.unpack(">I", _exactly(stream, 4))
            message = _exactly(stream, length)
            if message and message[0] == REQUEST:
                connection.sendall(self._answer(*struct.unpack(">III", message[1:]), file))

    def _answer(self, piece: int, begin: int, length: int, file: BinaryIO) -> bytes:
        file.seek(piece * self._made.piece_length + begin)
        block = bytearray(file.read(length))
        self.served += 1
        if self.served % self._every == self._every // 2:
            block[self._random.randrange(len(block))] ^= 0x40
            self.lies.append((piece, begin))
        return _frame(PIECE, struct.pack(">II", piece, begin) + block)


def _frame(number: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IB", 1 + len(payload), number) + payload


def _exactly(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data
