"""``irontide info``: what a .torrent file says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from irontide.cli.progress import printable
from irontide.cli.run import FAILED, os_error
from irontide.errors import MetainfoError
from irontide.metainfo.torrent_file import MAX_FILE, TorrentFile
from irontide.settings import human_size


@click.command()
@click.argument("source", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object, for programs.")
def info(source: str, as_json: bool) -> None:
    """
    Show what SOURCE, a .torrent file, is about.

    Exit codes: 0 done, 1 not a usable .torrent file, 2 wrong usage.
    """
    try:
        torrent = read(source)
    except (MetainfoError, OSError) as error:
        text = os_error(error)
        click.echo(f"irontide: {printable(text)}", err=True)
        if as_json:
            click.echo(json.dumps({"error": text}))
        sys.exit(FAILED)
    if as_json:
        click.echo(json.dumps(facts(torrent)))
    else:
        click.echo("\n".join(describe(torrent)))


def read(path: str) -> TorrentFile:
    """
    Return the .torrent file at ``path``.

    :raises MetainfoError: it is none, or cannot be used.
    :raises OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read(MAX_FILE + 1)
    try:
        return TorrentFile.from_bytes(data)
    except MetainfoError as error:
        raise MetainfoError(f"{path}: not a usable .torrent file: {error}") from error


def facts(torrent: TorrentFile) -> dict[str, Any]:
    """Return everything, as values that JSON knows."""
    info = torrent.info
    v2 = info.infohashes.v2
    return {
        "name": info.name,
        "infohash": info.infohash.hex(),
        "infohash_v2": None if v2 is None else v2.hex(),
        "total": info.total,
        "pieces": info.layout.pieces,
        "piece_length": info.piece_length,
        "private": info.private,
        "source": info.source,
        "comment": torrent.comment,
        "created_by": torrent.created_by,
        "creation_date": torrent.creation_date,
        "trackers": torrent.tiers,
        "web_seeds": torrent.web_seeds,
        "nodes": [f"{host}:{port}" for host, port in torrent.nodes],
        "files": [
            {
                "path": "/".join(file.path),
                "length": file.length,
                "pad": file.pad,
                "attributes": file.attributes,
            }
            for file in info.files
        ],
    }


def describe(torrent: TorrentFile) -> Iterator[str]:
    """Yield the lines for a person: what is not there is not mentioned, nor are pad files."""
    info = torrent.info
    v2 = info.infohashes.v2
    files = [file for file in info.files if not file.pad]
    lines = [
        ("name", info.name),
        ("infohash", info.infohash.hex()),
        ("infohash v2", "" if v2 is None else f"{v2.hex()} (not used yet)"),
        ("size", f"{human_size(info.total)} ({info.total} bytes)"),
        ("pieces", f"{info.layout.pieces} of {human_size(info.piece_length)}"),
        ("private", "yes" if info.private else ""),
        ("source", info.source),
        ("comment", torrent.comment),
        ("created", _created(torrent)),
        *((f"tier {number}", " ".join(tier)) for number, tier in enumerate(torrent.tiers, 1)),
        *(("web seed", url) for url in torrent.web_seeds),
        *(("DHT node", f"{host}:{port}") for host, port in torrent.nodes),
        ("files", str(len(files))),
    ]
    for label, text in lines:
        if text:
            yield f"{label + ':':<13}{printable(text)}"
    for file in files:
        yield f"{human_size(file.length):>12}  {printable('/'.join(file.path))}"


def _created(torrent: TorrentFile) -> str:
    date = torrent.creation_date
    when = "" if date is None else f"{datetime.fromtimestamp(date, UTC):%Y-%m-%d %H:%M:%S} UTC"
    by = torrent.created_by and f"by {torrent.created_by}"
    return f"{when} {by}".strip()
