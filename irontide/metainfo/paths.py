"""
Names out of a .torrent file, made safe to be created below a folder.

A name may be any bytes that a stranger likes.  What comes out here is one component that every Unix file
system takes, that leads nowhere else, and that looks like what it is: no separators, no control characters,
nothing that is invisible or turns the direction of the text ("fdp.exe" shown as "exe.pdf").  Characters with
a meaning become ``_``, invisible ones go.  Names that are the same then, or differ only in case or in how an
accent is written, get a number: on another file system they would be one file.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from irontide.errors import MetainfoError

MAX_NAME_BYTES = 240
"""Of one component in UTF-8; file systems take 255, the rest is for suffixes such as ``.parts``."""
MAX_DEPTH = 64
"""Components of one path."""
MAX_EQUAL_NAMES = 500
"""Files of one torrent whose paths are the same before they get numbers."""
_MAX_EXTENSION_BYTES = 32

_SAFE = re.compile(r"(?!\.\.?\Z)(?![A-Za-z]:)[!-.0-\[\]-~](?:[ -.0-\[\]-~]{0,199}[!-.0-\[\]-~])?")
"""Names that nothing has to be done to, which are most: printable ASCII with no separator."""

_REPLACED = [*range(0x20), *range(0x7F, 0xA0), ord("/"), ord("\\"), 0x2028, 0x2029, 0xFFFD]
"""Control characters, separators, and what bytes became that are no UTF-8."""
_INVISIBLE = [0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFEFF, 0xFFA0]
_INVISIBLE += [*range(0x180B, 0x1810), *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070)]
_INVISIBLE += [*range(0xFFF0, 0xFFFC), *range(0xE0000, 0xE1000)]
"""Of no width or changing direction; variation selectors of emoji (FE00 ... FE0F) do no harm and stay."""
_TABLE: dict[int, str | None] = dict.fromkeys(_REPLACED, "_") | dict.fromkeys(_INVISIBLE)
_SURROGATES = re.compile("[\ud800-\udfff]")

_FOREIGN = re.compile(r'[<>:"|?*]')
_RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\..*)?\Z", re.I
)


def sanitise(components: Iterable[str], *, foreign: bool = False) -> tuple[str, ...]:
    """
    Return a path, each component made safe by itself.

    :param foreign: the file system has the rules of Windows (vfat, exfat, ntfs, cifs): reserved names,
        some more characters, no dot or space at the end.
    :raises MetainfoError: it has no component, or more than MAX_DEPTH.
    """
    path = tuple(sanitise_name(name, foreign=foreign) for name in components)
    if not 0 < len(path) <= MAX_DEPTH:
        raise MetainfoError(f"a path of {len(path)} names")
    return path


def sanitise_name(name: str, *, foreign: bool = False) -> str:
    """Return one component of a path that is safe; see ``sanitise``."""
    if not foreign and _SAFE.fullmatch(name):
        return name
    name = _SURROGATES.sub("_", name).translate(_TABLE).strip()
    if name[1:2] == ":" and name[0].isalpha():
        name = f"{name[0]}_{name[2:]}"
    if foreign:
        name = _FOREIGN.sub("_", name).rstrip(". ")
        if _RESERVED.match(name):
            name = f"_{name}"
    name = shorten(name, MAX_NAME_BYTES).strip()
    return "_" if name in ("", ".", "..") else name


def shorten(name: str, limit: int) -> str:
    """Return ``name`` cut to ``limit`` bytes of UTF-8, at the end of its stem: the extension is kept."""
    if len(name.encode()) <= limit:
        return name
    stem, extension = _split(name)
    room = limit - len(extension.encode())
    return stem.encode()[:room].decode(errors="ignore") + extension


def unique(paths: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """
    Return ``paths``, those of the files of a torrent, with numbers where two would be the same file.

    Same is: but for case and for how accents are composed.  The first keeps its name, unless it is that of
    a folder.

    :raises MetainfoError: more than MAX_EQUAL_NAMES are the same.
    """
    folders: dict[tuple[str, ...], str] = {}
    for path in paths:
        _note_folder(path[:-1], folders)
    taken = set(folders.values())
    equal: dict[str, int] = {}
    numbers: dict[str, int] = {}
    found = []
    for path in paths:
        made = path
        folder = folders[path[:-1]]
        wanted = key = f"{folder}/{_fold(path[-1])}"
        equal[wanted] = equal.get(wanted, 0) + 1
        if equal[wanted] > MAX_EQUAL_NAMES:
            raise MetainfoError(f"more than {MAX_EQUAL_NAMES} files have the name {path[-1]!r}")
        while key in taken:
            numbers[wanted] = numbers.get(wanted, 0) + 1
            name = _numbered(path[-1], numbers[wanted])
            key = f"{folder}/{_fold(name)}"
            made = (*path[:-1], name)
        taken.add(key)
        found.append(made)
    return found


def _note_folder(folder: tuple[str, ...], folders: dict[tuple[str, ...], str]) -> str:
    """Note the key of ``folder`` and of those that it lies in; return it."""
    key = folders.get(folder)
    if key is None:
        key = f"{_note_folder(folder[:-1], folders)}/{_fold(folder[-1])}" if folder else ""
        folders[folder] = key
    return key


def _fold(name: str) -> str:
    """Return what is the same for names that some file system takes for one."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _split(name: str) -> tuple[str, str]:
    """Return stem and extension; an overlong extension is none."""
    dot = name.rfind(".")
    if dot <= 0 or len(name[dot:].encode()) > _MAX_EXTENSION_BYTES:
        return name, ""
    return name[:dot], name[dot:]


def _numbered(name: str, number: int) -> str:
    stem, extension = _split(name)
    suffix = f" ({number}){extension}"
    return shorten(stem, MAX_NAME_BYTES - len(suffix.encode())) + suffix
