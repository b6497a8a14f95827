"""
The Info of a torrent: what its pieces hash to and which files they are (BEP 3, 27, 47, 52).

An Info may come from a .torrent file or from peers.  It is judged once, here; whatever holds an ``Info`` can
rely on it.  Keys need not be sorted, because old tools did not care and the infohash is that of the raw
bytes anyhow.  Hybrids are run as v1; a torrent that is v2 only is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha1, sha256
from typing import Any, Self

from attrs import Factory, field, frozen

from irontide.errors import MetainfoError
from irontide.metainfo.bencode import FILE_LIMITS, Limits, decode
from irontide.metainfo.infohash import InfoHashes
from irontide.metainfo.layout import File, Layout
from irontide.metainfo.paths import MAX_DEPTH, sanitise_name, unique

__all__ = ["File", "Info"]

MIN_PIECE_LENGTH = 16 * 1024
MAX_PIECE_LENGTH = 256 * 1024 * 1024
MAX_PIECES = 2_097_152
MAX_FILES = 200_000
HASH_LENGTH = 20

_Values = Mapping[bytes, Any]


@frozen
class Info:
    """
    What is to be shared, and how to tell that it arrived whole.

    :ivar name: of the file, or of the folder that all files lie in.
    :ivar files: in the order of their bytes.  The path of a single file is ``(name,)``; otherwise every path
        begins with ``name``.
    :ivar piece_hashes: 20 bytes of SHA-1 for each piece.
    :ivar private: peers may come from the trackers of the torrent only (BEP 27).
    :ivar raw: the bytes that the infohash is the hash of.
    :ivar source: what some private trackers write in, so that each has an infohash of its own.
    :ivar layout: where everything lies.
    """

    name: str = field(eq=False)
    piece_length: int = field(eq=False)
    files: tuple[File, ...] = field(eq=False, repr=False)
    piece_hashes: bytes = field(eq=False, repr=False)
    private: bool = field(eq=False)
    infohashes: InfoHashes
    raw: bytes = field(repr=False)
    source: str = field(default="", eq=False)
    layout: Layout = field(
        init=False,
        eq=False,
        repr=False,
        default=Factory(
            lambda self: Layout(_end(self.files), self.piece_length, self.files), takes_self=True
        ),
    )

    @classmethod
    def from_bytes(cls, raw: bytes, limits: Limits = FILE_LIMITS) -> Self:
        """
        Read the value of ``info``, as raw bytes.

        :raises MetainfoError: it cannot be used; the text says why.
        """
        return cls.from_values(decode(raw, limits, any_order=True), raw)

    @classmethod
    def from_values(cls, values: Any, raw: bytes) -> Self:
        """
        Make an Info of ``values``, to which ``raw`` was decoded already.

        :raises MetainfoError: it cannot be used; the text says why.
        """
        if not isinstance(values, dict):
            raise MetainfoError("info is not a dictionary")
        hybrid = _is_hybrid(values)
        piece_length = _piece_length(values)
        name = sanitise_name(text(values, b"name") or "_")
        files = _files(values, name)
        if not _end(files):
            raise MetainfoError("the torrent has no data")
        if hybrid:
            if piece_length & (piece_length - 1):
                raise MetainfoError(f"a piece length of {piece_length}; for v2 it must be a power of two")
            _check_tree(values[b"file tree"])
        return cls(
            name=name,
            piece_length=piece_length,
            files=files,
            piece_hashes=_piece_hashes(values, -(-_end(files) // piece_length)),
            private=values.get(b"private") not in (None, 0, b"0", b""),
            infohashes=InfoHashes(sha1(raw).digest(), sha256(raw).digest() if hybrid else None),
            raw=raw,
            source=text(values, b"source")[:1000],
        )

    @property
    def total(self) -> int:
        """The length of all files together, pad files included."""
        return self.layout.total

    @property
    def infohash(self) -> bytes:
        """The 20 bytes that the torrent is known by."""
        return self.infohashes.best

    @property
    def single(self) -> bool:
        """Whether it is one file without a folder."""
        return len(self.files) == 1 and len(self.files[0].path) == 1

    def piece_hash(self, index: int) -> bytes:
        """Return the 20 bytes that the SHA-1 hash of a piece must be."""
        return self.piece_hashes[index * HASH_LENGTH : (index + 1) * HASH_LENGTH]


def text(values: _Values, key: bytes) -> str:
    """
    Return the text at ``key``, preferring its twin in UTF-8 (``name.utf-8``), or "" if there is none.

    Old files come in any encoding and do not say which: what is no UTF-8 becomes U+FFFD.
    """
    value = values.get(key + b".utf-8", values.get(key))
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _is_hybrid(values: _Values) -> bool:
    """Tell whether there is a v2 half beside the v1 half, which must be there."""
    v2 = b"meta version" in values or b"file tree" in values
    if v2 and b"pieces" not in values:
        raise MetainfoError("BitTorrent v2 is not supported yet")
    return values.get(b"meta version") == 2 and isinstance(values.get(b"file tree"), dict)


def _piece_length(values: _Values) -> int:
    length = values.get(b"piece length")
    if not isinstance(length, int):
        raise MetainfoError("there is no piece length")
    if not MIN_PIECE_LENGTH <= length <= MAX_PIECE_LENGTH:
        raise MetainfoError(f"a piece length of {length}; it must be 16 KiB to 256 MiB")
    return length


def _piece_hashes(values: _Values, pieces: int) -> bytes:
    hashes = values.get(b"pieces")
    if not isinstance(hashes, bytes):
        raise MetainfoError("there are no piece hashes")
    if len(hashes) % HASH_LENGTH:
        raise MetainfoError(f"the piece hashes are {len(hashes)} bytes, not a multiple of {HASH_LENGTH}")
    if pieces > MAX_PIECES:
        raise MetainfoError(f"{pieces} pieces; the most are {MAX_PIECES}")
    if len(hashes) != pieces * HASH_LENGTH:
        raise MetainfoError(f"{len(hashes) // HASH_LENGTH} piece hashes for {pieces} pieces")
    return hashes


def _end(files: tuple[File, ...]) -> int:
    return files[-1].offset + files[-1].length


def _files(values: _Values, name: str) -> tuple[File, ...]:
    entries = values.get(b"files")
    if entries is None:
        return (File((name,), _length(values), 0, False, _attributes(values)),)
    if b"length" in values:
        raise MetainfoError("both length and files are there")
    if not isinstance(entries, list) or not entries:
        raise MetainfoError("there are no files")
    if len(entries) > MAX_FILES:
        raise MetainfoError(f"{len(entries)} files; the most are {MAX_FILES}")
    return _Files(name).read(entries)


class _Files:
    """
    Reads the list of files.

    There may be 200,000 of them, whose folders are mostly the same: each component is made safe once.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._safe: dict[bytes, str] = {}

    def read(self, entries: list[Any]) -> tuple[File, ...]:
        found = []
        offset = 0
        for entry in entries:
            if not isinstance(entry, dict):
                raise MetainfoError("a file is not a dictionary")
            length = _length(entry)
            attributes = _attributes(entry) if b"attr" in entry else ""
            pad = "p" in attributes or ("l" in attributes and not length)
            found.append(File(self._path(entry), length, offset, pad, attributes))
            offset += length
        return self._with_unique_paths(found)

    def _path(self, entry: _Values) -> tuple[str, ...]:
        components = entry.get(b"path.utf-8", entry.get(b"path"))
        if not isinstance(components, list) or not 0 < len(components) < MAX_DEPTH:
            raise MetainfoError(f"the path of a file is not a list of 1 to {MAX_DEPTH - 1} names")
        return (self._name, *map(self._component, components))

    def _component(self, name: Any) -> str:
        if not isinstance(name, bytes):
            raise MetainfoError("a name in the path of a file is not a string")
        safe = self._safe.get(name)
        if safe is None:
            safe = self._safe[name] = sanitise_name(name.decode(errors="replace"))
        return safe

    def _with_unique_paths(self, files: list[File]) -> tuple[File, ...]:
        """Pad files are never made, and by custom many have the same name."""
        paths = iter(unique([file.path for file in files if not file.pad]))
        return tuple(file if file.pad else _at(file, next(paths)) for file in files)


