"""
Writes settings.rst from the table of settings: ``python docs/make_settings.py``.

tests/test_docs.py fails while the page and the table differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs

from irontide.settings import Option
from irontide.settings.connection import ConnectionSettings
from irontide.settings.kinds import Kind, Rate, Seconds, Size, Whole
from irontide.settings.limits import LimitSettings
from irontide.settings.option import options_of
from irontide.settings.paths import PathSettings
from irontide.settings.sources import MAX_CONFIG_FILE, PREFIX
from irontide.settings.storage import StorageSettings

PAGE = Path(__file__).with_name("settings.rst")

AREAS: tuple[tuple[str, type], ...] = (
    ("Connections", ConnectionSettings),
    ("Limits", LimitSettings),
    ("Disk and memory", StorageSettings),
    ("Places", PathSettings),
)

OF_THE_HOST = {
    "downloads": "the user's download directory (XDG), mostly ``~/Downloads``",
    "state": "``$XDG_STATE_HOME/irontide``, mostly ``~/.local/state/irontide``",
}
"""Defaults that depend on whose machine it is, in words."""

COMMANDS = {
    "download_rate": "--max-download",
    "upload_rate": "--max-upload",
    "listen_addresses": "--listen",
    "listen_port": "--port",
}
"""What ``irontide download`` and ``seed`` call a setting that they have an option for."""

HEAD = f"""\
.. Written by docs/make_settings.py; change the table in irontide/settings or the words there.

Settings
========

Where they come from
--------------------

In this order, and the last one that says something wins:

1. the defaults below;
2. the configuration file, in TOML: ``--config FILE``, else the file that ``IRONTIDE_CONFIG`` names, else
   ``$XDG_CONFIG_HOME/irontide/irontide.toml`` if it is there;
3. the environment: ``{PREFIX}`` and the name of the setting in capitals;
4. the options of ``twistd irontide``: the name of the setting with dashes.

Everything is checked before anything starts.  What is wrong is told in a line each, all at once, also where
a later source says it right, and the daemon exits with 1.  A name that there is not is wrong in a file;
in the environment it is told in the log, and ignored.  The file is at most {MAX_CONFIG_FILE >> 10} KiB long.
Settings are read at the start only: SIGHUP changes nothing.

``irontide download`` and ``irontide seed`` read the environment and their own options (named below where
there is one), but no file, so that a daemon's configuration has no say in them.  They take the next free
port unless ``--port`` is given, and keep their state and their data where the command says.

A file can look like this:

.. literalinclude:: examples/irontide.toml
   :language: toml

How values are written
----------------------

* A size is a number of bytes, or text with a unit: ``67108864``, ``"64 MiB"``, ``"64 MB"`` (10\\ :sup:`6`).
* A rate is the same, ``/s`` if you like: ``"1 MiB/s"``; ``0`` or ``"unlimited"`` is no limit.
* Where ``unlimited`` is allowed for a number, ``-1`` says the same.
* Yes and no are ``true`` and ``false`` in a file; as text also ``yes`` and ``no``, ``on`` and ``off``,
  ``1`` and ``0``.
* Several addresses are a list in a file, and have commas between as text.
* ``~`` at the beginning of a path is the user's home.  A relative path counts from the file that it stands
  in; in the environment and in options, from the current directory.

``twistd irontide`` has two options beside those of the table: ``--config``, and ``--listen PORT`` or
``--listen ADDRESS:PORT`` (``[::1]:6881`` for IPv6), which stands for ``--listen-port`` and, with an address,
``--listen-addresses``.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page as it should be."""
    return "\n".join((HEAD, *_areas()))


def _areas() -> Iterator[str]:
    for title, settings in AREAS:
        yield f"{title}\n{'-' * len(title)}\n"
        values = attrs.fields_dict(settings)
        for name, row in options_of(settings).items():
            yield _entry(name, row, values[name].default)


def _entry(name: str, row: Option, default: object) -> str:
    """One setting, as an item of a definition list."""
    shown = OF_THE_HOST[name] if isinstance(default, attrs.Factory) else f"``{row.kind.show(default)}``"  # type: ignore[arg-type]
    lines = [f"Default: {shown}."]
    if bounds := _bounds(row.kind):
        lines.append(f"{bounds}.")
    said = f"``--{name.replace('_', '-')} {row.kind.placeholder}``, ``{PREFIX}{name.upper()}``"
    if name in COMMANDS:
        said += f"; ``{COMMANDS[name]}`` of the commands"
    lines.append(f"Also {said}.")
    return f"``{name}``\n    {row.help}\n\n    " + "\n    ".join(lines) + "\n"


def _bounds(kind: Kind) -> str:
    """What a value can be, where that is a range."""
    if isinstance(kind, Rate):
        return f"At most ``{kind.show(kind.most)}``"
    if not isinstance(kind, Whole | Size | Seconds):
        return ""
    unit = " seconds" if isinstance(kind, Seconds) else ""
    text = f"From ``{kind.show(kind.least)}`` to ``{kind.show(kind.most)}``{unit}"
    if isinstance(kind, Whole) and kind.unlimited is not None:
        text += f", or ``{kind.show(kind.unlimited)}``"
    return text


if __name__ == "__main__":
    main()
