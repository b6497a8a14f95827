"""
The options of ``twistd irontide``: one for each setting of the table, and a few of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

from twisted.python import usage

from irontide import __version__
from irontide.errors import SettingsError, ValidationFailed
from irontide.settings import OPTIONS, Settings, default_config, defaults, load
from irontide.settings.sources import CONFIG_VARIABLE

_OWN = [
    ["config", "c", None, "The configuration file, in TOML."],
    ["listen", None, None, "Where peers connect to: PORT, or ADDRESS:PORT ([::1]:6881 for IPv6)."],
]
_DEFAULTS = defaults()


def _described(name: str) -> list[Any]:
    """A row of optParameters; the default is told as it is without any configuration."""
    row = OPTIONS[name]
    default = row.kind.show(getattr(_DEFAULTS, name))
    return [name.replace("_", "-"), None, None, f"{row.help} [{row.kind.placeholder}; {default}]"]


class Options(usage.Options):
    """
    What can be said on the command line of the daemon.

    After parsing, ``settings`` is the sum of the file, the environment and the options.
    """

    synopsis = "[options]"
    longdesc = (
        "A BitTorrent engine. Settings come from the configuration file "
        "($XDG_CONFIG_HOME/irontide/irontide.toml), from IRONTIDE_* in the environment and from these "
        "options; the last one wins."
    )
    optParameters: ClassVar[list[list[Any]]] = [*_OWN, *map(_described, OPTIONS)]
    settings: Settings

    def opt_version(self) -> NoReturn:
        """Show the version of irontide."""
        print(f"irontide {__version__}")  # noqa: T201  (what this option is for)
        sys.exit(0)

    def postOptions(self) -> None:
        """Read all settings; what is wrong with them is told in a line each, and that is all."""
        try:
            self.settings = self.read(os.environ)
        except ValidationFailed as error:
            sys.exit("\n".join(f"irontide: {name}: {text}" for name, text in sorted(error.errors.items())))
        except SettingsError as error:
            sys.exit(f"irontide: {error}")

    def read(self, environment: Mapping[str, str]) -> Settings:
        """
        Put the settings together.

        :raises SettingsError: something is wrong with them.
        """
        said = {name: self[name.replace("_", "-")] for name in OPTIONS}
        if self["listen"] is not None:
            for name, value in parse_listen(self["listen"]).items():
                if said[name] is not None:
                    raise ValidationFailed({name: "said twice; --listen says it too"})
                said[name] = value
        return load(self._config(environment), environment, said)

    def _config(self, environment: Mapping[str, str]) -> str | None:
        chosen = self["config"] or environment.get(CONFIG_VARIABLE)
        if chosen:
            return str(chosen)
        usual = default_config()
        return usual if os.path.exists(usual) else None


def parse_listen(text: str) -> dict[str, str]:
    """Split PORT or ADDRESS:PORT into settings, as text; the settings themselves judge the parts."""
    address, colon, port = text.rpartition(":")
    if not colon:
        return {"listen_port": port}
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    elif ":" in address:
        raise ValidationFailed({"listen": f"{text!r}: write an IPv6 address as [address]:port"})
    return {"listen_addresses": address, "listen_port": port} if address else {"listen_port": port}
