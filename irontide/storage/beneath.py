"""
Opening, making and removing files below a directory, without following a symbolic link on the way.

What a torrent names must stay below its root, even if somebody plants a symbolic link there meanwhile: so
every path is resolved from a descriptor of the root, by ``openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)``
where the kernel has it, else component by component with ``O_NOFOLLOW``.  The root itself is the user's
choice and may be a link.

A path here is a tuple of components; sanitising them is the business of ``irontide.metainfo``, and what
could leave the root is refused here all the same.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

RelativePath = tuple[str, ...]

_OPENAT2 = 437  # the same number on every architecture that irontide runs on
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RETRIES = 4
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


_libc = ctypes.CDLL(None, use_errno=True)


def _openat2(root: int, path: str, flags: int, mode: int) -> int:
    """The system call; raises OSError."""
    how = _OpenHow(flags, mode if flags & os.O_CREAT else 0, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS)
    for _ in range(_RETRIES):
        fd = _libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_int(root),
            ctypes.c_char_p(os.fsencode(path)),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if fd >= 0:
            return int(fd)
        number = ctypes.get_errno()
        if number not in (errno.EINTR, errno.EAGAIN):  # EAGAIN: somebody renamed directories just then
            break
    raise OSError(number, os.strerror(number), path)


def has_openat2() -> bool:
    """Ask this kernel (which may also have it forbidden by a seccomp filter)."""
    if not sys.platform.startswith("linux"):
        return False
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(_openat2(root, ".", os.O_PATH | os.O_CLOEXEC, 0))
    except OSError:
        return False
    finally:
        os.close(root)
    return True


HAVE_OPENAT2 = has_openat2()


def check_path(path: RelativePath) -> None:
    """Raise OSError(EINVAL) unless ``path`` can only mean something below the root."""
    for component in path:
        if component in ("", ".", "..") or "/" in component or "\0" in component:
            raise OSError(errno.EINVAL, "not a path below the root", "/".join(path))
    if not path:
        raise OSError(errno.EINVAL, "an empty path", "")


def _step_by_step(root: int, path: RelativePath, flags: int, mode: int) -> int:
    """Open ``path`` where there is no openat2."""
    with _walk(root, path[:-1], make=False) as directory:
        return os.open(path[-1], flags, mode, dir_fd=directory)


@contextmanager
def _walk(root: int, path: RelativePath, *, make: bool) -> Iterator[int]:
    """A descriptor (O_PATH) of the directory ``path``, opened a component at a time."""
    fd = os.dup(root)
    try:
        for component in path:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(component, dir_fd=fd)
            deeper = os.open(component, _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = deeper
        yield fd
    finally:
        os.close(fd)


@contextmanager
def directory(root: int, path: RelativePath, *, make: bool = False) -> Iterator[int]:
    """
    A descriptor (O_PATH) of the directory ``path``, which may be empty: the root.

    :param make: make what is missing on the way.
    """
    if path:
        check_path(path)
    if make or not path or not HAVE_OPENAT2:
        with _walk(root, path, make=make) as fd:
            yield fd
        return
    fd = _openat2(root, "/".join(path), _DIRECTORY, 0)
    try:
        yield fd
    finally:
        os.close(fd)


def open_file(root: int, path: RelativePath, flags: int, mode: int = 0o666) -> int:
    """
    Open a regular file below ``root``.

    :param flags: as for os.open; with O_CREAT the directory has to exist.
    :raises OSError: among others ELOOP for a symbolic link anywhere in ``path``, and EINVAL for what is
        not a regular file (a FIFO would block its reader for ever).
    """
    check_path(path)
    opener = _openat2_of if HAVE_OPENAT2 else _step_by_step
    try:
        fd = opener(root, path, flags | _FILE, mode)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "/".join(path)) from None
    try:
        kind = os.fstat(fd).st_mode
        if not stat.S_ISREG(kind):
            number = errno.EISDIR if stat.S_ISDIR(kind) else errno.EINVAL
            raise OSError(number, "not a regular file", "/".join(path))
    except OSError:
        os.close(fd)
        raise
    return fd


def _openat2_of(root: int, path: RelativePath, flags: int, mode: int) -> int:
    return _openat2(root, "/".join(path), flags, mode)


def stat_file(root: int, path: RelativePath) -> os.stat_result | None:
    """The stat of what is at ``path`` (of a link itself), or None if there is nothing."""
    try:
        check_path(path)
        with directory(root, path[:-1]) as parent:
            return os.stat(path[-1], dir_fd=parent, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def unlink(root: int, path: RelativePath) -> None:
    """Remove a file; nothing there is no error."""
    check_path(path)
    with suppress(FileNotFoundError, NotADirectoryError), directory(root, path[:-1]) as parent:
        os.unlink(path[-1], dir_fd=parent)


def remove_empty(root: int, path: RelativePath) -> None:
    """Remove the directory ``path`` and those above it (not the root), as far as they are empty."""
    while path:
        try:
            with directory(root, path[:-1]) as parent:
                os.rmdir(path[-1], dir_fd=parent)
        except OSError:  # not empty, not there, not ours: it stays, and so do those above
            return
        path = path[:-1]


def rename(old_root: int, old: RelativePath, new_root: int, new: RelativePath) -> None:
    """
    Rename a file; the directory of ``new`` has to exist.

    :raises FileExistsError: something is at ``new`` already.
    """
    check_path(old)
    check_path(new)
    if stat_file(new_root, new) is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), "/".join(new))
    with directory(old_root, old[:-1]) as source, directory(new_root, new[:-1]) as target:
        os.rename(old[-1], new[-1], src_dir_fd=source, dst_dir_fd=target)


def make_directories(root: int, path: RelativePath) -> list[RelativePath]:
    """Make the directory ``path`` below the root; return those that were missing, the highest first."""
    missing: list[RelativePath] = []
    for length in range(len(path), 0, -1):
        if stat_file(root, path[:length]) is not None:
            break
        missing.insert(0, path[:length])
    with directory(root, path, make=True):
        return missing


def sync_directory(root: int, path: RelativePath) -> None:
    """fsync the directory ``path``, which may be empty: the root."""
    with directory(root, path) as fd:
        readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        try:
            os.fsync(readable)
        finally:
            os.close(readable)
