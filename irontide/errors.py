"""
What can go wrong, by whose fault it is.

The class says who has to act: a peer's fault drops that peer, a disk's fault stops that torrent, a
user's fault is told to the user.  Anything that is none of these is a bug of ours.
"""

from __future__ import annotations

from collections.abc import Mapping


class IrontideError(Exception):
    """The root of all errors that irontide raises on purpose."""


class ProtocolViolation(IrontideError):
    """A peer sent what the protocol does not allow: that connection is dropped."""


class StorageError(IrontideError):
    """
    The file system refused: the torrent moves to Stopped(error).

    :ivar errno: the number of the system's error, or None where there was none.
    :ivar path: the file concerned, for the user to read.
    """

    def __init__(self, message: str, errno: int | None = None, path: str | None = None) -> None:
        super().__init__(message)
        self.errno = errno
        self.path = path


class MetainfoError(IrontideError):
    """A .torrent file, an Info or a magnet link that cannot be used; the text says why."""


class SettingsError(IrontideError):
    """A setting that cannot be put in force; for the user to mend."""


class ValidationFailed(SettingsError):
    """
    Values that are not valid, all of them at once.

    :ivar errors: what is wrong, by the name of the setting.
    """

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {text}" for name, text in sorted(errors.items())))
        self.errors = dict(errors)


class ListenPortInUse(SettingsError):
    """
    The port is taken.

    :ivar attempted: the port that could not be bound.
    :ivar existing: the port that the session still listens on, or None.
    """

    def __init__(self, attempted: int, existing: int | None = None) -> None:
        rest = "" if existing is None else f"; still listening on {existing}"
        super().__init__(f"port {attempted} is in use{rest}")
        self.attempted = attempted
        self.existing = existing


class StateInUse(IrontideError):
    """Another process holds this state directory (its lock file names the process)."""


class StoreError(IrontideError):
    """The store could not commit; nothing was acknowledged.  The cause is chained."""


class NewerStore(StoreError):
    """The state was written by a later version of irontide; it is left as it is."""


class DuplicateTorrent(IrontideError):
    """The session has a torrent with this infohash already."""


class TrackerError(IrontideError):
    """An announce or scrape that failed; the text is fit to be shown to the user, without secrets."""


class FetchError(IrontideError):
    """
    Something could not be fetched over HTTP; the text is fit to be shown to the user, without secrets.

    :ivar status: the status that the server answered, or None where there was no answer worth the name.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class QueueFull(IrontideError):
    """A bounded queue is at its cap and its consumer has no room."""


class Closed(IrontideError):
    """The consumer of a queue is gone; treated as shutdown, never as a failure."""