def _at(file: File, path: tuple[str, ...]) -> File:
    if file.path is path:
        return file
    return File(path, file.length, file.offset, file.pad, file.attributes)


def _length(entry: _Values) -> int:
    length = entry.get(b"length")
    if not isinstance(length, int) or length < 0:
        raise MetainfoError("a file has no length")
    if length > MAX_PIECES * MAX_PIECE_LENGTH:
        raise MetainfoError(f"a file of {length} bytes")
    return length


def _attributes(entry: _Values) -> str:
    return text(entry, b"attr")[:16]


def _check_tree(tree: dict[bytes, Any]) -> None:
    """
    Check the roots of the v2 half of a hybrid (BEP 52).

    They are not used yet, but a torrent is never half broken: whoever runs it as v2 later may trust it.
    """
    to_see: list[Any] = [tree]
    while to_see:
        node = to_see.pop()
        if not isinstance(node, dict):
            raise MetainfoError("the file tree is not made of dictionaries")
        for name, child in node.items():
            if name:
                to_see.append(child)
            else:
                _check_leaf(child)


def _check_leaf(leaf: Any) -> None:
    if not isinstance(leaf, dict):
        raise MetainfoError("a file of the file tree is not a dictionary")
    root = leaf.get(b"pieces root")
    if _length(leaf) and (not isinstance(root, bytes) or len(root) != 32):
        raise MetainfoError("a pieces root is not 32 bytes")
