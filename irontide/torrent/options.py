"""What a user sets for one torrent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import asdict, frozen

from irontide.metainfo.info import Info

NORMAL_PRIORITY = 4


@frozen
class TorrentOptions:
    """
    Settings of one torrent; kept in the store as JSON.

    :ivar paused: whether the user stopped it.
    :ivar sequential: pieces in order instead of rarest first.
    :ivar priorities: by file, 0 (unwanted) to 7; None means that all are wanted alike.
    :ivar download_rate: and ``upload_rate``: limits in bytes/s, 0 for none.
    :ivar renamed: by file, its path below the save path where that is another than the torrent's.
    """

    paused: bool = False
    sequential: bool = False
    priorities: tuple[int, ...] | None = None
    download_rate: int = 0
    upload_rate: int = 0
    renamed: tuple[tuple[int, tuple[str, ...]], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Values that JSON can carry."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TorrentOptions:
        """The opposite of ``to_json``; keys that are not known (of a newer version) are left out."""
        priorities = values.get("priorities")
        return cls(
            paused=bool(values.get("paused", False)),
            sequential=bool(values.get("sequential", False)),
            priorities=None if priorities is None else tuple(int(p) for p in priorities),
            download_rate=int(values.get("download_rate", 0)),
            upload_rate=int(values.get("upload_rate", 0)),
            renamed=tuple((int(file), tuple(path)) for file, path in values.get("renamed", ())),
        )

    def file_priorities(self, info: Info) -> tuple[int, ...]:
        """A priority for each file."""
        if self.priorities is not None and len(self.priorities) == len(info.files):
            return self.priorities
        return (NORMAL_PRIORITY,) * len(info.files)

    def paths(self, info: Info) -> list[tuple[str, ...]]:
        """Where each file is below the save path."""
        renamed = dict(self.renamed)
        return [renamed.get(index, file.path) for index, file in enumerate(info.files)]

    def wanted(self, info: Info) -> tuple[bool, ...]:
        """Whether each file is wanted at all."""
        return tuple(priority > 0 for priority in self.file_priorities(info))
