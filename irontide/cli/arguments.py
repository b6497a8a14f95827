"""The arguments that several commands take."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from irontide.cli.progress import reporter
from irontide.cli.run import USAGE, Work, run
from irontide.cli.transfer import Request, settings_for
from irontide.errors import ValidationFailed
from irontide.settings import OPTIONS

F = TypeVar("F", bound=Callable[..., Any])


class PeerType(click.ParamType[tuple[str, int]]):
    """HOST:PORT; an IPv6 address as [address]:port."""

    name = "HOST:PORT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """See ParamType."""
        host, colon, port = str(value).rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            self.fail(f"{value!r}: write an IPv6 address as [address]:port", param, ctx)
        if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
            self.fail(f"{value!r} is not HOST:PORT", param, ctx)
        return host, int(port)


class SettingType(click.ParamType[Any]):
    """Whatever a setting of the table takes."""

    def __init__(self, setting: str) -> None:
        self._setting = setting
        self.name = OPTIONS[setting].kind.placeholder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See ParamType."""
        try:
            return OPTIONS[self._setting].kind.parse_text(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def common(command: F) -> F:
    """Add the options of a transfer to a command."""
    for decorate in (
        click.option("-v", "--verbose", is_flag=True, help="Say more of what happens inside."),
        click.option("--quiet", "-q", is_flag=True, help="Say nothing but errors."),
        click.option("--json", "as_json", is_flag=True, help="Write one JSON object a line, for programs."),
        click.option("--max-upload", type=SettingType("upload_rate"), help="At most so fast: '1 MiB/s'."),
        click.option("--port", type=SettingType("listen_port"), help="Listen here. [6881 or the next free]"),
        click.option(
            "--listen",
            "addresses",
            type=SettingType("listen_addresses"),
            help="Listen on these only.",
        ),
        click.option(
            "--peer", "peers", type=PeerType(), multiple=True, help="A peer to connect to; can be repeated."
        ),
    ):
        command = decorate(command)
    return command


def request_of(source: str, folder: str, options: dict[str, Any]) -> Request:
    """Put together what the user asked for."""
    said: dict[str, object] = {
        "download_rate": options.get("max_download"),
        "upload_rate": options["max_upload"],
        "listen_addresses": options["addresses"],
        "listen_port": options["port"],
    }
    if options["port"] is not None:
        said["listen_next_port"] = False
    return Request(source, folder, tuple(options["peers"]), tuple(said.items()))


def carry_out(
    work: Callable[[Any], Work], request: Request, *, as_json: bool, quiet: bool, verbose: bool
) -> None:
    """Run a command to its end and exit; ``work`` is given the reporter."""
    try:
        settings_for(request)
    except ValidationFailed as error:
        for name, text in sorted(error.errors.items()):
            click.echo(f"irontide: IRONTIDE_{name.upper()}: {text}", err=True)
        sys.exit(USAGE)
    shown = reporter(as_json=as_json, quiet=quiet)
    sys.exit(run(work(shown), say=shown.error, log=shown.log, verbose=verbose))
