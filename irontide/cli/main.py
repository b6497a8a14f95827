"""The ``irontide`` command: a group of the commands in this package."""

from __future__ import annotations

import click

from irontide import __version__
from irontide.cli.create import create
from irontide.cli.download import download
from irontide.cli.info import info
from irontide.cli.seed import seed


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="irontide", message="%(prog)s %(version)s")
def main() -> None:
    """
    A BitTorrent engine.

    As a daemon it runs by "twistd -n irontide"; the commands here do one thing and end.
    """


for command in (download, seed, create, info):
    main.add_command(command)
