"""Settings that say where things are kept.  The defaults are the XDG directories."""

from __future__ import annotations

from attrs import frozen
from platformdirs import PlatformDirs

from irontide.settings.kinds import Path
from irontide.settings.option import option

_DIRECTORIES = PlatformDirs("irontide", appauthor=False)


@frozen(slots=False)
class PathSettings:
    """See the help of each."""

    downloads: str = option(
        Path(),
        factory=lambda: _DIRECTORIES.user_downloads_dir,
        help="Where downloaded files go, unless a torrent has a place of its own.",
    )
    state: str = option(
        Path(),
        factory=lambda: _DIRECTORIES.user_state_dir,
        help="Where irontide keeps what it has to remember.",
    )
    watch: str | None = option(
        Path(optional=True),
        None,
        help="A directory to watch: .torrent files that appear there are added.",
    )


def default_config() -> str:
    """Where the configuration file is looked for if nothing else is said."""
    return f"{_DIRECTORIES.user_config_dir}/irontide.toml"
