"""
The table of settings, a file per area, and the value that comes of it.

To add a setting, add a field to the class of its area: the configuration file, the environment and the
command lines follow.
"""

from __future__ import annotations

from irontide.settings.kinds import human_size
from irontide.settings.option import Option
from irontide.settings.paths import default_config
from irontide.settings.sources import OPTIONS, Settings, defaults, load, unknown_variables

__all__ = [
    "OPTIONS",
    "Option",
    "Settings",
    "default_config",
    "defaults",
    "human_size",
    "load",
    "unknown_variables",
]
