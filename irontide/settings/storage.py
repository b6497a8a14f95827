"""Settings of the disk and of the memory before it."""

from __future__ import annotations

from attrs import frozen

from irontide.settings.kinds import MIB, TIB, Choice, Size, Whole
from irontide.settings.option import option


@frozen(slots=False)
class StorageSettings:
    """See the help of each."""

    preallocate: str = option(
        Choice(("sparse", "full")),
        "sparse",
        help="Whether room for a file is taken as it fills (sparse) or at once (full).",
    )
    download_buffers: int = option(
        Size(MIB, TIB),
        64 * MIB,
        unit="B",
        help="Memory for pieces that are being downloaded.",
    )
    upload_buffers: int = option(
        Size(MIB, TIB),
        32 * MIB,
        unit="B",
        help="Memory for data on its way from the disk to peers.",
    )
    disk_threads: int = option(
        Whole(1, 64),
        3,
        help="How many threads read, write and hash.",
    )
    open_files: int = option(
        Whole(8, 1_000_000),
        512,
        help="How many files of torrents are kept open.",
    )
