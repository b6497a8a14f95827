"""The phase in which nothing happens."""

from __future__ import annotations

from attrs import frozen

from irontide.errors import StorageError


@frozen
class Stopped:
    """Nothing happens; ``error`` says why, if it was not the user's wish."""

    error: StorageError | None = None
    name = "stopped"
