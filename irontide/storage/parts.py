"""
The part file: bytes of files that are not wanted, which share a piece with files that are.

A piece can only be verified, and served, as a whole; but a file that is not wanted is not to appear on the
disk.  So its share of such a piece goes to ``.<name>.<infohash>.parts`` beside the torrent, in a slot of a
piece's length for each piece.  Which files live there is kept in the part file itself, so that it is known
after a crash in the middle of taking one out: a file lives there until all of it has been copied and synced.

Format (big endian): magic, piece length, pieces, files (4 bytes each); a byte for each file, 1 if it lives
here; 4 bytes for each piece, its slot + 1 or 0; zeros up to a multiple of 4 KiB; the slots.  What was never
written is a hole.
"""

from __future__ import annotations

import errno
import os
import threading
from array import array
from collections.abc import Iterable, Sequence
from struct import Struct
from sys import byteorder

from irontide.errors import StorageError
from irontide.storage.beneath import RelativePath, unlink
from irontide.storage.files import OpenFiles, Tree
from irontide.storage.system import read_all, write_all

MAGIC = b"irnparts"
_HEADER = Struct(">8sIII")
_SLOT = Struct(">I")
_ALIGNMENT = 4096


class PartFile:
    """
    The part file of one torrent; its methods run in workers and may run at the same time.

    :ivar files: indexes of the files of which bytes live here.
    :ivar path: its place below the root of the tree.
    """

    def __init__(
        self,
        open_files: OpenFiles,
        tree: Tree,
        path: RelativePath,
        pieces: int,
        piece_length: int,
        files: int,
    ) -> None:
        self._open_files = open_files
        self._tree = tree
        self.path = path
        self._head = _HEADER.pack(MAGIC, piece_length, pieces, files)
        self._piece_length = piece_length
        self._pieces = pieces
        self._table = _HEADER.size + files
        self._data = -(-(self._table + 4 * pieces) // _ALIGNMENT) * _ALIGNMENT
        self._lock = threading.Lock()
        self._slots: dict[int, int] = {}
        self._free: list[int] = []
        self._exists = False
        self.files: set[int] = set()

    def load(self) -> None:
        """
        Read what lives here; no part file is an empty one.

        :raises StorageError: what is there is not the part file of this torrent.
        """
        self._slots, self._free, self.files = {}, [], set()
        try:
            with self._open_files.use(self._tree, self.path) as fd:
                table = bytearray(self._table + 4 * self._pieces)
                read_all(self._open_files.system, fd, memoryview(table), 0)
        except FileNotFoundError:
            self._exists = False
            return
        head = bytes(table[: _HEADER.size])
        if not any(head):  # made just before a crash
            self._exists = False
            return
        slots = array("I", bytes(table[self._table :]))
        if byteorder == "little":
            slots.byteswap()
        if head != self._head or max(slots) > self._pieces:  # a damaged number would mean terabytes
            where = os.path.join(self._tree.root, *self.path)
            raise StorageError(f"{where}: not the part file of this torrent", errno.EINVAL, where)
        self._exists = True
        self.files = {index for index, flag in enumerate(table[_HEADER.size : self._table]) if flag}
        self._slots = {piece: slot - 1 for piece, slot in enumerate(slots) if slot}
        used = set(self._slots.values())
        self._free = [slot for slot in range(max(used, default=-1)) if slot not in used]

    def holds(self, piece: int) -> bool:
        """Tell whether bytes of ``piece`` live here."""
        return piece in self._slots

    def write(self, file: int, piece: int, begin: int, views: Sequence[memoryview]) -> None:
        """Write a part of ``file`` that lies at ``begin`` in ``piece``; raises OSError."""
        system = self._open_files.system
        with self._open_files.use(self._tree, self.path, write=True, create=True) as fd:
            with self._lock:
                slot = self._slot_for(fd, file, piece)
            write_all(system, fd, views, self._data + slot * self._piece_length + begin)

    def _slot_for(self, fd: int, file: int, piece: int) -> int:
        """The slot of ``piece``, noted in the file before any byte goes there."""
        system = self._open_files.system
        if not self._exists:
            write_all(system, fd, [memoryview(self._head)], 0)
            self._exists = True
        if file not in self.files:
            write_all(system, fd, [memoryview(b"\1")], _HEADER.size + file)
            self.files.add(file)
        slot = self._slots.get(piece)
        if slot is None:
            slot = self._free[-1] if self._free else len(self._slots)
            self._note_slot(fd, piece, slot + 1)
            if self._free:
                self._free.pop()
            self._slots[piece] = slot
        return slot

    def _note_slot(self, fd: int, piece: int, value: int) -> None:
        write_all(self._open_files.system, fd, [memoryview(_SLOT.pack(value))], self._table + 4 * piece)

    def read(self, piece: int, begin: int, view: memoryview) -> int:
        """Fill ``view`` from ``begin`` in ``piece``; return how much there was; raises OSError."""
        slot = self._slots.get(piece)
        if slot is None:
            return 0
        with self._open_files.use(self._tree, self.path) as fd:
            offset = self._data + slot * self._piece_length + begin
            return read_all(self._open_files.system, fd, view, offset)

    def taken_out(self, file: int, pieces: Iterable[int]) -> None:
        """
        Forget ``file``, whose bytes are elsewhere and synced by now.

        :param pieces: those of its pieces of which no other file has bytes here; their slots are free.
        """
        if file not in self.files:
            return
        with self._open_files.use(self._tree, self.path, write=True) as fd:
            write_all(self._open_files.system, fd, [memoryview(b"\0")], _HEADER.size + file)
            self.files.discard(file)
            for piece in pieces:
                slot = self._slots.get(piece)
                if slot is not None:
                    self._note_slot(fd, piece, 0)
                    del self._slots[piece]
                    self._free.append(slot)
        if not self.files:
            self.remove()

    def remove(self) -> None:
        """Delete the part file."""
        self._open_files.forget(self._tree, self.path)
        with self._open_files.root(self._tree) as root:
            unlink(root, self.path)
        self._slots, self._free, self.files, self._exists = {}, [], set(), False
